//! What the log says of queries that were not written.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::models::*;
use super::tools::Fixture;

/// Keeps the warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_line_that_reads_row_after_row_is_named_once_in_debug_builds() {
    let names: Vec<String> = (0..60).map(|n| format!("user {n}")).collect();
    let fixture = Fixture::new().with_users(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let session = fixture.session();
    let warnings = Warnings::default();
    let line = tracing::subscriber::with_default(warnings.clone(), || {
        let line = line!() + 2;
        for id in &ids {
            session.get_one::<User>(*id).unwrap();
        }
        session.commit().unwrap();
        // In one query nothing is wrong with them.
        session.get_many::<User, _>(ids.clone()).unwrap();
        line
    });
    let warnings = warnings.0.lock().unwrap().clone();
    if cfg!(debug_assertions) {
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(&format!("notices.rs:{line}")), "{warnings:?}");
    } else {
        assert!(warnings.is_empty());
    }
}
