//! The budgets. A change that sends less lowers a number here; one that has to raise a number says why.
#![allow(dead_code)]

/// What some work may cost on a connection that has done it twice: statements of sizes that need not come again are kept from
/// then on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// The statements that go out, by kind.
    pub(crate) sent: &'static str,
    /// Those among them that are not kept prepared: PostgreSQL's commands, which take one round trip anyway.
    pub(crate) anew: &'static str,
    /// Turns on the wire, from the client to the server and back. SQLite has none.
    pub(crate) round_trips: usize,
}

const fn cost(sent: &'static str, anew: &'static str, round_trips: usize) -> Cost {
    Cost { sent, anew, round_trips }
}

/// One backend's.
pub(crate) struct Budget {
    /// W1: a row by its key, one column of it changed, commit.
    pub(crate) request: Cost,
    /// W2: a row by its key, in a transaction for reading.
    pub(crate) read: Cost,
    /// W2 in an autocommit session.
    pub(crate) read_alone: Cost,
    /// W3: 10 000 rows added, all keys known.
    pub(crate) insert: Cost,
    /// W4: 1 000 rows loaded, one column of each changed, commit.
    pub(crate) change_1_000: Cost,
    /// W4 with 10 000 rows.
    pub(crate) change_10_000: Cost,
    /// W5: 100 parents with 10 children each.
    pub(crate) families: Cost,
    /// How a transaction that may write begins, and how one for reading.
    pub(crate) begin: &'static str,
    pub(crate) begin_to_read: &'static str,
    /// What goes out before, where the connection did the other of them last: to read, and to write.
    pub(crate) turned_to_read: &'static [&'static str],
    pub(crate) turned_to_write: &'static [&'static str],
}

pub(crate) const SQLITE: Budget = Budget {
    request: cost("1 BEGIN, 1 SELECT, 1 UPDATE, 1 COMMIT", "", 0),
    read: cost("1 BEGIN, 1 SELECT, 1 COMMIT", "", 0),
    read_alone: cost("1 SELECT", "", 0),
    insert: cost("1 BEGIN, 1 SELECT, 40 INSERT, 1 COMMIT", "", 0),
    change_1_000: cost("1 BEGIN, 2 SELECT, 10 UPDATE, 1 COMMIT", "", 0),
    change_10_000: cost("1 BEGIN, 2 SELECT, 40 UPDATE, 1 COMMIT", "", 0),
    families: cost("1 BEGIN, 2 SELECT, 14 INSERT, 1 COMMIT", "", 0),
    begin: "BEGIN IMMEDIATE",
    begin_to_read: "BEGIN",
    turned_to_read: &["PRAGMA query_only = 1"],
    turned_to_write: &["PRAGMA query_only = 0"],
};

pub(crate) const POSTGRES: Budget = Budget {
    request: cost("1 BEGIN, 1 SELECT, 1 UPDATE, 1 COMMIT", "1 BEGIN, 1 COMMIT", 4),
    read: cost("1 BEGIN, 1 SELECT, 1 COMMIT", "1 BEGIN, 1 COMMIT", 3),
    read_alone: cost("1 SELECT", "", 1),
    insert: cost("1 BEGIN, 2 INSERT, 1 COMMIT", "1 BEGIN, 1 COMMIT", 4),
    change_1_000: cost("1 BEGIN, 1 SELECT, 1 UPDATE, 1 COMMIT", "1 BEGIN, 1 COMMIT", 4),
    change_10_000: cost("1 BEGIN, 1 SELECT, 2 UPDATE, 1 COMMIT", "1 BEGIN, 1 COMMIT", 5),
    families: cost("1 BEGIN, 2 INSERT, 1 COMMIT", "1 BEGIN, 1 COMMIT", 4),
    begin: "BEGIN",
    begin_to_read: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    turned_to_read: &[],
    turned_to_write: &[],
};

pub(crate) const MARIADB: Budget = Budget {
    request: cost("1 BEGIN, 1 SELECT, 1 UPDATE, 1 COMMIT", "", 4),
    read: cost("1 BEGIN, 1 SELECT, 1 COMMIT", "", 3),
    read_alone: cost("1 SELECT", "", 1),
    insert: cost("1 BEGIN, 6 SELECT, 5 INSERT, 1 COMMIT", "", 13),
    change_1_000: cost("1 BEGIN, 1 SELECT, 1 UPDATE, 1 COMMIT", "", 4),
    change_10_000: cost("1 BEGIN, 1 SELECT, 10 UPDATE, 1 COMMIT", "", 13),
    families: cost("1 BEGIN, 4 SELECT, 2 INSERT, 1 COMMIT", "", 8),
    begin: "START TRANSACTION",
    begin_to_read: "START TRANSACTION READ ONLY",
    turned_to_read: &[],
    turned_to_write: &[],
};
