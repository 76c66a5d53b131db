//! The server ends the connection: the rows of databases that are servers.

use crate::table::Row;

use super::OWN_ID;
use super::contenders::*;
use super::everywhere::Source;

/// Ends the connection with this number.
pub(super) type Kill = fn(&Run, i64);

pub(super) fn killed_idle(source: Source, kill: Kill) -> Row {
    row(
        "The server ends a connection between two transactions",
        source,
        PLAIN,
        move |bare, run| killed_while_idle(bare, run, kill, OWN_ID),
        move |ours, run| killed_while_idle(ours, run, kill, OWN_ID),
    )
}

pub(super) fn killed_middle(source: Source, kill: Kill) -> Row {
    row(
        "The server ends the connection inside a transaction; the code goes on and returns `Ok`",
        source,
        PLAIN,
        move |bare, run| killed_in_the_middle(bare, run, kill, OWN_ID),
        move |ours, run| killed_in_the_middle(ours, run, kill, OWN_ID),
    )
}

pub(super) fn killed_commit(source: Source, kill: Kill) -> Row {
    row(
        "The server ends the connection after the last statement, before COMMIT",
        source,
        PLAIN,
        move |bare, run| killed_before_commit(bare, run, kill, OWN_ID),
        move |ours, run| killed_before_commit(ours, run, kill, OWN_ID),
    )
}
