//! Databases for tests: each test makes its own and drops it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU32, Ordering};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
        n -> Integer,
    }
}

/// A name that no other test, process or earlier run uses.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("ds_{}_{}_{}", std::process::id(), since_epoch.subsec_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The admin URL of a test server, without its database, and what follows the database's name.
fn server(variable: &str, default: &str) -> (String, String, String) {
    let admin = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let (base, query) =
        admin.split_once('?').map_or((admin.as_str(), String::new()), |(base, query)| (base, format!("?{query}")));
    let slash = base.rfind('/').expect("a server URL ends in a database name");
    (admin.clone(), base[..slash].to_owned(), query)
}

macro_rules! common {
    () => {
        pub type Session = diesel_session::Session<Conn>;
        pub type Registry = diesel_session::ScopedSession<Conn>;

        impl Database {
            /// An engine builder for this database.
            pub fn builder(&self) -> diesel_session::EngineBuilder<Conn> {
                diesel_session::Engine::<Conn>::builder(self.url.clone())
            }

            /// A registry whose database has the `notes` table.
            pub fn registry(&self) -> Registry {
                self.registry_with(|builder| builder)
            }

            pub fn registry_with(
                &self,
                change: impl FnOnce(diesel_session::EngineBuilder<Conn>) -> diesel_session::EngineBuilder<Conn>,
            ) -> Registry {
                let engine = change(self.builder()).build().unwrap();
                // Without a transaction, which DDL would end on MySQL.
                let session = Session::with_options(&engine, diesel_session::autocommit()).unwrap();
                session.batch_execute(CREATE_NOTES).unwrap();
                Registry::new(engine)
            }
        }

        pub fn insert(session: &Session, text: &str) -> diesel_session::Result<usize> {
            use super::notes;
            use diesel::prelude::*;
            session.execute(diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0))))
        }

        pub fn texts(session: &Session) -> Vec<String> {
            use super::notes;
            use diesel::prelude::*;
            session.load(notes::table.select(notes::text).order(notes::text)).unwrap()
        }

        /// What is stored, seen by a session of its own.
        pub fn stored(registry: &Registry) -> Vec<String> {
            let session = Session::new(registry.engine());
            let texts = texts(&session);
            session.commit().unwrap();
            texts
        }
    };
}

/// SQLite in memory.
#[cfg(feature = "sqlite")]
pub mod sqlite_memory {
    pub type Conn = diesel::sqlite::SqliteConnection;
    pub const NAME: &str = "sqlite in memory";
    /// Whether a second session may work while a first one has a transaction open.
    pub const CONCURRENT: bool = false;
    pub const REMOTE: bool = false;
    pub const ERRORS_ABORT: bool = false;
    pub const CREATE_NOTES: &str = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY NOT NULL, text TEXT NOT NULL UNIQUE, n INTEGER NOT NULL DEFAULT 0)";

    pub struct Database {
        pub url: String,
    }

    impl Database {
        pub fn new() -> Self {
            Self { url: ":memory:".into() }
        }

        /// There is no server to ask.
        pub fn connections(&self) -> i64 {
            0
        }
    }

    common!();
}

/// SQLite in a file.
#[cfg(feature = "sqlite")]
pub mod sqlite_file {
    pub type Conn = diesel::sqlite::SqliteConnection;
    pub const NAME: &str = "sqlite file";
    pub const CONCURRENT: bool = true;
    pub const REMOTE: bool = false;
    pub const ERRORS_ABORT: bool = false;
    pub use super::sqlite_memory::CREATE_NOTES;

    pub struct Database {
        pub url: String,
        _folder: tempfile::TempDir,
    }

    impl Database {
        pub fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let url = folder.path().join("test.db").to_str().unwrap().to_owned();
            Self { url, _folder: folder }
        }

        /// How many times this process has the file open: once a connection.
        pub fn connections(&self) -> i64 {
            let file = std::path::Path::new(&self.url);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file)).count() as i64
        }
    }

    common!();
}

/// PostgreSQL: `TEST_POSTGRES_URL` names a database on the server that may create others.
#[cfg(feature = "postgres")]
pub mod postgres {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    pub type Conn = diesel::pg::PgConnection;
    pub const NAME: &str = "PostgreSQL";
    pub const CONCURRENT: bool = true;
    pub const REMOTE: bool = true;
    pub const ERRORS_ABORT: bool = true;
    pub const CREATE_NOTES: &str = "CREATE TABLE IF NOT EXISTS notes (id SERIAL PRIMARY KEY, text TEXT NOT NULL UNIQUE, n INTEGER NOT NULL DEFAULT 0)";

    pub struct Database {
        pub url: String,
        pub name: String,
        pub admin_url: String,
    }

    impl Database {
        pub fn new() -> Self {
            let (admin_url, base, query) =
                super::server("TEST_POSTGRES_URL", "postgres://root@127.0.0.1:5432/postgres");
            let name = super::unique_name();
            let mut admin =
                Conn::establish(&admin_url).expect("these tests need a PostgreSQL server: set TEST_POSTGRES_URL");
            admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
            Self { url: format!("{base}/{name}{query}"), name, admin_url }
        }

        /// How many connections the server has to this database.
        pub fn connections(&self) -> i64 {
            let mut admin = Conn::establish(&self.admin_url).unwrap();
            diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
                self.name
            ))
            .get_result(&mut admin)
            .unwrap()
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            if let Ok(mut admin) = Conn::establish(&self.admin_url) {
                let _ = admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
            }
        }
    }

    common!();
}

/// MySQL or MariaDB: `TEST_MYSQL_URL` names a database on the server whose user may create others.
#[cfg(feature = "mysql")]
pub mod mysql {
    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;

    pub type Conn = diesel::mysql::MysqlConnection;
    pub const NAME: &str = "MySQL/MariaDB";
    pub const CONCURRENT: bool = true;
    pub const REMOTE: bool = true;
    pub const ERRORS_ABORT: bool = false;
    pub const CREATE_NOTES: &str = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTO_INCREMENT, \
        text VARCHAR(190) NOT NULL UNIQUE, n INTEGER NOT NULL DEFAULT 0) ENGINE = InnoDB";

    pub struct Database {
        pub url: String,
        pub name: String,
        pub admin_url: String,
    }

    impl Database {
        pub fn new() -> Self {
            let (admin_url, base, query) = super::server("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/mysql");
            let name = super::unique_name();
            let mut admin =
                Conn::establish(&admin_url).expect("these tests need a MySQL or MariaDB server: set TEST_MYSQL_URL");
            admin.batch_execute(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).unwrap();
            Self { url: format!("{base}/{name}{query}"), name, admin_url }
        }

        /// How many connections the server has to this database.
        pub fn connections(&self) -> i64 {
            let mut admin = Conn::establish(&self.admin_url).unwrap();
            diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
                "SELECT count(*) FROM information_schema.processlist WHERE db = '{}'",
                self.name
            ))
            .get_result(&mut admin)
            .unwrap()
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            if let Ok(mut admin) = Conn::establish(&self.admin_url) {
                // A test that failed may have left a transaction open, and DROP would wait for it.
                let left = diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
                    "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = '{}'",
                    self.name
                ));
                for id in left.load::<i64>(&mut admin).unwrap_or_default() {
                    let _ = admin.batch_execute(&format!("KILL {id}"));
                }
                let _ = admin.batch_execute(&format!("DROP DATABASE {}", self.name));
            }
        }
    }

    common!();
}
