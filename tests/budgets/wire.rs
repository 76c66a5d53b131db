//! The wire to a server, on which turns are counted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::door::Door;

/// Stands in front of a server as long as it lives.
pub(crate) struct Wire {
    door: Door,
    turns: Arc<AtomicUsize>,
}

impl Wire {
    /// In front of the server that the URL names.
    pub(crate) fn new(url: &str) -> Self {
        let turns = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&turns);
        let door = Door::before(url, move |client, server| relay(&count, client, server));
        Self { door, turns }
    }

    pub(crate) fn url(&self, url: &str) -> String {
        self.door.url(url)
    }

    /// How often the server has answered so far. An answer is counted before the client gets it, and what is sent without
    /// one, as MySQL's COM_STMT_CLOSE, belongs to the turn that comes next.
    pub(crate) fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }
}

fn relay(turns: &Arc<AtomicUsize>, client: TcpStream, server: TcpStream) {
    let is_asked = Arc::new(AtomicBool::new(false));
    let (asked, answered, turns) = (Arc::clone(&is_asked), is_asked, Arc::clone(turns));
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || pass(from, to, || asked.store(true, Ordering::SeqCst)));
    std::thread::spawn(move || {
        pass(server, client, || {
            if answered.swap(false, Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
            }
        });
    });
}

/// Hands on what comes, after it was noted.
fn pass(mut from: TcpStream, mut to: TcpStream, note: impl Fn()) {
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        note();
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
