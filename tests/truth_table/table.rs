//! Rows and tables, and the texts of answers: nothing in them that differs from run to run.
#![allow(dead_code)]

use std::cell::RefCell;
use std::fmt::Write;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_session::{Error, ErrorClass, Reason};

/// One situation, met by both.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    /// Where the database's behaviour is documented: a name and an address.
    pub(crate) source: (&'static str, &'static str),
    pub(crate) diesel: Side,
    pub(crate) session: Side,
}

/// What one of them answered, step by step, and what was stored at the end.
pub(crate) struct Side {
    pub(crate) answers: Vec<String>,
    pub(crate) stored: String,
    /// Whether that is what the answers let one expect.
    pub(crate) holds: bool,
}

impl Side {
    fn stored(&self) -> String {
        if self.holds { self.stored.clone() } else { format!("{NOT_AS_ANSWERED} {}", self.stored) }
    }
}

/// The answers of one run.
#[derive(Default)]
pub(crate) struct Answers(RefCell<Vec<String>>);

impl Answers {
    /// Writes an answer down and gives it back.
    pub(crate) fn note<T, E: Shown>(&self, what: &str, result: Result<T, E>) -> Result<T, E> {
        let answer = result.as_ref().map_or_else(E::shown, |_| "`Ok`".to_owned());
        self.0.borrow_mut().push(format!("{what}: {answer}"));
        result
    }

    pub(crate) fn take(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// The short text of an error.
pub(crate) trait Shown {
    fn shown(&self) -> String;
    /// Whether, as the answer of a transaction, it means that nothing of it is stored.
    fn says_that_nothing_is_stored(&self) -> bool;
}

impl Shown for DieselError {
    fn shown(&self) -> String {
        format!("`Err({})`", diesel_text(self))
    }

    /// An error of the closure, and so a rollback (Diesel's docs, "Connection::transaction"), unless the end itself failed.
    fn says_that_nothing_is_stored(&self) -> bool {
        !matches!(self, Self::RollbackErrorOnCommit { .. } | Self::BrokenTransactionManager)
            && !matches!(self, Self::DatabaseError(DatabaseErrorKind::ClosedConnection, _))
    }
}

impl Shown for Error {
    fn shown(&self) -> String {
        let variant = name(self);
        let text = match self {
            Self::Statement(failure) => diesel_text(failure.error()),
            _ => match self.cause().map(diesel_session::Cause::reason) {
                Some(Reason::Statement(failure)) => format!("{variant}: {}", diesel_text(failure.error())),
                Some(reason) => format!("{variant}: {}", name(reason)),
                None => variant,
            },
        };
        format!("`Err({text})` ({:?})", self.class())
    }

    fn says_that_nothing_is_stored(&self) -> bool {
        self.class() != ErrorClass::Ambiguous && !matches!(self, Self::TransactionLost { .. })
    }
}

/// The name of an enum's variant.
fn name(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn diesel_text(error: &DieselError) -> String {
    match error {
        // Which of them it is depends on how far the news has come.
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) if is_lost(info.message()) => {
            "Unknown: connection lost".to_owned()
        }
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            format!("Unknown: \"{}\"", info.message().lines().next().unwrap_or_default())
        }
        DieselError::DatabaseError(kind, _) => format!("{kind:?}"),
        DieselError::RollbackErrorOnCommit { rollback_error, commit_error } => format!(
            "RollbackErrorOnCommit: COMMIT {}, ROLLBACK {}",
            diesel_text(commit_error),
            diesel_text(rollback_error)
        ),
        other => name(other),
    }
}

fn is_lost(message: &str) -> bool {
    ["Lost connection to", "Server has gone away", "MySQL server has gone away"]
        .iter()
        .any(|text| message.starts_with(text))
}

/// Marks what is missing after an `Ok`, and what is there after an error that says that nothing is.
const NOT_AS_ANSWERED: &str = "⚠";

/// The line that says what it was measured on, which no comparison minds.
const MEASURED_ON: &str = "Measured on ";

fn markdown(database: &str, measured_on: &str, rows: &[Row]) -> String {
    let mut text = format!("# {database}\n\n{MEASURED_ON}{measured_on}.\n\n");
    text += "| situation | Diesel answers | and the database holds | a session answers | and the database holds |\n";
    text += "|---|---|---|---|---|\n";
    for Row { title, source: (source, address), diesel, session } in rows {
        writeln!(
            text,
            "| {title} ([{source}]({address})) | {} | {} | {} | {} |",
            diesel.answers.join("<br>"),
            diesel.stored(),
            session.answers.join("<br>"),
            session.stored()
        )
        .unwrap();
    }
    text
}

/// Compares the rows with the committed table, or writes it with `UPDATE_TABLES=1`.
pub(crate) fn check(file: &str, database: &str, measured_on: &str, rows: &[Row]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/truth").join(file);
    let measured = markdown(database, measured_on, rows);
    if std::env::var("UPDATE_TABLES").is_ok_and(|value| value == "1") {
        std::fs::write(path, measured).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = difference(&committed, &measured);
    assert!(
        difference.is_empty(),
        "{} is not what was measured; UPDATE_TABLES=1 writes it\n{difference}",
        path.display()
    );
}

/// Whatever the table says: what a session answers is what the database holds.
pub(crate) fn the_session_keeps_its_word(rows: &[Row]) {
    let broken: Vec<_> = rows.iter().filter(|row| !row.session.holds).map(|row| row.title).collect();
    assert!(broken.is_empty(), "the database does not hold what the session answered:\n{}", broken.join("\n"));
}

/// The lines that only one of them has, and a note where the same lines stand in another order.
fn difference(committed: &str, measured: &str) -> String {
    let lines =
        |text: &str| text.lines().filter(|line| !line.starts_with(MEASURED_ON)).map(str::to_owned).collect::<Vec<_>>();
    let (committed, measured) = (lines(committed), lines(measured));
    let mut text = String::new();
    for line in committed.iter().filter(|line| !measured.contains(line)) {
        writeln!(text, "- {line}").unwrap();
    }
    for line in measured.iter().filter(|line| !committed.contains(line)) {
        writeln!(text, "+ {line}").unwrap();
    }
    if text.is_empty() && committed != measured {
        text += "the same lines in another order or number";
    }
    text
}

#[test]
fn a_difference_names_both_lines_and_minds_no_version() {
    let committed = "Measured on A 1.\n| same |\n| old |\n";
    let measured = "Measured on A 2.\n| same |\n| new |\n";
    assert_eq!(difference(committed, measured), "- | old |\n+ | new |\n");
    assert_eq!(difference(committed, &committed.replace("A 1", "A 2")), "");
    assert!(!difference("| a |\n| b |\n", "| b |\n| a |\n").is_empty());
    assert!(!difference("| a |\n", "| a |\n| a |\n").is_empty());
}
