//! A database for one test.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use diesel::migration::{Migration, MigrationConnection, MigrationSource};
use diesel_migrations::MigrationHarness;

use crate::backend::SessionConnection;
use crate::engine::{Engine, EngineBuilder};
use crate::error::{Error, Result};
use crate::scope::ScopedSession;

/// What is under way or done for a template: `None` until it is there.
type Template = Arc<Mutex<Option<String>>>;

/// The templates of this process, by server, type of source and names of its migrations.
static TEMPLATES: Mutex<Option<HashMap<String, Template>>> = Mutex::new(None);

/// A fresh, migrated database for one test, with an engine and a registry on it; dropped with the value, whoever is still
/// connected.
///
/// # Examples
/// ```
/// use diesel::sqlite::SqliteConnection;
/// use diesel_migrations::{EmbeddedMigrations, embed_migrations};
/// use diesel_session::testing::TestDatabase;
///
/// const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
///
/// # fn main() -> diesel_session::Result<()> {
/// let database = TestDatabase::<SqliteConnection>::new(":memory:", MIGRATIONS)?;
/// database.registry().transaction(|session| {
///     session.batch_execute("INSERT INTO users (nickname, full_name, email) VALUES ('ann', 'Ann', 'ann@example.org')")
/// })?;
/// # Ok(()) }
/// ```
#[must_use = "the database is dropped with this value"]
pub struct TestDatabase<C: SessionConnection> {
    registry: ScopedSession<C>,
    own: Own<C>,
}

/// The database itself, dropped with this also where making the engine failed.
struct Own<C: SessionConnection> {
    made: MadeDatabase,
    /// What `new` was given.
    server: String,
    connection: std::marker::PhantomData<fn() -> C>,
}

/// A database that was made for a test.
#[derive(Debug, Clone)]
pub struct MadeDatabase {
    pub(crate) url: String,
    /// What it is called where it was made: a server's database, a folder.
    pub(crate) name: String,
}

impl<C: SessionConnection> Drop for Own<C> {
    fn drop(&mut self) {
        if let Err(error) = C::drop_test_database(&self.server, &self.made) {
            tracing::warn!(%error, name = self.made.name, "the database of a test could not be dropped");
        }
    }
}

impl<C: SessionConnection> fmt::Debug for TestDatabase<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase").field("name", &self.own.made.name).finish_non_exhaustive()
    }
}

impl<C> TestDatabase<C>
where
    C: SessionConnection + MigrationConnection + MigrationHarness<C::Backend>,
{
    /// Makes the database and runs the migrations.
    ///
    /// `url`, for PostgreSQL, MySQL and MariaDB: any database on the server, of a user who may create others. For SQLite
    /// `:memory:`, or a folder in which a folder with the file is made; the empty text is the system's folder for temporary
    /// files.
    ///
    /// It costs what the migrations cost; on PostgreSQL once in a process, in a template that the others are then copied
    /// from (`CREATE DATABASE … TEMPLATE`, some 90 ms). Sources of one type whose migrations have the same names share a template. One
    /// connection of the process marks each as in use; the next process to make one drops those that nobody uses any more.
    ///
    /// # Errors
    /// [`Error::Connect`] where the server does not answer or refuses to create a database; [`Error::Migration`] with
    /// what failed; [`Error::Configuration`] for a URL that can't work.
    pub fn new<S: MigrationSource<C::Backend>>(url: &str, migrations: S) -> Result<Self> {
        Self::with(url, migrations, |builder| builder)
    }

    /// As [`new`](TestDatabase::new), with an engine of its own making.
    ///
    /// # Errors
    /// As [`new`](TestDatabase::new), and as [`EngineBuilder::build`].
    pub fn with<S: MigrationSource<C::Backend>>(
        url: &str,
        migrations: S,
        change: impl FnOnce(EngineBuilder<C>) -> EngineBuilder<C>,
    ) -> Result<Self> {
        let own = |made| Own::<C> { made, server: url.to_owned(), connection: std::marker::PhantomData };
        if C::copies_databases() {
            let template = template::<C, S>(url, migrations)?;
            let own = own(C::make_test_database(url, &unique_name("test"), Some(&template))?);
            let engine = change(Engine::builder(own.made.url.clone())).build()?;
            return Ok(Self::of(engine, own));
        }
        let own = own(C::make_test_database(url, &unique_name("test"), None)?);
        // Held until the other is there: in memory the data lives as long as somebody is connected.
        let migrating = Engine::<C>::new(own.made.url.clone())?;
        migrating.run_migrations(migrations)?;
        let engine = change(Engine::builder(own.made.url.clone())).build()?;
        drop(migrating);
        Ok(Self::of(engine, own))
    }
}

impl<C: SessionConnection> TestDatabase<C> {
    fn of(engine: Engine<C>, own: Own<C>) -> Self {
        Self { registry: ScopedSession::new(engine), own }
    }

    /// An engine on the database.
    #[must_use]
    pub fn engine(&self) -> &Engine<C> {
        self.registry.engine()
    }

    /// A registry over that engine.
    #[must_use]
    pub fn registry(&self) -> &ScopedSession<C> {
        &self.registry
    }

    /// The database's URL, for engines and connections of the test's own.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.own.made.url
    }
}

impl<C: SessionConnection> Drop for TestDatabase<C> {
    fn drop(&mut self) {
        // What other threads still have open ends with the database.
        self.registry.remove();
        self.registry.engine().close_all();
    }
}

/// A name that no other test, process or earlier run uses.
fn unique_name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ds_{what}_{}_{:x}_{n}", std::process::id(), now.as_nanos())
}

/// The migrated database that others are copied from; the first who asks makes it, the others wait.
fn template<C, S>(url: &str, migrations: S) -> Result<String>
where
    C: SessionConnection + MigrationConnection + MigrationHarness<C::Backend>,
    S: MigrationSource<C::Backend>,
{
    let known = migrations.migrations().map_err(|error| Error::Migration(error.to_string()))?;
    let names: Vec<String> = known.iter().map(|migration| migration.name().to_string()).collect();
    let key = format!("{}\n{url}\n{}", std::any::type_name::<S>(), names.join("\n"));
    let template = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(templates.get_or_insert_default().entry(key).or_default())
    };
    let mut template = template.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = &*template {
        return Ok(name.clone());
    }
    let name = unique_name("template");
    C::guard_template(url, &name)?;
    let made = C::make_test_database(url, &name, None)?;
    let migrated = Engine::<C>::new(made.url.clone()).and_then(|engine| engine.run_migrations(migrations));
    if let Err(error) = migrated {
        let _ = C::drop_test_database(url, &made);
        return Err(error);
    }
    *template = Some(name.clone());
    Ok(name)
}
