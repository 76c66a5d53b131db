//! Many clients at once. 2 s; 30 s with `DIESEL_SESSION_LONG=1`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Service;

const CONNECTIONS: usize = 64;

/// One connection for all requests of a client: that the server closes it is an error.
struct Wire {
    stream: BufReader<TcpStream>,
    requests: u64,
}

impl Wire {
    fn new(service: &Service) -> Self {
        let stream = TcpStream::connect(service.base.trim_start_matches("http://")).unwrap();
        // Longer than any answer takes.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream: BufReader::new(stream), requests: 0 }
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line().split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut length = 0;
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some((name, value)) => assert!(name != "connection" || value != "close", "the server hangs up"),
            }
        }
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).unwrap();
        self.requests += 1;
        (status, if text.is_empty() { Value::Null } else { serde_json::from_slice(&text).unwrap() })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "the server closed the connection");
        line.trim_end().to_owned()
    }

    /// The whole life of a user.
    fn live(&mut self, nickname: &str) {
        let mut expect = |status, method: &str, path: &str, body: Option<Value>| {
            let (is, answer) = self.ask(method, path, body.as_ref());
            assert_eq!(is, status, "{method} {path}: {answer}");
            answer
        };
        let user = format!("/users/{nickname}");
        let new = json!({ "nickname": nickname, "full_name": "Ann Example", "email": "ann@example.org" });
        let created = expect(201, "POST", "/users", Some(new));
        assert_eq!(expect(200, "GET", &user, None), created, "what was answered is stored");
        let changed = expect(200, "PATCH", &user, Some(json!({ "full_name": "Anna", "version": created["version"] })));
        let post = expect(201, "POST", &format!("{user}/posts"), Some(json!({ "title": "A title", "body": "Words." })));
        assert_eq!(expect(200, "GET", &format!("{user}/posts"), None), json!({ "posts": [post] }));
        assert_eq!(expect(200, "GET", &user, None), changed);
        assert!(expect(200, "GET", "/users?per_page=5", None)["total"].as_i64() > Some(0));
        expect(204, "DELETE", &user, None);
    }
}

#[test]
fn many_clients_lose_no_request_and_leave_nothing_open() {
    let long = std::env::var_os("DIESEL_SESSION_LONG").is_some_and(|value| value == "1");
    let time = Duration::from_secs(if long { 30 } else { 2 });
    let mut service = Service::start();
    let start = Barrier::new(CONNECTIONS);
    let answered: u64 = std::thread::scope(|threads| {
        let (service, start) = (&service, &start);
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|client| {
                threads.spawn(move || {
                    let mut wire = Wire::new(service);
                    start.wait();
                    let end = Instant::now() + time;
                    for life in 0.. {
                        wire.live(&format!("client-{client}-{life}"));
                        if Instant::now() >= end {
                            break;
                        }
                    }
                    wire.requests
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    #[allow(clippy::print_stdout, reason = "`--nocapture` shows it")]
    {
        println!("{answered} requests answered in {time:?}");
    }

    let (status, health) = service.ask("GET", "/health", None);
    assert_eq!(status, 200);
    for nothing in ["open_transactions", "connections_in_use", "waiting", "leaked_sessions"] {
        assert_eq!(health[nothing], 0, "{nothing}: {health}");
    }
    let mut succeeded = 0;
    for threads in health["threads"].as_array().unwrap() {
        for nothing in ["queued", "running", "failed", "cancelled", "refused"] {
            assert_eq!(threads[nothing], 0, "{nothing}: {health}");
        }
        succeeded += threads["succeeded"].as_u64().unwrap();
    }
    assert_eq!(succeeded, answered, "each request was one job: {health}");
    assert_eq!(service.ask("GET", "/users", None).1["total"], 0, "all of them were deleted");
    #[cfg(unix)]
    {
        service.interrupt();
        service.assert_clean_end();
    }
}
