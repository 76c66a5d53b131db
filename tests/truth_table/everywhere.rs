//! The rows that are the same on every database, but for the page that explains them.

use crate::table::Row;

use super::contenders::*;

pub(super) type Source = (&'static str, &'static str);

pub(super) fn text(title: &'static str, sql: &'static str, source: Source) -> Row {
    row(title, source, PLAIN, text_in_the_middle(sql), text_in_the_middle(sql))
}

pub(super) fn begin_by_text(source: Source) -> Row {
    row(
        "`BEGIN` as text before anything else, a transaction inside it, then `ROLLBACK` as text",
        source,
        PLAIN,
        begin_by_text_bare,
        begin_by_text_ours,
    )
}

pub(super) fn returned_open() -> Row {
    row(
        "A connection goes back to its pool with a transaction open",
        IS_BROKEN,
        PLAIN,
        returned_open_bare,
        returned_open_ours,
    )
}

pub(super) fn returned_open_by_text() -> Row {
    row(
        "A connection goes back to its pool with a transaction open that text has begun",
        IS_BROKEN,
        PLAIN,
        returned_open_by_text_bare,
        returned_open_by_text_ours,
    )
}

pub(super) fn savepoint_left_open() -> Row {
    row(
        "A savepoint is left open, and commit is called once",
        TRANSACTION_MANAGER,
        PLAIN,
        savepoint_left_open_bare,
        savepoint_left_open_ours,
    )
}
