//! MySQL and MariaDB: transaction commands in one round trip where the server can prepare them.

use std::time::{Duration, Instant};

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::mysql::MysqlConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::command::{Command, Numbered, RELEASE, ROLLBACK_TO, SAVEPOINT, Text, commands};
use super::{ConnectionSettings, GateKey, GateRule, Kind, Number, PreparedUrl, SessionConnection, Truth};
use crate::error::{Error, Result};
use crate::options::TransactionOptions;

commands! {
    Begin = "START TRANSACTION";
    BeginReadOnly = "START TRANSACTION READ ONLY";
    Commit = "COMMIT";
    Rollback = "ROLLBACK";
}

/// The name of the lock that starters take turns with, followed by the database's: hashed, because MySQL refuses names of
/// more than 64 characters (MySQL docs, "Locking Functions") and a database's may have as many. GET_LOCK is per node on
/// Galera.
const MIGRATION_LOCK: &str = "diesel_session_migrate";

/// What the server can do.
#[derive(Debug, Default)]
pub struct MysqlState {
    /// Whether BEGIN, COMMIT and SAVEPOINT can be prepared.
    prepares_transactions: bool,
}

impl SessionConnection for MysqlConnection {
    type RowMode = DefaultLoadingMode;

    type State = MysqlState;

    fn kind(&self) -> Kind {
        Kind::Mysql
    }

    fn prepare_url(url: &str) -> Result<PreparedUrl> {
        Ok(PreparedUrl::plain(url))
    }

    fn configure(&mut self, _settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        // MariaDB prepares every transaction command since 10.6 (MariaDB docs, "PREPARE Statement"); MySQL refuses some of them.
        let version = diesel::sql_query(
            "SELECT CAST(CASE WHEN version() LIKE '%MariaDB%' THEN \
             substring_index(version(), '.', 1) * 100 + substring_index(substring_index(version(), '.', 2), '.', -1) \
             ELSE 0 END AS SIGNED) AS value",
        )
        .get_result::<Number>(self)?
        .value;
        state.prepares_transactions = version.is_some_and(|version| version >= 1006);
        Ok(())
    }

    fn restore(&mut self, _settings: &ConnectionSettings, _state: &mut Self::State) -> QueryResult<()> {
        // With autocommit off the next user's single statements would wait for a COMMIT that nobody sends.
        self.batch_execute("SET SESSION autocommit = 1; SET SESSION TRANSACTION READ WRITE")
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        if let Some(level) = options.isolation.or(settings.isolation) {
            // For the next transaction only; the session's own level stays.
            let access = if options.read_only { " READ ONLY" } else { "" };
            self.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {}; START TRANSACTION{access}", level.sql()))?;
        } else if options.read_only {
            // One snapshot for every read: InnoDB's default level is REPEATABLE READ, unless the server says otherwise.
            send::<BeginReadOnly>(self, state)?;
        } else {
            send::<Begin>(self, state)?;
        }
        super::set_in_transaction(self, true);
        Ok(())
    }

    fn commit(&mut self, _untroubled: bool, state: &Self::State) -> QueryResult<()> {
        send::<Commit>(self, state)?;
        super::set_in_transaction(self, false);
        Ok(())
    }

    fn rollback(&mut self, state: &Self::State) -> QueryResult<()> {
        send::<Rollback>(self, state)?;
        super::set_in_transaction(self, false);
        Ok(())
    }

    fn savepoint(&mut self, n: usize, state: &Self::State) -> QueryResult<()> {
        send_numbered(self, SAVEPOINT, n, state)
    }

    fn release(&mut self, n: usize, state: &Self::State) -> QueryResult<()> {
        send_numbered(self, RELEASE, n, state)
    }

    fn rollback_to(&mut self, n: usize, state: &Self::State) -> QueryResult<()> {
        send_numbered(self, ROLLBACK_TO, n, state)?;
        send_numbered(self, RELEASE, n, state)
    }

    fn truth(&mut self) -> Truth {
        match super::depth(self) {
            Err(_) => Truth::Broken,
            Ok(0) => Truth::Ended,
            Ok(_) => Truth::Open,
        }
    }

    fn truth_after(&mut self, error: &DieselError) -> Truth {
        match error {
            // 1213 (deadlock) and 1020 (record has changed): the server rolled back the whole transaction, and would run the
            // next statement in autocommit. The client's own status flag does not show it.
            DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Truth::Ended,
            DieselError::DatabaseError(_, info) if info.message().starts_with("Record has changed since last read") => {
                Truth::Ended
            }
            _ => self.truth(),
        }
    }

    fn errors_abort_transactions() -> bool {
        false
    }

    fn ping(&mut self) -> QueryResult<()> {
        self.batch_execute("DO 0")
    }

    fn gate(&mut self, _url: &PreparedUrl) -> QueryResult<(GateRule, Option<GateKey>)> {
        Ok((GateRule::Never, None))
    }

    fn is_remote() -> bool {
        true
    }

    fn with_migration_lock<T>(
        &mut self,
        _url: &PreparedUrl,
        patience: Duration,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let refused =
            |error: diesel::result::Error| Error::Migration(format!("the migration lock could not be taken: {error}"));
        let started = Instant::now();
        let take = format!(
            "SELECT CAST(GET_LOCK(concat('{MIGRATION_LOCK}.', md5(coalesce(database(), ''))), 1) AS SIGNED) AS value"
        );
        while diesel::sql_query(&take).get_result::<Number>(self).map_err(refused)?.value != Some(1) {
            if started.elapsed() >= patience {
                return Err(Error::Migration(format!("another process has been migrating for {patience:?}")));
            }
        }
        let result = body(self);
        // Where this fails the connection is dead, so the server has given the lock back: what `body` says is the answer.
        let _ =
            self.batch_execute(&format!("DO RELEASE_LOCK(concat('{MIGRATION_LOCK}.', md5(coalesce(database(), ''))))"));
        result
    }
}

fn send<T: Text>(conn: &mut MysqlConnection, state: &MysqlState) -> QueryResult<()> {
    if state.prepares_transactions { Command::<T>::new().execute(conn).map(drop) } else { conn.batch_execute(T::SQL) }
}

fn send_numbered(conn: &mut MysqlConnection, before: &'static str, n: usize, state: &MysqlState) -> QueryResult<()> {
    if state.prepares_transactions {
        Numbered { before, n }.execute(conn).map(drop)
    } else {
        conn.batch_execute(&format!("{before}{n}"))
    }
}
