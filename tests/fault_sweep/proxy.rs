//! A proxy between an engine and its server that cuts a connection around a COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::door::Door;

/// What happens to the next COMMIT, and to the connection that it comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it.
    Before,
    /// The server gets it; the client never gets the answer.
    After,
    /// The client is cut at once; the server gets it so much later.
    Late(Duration),
}

#[derive(Default)]
struct Shared {
    next: Mutex<Option<Cut>>,
    /// In what the server says, the first is replaced by the second, which is as long.
    forged: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    done: Mutex<usize>,
}

/// Stands in front of a server as long as it lives.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    door: Door,
}

impl Proxy {
    /// In front of the server that the URL names.
    pub(crate) fn new(url: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let door = Door::before(url, move |client, server| relay(&state, client, server));
        Self { shared, door }
    }

    pub(crate) fn url(&self, url: &str) -> String {
        self.door.url(url)
    }

    pub(crate) fn cut(&self, cut: Cut) {
        *self.shared.next.lock().unwrap() = Some(cut);
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        *self.shared.done.lock().unwrap()
    }

    /// From now on the server says `lie` wherever it says `truth`.
    pub(crate) fn forge(&self, truth: &str, lie: &str) {
        assert_eq!(truth.len(), lie.len());
        *self.shared.forged.lock().unwrap() = Some((truth.into(), lie.into()));
    }
}

fn relay(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let is_cut = Arc::new(AtomicBool::new(false));
    let (down_state, down_cut) = (Arc::clone(shared), Arc::clone(&is_cut));
    let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || downstream(&down_state, &down_cut, from, to));
    let state = Arc::clone(shared);
    std::thread::spawn(move || upstream(&state, &is_cut, client, server));
}

fn upstream(shared: &Shared, is_cut: &AtomicBool, mut client: TcpStream, mut server: TcpStream) {
    let mut commits = Commits::default();
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let sent = &buffer[..n];
        let cut = if commits.is_commit(sent) { shared.next.lock().unwrap().take() } else { None };
        let Some(cut) = cut else {
            if server.write_all(sent).is_err() {
                break;
            }
            continue;
        };
        is_cut.store(true, Ordering::SeqCst);
        match cut {
            Cut::Before => {}
            Cut::After => {
                server.write_all(sent).unwrap();
                // The other direction ends when the answer is there.
                let _ = client.read(&mut buffer);
            }
            Cut::Late(late) => {
                let _ = client.shutdown(Shutdown::Both);
                *shared.done.lock().unwrap() += 1;
                // The way to the server is so long.
                std::thread::sleep(late);
                let _ = server.write_all(sent);
                let _ = server.read(&mut buffer);
            }
        }
        if !matches!(cut, Cut::Late(_)) {
            *shared.done.lock().unwrap() += 1;
        }
        break;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn downstream(shared: &Shared, is_cut: &AtomicBool, mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if is_cut.load(Ordering::SeqCst) {
            break;
        }
        if let Some((truth, lie)) = &*shared.forged.lock().unwrap() {
            for at in 0..n.saturating_sub(truth.len()) + 1 {
                if buffer[at..n].starts_with(truth) {
                    buffer[at..at + lie.len()].copy_from_slice(lie);
                }
            }
        }
        if client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Knows a COMMIT when it comes by: as a query of both protocols, or as MySQL's prepared statement.
#[derive(Default)]
struct Commits {
    /// MySQL: COMMIT was prepared, and is executed next.
    is_prepared: bool,
    /// MySQL: its number.
    number: Option<[u8; 4]>,
}

impl Commits {
    fn is_commit(&mut self, sent: &[u8]) -> bool {
        let says_commit = sent.windows(6).any(|word| word == b"COMMIT");
        if sent.first() == Some(&b'Q') && says_commit {
            return true;
        }
        // Three bytes of length, the packet's number, which begins with 0, and the command.
        let [_, _, _, 0, command, rest @ ..] = sent else { return false };
        match command {
            0x03 => says_commit,
            0x16 => {
                self.is_prepared |= says_commit;
                false
            }
            0x17 => {
                let Some(number) = rest.first_chunk::<4>() else { return false };
                if std::mem::take(&mut self.is_prepared) {
                    self.number = Some(*number);
                }
                self.number == Some(*number)
            }
            _ => false,
        }
    }
}
