//! PostgreSQL: nothing commits before it is known that the transaction is not aborted, which would pass for stored.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::deserialize;
use diesel::pg::{Pg, PgConnection, PgMetadataLookup, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::row::NamedRow;
use diesel::sql_types::{BigInt, Nullable, Text as SqlText};

use super::command::{Command, Numbered, RELEASE, SAVEPOINT, Text, commands};
use super::{
    ConnectionSettings, GateKey, GateRule, Kind, Limits, Number, Phase, PreparedUrl, SessionConnection, Truth, Verdict,
    Witness,
};
use crate::error::{Error, ErrorClass, Result};
use crate::options::{IsolationLevel, TransactionOptions};
use crate::testing::{Fault, MadeDatabase};

commands! {
    ShowMark = "SHOW diesel_session.mark";
    CurrentTransaction = "SELECT pg_current_xact_id_if_assigned()::text AS value";
}

/// The mark of a transaction: gone with it, also where the same text begins another. Unlike a savepoint it survives those of
/// the user's, and neither statement takes the transaction's snapshot, before which some settings have to come (PostgreSQL
/// docs, "SET TRANSACTION").
const MARK: &str = "SET LOCAL diesel_session.mark = 'set'";

/// The key of the advisory lock that starters take turns with: "diesel-session" in digits.
const MIGRATION_LOCK: i64 = 0x6473_5f6d_6967_7261;
/// The first half of the key of the advisory lock on a template for test databases; the second is its name's.
const TEMPLATE_LOCK: i32 = 0x6473_7470;
/// The connections that hold those locks; they close with the process.
static GUARDS: Mutex<Vec<PgConnection>> = Mutex::new(Vec::new());
/// Waiting inside `pg_advisory_lock` would hold a snapshot that CREATE INDEX CONCURRENTLY waits for, so starters poll.
const POLL: Duration = Duration::from_millis(25);

/// Diesel's own words for the server's answer to a query that is empty.
const EMPTY_QUERY: &str = "Received an empty query";

/// What is known about the server.
#[derive(Debug, Default)]
pub struct PgState {
    /// Which server this is, in which of its lives; known where commits are verified.
    server: Option<String>,
    /// The time-outs that the connection has when no transaction asks for others; known once one did.
    own_limits: Option<OwnLimits>,
    /// Whether limits were set in the open transaction.
    is_limited: bool,
    /// Whether the open transaction has its mark.
    is_marked: Cell<bool>,
}

/// In milliseconds, 0 for none.
#[derive(Debug, Clone, Copy, QueryableByName)]
struct OwnLimits {
    #[diesel(sql_type = BigInt)]
    statement: i64,
    #[diesel(sql_type = BigInt)]
    lock: i64,
}

impl SessionConnection for PgConnection {
    type RowMode = PgRowByRowLoadingMode;

    type State = PgState;

    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn lookup(&mut self) -> Option<&mut (dyn PgMetadataLookup + 'static)> {
        Some(self)
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

    fn configure(&mut self, settings: &ConnectionSettings, _state: &mut Self::State) -> QueryResult<()> {
        limit_idle(self, settings)
    }

    fn meet(&mut self, state: &mut Self::State) -> QueryResult<()> {
        state.own_limits = None;
        state.is_marked.set(false);
        Ok(())
    }

    fn put_back(&mut self, state: &mut Self::State) -> QueryResult<()> {
        // They are gone with a transaction that has ended, and will be with one that failed.
        let (true, Some(own)) = (std::mem::take(&mut state.is_limited), state.own_limits) else { return Ok(()) };
        if self.truth() == Truth::Open { self.batch_execute(&set_local(Limits::default(), own)) } else { Ok(()) }
    }

    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        state.own_limits = None;
        // What DISCARD ALL does (PostgreSQL docs, "DISCARD"), but for the prepared statements, which Diesel knows by name. The
        // last two are Diesel's own, set when it connects (diesel 2.3.14).
        self.batch_execute(
            "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); \
             DISCARD TEMP; DISCARD SEQUENCES; SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'",
        )?;
        limit_idle(self, settings)
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        state.is_marked.set(false);
        state.is_limited = false;
        let set = if limits == Limits::default() {
            String::new()
        } else {
            format!("; {}", set_local(limits, own_limits(self, state)?))
        };
        let isolation =
            options.isolation.or(settings.isolation).or(options.read_only.then_some(IsolationLevel::RepeatableRead));
        match (isolation, options.read_only, options.deferrable) {
            (None, false, false) if set.is_empty() => self.batch_execute("BEGIN")?,
            (Some(IsolationLevel::RepeatableRead), true, false) if set.is_empty() => {
                self.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            }
            _ => {
                let level = isolation.map(|level| format!(" ISOLATION LEVEL {}", level.sql())).unwrap_or_default();
                let access = if options.read_only { " READ ONLY" } else { "" };
                let deferrable = if options.deferrable { " DEFERRABLE" } else { "" };
                // For this transaction only, in the same round trip.
                self.batch_execute(&format!("BEGIN{level}{access}{deferrable}{set}"))?;
            }
        }
        super::set_in_transaction(self, true);
        Ok(())
    }

    fn limit(&mut self, _settings: &ConnectionSettings, limits: Limits, state: &mut Self::State) -> QueryResult<()> {
        let own = own_limits(self, state)?;
        state.is_limited = true;
        self.batch_execute(&set_local(limits, own))
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

    fn check_constraints(&mut self, _settings: &ConnectionSettings) -> QueryResult<()> {
        // Undone, the constraints are deferred again where they were (PostgreSQL docs, "SET CONSTRAINTS").
        self.batch_execute(
            "SAVEPOINT ds_check; SET CONSTRAINTS ALL IMMEDIATE; \
             ROLLBACK TO SAVEPOINT ds_check; RELEASE SAVEPOINT ds_check",
        )
    }

    fn copies_databases() -> bool {
        true
    }

    fn make_test_database(url: &str, name: &str, template: Option<&str>) -> Result<MadeDatabase> {
        let template = template.map(|template| format!(" TEMPLATE {template}")).unwrap_or_default();
        super::admin::<Self>(url)?
            .batch_execute(&format!("CREATE DATABASE {name}{template}"))
            .map_err(|error| super::admin_refused(url, &error))?;
        Ok(MadeDatabase { url: super::with_database(url, name)?, name: name.to_owned() })
    }

    fn drop_test_database(url: &str, made: &MadeDatabase) -> Result<()> {
        super::admin::<Self>(url)?
            .batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", made.name))
            .map_err(|error| super::admin_refused(url, &error))
    }

    fn guard_template(url: &str, name: &str) -> Result<()> {
        let refused = |error: DieselError| super::admin_refused(url, &error);
        let mut guard = super::admin::<Self>(url)?;
        // The server gives the lock back when this process is gone, whatever way it went.
        guard
            .batch_execute(&format!("SELECT pg_advisory_lock({TEMPLATE_LOCK}, hashtext('{name}'))"))
            .map_err(refused)?;
        // Seen from every database of the server, which an advisory lock itself is not (PostgreSQL docs, "pg_locks").
        let unused = diesel::sql_query(format!(
            "SELECT datname::text AS value FROM pg_database WHERE datname LIKE 'ds\\_template\\_%' AND NOT EXISTS \
             (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = {TEMPLATE_LOCK}::oid \
             AND objid = (hashtext(datname::text)::bigint & 4294967295)::oid)"
        ));
        for unused in unused.load::<MaybeText>(&mut guard).map_err(refused)?.into_iter().filter_map(|row| row.value) {
            // Another process may have been faster.
            let _ = guard.batch_execute(&format!("DROP DATABASE IF EXISTS {unused}"));
        }
        GUARDS.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
        Ok(())
    }

    fn savepoint(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: SAVEPOINT, n }.execute(self).map(drop)
    }

    fn release(&mut self, n: usize, _state: &Self::State) -> QueryResult<()> {
        Numbered { before: RELEASE, n }.execute(self).map(drop)
    }

    fn rollback_to(&mut self, n: usize, state: &Self::State) -> QueryResult<()> {
        // It may have been set inside.
        state.is_marked.set(false);
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

    fn mark(&mut self, state: &Self::State) -> QueryResult<()> {
        if !state.is_marked.get() {
            self.batch_execute(MARK)?;
            state.is_marked.set(true);
        }
        Ok(())
    }

    fn truth_since_mark(&mut self, state: &Self::State) -> Truth {
        let truth = self.truth();
        if truth != Truth::Open {
            return truth;
        }
        match Command::<ShowMark>::new().get_result::<Mark>(self) {
            Ok(Mark(mark)) if !mark.is_empty() => Truth::Open,
            Ok(_) => {
                state.is_marked.set(false);
                Truth::Ended
            }
            Err(error) if Self::classify(&error, Phase::Statement) == ErrorClass::Connection => Truth::Broken,
            Err(_) => match self.truth() {
                Truth::Open => Truth::Ended,
                other => other,
            },
        }
    }

    fn know_server(&mut self, state: &mut Self::State) -> QueryResult<()> {
        let server = server(self)?;
        // CockroachDB, YugabyteDB and others speak the protocol, and number their transactions otherwise.
        let is_plain = server.version.starts_with("PostgreSQL ") && !server.version.contains("-YB-");
        state.server = is_plain.then_some(server.identity);
        Ok(())
    }

    fn witness(&mut self, state: &Self::State) -> QueryResult<Option<Witness>> {
        let Some(server) = &state.server else { return Ok(None) };
        // No number: nothing was written, so there is nothing to find out.
        let key = Command::<CurrentTransaction>::new().get_result::<MaybeText>(self)?.value;
        Ok(key.map(|key| Witness { key, server: server.clone(), table: String::new() }))
    }

    fn knows_what_wrote() -> bool {
        true
    }

    fn verify(&mut self, witness: &Witness, state: &Self::State, deadline: Instant) -> QueryResult<Verdict> {
        let Some((cluster, life)) = state.server.as_deref().and_then(|server| server.split_once(LIFE)) else {
            return Ok(Verdict::Unknown);
        };
        let Some((its_cluster, its_life)) = witness.server.split_once(LIFE) else { return Ok(Verdict::Unknown) };
        // After a failover the number may be another transaction's.
        if cluster != its_cluster {
            return Ok(Verdict::Unknown);
        }
        loop {
            let status = diesel::sql_query(format!("SELECT pg_xact_status('{}'::xid8) AS value", witness.key))
                .get_result::<MaybeText>(self)?
                .value;
            match status.as_deref() {
                Some("committed") if life == its_life => return Ok(Verdict::Committed),
                // After a crash a number that had not reached the disk is given again. One that was committed had.
                Some("aborted") => return Ok(Verdict::RolledBack),
                Some("in progress") if Instant::now() < deadline => std::thread::sleep(POLL),
                _ => return Ok(Verdict::Unknown),
            }
        }
    }

    fn raise(&mut self, fault: Fault) -> DieselError {
        let (code, message) = match fault {
            Fault::SerializationFailure => ("40001", "could not serialize access due to concurrent update"),
            Fault::Deadlock => ("40P01", "deadlock detected"),
            Fault::LockTimeout => ("55P03", "canceling statement due to lock timeout"),
            _ => ("XX000", Fault::UNKNOWN),
        };
        let text = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = '{message}'; END $$");
        self.batch_execute(&text).err().unwrap_or_else(Fault::closed)
    }

    fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
        super::classify::postgres(error, phase)
    }

    fn is_in_transaction(&mut self, _state: &Self::State) -> bool {
        // Refused outside a transaction block; in an aborted one too, but that is left as it is.
        match self.batch_execute("SAVEPOINT ds_mark") {
            Ok(()) => true,
            Err(error) => !error.to_string().starts_with("SAVEPOINT can only be used in transaction blocks"),
        }
    }

    fn errors_abort_transactions() -> bool {
        true
    }

    fn ping(&mut self) -> QueryResult<()> {
        self.batch_execute("SELECT 1")
    }

    fn lives_after(&mut self, error: &DieselError) -> bool {
        if !super::reads_as_death::<Self>(error) {
            return false;
        }
        // Answered in an aborted transaction too. Diesel makes an error of the answer (diesel 2.3.14).
        match self.batch_execute("") {
            Ok(()) => true,
            Err(DieselError::DatabaseError(_, info)) => info.message() == EMPTY_QUERY,
            Err(_) => false,
        }
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

/// The limits that the connection has when no transaction asks for others.
fn own_limits(conn: &mut PgConnection, state: &mut PgState) -> QueryResult<OwnLimits> {
    if let Some(own) = state.own_limits {
        return Ok(own);
    }
    let setting = |name| format!("(SELECT setting::bigint FROM pg_settings WHERE name = '{name}')");
    let ask = format!("SELECT {} AS statement, {} AS lock", setting("statement_timeout"), setting("lock_timeout"));
    let own = diesel::sql_query(ask).get_result(conn)?;
    state.own_limits = Some(own);
    Ok(own)
}

/// The settings of a transaction for its limits.
fn set_local(limits: Limits, own: OwnLimits) -> String {
    let of = |millis: i64| u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    // 0 is "for ever".
    let millis = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_millis().clamp(1, i32::MAX as u128));
    format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
        millis(limits.statement(of(own.statement))),
        millis(limits.lock(of(own.lock)))
    )
}

/// Lets the server end a session that holds a transaction open and sends nothing.
fn limit_idle(conn: &mut PgConnection, settings: &ConnectionSettings) -> QueryResult<()> {
    let Some(idle) = settings.idle_in_transaction else { return Ok(()) };
    let millis = idle.as_millis().clamp(1, i32::MAX as u128);
    conn.batch_execute(&format!("SET idle_in_transaction_session_timeout = {millis}"))
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = SqlText)]
    version: String,
    #[diesel(sql_type = SqlText)]
    identity: String,
}

/// Between the name of a cluster and that of its life.
const LIFE: char = '@';

/// The server's version and, as one text, which cluster it is, on which of its timelines, and since which crash it lives. The
/// first changes nothing at a restart, the second changes at a failover (PostgreSQL docs, "Control Data Functions"). A crash
/// of the server, or of one of its processes, loses what was not on disk, and with it numbers of transactions, which are then
/// given again (seen on PostgreSQL 15); its statistics begin anew then, and not at a restart in peace (PostgreSQL docs, "The
/// Cumulative Statistics System").
fn server(conn: &mut PgConnection) -> QueryResult<Server> {
    diesel::sql_query(
        "SELECT version() AS version, system_identifier || '/' || timeline_id || '@' \
         || coalesce(stats_reset, pg_postmaster_start_time()) AS identity \
         FROM pg_control_system(), pg_control_checkpoint(), pg_stat_bgwriter",
    )
    .get_result(conn)
}

/// The value of the mark, empty where the transaction has none. By hand, because no field can have the column's name.
struct Mark(String);

impl QueryableByName<Pg> for Mark {
    fn build<'a>(row: &impl NamedRow<'a, Pg>) -> deserialize::Result<Self> {
        NamedRow::get::<SqlText, _>(row, "diesel_session.mark").map(Self)
    }
}

#[derive(QueryableByName)]
struct MaybeText {
    #[diesel(sql_type = Nullable<SqlText>)]
    value: Option<String>,
}

/// Whether the server marked the transaction as failed. Diesel keeps that in a private field; its debug text shows it
/// (diesel 2.3.14). `None` where the text does not say.
fn is_aborted(conn: &mut PgConnection) -> Option<bool> {
    let status = <AnsiTransactionManager as TransactionManager<PgConnection>>::transaction_manager_status_mut(conn);
    let mut flag = Flag::default();
    // Ends with an error as soon as it is known.
    let _ = write!(flag, "{status:?}");
    flag.is_set
}

/// Reads one flag out of a debug text while that is made, without keeping it: each COMMIT asks.
#[derive(Default)]
struct Flag {
    comes_next: bool,
    is_set: Option<bool>,
}

impl Write for Flag {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        match text {
            "requires_rollback_maybe_up_to_top_level" => self.comes_next = true,
            "true" | "false" if self.comes_next => {
                self.is_set = Some(text == "true");
                return Err(std::fmt::Error);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_read_out_of_the_debug_text_alone() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "they are for the text")]
        struct Inner {
            other: bool,
            requires_rollback_maybe_up_to_top_level: bool,
            more: bool,
        }
        let read = |inner: Option<Inner>| {
            let mut flag = Flag::default();
            let _ = write!(flag, "{inner:?}");
            flag.is_set
        };
        for aborted in [false, true] {
            let inner = Inner { other: !aborted, requires_rollback_maybe_up_to_top_level: aborted, more: !aborted };
            assert_eq!(read(Some(inner)), Some(aborted));
        }
        assert_eq!(read(None), None);
    }
}
