//! Looking at the texts that go out while code with the bare connection runs: only some of them can commit.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};

/// What was seen of one connection's texts.
#[derive(Debug, Default)]
struct Seen {
    is_watching: AtomicBool,
    may_have_committed: AtomicBool,
}

/// The session's end of it.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Seen>);

/// The connection's end: Diesel's instrumentation, in front of the user's own.
struct Watcher {
    seen: Arc<Seen>,
    own: Option<Box<dyn Instrumentation>>,
    ddl_commits: bool,
}

impl Watch {
    /// What to look at the connection with, in front of the instrumentation that it would have.
    pub(crate) fn new(own: Option<Box<dyn Instrumentation>>, ddl_commits: bool) -> (Self, impl Instrumentation) {
        let seen = Arc::new(Seen::default());
        (Self(Arc::clone(&seen)), Watcher { seen, own, ddl_commits })
    }

    pub(crate) fn start(&self) {
        self.0.may_have_committed.store(false, Ordering::Relaxed);
        self.0.is_watching.store(true, Ordering::Relaxed);
    }

    /// Whether something was sent since the start that can commit. It may have been, too, where the code put another
    /// instrumentation in the place of ours.
    pub(crate) fn end(&self) -> bool {
        self.0.is_watching.store(false, Ordering::Relaxed);
        self.0.may_have_committed.load(Ordering::Relaxed) || Arc::strong_count(&self.0) == 1
    }
}

impl Instrumentation for Watcher {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if self.seen.is_watching.load(Ordering::Relaxed)
            && let InstrumentationEvent::StartQuery { query, .. } = &event
            && may_commit(&text_of(query), self.ddl_commits)
        {
            self.seen.may_have_committed.store(true, Ordering::Relaxed);
        }
        if let Some(own) = &mut self.own {
            own.on_connection_event(event);
        }
    }
}

/// The text of a query; nothing that is known where it has none.
fn text_of(query: &dyn std::fmt::Display) -> String {
    let mut text = String::new();
    match write!(text, "{query}") {
        Ok(()) => text,
        Err(_) => "unknown".to_owned(),
    }
}

/// What a statement begins with that never ends a transaction by committing it.
const HARMLESS: [&str; 17] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "REPLACE",
    "WITH",
    "VALUES",
    "MERGE",
    "TABLE",
    "SAVEPOINT",
    "RELEASE",
    "SHOW",
    "PRAGMA",
    "EXPLAIN",
    "KILL",
    "SIGNAL",
    "DO",
];

/// The same where DDL is part of the transaction, and procedures can't end one (not on MySQL).
const DDL: [&str; 10] =
    ["CALL", "CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "REINDEX", "LOCK"];

/// The text without what stands between dollar quotes: on PostgreSQL the body of a DO, which can't end the transaction that
/// it runs in (PostgreSQL docs, "Transaction Management").
fn without_dollar_quotes(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some(start) = rest.find('$') {
        let is_of_a_tag = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let after = &rest[start + 1..];
        let tag = after.find(|c| !is_of_a_tag(c)).filter(|end| after[*end..].starts_with('$'));
        // A bind, or a sign of another sort.
        let Some(tag) = tag.map(|end| &rest[start..start + end + 2]) else {
            kept.push_str(&rest[..=start]);
            rest = after;
            continue;
        };
        kept.push_str(&rest[..start]);
        let body = &rest[start + tag.len()..];
        rest = body.find(tag).map_or("", |end| &body[end + tag.len()..]);
    }
    kept + rest
}

/// Whether a text has a statement that is not known to leave the transaction alone. A semicolon in a literal, or a comment in
/// front, counts for the worse.
fn may_commit(text: &str, ddl_commits: bool) -> bool {
    // Diesel writes the binds behind the text.
    let text = text.rsplit_once(" -- binds: ").map_or(text, |(text, _)| text);
    let text = if ddl_commits { text.to_owned() } else { without_dollar_quotes(text) };
    text.split(';').map(|statement| statement.trim().trim_start_matches('(')).filter(|text| !text.is_empty()).any(
        |statement| {
            let mut words = statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let first = words.next().unwrap_or_default().to_ascii_uppercase();
            match first.as_str() {
                // To a savepoint.
                "ROLLBACK" => !words
                    .find(|word| {
                        !word.is_empty()
                            && !word.eq_ignore_ascii_case("work")
                            && !word.eq_ignore_ascii_case("transaction")
                    })
                    .is_some_and(|word| word.eq_ignore_ascii_case("to")),
                // MySQL commits when it is set to 1.
                "SET" => statement.to_ascii_lowercase().contains("autocommit"),
                first => !HARMLESS.contains(&first) && (ddl_commits || !DDL.contains(&first)),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::may_commit;

    #[test]
    fn only_statements_that_never_commit_are_taken_for_such() {
        for harmless in [
            "SELECT 1",
            "(select 1)",
            " insert INTO t VALUES (1); update t SET n = 2;",
            "INSERT OR ROLLBACK INTO t VALUES (1)",
            "ROLLBACK TO SAVEPOINT a",
            "rollback work to a",
            "RELEASE SAVEPOINT a",
            "SET LOCAL lock_timeout = 1",
            "INSERT INTO `t` (`a`) VALUES (?) -- binds: [\"x; COMMIT\"]",
            "",
        ] {
            assert!(!may_commit(harmless, true), "{harmless}");
        }
        for harmful in [
            "COMMIT",
            "commit and chain",
            "ROLLBACK",
            "ROLLBACK AND CHAIN",
            "END",
            "BEGIN",
            "START TRANSACTION",
            "CREATE TABLE t (a INTEGER)",
            "CALL p(1)",
            "SELECT 1; COMMIT",
            "SET autocommit = 1",
            "LOCK TABLES t WRITE",
            "-- a comment\nCOMMIT",
            "/* a comment */ COMMIT",
        ] {
            assert!(may_commit(harmful, true), "{harmful}");
        }
        assert!(!may_commit("CREATE TABLE t (a INTEGER); DROP TABLE t", false));
        assert!(may_commit("CREATE TABLE t (a INTEGER); COMMIT", false));
        assert!(!may_commit("DO $$ BEGIN PERFORM 1; END $$", false));
        assert!(!may_commit("DO $a_1$ BEGIN PERFORM '$$;'; END $a_1$", false));
        assert!(!may_commit("SELECT $1; SELECT $2", false));
        assert!(may_commit("DO $$ BEGIN PERFORM 1; END $$; COMMIT", false));
    }
}
