//! Instrumentation that panics while it is being found out what became of a commit.

use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_session::Error;
use diesel_session::testing::{Call, Fault};

use super::db::insert;
use super::run::Stage;

/// Whether connections that are opened from now on panic at the question.
static PANICS: AtomicBool = AtomicBool::new(false);

struct Watch {
    panics: bool,
}

impl Instrumentation for Watch {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let InstrumentationEvent::StartQuery { query, .. } = event else { return };
        let text = query.to_string();
        let is_the_question = text.contains("pg_xact_status") || text.contains("INSERT INTO");
        if self.panics && is_the_question {
            std::panic::resume_unwind(Box::new("instrumentation"));
        }
    }
}

fn watch() -> Box<dyn Instrumentation> {
    Box::new(Watch { panics: PANICS.load(Ordering::SeqCst) })
}

#[test]
fn instrumentation_that_panics_at_the_question_leaves_the_commit_unknown() {
    let stage = Stage::new(|builder| builder.verify_commits(true).instrumentation(watch));
    stage.registry.transaction(|session| insert(session, "row")).unwrap();
    PANICS.store(true, Ordering::SeqCst);
    stage.faults.on(Call::Commit, Fault::CloseAfter);
    let answer = stage.registry.transaction(|session| insert(session, "another"));
    assert!(matches!(answer, Err(Error::CommitUnknown { .. })), "{answer:?}");
    PANICS.store(false, Ordering::SeqCst);
    stage.registry.transaction(|session| insert(session, "a third")).unwrap();
    assert_eq!(stage.stored(), ["a third", "another", "row"]);
}
