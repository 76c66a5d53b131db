//! Migrations that a test writes: folders of SQL files, and one whose body is Rust.

use std::fmt;
use std::sync::Arc;

use diesel::backend::Backend;
use diesel::connection::BoxableConnection;
use diesel::migration::{Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion, Result};
use diesel_migrations::FileBasedMigrations;

/// A folder with a migration for each call of `with`, in the order of their names.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a migration, or writes it anew.
    pub(crate) fn with(self, name: &str, up: &str) -> Self {
        let folder = self.0.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("up.sql"), up).unwrap();
        std::fs::write(folder.join("down.sql"), "").unwrap();
        self
    }

    /// As `with`, and Diesel is told to begin no transaction for it.
    pub(crate) fn with_bare(self, name: &str, up: &str) -> Self {
        let folder = self.with(name, up);
        std::fs::write(folder.0.path().join(name).join("metadata.toml"), "run_in_transaction = false\n").unwrap();
        folder
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn source(&self) -> FileBasedMigrations {
        FileBasedMigrations::from_path(self.path()).unwrap()
    }
}

type Body<DB> = Arc<dyn Fn(&mut dyn BoxableConnection<DB>) -> Result<()> + Send + Sync>;

/// A source of one migration, outside any transaction, whose body is Rust.
pub(crate) struct Programmed<DB: Backend> {
    version: &'static str,
    body: Body<DB>,
}

impl<DB: Backend> Programmed<DB> {
    pub(crate) fn new(
        version: &'static str,
        body: impl Fn(&mut dyn BoxableConnection<DB>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { version, body: Arc::new(body) }
    }
}

impl<DB: Backend> Clone for Programmed<DB> {
    fn clone(&self) -> Self {
        Self { version: self.version, body: Arc::clone(&self.body) }
    }
}

impl<DB: Backend + 'static> MigrationSource<DB> for Programmed<DB> {
    fn migrations(&self) -> Result<Vec<Box<dyn Migration<DB>>>> {
        Ok(vec![Box::new(self.clone())])
    }
}

impl<DB: Backend + 'static> Migration<DB> for Programmed<DB> {
    fn run(&self, conn: &mut dyn BoxableConnection<DB>) -> Result<()> {
        (self.body)(conn)
    }

    fn revert(&self, _conn: &mut dyn BoxableConnection<DB>) -> Result<()> {
        Ok(())
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        &Bare
    }

    fn name(&self) -> &dyn MigrationName {
        self
    }
}

impl<DB: Backend> MigrationName for Programmed<DB> {
    fn version(&self) -> MigrationVersion<'_> {
        MigrationVersion::from(self.version)
    }
}

impl<DB: Backend> fmt::Display for Programmed<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version)
    }
}

struct Bare;

impl MigrationMetadata for Bare {
    fn run_in_transaction(&self) -> bool {
        false
    }
}
