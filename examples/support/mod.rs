//! What the small examples share: a database to work on, and checks that end the program when they fail.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::error::Error;

use diesel_session::{Engine, EngineBuilder, Session, autocommit};

#[cfg(feature = "sqlite")]
pub(crate) type Conn = diesel::sqlite::SqliteConnection;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
pub(crate) type Conn = diesel::pg::PgConnection;
#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
pub(crate) type Conn = diesel::mysql::MysqlConnection;

/// SQLite: a new file for each name, gone with this value. PostgreSQL and MySQL: the database that the first argument
/// or `DATABASE_URL` names, whatever the name.
pub(crate) struct Database {
    #[cfg(feature = "sqlite")]
    folder: tempfile::TempDir,
}

impl Database {
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            #[cfg(feature = "sqlite")]
            folder: tempfile::tempdir()?,
        })
    }

    /// An engine for the database of this name, with an empty table in it.
    pub(crate) fn engine(
        &self,
        name: &str,
        table: &str,
        columns: &str,
        change: impl FnOnce(EngineBuilder<Conn>) -> EngineBuilder<Conn>,
    ) -> Result<Engine<Conn>, Box<dyn Error>> {
        let engine = change(Engine::builder(self.url(name)?)).build()?;
        // MySQL commits around DDL, so there is no transaction to have.
        let session = Session::with_options(&engine, autocommit())?;
        session.batch_execute(&format!("DROP TABLE IF EXISTS {table}"))?;
        session.batch_execute(&format!("CREATE TABLE {table} ({columns})"))?;
        Ok(engine)
    }

    /// An engine for the database of this name as it is.
    pub(crate) fn look(&self, name: &str) -> Result<Engine<Conn>, Box<dyn Error>> {
        Ok(Engine::new(self.url(name)?)?)
    }

    #[cfg(feature = "sqlite")]
    fn url(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let file = self.folder.path().join(format!("{name}.db"));
        Ok(file.to_str().ok_or("the temporary folder's path is not UTF-8")?.to_owned())
    }

    #[cfg(not(feature = "sqlite"))]
    fn url(&self, _name: &str) -> Result<String, Box<dyn Error>> {
        let url = std::env::args().nth(1).or_else(|| std::env::var("DATABASE_URL").ok());
        Ok(url.ok_or("give the URL of an empty database as the first argument or in DATABASE_URL")?)
    }

    /// Whether nobody has the database open any more. SQLite deletes the write-ahead log when the last connection to a
    /// file closes; a server is not asked.
    pub(crate) fn is_let_go(&self, name: &str) -> bool {
        #[cfg(feature = "sqlite")]
        return !self.folder.path().join(format!("{name}.db-wal")).exists();
        #[cfg(not(feature = "sqlite"))]
        return !name.is_empty();
    }
}

/// Says what holds, or ends the program with what does not.
pub(crate) fn check(promise: &str, holds: bool) -> Result<(), Box<dyn Error>> {
    if !holds {
        return Err(format!("broken: {promise}").into());
    }
    #[allow(clippy::print_stdout, reason = "the examples report to their reader")]
    {
        println!("ok: {promise}");
    }
    Ok(())
}
