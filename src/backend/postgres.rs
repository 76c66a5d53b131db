//! PostgreSQL: nothing commits before it is known that the transaction is not aborted, which would pass for stored.

use std::fmt::Write;
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;

use super::command::{Numbered, RELEASE, SAVEPOINT};
use super::{ConnectionSettings, GateKey, GateRule, Kind, Number, PreparedUrl, SessionConnection, Truth};
use crate::error::{Error, Result};
use crate::options::{IsolationLevel, TransactionOptions};

/// The key of the advisory lock that starters take turns with: "diesel-session" in digits.
const MIGRATION_LOCK: i64 = 0x6473_5f6d_6967_7261;
/// Waiting inside `pg_advisory_lock` would hold a snapshot that CREATE INDEX CONCURRENTLY waits for, so starters poll.
const POLL: Duration = Duration::from_millis(25);

impl SessionConnection for PgConnection {
    type RowMode = PgRowByRowLoadingMode;

    type State = ();

    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn prepare_url(url: &str) -> Result<PreparedUrl> {
        // libpq waits for ever by default, for a server that does not answer and for one that no longer does.
        let mut url = url.to_owned();
        for (name, value) in [("connect_timeout", "30"), ("tcp_user_timeout", "30000")] {
            if !url.contains(name) {
                let separator = match (url.contains("://"), url.contains('?')) {
                    (false, _) => ' ',
                    (true, false) => '?',
                    (true, true) => '&',
                };
                url.push(separator);
                url.push_str(&format!("{name}={value}"));
            }
        }
        Ok(PreparedUrl::plain(&url))
    }

    fn configure(&mut self, _settings: &ConnectionSettings, _state: &mut Self::State) -> QueryResult<()> {
        Ok(())
    }

    fn restore(&mut self, _settings: &ConnectionSettings, _state: &mut Self::State) -> QueryResult<()> {
        // What `SET` changed, the role too; the last two are Diesel's own, set when it connects (diesel 2.3.14).
        self.batch_execute("RESET ALL; RESET SESSION AUTHORIZATION; SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'")
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        _state: &mut Self::State,
    ) -> QueryResult<()> {
        let isolation =
            options.isolation.or(settings.isolation).or(options.read_only.then_some(IsolationLevel::RepeatableRead));
        match (isolation, options.read_only, options.deferrable) {
            (None, false, false) => self.batch_execute("BEGIN")?,
            (Some(IsolationLevel::RepeatableRead), true, false) => {
                self.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            }
            _ => {
                let level = isolation.map(|level| format!(" ISOLATION LEVEL {}", level.sql())).unwrap_or_default();
                let access = if options.read_only { " READ ONLY" } else { "" };
                let deferrable = if options.deferrable { " DEFERRABLE" } else { "" };
                self.batch_execute(&format!("BEGIN{level}{access}{deferrable}"))?;
            }
        }
        super::set_in_transaction(self, true);
        Ok(())
    }

    fn commit(&mut self, untroubled: bool, _state: &Self::State) -> QueryResult<()> {
        // COMMIT of an aborted transaction rolls back and reports success (PostgreSQL docs, "COMMIT"). Where that could be,
        // the SELECT in front of it fails, in the same round trip, and the server skips the COMMIT.
        if untroubled && is_aborted(self) == Some(false) {
            self.batch_execute("COMMIT")
        } else {
            self.batch_execute("SELECT 1; COMMIT")
        }
    }

    fn rollback(&mut self, _state: &Self::State) -> QueryResult<()> {
        self.batch_execute("ROLLBACK")
    }

    fn savepoint(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: SAVEPOINT, n }.execute(self).map(drop)
    }

    fn release(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: RELEASE, n }.execute(self).map(drop)
    }

    fn rollback_to(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        self.batch_execute(&format!("ROLLBACK TO SAVEPOINT ds_{n}; RELEASE SAVEPOINT ds_{n}"))
    }

    fn truth(&mut self) -> Truth {
        // libpq follows the server's own status byte, and Diesel follows libpq.
        match super::depth(self) {
            Err(_) => Truth::Broken,
            Ok(0) => Truth::Ended,
            Ok(_) if is_aborted(self) == Some(true) => Truth::Aborted,
            Ok(_) => Truth::Open,
        }
    }

    fn errors_abort_transactions() -> bool {
        true
    }

    fn ping(&mut self) -> QueryResult<()> {
        self.batch_execute("SELECT 1")
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
        let take = format!("SELECT pg_try_advisory_lock({MIGRATION_LOCK})::int::bigint AS value");
        while diesel::sql_query(&take).get_result::<Number>(self).map_err(refused)?.value != Some(1) {
            if started.elapsed() >= patience {
                return Err(Error::Migration(format!("another process has been migrating for {patience:?}")));
            }
            std::thread::sleep(POLL);
        }
        let result = body(self);
        // Where this fails the connection is dead, so the server has given the lock back: what `body` says is the answer.
        let _ = self.batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})"));
        result
    }
}

/// Whether the server marked the transaction as failed. Diesel keeps that in a private field; its debug text shows it
/// (diesel 2.3.14). `None` where the text does not say.
fn is_aborted(conn: &mut PgConnection) -> Option<bool> {
    let status = <AnsiTransactionManager as TransactionManager<PgConnection>>::transaction_manager_status_mut(conn);
    let mut text = String::with_capacity(192);
    write!(text, "{status:?}").ok()?;
    let (_, flag) = text.split_once("requires_rollback_maybe_up_to_top_level: ")?;
    match flag {
        flag if flag.starts_with("true") => Some(true),
        flag if flag.starts_with("false") => Some(false),
        _ => None,
    }
}
