//! What of an error goes into the log.

use super::{Error, Failure, Reason};

impl Error {
    /// What may be logged of it: everything but words that are not this crate's, in which values and passwords stand.
    pub(crate) fn for_the_log(&self) -> String {
        for_the_log(self)
    }
}

fn for_the_log(error: &Error) -> String {
    if let Some(failure) = error.failure() {
        return format!("{} ({})", name(error), facts(failure));
    }
    match error {
        Error::JobPanicked { at, .. } => format!("the job submitted at {at} panicked"),
        Error::Connect { url, .. } => format!("could not connect to {url}"),
        Error::PoolTimeout { waited, holders, .. } => {
            format!("no connection within {waited:?}; connections are held by:\n{holders}")
        }
        Error::Bulk { row, source } => format!("row {row} of the input: {}", for_the_log(source)),
        Error::Migration(_) | Error::RowGone { .. } | Error::StaleData { .. } => name(error),
        _ => match error.cause().map(super::Cause::reason) {
            Some(Reason::Refused(inner)) => format!("{}: {}", name(error), for_the_log(inner)),
            _ => error.to_string(),
        },
    }
}

/// The name of the error's variant.
fn name(error: &Error) -> String {
    let mut name = format!("{error:?}");
    name.truncate(name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len()));
    name
}

fn facts(failure: &Failure) -> String {
    let mut facts = format!("class {:?}, statement at {}", failure.class(), failure.place());
    if let diesel::result::Error::DatabaseError(kind, info) = failure.error() {
        facts.push_str(&format!(", {kind:?}"));
        for (what, known) in [("constraint", info.constraint_name()), ("table", info.table_name())] {
            if let Some(known) = known {
                facts.push_str(&format!(", {what} {known}"));
            }
        }
    }
    facts
}
