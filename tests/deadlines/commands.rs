//! What is sent, as Diesel's instrumentation sees it.

use std::cell::RefCell;

use diesel::connection::{Instrumentation, InstrumentationEvent};

thread_local! {
    static SENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes each query that this thread sends.
struct Recorder;

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            SENT.with_borrow_mut(|sent| sent.push(query.to_string()));
        }
    }
}

pub(crate) fn recorder() -> Box<dyn Instrumentation> {
    Box::new(Recorder)
}

/// What this thread sent since it was last asked.
pub(crate) fn sent() -> Vec<String> {
    SENT.take()
}
