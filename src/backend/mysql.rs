//! MySQL and MariaDB: transaction commands in one round trip where the server can prepare them.

use std::time::{Duration, Instant};

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::mysql::MysqlConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Nullable, Text as SqlText};

use super::command::{Command, Numbered, RELEASE, ROLLBACK_TO, SAVEPOINT, Text, commands};
use super::{
    ConnectionSettings, GateKey, GateRule, Kind, Limits, Number, Phase, PreparedUrl, SessionConnection, Truth, Verdict,
    Witness, marker,
};
use crate::error::{Error, ErrorClass, Result};
use crate::options::TransactionOptions;
use crate::testing::{Fault, MadeDatabase};

commands! {
    Begin = "START TRANSACTION";
    BeginReadOnly = "START TRANSACTION READ ONLY";
    Commit = "COMMIT";
    Rollback = "ROLLBACK";
    Mark = "SAVEPOINT ds_mark";
    TakeMark = "RELEASE SAVEPOINT ds_mark";
}

/// The name of the lock that starters take turns with, followed by the database's: hashed, because MySQL refuses names of
/// more than 64 characters (MySQL docs, "Locking Functions") and a database's may have as many. GET_LOCK is per node on
/// Galera.
const MIGRATION_LOCK: &str = "diesel_session_migrate";

/// Errors are known by their text where Diesel has no kind for them, and the text follows the server's language.
const ENGLISH: &str = "SET SESSION lc_messages = 'en_US'";

/// What Diesel sets when it connects (diesel 2.3.14).
const DIESELS: &str = "SET SESSION time_zone = '+00:00', character_set_client = 'utf8mb4', \
                       character_set_connection = 'utf8mb4', character_set_results = 'utf8mb4'";

const UNCOUNTED: &str = "a transaction is open on the joined connection that Diesel does not count, and beginning another \
                         would commit it: begin it with Diesel's `transaction` or its transaction manager";

/// The longest time that the servers take, in seconds: a year, on MySQL a tenth of that (2^32 ms are 49 days).
const LONGEST: f64 = 31_536_000.0;

/// How long to wait before a key that met a lock is inserted again.
const VERIFY_AGAIN: Duration = Duration::from_millis(25);

/// What is known about the server and set on the connection.
#[derive(Debug, Default)]
pub struct MysqlState {
    /// Whether BEGIN, COMMIT and SAVEPOINT can be prepared.
    prepares_transactions: bool,
    is_mariadb: bool,
    /// Whether a lock time-out (1205) ends the transaction: `innodb_rollback_on_timeout`, fixed when the server starts.
    timeout_ends_transactions: bool,
    /// The time-outs of a new connection, before `setup`.
    first_limits: Option<OwnLimits>,
    /// Puts other settings of a new connection back.
    first_settings: String,
    /// The time-outs that the connection has when no transaction asks for others; known once one did.
    own_limits: Option<OwnLimits>,
    limits: Limits,
    /// Which server this is; known where commits are verified.
    server: String,
    /// The database that the connection was in when it was set up; known where commits are verified.
    database: Option<String>,
    /// The table of the marker rows in it.
    marker_table: String,
}

#[derive(Debug, Clone, QueryableByName)]
struct OwnLimits {
    #[diesel(sql_type = SqlText)]
    statement: String,
    #[diesel(sql_type = SqlText)]
    lock: String,
}

/// What a new connection has, from the server's configuration and `init_connect`.
#[derive(Debug, QueryableByName)]
struct FirstSettings {
    #[diesel(sql_type = Nullable<SqlText>)]
    current_database: Option<String>,
    #[diesel(sql_type = SqlText)]
    sql_mode: String,
    #[diesel(sql_type = SqlText)]
    isolation: String,
    #[diesel(sql_type = BigInt)]
    foreign_key_checks: i64,
    #[diesel(sql_type = BigInt)]
    unique_checks: i64,
}

impl FirstSettings {
    /// The statements that put them back, and undo what else has no place in a new connection.
    fn statements(&self, mariadb: i64) -> String {
        let mut statements = "ROLLBACK; UNLOCK TABLES; ".to_owned();
        // MySQL has it since 5.7.5.
        if mariadb == 0 || mariadb >= 1005 {
            statements.push_str("DO RELEASE_ALL_LOCKS(); ");
        }
        if let Some(database) = &self.current_database {
            statements.push_str(&format!("USE `{}`; ", database.replace('`', "``")));
        }
        statements.push_str(&format!(
            "SET SESSION autocommit = 1, sql_mode = '{}', foreign_key_checks = {}, unique_checks = {}; \
             SET SESSION TRANSACTION ISOLATION LEVEL {}, READ WRITE; {DIESELS}; {ENGLISH}",
            self.sql_mode,
            self.foreign_key_checks,
            self.unique_checks,
            self.isolation.replace('-', " ")
        ));
        statements
    }
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = BigInt)]
    mariadb: i64,
    #[diesel(sql_type = BigInt)]
    timeout_ends_transactions: i64,
    #[diesel(embed)]
    limits: OwnLimits,
    #[diesel(embed)]
    settings: FirstSettings,
}

#[derive(QueryableByName)]
struct Identity {
    #[diesel(sql_type = SqlText)]
    identity: String,
    #[diesel(sql_type = Nullable<SqlText>)]
    database: Option<String>,
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

    fn configure(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        learn(self, state)?;
        // With autocommit off a single statement would wait for a COMMIT that nobody sends.
        self.batch_execute(&format!("SET SESSION autocommit = 1; {ENGLISH}"))?;
        limit_idle(self, settings, state)
    }

    fn check_settings(settings: &ConnectionSettings, state: &Self::State) -> Result<()> {
        if settings.idle_in_transaction.is_some() && !state.is_mariadb {
            return Err(Error::Configuration(
                "MySQL has no time-out for idle transactions: drop idle_in_transaction_timeout()".into(),
            ));
        }
        Ok(())
    }

    fn meet(&mut self, state: &mut Self::State) -> QueryResult<()> {
        if state.first_limits.is_none() {
            learn(self, state)?;
        }
        // START TRANSACTION would commit it (MariaDB docs, "START TRANSACTION").
        if state.is_mariadb && super::depth(self)? == 0 && is_in_transaction(self)? {
            return Err(DieselError::QueryBuilderError(UNCOUNTED.into()));
        }
        Ok(())
    }

    fn put_back(&mut self, state: &mut Self::State) -> QueryResult<()> {
        self.limit(&ConnectionSettings::default(), Limits::default(), state)
    }

    fn restore(&mut self, settings: &ConnectionSettings, state: &mut Self::State) -> QueryResult<()> {
        self.batch_execute(&state.first_settings)?;
        // `setup` follows and may ask for others, so what they are then is asked anew when it matters.
        state.own_limits = state.first_limits.clone();
        set_limits(self, Limits::default(), state)?;
        state.own_limits = None;
        limit_idle(self, settings, state)
    }

    fn settle(&mut self, _state: &Self::State) -> QueryResult<()> {
        // Turning autocommit on commits what was begun without it (MySQL docs, "START TRANSACTION").
        self.batch_execute("ROLLBACK; SET SESSION autocommit = 1")
    }

    fn prepare_autocommit(
        &mut self,
        _options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        self.limit(settings, limits, state)
    }

    fn begin(
        &mut self,
        options: &TransactionOptions,
        settings: &ConnectionSettings,
        limits: Limits,
        state: &mut Self::State,
    ) -> QueryResult<()> {
        self.limit(settings, limits, state)?;
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

    fn limit(&mut self, _settings: &ConnectionSettings, limits: Limits, state: &mut Self::State) -> QueryResult<()> {
        if state.limits == limits { Ok(()) } else { set_limits(self, limits, state) }
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

    fn make_test_database(url: &str, name: &str, _template: Option<&str>) -> Result<MadeDatabase> {
        let mut admin = super::admin::<Self>(url)?;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"))
            .map_err(|error| super::admin_refused(url, &error))?;
        Ok(MadeDatabase { url: super::with_database(url, name)?, name: name.to_owned() })
    }

    fn drop_test_database(url: &str, made: &MadeDatabase) -> Result<()> {
        let mut admin = super::admin::<Self>(url)?;
        // DROP would wait for a transaction that is still open.
        let left = diesel::sql_query(format!(
            "SELECT CAST(id AS SIGNED) AS value FROM information_schema.processlist WHERE db = '{}'",
            made.name
        ));
        for id in left.load::<Number>(&mut admin).unwrap_or_default().into_iter().filter_map(|number| number.value) {
            // It may have gone by itself.
            let _ = admin.batch_execute(&format!("KILL {id}"));
        }
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {}", made.name))
            .map_err(|error| super::admin_refused(url, &error))
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

    fn truth_after(&mut self, error: &DieselError, state: &Self::State) -> Truth {
        let DieselError::DatabaseError(kind, info) = error else { return self.truth() };
        // 1213 (deadlock) and 1020 (record has changed): the server rolled back the whole transaction, and would run the next
        // statement in autocommit. The client's own status flag does not show it.
        if Self::classify(error, Phase::Statement) == ErrorClass::Retryable {
            return Truth::Ended;
        }
        let is_timeout = info.message().starts_with("Lock wait timeout exceeded");
        if is_timeout && state.timeout_ends_transactions {
            return Truth::Ended;
        }
        // The server's texts follow its language, its numbers don't, and only kinds come from those.
        let is_known = is_timeout || !matches!(kind, DatabaseErrorKind::Unknown);
        let truth = self.truth();
        if is_known || !state.is_mariadb || truth != Truth::Open {
            return truth;
        }
        // The server says whether the transaction is still there.
        match is_in_transaction(self) {
            Ok(true) => Truth::Open,
            Ok(false) => Truth::Ended,
            Err(_) => Truth::Broken,
        }
    }

    fn mark(&mut self, state: &Self::State) -> QueryResult<()> {
        send::<Mark>(self, state)
    }

    fn truth_since_mark(&mut self, state: &Self::State) -> Truth {
        // The mark is gone (1305) if its transaction is, also where raw text or DDL began another.
        match send::<TakeMark>(self, state) {
            Ok(()) => Truth::Open,
            Err(error) if Self::classify(&error, Phase::Statement) == ErrorClass::Connection => Truth::Broken,
            Err(_) if self.truth() == Truth::Broken => Truth::Broken,
            Err(_) => Truth::Ended,
        }
    }

    fn make_witness_table(&mut self, state: &Self::State) -> QueryResult<bool> {
        // Without it the server's or the session's default engine is taken, which may have no transactions (MyISAM).
        marker::make(self, &state.marker_table, " ENGINE = InnoDB")?;
        // One that was there already keeps its engine; a view has none.
        let ask = "SELECT CAST(count(*) AS SIGNED) AS value FROM information_schema.tables \
             JOIN information_schema.engines ON engines.engine = tables.engine \
             WHERE table_schema = ? AND table_name = ? AND transactions = 'YES'";
        let found = diesel::sql_query(ask)
            .bind::<Nullable<SqlText>, _>(&state.database)
            .bind::<SqlText, _>(marker::TABLE)
            .get_result::<Number>(self)?;
        Ok(found.value == Some(1))
    }

    fn prune_witnesses(&mut self, state: &Self::State) -> QueryResult<()> {
        marker::prune(self, &state.marker_table)
    }

    fn know_server(&mut self, state: &mut Self::State) -> QueryResult<()> {
        // MariaDB has no number of its own for a server; these three change with the server behind an address.
        let ask = if state.is_mariadb {
            "SELECT concat(@@hostname, '/', @@port, '/', @@server_id) AS identity, database() AS `database`"
        } else {
            "SELECT @@server_uuid AS identity, database() AS `database`"
        };
        let Identity { identity, database } = diesel::sql_query(ask).get_result(self)?;
        state.marker_table = match &database {
            Some(name) => format!("`{}`.{}", name.replace('`', "``"), marker::TABLE),
            None => marker::TABLE.to_owned(),
        };
        state.server = identity;
        state.database = database;
        Ok(())
    }

    fn witness(&mut self, state: &Self::State) -> QueryResult<Option<Witness>> {
        marker::set(self, &state.marker_table, state.server.clone()).map(Some)
    }

    fn verify(&mut self, witness: &Witness, state: &Self::State, deadline: Instant) -> QueryResult<Verdict> {
        if state.server != witness.server {
            return Ok(Verdict::Unknown);
        }
        loop {
            let patience = deadline.saturating_duration_since(Instant::now()).as_secs().clamp(1, 60);
            self.batch_execute(&format!("SET SESSION innodb_lock_wait_timeout = {patience}"))?;
            self.batch_execute("START TRANSACTION")?;
            // Waits while the commit is under way, whose row it is.
            let inserted = marker::insert(self, &witness.table, &witness.key);
            self.batch_execute("ROLLBACK")?;
            match inserted {
                Ok(()) => return Ok(Verdict::RolledBack),
                Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
                    return Ok(Verdict::Committed);
                }
                // It waited in vain, or was chosen to give way.
                Err(error) if Instant::now() < deadline && is_in_the_way(&error) => std::thread::sleep(VERIFY_AGAIN),
                Err(error) => return Err(error),
            }
        }
    }

    fn raise(&mut self, fault: Fault) -> DieselError {
        let (kind, text) = match fault {
            Fault::SerializationFailure | Fault::Deadlock => {
                // The server has rolled back when it says so.
                if let Err(error) = Command::<Rollback>::new().execute(self) {
                    return error;
                }
                (
                    DatabaseErrorKind::SerializationFailure,
                    "Deadlock found when trying to get lock; try restarting transaction",
                )
            }
            Fault::LockTimeout => {
                (DatabaseErrorKind::Unknown, "Lock wait timeout exceeded; try restarting transaction")
            }
            _ => (DatabaseErrorKind::Unknown, Fault::UNKNOWN),
        };
        DieselError::DatabaseError(kind, Box::new(text.to_owned()))
    }

    fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
        super::classify::mysql(error, phase)
    }

    fn ddl_commits() -> bool {
        true
    }

    fn is_in_transaction(&mut self, state: &Self::State) -> bool {
        // MySQL has no such variable.
        let ask = "SELECT CAST(@@in_transaction AS SIGNED) AS value";
        let asked = state.is_mariadb.then(|| diesel::sql_query(ask).get_result::<Number>(self));
        matches!(asked, Some(Ok(number)) if number.value == Some(1))
    }

    fn errors_abort_transactions() -> bool {
        false
    }

    fn ping(&mut self) -> QueryResult<()> {
        self.batch_execute("DO 0")
    }

    fn lives_after(&mut self, error: &DieselError) -> bool {
        // 2027: the answer to the next command may be the rest of the last one's.
        let is_out_of_step = error.to_string().ends_with("alformed packet");
        !is_out_of_step && super::reads_as_death::<Self>(error) && self.ping().is_ok()
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

/// Whether the INSERT of a key failed because of others only: a lock, a deadlock, a time-out.
fn is_in_the_way(error: &DieselError) -> bool {
    let class = MysqlConnection::classify(error, Phase::Statement);
    matches!(class, ErrorClass::Retryable | ErrorClass::Statement)
}

/// What MariaDB says about it (MariaDB docs, "in_transaction"); MySQL has no such variable.
fn is_in_transaction(conn: &mut MysqlConnection) -> QueryResult<bool> {
    let ask = "SELECT CAST(@@in_transaction AS SIGNED) AS value";
    diesel::sql_query(ask).get_result::<Number>(conn).map(|number| number.value == Some(1))
}

/// Asks which server it is, and what a new connection has.
fn learn(conn: &mut MysqlConnection, state: &mut MysqlState) -> QueryResult<()> {
    // Of the two comments MariaDB reads the first, and MySQL the second.
    let server = diesel::sql_query(
        "SELECT CAST(CASE WHEN version() LIKE '%MariaDB%' THEN \
         substring_index(version(), '.', 1) * 100 + substring_index(substring_index(version(), '.', 2), '.', -1) \
         ELSE 0 END AS SIGNED) AS mariadb, CAST(@@innodb_rollback_on_timeout AS SIGNED) AS timeout_ends_transactions, \
         CAST(coalesce(NULL /*M! , @@max_statement_time */ /*!50708 , @@max_execution_time */, 0) AS CHAR) AS statement, \
         CAST(@@innodb_lock_wait_timeout AS CHAR) AS `lock`, database() AS current_database, \
         CAST(@@sql_mode AS CHAR) AS sql_mode, \
         CAST(coalesce(NULL /*M! , @@tx_isolation */ /*!50720 , @@transaction_isolation */, 'REPEATABLE-READ') AS CHAR) \
         AS isolation, CAST(@@foreign_key_checks AS SIGNED) AS foreign_key_checks, \
         CAST(@@unique_checks AS SIGNED) AS unique_checks",
    )
    .get_result::<Server>(conn)?;
    state.is_mariadb = server.mariadb > 0;
    // MariaDB prepares every transaction command since 10.6 (MariaDB docs, "PREPARE Statement"); MySQL refuses some of them.
    state.prepares_transactions = server.mariadb >= 1006;
    state.timeout_ends_transactions = server.timeout_ends_transactions != 0;
    state.first_settings = server.settings.statements(server.mariadb);
    state.first_limits = Some(server.limits);
    Ok(())
}

fn set_limits(conn: &mut MysqlConnection, limits: Limits, state: &mut MysqlState) -> QueryResult<()> {
    let statement_variable = if state.is_mariadb { "max_statement_time" } else { "max_execution_time" };
    if state.own_limits.is_none() {
        let ask = format!(
            "SELECT CAST(@@{statement_variable} AS CHAR) AS statement, \
             CAST(@@innodb_lock_wait_timeout AS CHAR) AS `lock`"
        );
        state.own_limits = Some(diesel::sql_query(ask).get_result(conn)?);
    }
    let Some(own) = &state.own_limits else { return Ok(()) };
    let unit = if state.is_mariadb { 1.0 } else { 1000.0 };
    let of = |own: &str, unit: f64| {
        let seconds = own.parse::<f64>().unwrap_or(0.0) / unit;
        Duration::try_from_secs_f64(seconds).ok().filter(|own| !own.is_zero())
    };
    // 0 is "for ever".
    let statement = match limits.statement(of(&own.statement, unit)).map(|limit| limit.as_secs_f64()) {
        Some(limit) if state.is_mariadb => format!("{:.3}", limit.clamp(0.001, LONGEST)),
        Some(limit) => format!("{:.0}", (limit.min(LONGEST / 10.0) * unit).max(1.0)),
        None => "0".to_owned(),
    };
    // In whole seconds; 0 is "not at all", and there is always one.
    let lock = match limits.lock(of(&own.lock, 1.0)) {
        Some(limit) => limit.as_secs_f64().ceil().clamp(1.0, LONGEST).to_string(),
        None => own.lock.clone(),
    };
    conn.batch_execute(&format!(
        "SET SESSION {statement_variable} = {statement}, SESSION innodb_lock_wait_timeout = {lock}"
    ))?;
    state.limits = limits;
    Ok(())
}

/// Lets the server end a session that holds a transaction open and sends nothing.
fn limit_idle(conn: &mut MysqlConnection, settings: &ConnectionSettings, state: &MysqlState) -> QueryResult<()> {
    // MySQL has nothing of the kind: an engine that asks for it is not built.
    let Some(idle) = settings.idle_in_transaction.filter(|_| state.is_mariadb) else { return Ok(()) };
    // In whole seconds (MariaDB docs, "idle_transaction_timeout").
    let seconds = idle.as_secs_f64().ceil().clamp(1.0, LONGEST);
    conn.batch_execute(&format!("SET SESSION idle_transaction_timeout = {seconds}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysql_refuses_a_time_out_for_idle_transactions_and_mariadb_takes_it() {
        let asked =
            ConnectionSettings { idle_in_transaction: Some(Duration::from_secs(1)), ..ConnectionSettings::default() };
        let on = |is_mariadb| MysqlState { is_mariadb, ..MysqlState::default() };
        let refused = MysqlConnection::check_settings(&asked, &on(false));
        assert!(matches!(refused, Err(Error::Configuration(_))), "{refused:?}");
        assert!(MysqlConnection::check_settings(&asked, &on(true)).is_ok());
        assert!(MysqlConnection::check_settings(&ConnectionSettings::default(), &on(false)).is_ok());
    }
}
