//! A door in front of a server: whoever connects to it is handed to the test, with a connection to the server.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Open as long as it lives.
pub struct Door {
    address: String,
    is_closed: Arc<AtomicBool>,
}

impl Door {
    /// Before the server that the URL names. `relay` gets the client and the server of each connection, and must not wait.
    pub fn before(url: &str, relay: impl Fn(TcpStream, TcpStream) + Send + 'static) -> Self {
        let (_, rest) = url.split_once('@').unwrap();
        let server = rest.split_once('/').unwrap().0.to_owned();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap().to_string();
        let is_closed = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_closed);
        std::thread::spawn(move || {
            for client in door.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                relay(client, server);
            }
        });
        Self { address, is_closed }
    }

    /// The URL through the door, behind which nobody can look into TLS.
    pub fn url(&self, url: &str) -> String {
        let (before, rest) = url.split_once('@').unwrap();
        let (_, name) = rest.split_once('/').unwrap();
        let plain = match (url.starts_with("postgres"), url.contains('?')) {
            (false, _) => "",
            (true, false) => "?sslmode=disable",
            (true, true) => "&sslmode=disable",
        };
        format!("{before}@{}/{name}{plain}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // So that the door's thread looks.
        let _ = TcpStream::connect(&self.address);
    }
}
