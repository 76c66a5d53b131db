//! Migrations that many processes may start at once.

use std::panic::Location;
use std::time::Duration;

use diesel::migration::{Migration, MigrationConnection, MigrationSource};
use diesel_migrations::MigrationHarness;

use crate::backend::SessionConnection;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// How long a starter waits for another one's migrations.
const PATIENCE: Duration = Duration::from_secs(600);

impl<C> Engine<C>
where
    C: SessionConnection + MigrationConnection + MigrationHarness<C::Backend>,
{
    /// Runs the pending migrations, the ones that the `diesel` CLI also runs, on a connection of its own. Gives the
    /// versions that were run.
    ///
    /// Safe when many processes start at once: one of them migrates, the others wait and find nothing to do. The lock stands
    /// beside the migrations, never around them, so that each runs as Diesel runs it, in its own transaction or in none
    /// (`run_in_transaction = false`): SQLite takes the lock in a file of its own beside the database
    /// (`app.db-migrate.lock`), PostgreSQL polls an advisory lock, MySQL and MariaDB use `GET_LOCK` (which is per node on
    /// Galera: migrate on one node).
    ///
    /// Inside this process they take SQLite's write gate, so that no session's transaction is in their way.
    ///
    /// # Errors
    /// [`Error::Migration`] with what failed; [`Error::Connect`]; on SQLite [`Error::WouldDeadlock`] if this thread has a
    /// transaction open.
    #[track_caller]
    pub fn run_migrations<S: MigrationSource<C::Backend>>(&self, migrations: S) -> Result<Vec<String>> {
        self.with_own_connection(Location::caller(), PATIENCE, |conn| {
            conn.with_migration_lock(self.url(), PATIENCE, |conn| {
                let ran = conn.run_pending_migrations(migrations).map_err(|error| failed(&*error))?;
                Ok(ran.iter().map(ToString::to_string).collect())
            })
        })
    }

    /// The names of the migrations that have not been run yet.
    ///
    /// # Errors
    /// As [`run_migrations`](Engine::run_migrations).
    #[track_caller]
    pub fn pending_migrations<S: MigrationSource<C::Backend>>(&self, migrations: S) -> Result<Vec<String>> {
        self.with_own_connection(Location::caller(), PATIENCE, |conn| {
            let pending = conn.pending_migrations(migrations).map_err(|error| failed(&*error))?;
            Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
        })
    }
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::Migration(error.to_string())
}
