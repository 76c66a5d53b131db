//! The example `users_service` as its users run it: a process, HTTP, signals.
//!
//! The example talks to the first of SQLite, PostgreSQL and MySQL that is switched on. SQLite needs nothing; the others
//! need the server that `tests/suite` needs.
#![cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "users_service/load.rs"]
mod load;

#[cfg(unix)]
use std::io::Write;
use std::io::{BufRead, BufReader, Read};
#[cfg(unix)]
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use ureq::http::Request;

#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
use support::mysql::Database;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
use support::postgres::Database;
#[cfg(feature = "sqlite")]
use support::sqlite_file::Database;

/// The example, built with this test's features; a test that is run alone (`--test`) would not find a fresh one otherwise.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let features = [
            cfg!(feature = "sqlite").then_some("sqlite"),
            cfg!(feature = "postgres").then_some("postgres"),
            cfg!(feature = "mysql").then_some("mysql"),
            cfg!(feature = "serde").then_some("serde"),
        ];
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.args(["build", "--quiet", "--message-format", "json", "--example", "users_service"]);
        build.args([
            "--no-default-features",
            "--features",
            &features.into_iter().flatten().collect::<Vec<_>>().join(","),
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the example does not build");
        let messages = String::from_utf8(output.stdout).unwrap();
        let mut paths = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["executable"].as_str().map(PathBuf::from));
        paths.next_back().expect("cargo names the executable")
    })
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).output().unwrap()
}

/// A service on a free port with a database of its own. Killed at the end if it is still there.
struct Service {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
    base: String,
    agent: ureq::Agent,
    _database: Database,
}

impl Service {
    fn start() -> Self {
        let database = Database::new();
        let mut child = Command::new(example())
            .args(["--address", "127.0.0.1:0", "--pool-size", "3", "--database", &database.url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let base = line.trim().strip_prefix("listening on ").expect("the first line names the address").to_owned();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { child, stdout, stderr, base, agent, _database: database }
    }

    /// The status and the JSON of an answer.
    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json").body(body.to_owned());
                self.agent.run(request.unwrap())
            }
            None => self.agent.run(request.body(()).unwrap()),
        };
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let json = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("answers are JSON") };
        (answer.status().as_u16(), json)
    }

    fn ask_with(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask(method, path, Some(&body.to_string()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ann() -> Value {
    json!({ "nickname": "ann", "full_name": "Ann Example", "email": "ann@example.org" })
}

#[test]
fn the_demo_finds_everything_as_it_should_be() {
    let database = Database::new();
    let output = run(&["--demo", "--pool-size", "4", "--database", &database.url]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert_eq!(stdout.lines().last(), Some("demo: ok"));
}

#[test]
fn a_user_is_created_read_listed_changed_and_deleted() {
    let service = Service::start();
    let (status, created) = service.ask_with("POST", "/users", &ann());
    assert_eq!((status, &created["nickname"], &created["version"]), (201, &json!("ann"), &json!(1)));
    assert_eq!(service.ask("GET", "/users/ann", None), (200, created.clone()));
    let list = json!({ "users": [created], "page": 1, "per_page": 20, "total": 1 });
    assert_eq!(service.ask("GET", "/users", None), (200, list));

    let (status, changed) = service.ask_with("PATCH", "/users/ann", &json!({ "email": "a@b", "version": 1 }));
    assert_eq!((status, &changed["email"], &changed["version"]), (200, &json!("a@b"), &json!(2)));
    assert_eq!(changed["full_name"], "Ann Example", "what a PATCH does not name stays");
    let replacement = json!({ "full_name": "Ann", "email": "c@d", "version": 2 });
    let (status, replaced) = service.ask_with("PUT", "/users/ann", &replacement);
    assert_eq!((status, &replaced["full_name"], &replaced["version"]), (200, &json!("Ann"), &json!(3)));

    assert_eq!(service.ask("DELETE", "/users/ann", None), (204, Value::Null));
    assert_eq!(service.ask("GET", "/users/ann", None), (404, json!({ "error": "User ann doesn't exist" })));
    assert_eq!(service.ask("DELETE", "/users/ann", None).0, 404);
}

#[test]
fn a_post_is_written_read_changed_and_deleted_under_its_user() {
    let service = Service::start();
    assert_eq!(service.ask_with("POST", "/users", &ann()).0, 201);
    let bob = json!({ "nickname": "bob", "full_name": "Bob", "email": "b@b" });
    assert_eq!(service.ask_with("POST", "/users", &bob).0, 201);

    assert_eq!(service.ask("GET", "/users/ann/posts", None), (200, json!({ "posts": [] })));
    let post = |title: &str| json!({ "title": title, "body": "Some words.\nMore." });
    let (status, first) = service.ask_with("POST", "/users/ann/posts", &post("First"));
    assert_eq!((status, &first["title"], &first["body"]), (201, &json!("First"), &json!("Some words.\nMore.")));
    let (status, second) = service.ask_with("POST", "/users/ann/posts", &post("Second"));
    assert_eq!(status, 201);
    assert_eq!(service.ask("GET", "/users/ann/posts", None), (200, json!({ "posts": [first, second] })));
    assert_eq!(service.ask("GET", "/users/bob/posts", None), (200, json!({ "posts": [] })));

    let path = format!("/users/ann/posts/{}", first["id"]);
    let (status, changed) = service.ask_with("PATCH", &path, &json!({ "title": "1st" }));
    assert_eq!((status, &changed["title"], &changed["body"]), (200, &json!("1st"), &first["body"]));
    assert_eq!(service.ask("GET", &path, None), (200, changed));
    let elsewhere = path.replace("ann", "bob");
    for method in ["GET", "DELETE"] {
        assert_eq!(service.ask(method, &elsewhere, None).0, 404, "another's post");
    }
    assert_eq!(service.ask("DELETE", &path, None), (204, Value::Null));
    assert_eq!(service.ask("DELETE", &path, None).0, 404);
    assert_eq!(service.ask("GET", "/users/ann/posts", None), (200, json!({ "posts": [second] })));
}

#[test]
fn a_user_is_deleted_with_the_posts_and_nobody_elses() {
    let service = Service::start();
    let bob = json!({ "nickname": "bob", "full_name": "Bob", "email": "b@b" });
    for user in [&ann(), &bob] {
        assert_eq!(service.ask_with("POST", "/users", user).0, 201);
    }
    let post = json!({ "title": "A title", "body": "" });
    for path in ["/users/ann/posts", "/users/ann/posts", "/users/bob/posts"] {
        assert_eq!(service.ask_with("POST", path, &post).0, 201);
    }
    assert_eq!(service.ask("DELETE", "/users/ann", None), (204, Value::Null));
    assert_eq!(service.ask("GET", "/users/ann/posts", None).0, 404);
    let (_, posts) = service.ask("GET", "/users/bob/posts", None);
    assert_eq!(posts["posts"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_conflict_names_what_it_is_and_changes_nothing() {
    let service = Service::start();
    let (_, created) = service.ask_with("POST", "/users", &ann());
    let (status, json) = service.ask_with("POST", "/users", &ann());
    assert_eq!((status, json), (409, json!({ "error": "the nickname ann is taken" })));
    let (status, json) = service.ask_with("PATCH", "/users/ann", &json!({ "email": "a@b", "version": 3 }));
    let text = "User ann was changed by somebody else: you sent version 3, stored is 1; read it again";
    assert_eq!((status, json), (409, json!({ "error": text })));
    assert_eq!(service.ask("GET", "/users/ann", None), (200, created));
}

#[test]
fn each_kind_of_wrong_request_has_its_status_and_says_why_in_json() {
    let service = Service::start();
    assert_eq!(service.ask_with("POST", "/users", &ann()).0, 201);
    let large = json!({ "nickname": "x", "full_name": "x".repeat(70_000), "email": "a@b" }).to_string();
    let new_with_id = r#"{"id": 1, "nickname": "bob", "full_name": "Bob", "email": "a@b"}"#;
    let cases = [
        (400, "POST", "/users", Some(r#"{"nickname": "#)),
        (400, "GET", "/users?page=0", None),
        (400, "GET", "/users?per_page=101", None),
        (400, "GET", "/users?page=two", None),
        (400, "GET", "/users?side=2", None),
        (400, "GET", "/users/%ff", None),
        (404, "GET", "/users/bob", None),
        (404, "GET", "/users/%00", None),
        (404, "PATCH", "/users/bob", Some(r#"{"email": "a@b", "version": 1}"#)),
        (404, "GET", "/users/bob/posts", None),
        (404, "POST", "/users/bob/posts", Some(r#"{"title": "x", "body": "x"}"#)),
        (404, "GET", "/users/ann/posts/1", None),
        (404, "PATCH", "/users/ann/posts/1", Some(r#"{"title": "x"}"#)),
        (400, "GET", "/users/ann/posts/one", None),
        (422, "POST", "/users/ann/posts", Some(r#"{"title": " ", "body": "x"}"#)),
        (422, "POST", "/users/ann/posts", Some(r#"{"title": "x", "body": "x", "user_id": 2}"#)),
        (422, "PATCH", "/users/ann/posts/1", Some("{}")),
        (404, "GET", "/nowhere", None),
        (405, "DELETE", "/users", None),
        (409, "POST", "/users", Some(r#"{"nickname": "ann", "full_name": "Ann", "email": "a@b"}"#)),
        (409, "PATCH", "/users/ann", Some(r#"{"email": "a@b", "version": 7}"#)),
        (413, "POST", "/users", Some(large.as_str())),
        (422, "POST", "/users", Some(r#"{"nickname": "a b", "full_name": "", "email": "a"}"#)),
        (422, "POST", "/users", Some(r#"{"nickname": "bob", "full_name": "B\u0000b", "email": "a@b"}"#)),
        (422, "POST", "/users", Some(new_with_id)),
        (422, "PUT", "/users/ann", Some(r#"{"email": "a@b", "version": 1}"#)),
        (422, "PATCH", "/users/ann", Some(r#"{"version": 1}"#)),
        (422, "PATCH", "/users/ann", Some(r#"{"email": "a@b"}"#)),
    ];
    for (status, method, path, body) in cases {
        let (is, json) = service.ask(method, path, body);
        assert_eq!(is, status, "{method} {path}: {json}");
        assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}: {json}");
    }
    let (_, list) = service.ask("GET", "/users", None);
    assert_eq!((&list["total"], &list["users"][0]["version"]), (&json!(1), &json!(1)), "none of them changed anything");
}

#[cfg(unix)]
impl Service {
    fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    fn assert_clean_end(&mut self) {
        let (mut said, mut complained) = (String::new(), String::new());
        self.stdout.read_to_string(&mut said).unwrap();
        self.stderr.read_to_string(&mut complained).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{said}\n{complained}");
        assert!(said.contains("every transaction has ended"), "{said}");
        assert_eq!(complained, "");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_sigterm_end_it_cleanly() {
    for signal in ["-INT", "-TERM"] {
        let mut service = Service::start();
        assert_eq!(service.ask_with("POST", "/users", &ann()).0, 201);
        assert_eq!(service.ask("GET", "/users/ann", None).0, 200);
        service.signal(signal);
        service.assert_clean_end();
    }
}

#[cfg(unix)]
#[test]
fn a_request_under_way_at_ctrl_c_is_answered_first() {
    let mut service = Service::start();
    let body = ann().to_string();
    let mut stream = TcpStream::connect(service.base.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "POST /users HTTP/1.1\r\nhost: users\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    )
    .unwrap();
    // The server asks for the body: the request is under way.
    let mut answer = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");

    service.interrupt();
    line.clear();
    service.stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with("stopping"), "{line}");
    stream.write_all(body.as_bytes()).unwrap();
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 201 Created"), "{rest}");
    service.assert_clean_end();
}

#[test]
fn options_that_make_no_sense_are_named_and_end_with_2() {
    for (arguments, named) in [
        (["--address", "nowhere"], "--address"),
        (["--pool-size", "0"], "--pool-size"),
        (["--colour", "red"], "--colour"),
    ] {
        let output = run(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn help_names_every_option() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    for option in ["--address", "--database", "--pool-size", "--demo", "--help"] {
        assert!(help.contains(option), "{option}");
    }
}
