//! What a panic said.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The text of a panic, where it has one.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

/// Does what may run destructors of the user's, which may panic.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        tracing::error!(panic = text_of(panic), "something that a job left behind panicked when it was dropped");
    }
}

/// The text of a panic that is over. What it carried is dropped, and may panic once more.
pub(crate) fn text_of(payload: Box<dyn Any + Send>) -> String {
    let text = panic_text(&*payload).to_owned();
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        // It could go on like this.
        std::mem::forget(again);
    }
    text
}
