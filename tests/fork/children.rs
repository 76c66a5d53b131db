//! Forking, and waiting for a child no longer than a moment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use fork::{Fork, WEXITSTATUS, WIFEXITED, fork, waitpid_nohang};

/// Gives the status to leave with in a child, nothing in the parent.
pub(crate) type Promise = fn() -> Option<ExitCode>;

/// How a child ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Leave {
    /// By returning from `main`, so that everything on the stack is dropped.
    Return,
    /// By `std::process::exit`, which drops only what belongs to the thread.
    Exit,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Forks; the child runs `child` and leaves, the parent waits until it has left well. `Some` in a child that returns.
pub(crate) fn in_a_child(leave: Leave, child: impl FnOnce()) -> Option<ExitCode> {
    match fork().unwrap() {
        Fork::Child => {
            let status = u8::from(catch_unwind(AssertUnwindSafe(child)).is_err());
            if leave == Leave::Exit {
                std::process::exit(i32::from(status));
            }
            Some(ExitCode::from(status))
        }
        Fork::Parent(pid) => {
            wait_for(pid);
            None
        }
    }
}

pub(crate) fn wait_for(pid: i32) {
    let started = Instant::now();
    let status = loop {
        if let Some(status) = waitpid_nohang(pid).unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            panic!("the child hung");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with {status}");
}

/// Something that a child leaves to its parent when it drops everything.
pub(crate) struct Mine<T> {
    process: u32,
    value: Option<T>,
}

impl<T> Mine<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { process: std::process::id(), value: Some(value) }
    }
}

impl<T> std::ops::Deref for Mine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().unwrap()
    }
}

impl<T> Drop for Mine<T> {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            std::mem::forget(self.value.take());
        }
    }
}
