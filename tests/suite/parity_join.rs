//! Sessions on a connection that somebody else made and may have begun on.
#![allow(clippy::type_complexity)]

use std::cell::RefCell;

use diesel::connection::{
    Connection as _, Instrumentation, InstrumentationEvent, SimpleConnection, TransactionManager,
};
use diesel::prelude::*;
use diesel_session::{Error, JoinMode, Session as AnySession, SessionConnection};

use super::db::{self, Conn, Database, Session, insert, stored, texts};
use super::notes;

/// A connection that no engine made, with the `notes` table.
fn outside(database: &Database) -> Conn {
    let mut conn = Conn::establish(&database.url).unwrap();
    conn.batch_execute(db::CREATE_NOTES).unwrap();
    conn
}

fn begin(conn: &mut Conn) {
    <Conn as Connection>::TransactionManager::begin_transaction(conn).unwrap();
}

fn commit(conn: &mut Conn) {
    <Conn as Connection>::TransactionManager::commit_transaction(conn).unwrap();
}

fn roll_back(conn: &mut Conn) {
    <Conn as Connection>::TransactionManager::rollback_transaction(conn).unwrap();
}

/// 0 outside any transaction, 1 in one, 2 in a savepoint of it, and so on.
fn depth(conn: &mut Conn) -> u32 {
    let status = <Conn as Connection>::TransactionManager::transaction_manager_status_mut(conn);
    status.transaction_depth().unwrap().map_or(0, std::num::NonZeroU32::get)
}

fn write(conn: &mut Conn, text: &str) {
    diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0))).execute(conn).unwrap();
}

fn read(conn: &mut Conn) -> Vec<String> {
    notes::table.select(notes::text).order(notes::text).load(conn).unwrap()
}

// parity: SessionTransactionTest::test_subtransaction_on_external_no_begin
// parity: SessionTransactionTest::test_subtransaction_on_external_commit
#[test]
fn a_joined_commit_leaves_the_outer_transaction_to_its_owner() {
    let database = Database::new();
    let mut conn = outside(&database);
    begin(&mut conn);
    let session = Session::join(conn, JoinMode::default());
    insert(&session, "ed").unwrap();
    session.commit().unwrap();
    let mut conn = session.into_connection().unwrap();
    assert_eq!((depth(&mut conn), read(&mut conn)), (1, vec!["ed".to_owned()]));
    roll_back(&mut conn);
    let session = Session::join(conn, JoinMode::default());
    assert!(texts(&session).is_empty());
}

// parity: SessionTransactionTest::test_subtransaction_on_external_rollback
#[test]
fn a_joined_rollback_rolls_the_outer_transaction_back() {
    let database = Database::new();
    let mut conn = outside(&database);
    begin(&mut conn);
    let session = Session::join(conn, JoinMode::default());
    insert(&session, "ed").unwrap();
    session.rollback().unwrap();
    let mut conn = session.into_connection().unwrap();
    assert_eq!(depth(&mut conn), 0, "nothing is left to commit");
    assert!(read(&mut conn).is_empty());
}

// parity: SessionTransactionTest::test_savepoint_on_external
#[test]
fn a_savepoint_in_a_joined_transaction_is_undone_alone() {
    let database = Database::new();
    let mut conn = outside(&database);
    begin(&mut conn);
    let session = Session::join(conn, JoinMode::default());
    insert(&session, "u1").unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u2").unwrap();
    savepoint.rollback().unwrap();
    let mut conn = session.into_connection().unwrap();
    assert_eq!(depth(&mut conn), 1);
    commit(&mut conn);
    assert_eq!((depth(&mut conn), read(&mut conn)), (0, vec!["u1".to_owned()]));
}

/// What a joined session leaves: how deep the outer transaction still is, and the rows seen on the connection.
fn left(mode: JoinMode, operation: &str, external: u32) -> (u32, Vec<&'static str>) {
    let own = match mode {
        _ if external == 0 => true,
        JoinMode::ControlFully => true,
        _ => false,
    };
    let savepoint = mode == JoinMode::CreateSavepoint || (mode == JoinMode::ConditionalSavepoint && external == 2);
    let outer: &[&str] = match external {
        0 => &[],
        1 => &["outer"],
        _ => &["outer", "savepoint"],
    };
    let all = || [&["inner"], outer].concat();
    // What rolling the outer level back takes with it.
    let (above, without_level) = (external.saturating_sub(1), if external == 2 { vec!["outer"] } else { Vec::new() });
    match operation {
        "commit" if own => (above, all()),
        "commit" => (external, all()),
        _ if own => (above, without_level),
        _ if savepoint => (external, outer.to_vec()),
        "rollback" => (above, without_level),
        _ => (external, all()),
    }
}

// parity: SessionTransactionTest::test_join_transaction_modes
#[test]
fn each_join_mode_does_to_the_outer_transaction_what_it_says() {
    let modes = [
        ("default", JoinMode::default()),
        ("conditional savepoint", JoinMode::ConditionalSavepoint),
        ("create savepoint", JoinMode::CreateSavepoint),
        ("control fully", JoinMode::ControlFully),
        ("rollback only", JoinMode::RollbackOnly),
    ];
    let database = Database::new();
    for (name, mode) in modes {
        for operation in ["commit", "close", "rollback", "nothing"] {
            for external in [0, 1, 2] {
                let case = format!("{name}, {operation}, external depth {external}");
                let mut conn = outside(&database);
                for text in ["outer", "savepoint"].into_iter().take(external as usize) {
                    begin(&mut conn);
                    write(&mut conn, text);
                }
                let session = Session::join(conn, mode);
                insert(&session, "inner").unwrap();
                match operation {
                    "commit" => drop(session.commit().unwrap()),
                    "rollback" => drop(session.rollback().unwrap()),
                    "close" => session.close(),
                    _ => {
                        let open = session.with_connection(|conn| Ok(depth(conn))).unwrap();
                        assert!(session.in_transaction() && open >= external.max(1), "{case}");
                    }
                }
                // A session that is still open is closed by this.
                let mut conn = session.into_connection().unwrap();
                let (deep, rows) = left(mode, operation, external);
                assert_eq!(
                    (depth(&mut conn), read(&mut conn)),
                    (deep, rows.iter().map(ToString::to_string).collect()),
                    "{case}"
                );
                for _ in 0..deep {
                    roll_back(&mut conn);
                }
                let stored = read(&mut conn);
                let ends_it = operation == "commit" && external == 0
                    || operation == "commit" && external == 1 && mode == JoinMode::ControlFully;
                assert_eq!(stored.contains(&"inner".to_owned()), ends_it, "{case}: {stored:?}");
                diesel::delete(notes::table).execute(&mut conn).unwrap();
            }
        }
    }
}

thread_local! {
    /// What the connection was told on this thread.
    static TOLD: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

struct Tells;

impl Instrumentation for Tells {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let told = ["COMMIT", "ROLLBACK"].into_iter().find(|command| text.contains(command));
            TOLD.with_borrow_mut(|log| log.extend(told));
        }
    }
}

/// Methods that no session has: a session with an engine takes no join mode.
trait JoinsAnEngine {
    fn join_transaction_mode(&self, mode: JoinMode) -> Option<JoinMode>;
}

impl<C: SessionConnection> JoinsAnEngine for AnySession<C> {
    fn join_transaction_mode(&self, _mode: JoinMode) -> Option<JoinMode> {
        None
    }
}

// parity: SessionTransactionTest::test_join_transaction_mode_with_event
#[test]
fn a_transaction_left_open_by_the_set_up_of_a_connection_is_nothing_to_join() {
    let modes = [
        JoinMode::default(),
        JoinMode::ConditionalSavepoint,
        JoinMode::CreateSavepoint,
        JoinMode::ControlFully,
        JoinMode::RollbackOnly,
    ];
    let operations: [(&str, &str, fn(&Session)); 3] = [
        ("commit", "COMMIT", |session| drop(session.commit().unwrap())),
        ("rollback", "ROLLBACK", |session| drop(session.rollback().unwrap())),
        ("close", "ROLLBACK", |session| session.close()),
    ];
    for (name, told, operation) in operations {
        let database = Database::new();
        let registry = database.registry_with(|builder| {
            builder.max_size(1).instrumentation(|| Box::new(Tells)).setup(|conn| {
                begin(conn);
                Ok(())
            })
        });
        let mut expected = Vec::new();
        for (n, mode) in modes.into_iter().enumerate() {
            let session = Session::new(registry.engine());
            assert_eq!(session.join_transaction_mode(mode), None);
            let text = n.to_string();
            insert(&session, &text).unwrap();
            TOLD.with_borrow_mut(Vec::clear);
            operation(&session);
            assert_eq!(TOLD.with_borrow_mut(std::mem::take), [told], "{name}");
            assert!(!session.in_transaction());
            assert_eq!(registry.engine().connections_in_use().len(), 0, "{name}");
            if name == "commit" {
                expected.push(text);
            }
            assert_eq!(stored(&registry), expected, "{name}");
        }
    }
}

// parity: SubtransactionRecipeTest::test_recipe_subtransaction_on_external_subtrans
#[test]
fn a_block_on_a_joined_session_leaves_the_outer_transaction_to_its_owner() {
    let database = Database::new();
    let registry = database.registry();
    let mut conn = outside(&database);
    begin(&mut conn);
    let session = Session::join(conn, JoinMode::default());
    assert!(registry.replace(&session).unwrap().is_none());
    registry
        .transaction(|inside| {
            assert_eq!(*inside, session);
            insert(inside, "ed")
        })
        .unwrap();
    assert!(!registry.has());
    let mut conn = session.into_connection().unwrap();
    assert_eq!((depth(&mut conn), read(&mut conn)), (1, vec!["ed".to_owned()]));
    roll_back(&mut conn);
    assert!(read(&mut conn).is_empty());
}

/// A test's own outer transaction: the connection, and how deep it is before the session joins.
fn test_fixture(database: &Database, savepoint: bool) -> (Conn, u32) {
    let mut conn = outside(database);
    begin(&mut conn);
    if savepoint {
        begin(&mut conn);
    }
    let before = depth(&mut conn);
    (conn, before)
}

const FIXTURES: [(&str, JoinMode, bool); 3] = [
    ("create savepoint", JoinMode::CreateSavepoint, false),
    ("conditional, in a savepoint", JoinMode::ConditionalSavepoint, true),
    ("create savepoint, in a savepoint", JoinMode::CreateSavepoint, true),
];

// parity: JoinIntoAnExternalTransactionFixture::test_something
#[test]
fn code_under_test_may_commit_and_the_outer_rollback_leaves_nothing() {
    let database = Database::new();
    for (name, mode, savepoint) in FIXTURES {
        let (conn, before) = test_fixture(&database, savepoint);
        let session = Session::join(conn, mode);
        insert(&session, "committed").unwrap();
        session.commit().unwrap();
        assert_eq!(texts(&session), ["committed"], "{name}");
        let mut conn = session.into_connection().unwrap();
        assert_eq!((depth(&mut conn), read(&mut conn).len()), (before, 1), "{name}");
        for _ in 0..before {
            roll_back(&mut conn);
        }
        assert!(read(&mut conn).is_empty(), "{name}");
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

// parity: CtxManagerJoinIntoAnExternalTransactionFixture::test_super_abusive_nesting
#[test]
fn any_order_of_begin_savepoint_rollback_and_commit_leaves_the_outer_transaction_whole() {
    let database = Database::new();
    for (name, mode, savepoint) in FIXTURES {
        for seed in 0..20 {
            let (conn, before) = test_fixture(&database, savepoint);
            let session = Session::join(conn, mode);
            let mut numbers = Numbers(seed);
            let mut guards = Vec::new();
            // What a plain model of nested transactions holds: the committed rows, then those of each open level.
            let mut levels: Vec<Vec<String>> = vec![Vec::new(), Vec::new()];
            for step in 0..5 + numbers.below(26) {
                match numbers.below(4) {
                    0 if session.in_transaction() => {
                        guards.push(session.begin_nested().unwrap());
                        levels.push(Vec::new());
                    }
                    0 => session.begin().unwrap(),
                    1 => {
                        session.rollback().unwrap();
                        assert!(guards.drain(..).all(|guard| matches!(guard.commit(), Err(Error::SavepointGone))));
                        levels.truncate(1);
                        levels.push(Vec::new());
                    }
                    2 => match guards.pop() {
                        Some(guard) => {
                            assert!(matches!(session.commit(), Err(Error::SavepointOpen { .. })));
                            guard.commit().unwrap();
                            let inner = levels.pop().unwrap();
                            levels.last_mut().unwrap().extend(inner);
                        }
                        None => {
                            session.commit().unwrap();
                            let root = std::mem::take(&mut levels[1]);
                            levels[0].extend(root);
                        }
                    },
                    _ => {
                        if let Some(guard) = guards.pop() {
                            guard.rollback().unwrap();
                            levels.pop();
                        }
                    }
                }
                let text = format!("{step:02}");
                insert(&session, &text).unwrap();
                levels.last_mut().unwrap().push(text);
                let mut expected = levels.concat();
                expected.sort();
                assert_eq!(texts(&session), expected, "{name}, seed {seed}, step {step}");
            }
            session.close();
            drop(guards);
            let mut conn = session.into_connection().unwrap();
            assert_eq!((depth(&mut conn), read(&mut conn)), (before, levels.swap_remove(0)), "{name}, seed {seed}");
            for _ in 0..before {
                roll_back(&mut conn);
            }
            assert!(read(&mut conn).is_empty(), "{name}, seed {seed}");
        }
    }
}
