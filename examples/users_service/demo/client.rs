//! Real HTTP clients, each on a thread of its own.

use std::sync::Barrier;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Request;

/// Longer than any answer takes, so that a hanging server fails the demo instead of hanging it too.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) json: Value,
    pub(super) retry_after: bool,
}

impl Answer {
    /// The text of an error; empty if the answer has none.
    pub(super) fn error(&self) -> &str {
        self.json["error"].as_str().unwrap_or_default()
    }
}

#[derive(Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    pub(super) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LONGEST_ANSWER));
        Self { agent: config.build().into(), base: base.to_owned() }
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask("GET", path, None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.ask("POST", path, Some(&body.to_string()))
    }

    /// Sends a request and reads the whole answer. Whatever has content has to be JSON, and every error says what is wrong.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer, String> {
        let explain = |error: &dyn std::fmt::Display| format!("{method} {path}: {error}");
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let answer = match body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(body)
                .map_err(|error| explain(&error))
                .and_then(|request| self.agent.run(request).map_err(|error| explain(&error))),
            None => request
                .body(())
                .map_err(|error| explain(&error))
                .and_then(|request| self.agent.run(request).map_err(|error| explain(&error))),
        };
        let mut answer = answer?;
        let text = answer.body_mut().read_to_string().map_err(|error| explain(&error))?;
        let json = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).map_err(|_| explain(&format!("not JSON: {text}")))?,
        };
        let answer = Answer {
            status: answer.status().as_u16(),
            json,
            retry_after: answer.headers().contains_key("retry-after"),
        };
        if answer.status >= 400 && answer.error().is_empty() {
            return Err(explain(&format!("{} without an error text: {}", answer.status, answer.json)));
        }
        Ok(answer)
    }
}

/// `n` clients, each with connections and a thread of its own, start at the same moment. Gives all their answers.
pub(super) fn crowd(
    base: &str,
    n: usize,
    work: impl Fn(usize, &Client) -> Result<Vec<Answer>, String> + Sync,
) -> Result<Vec<Answer>, String> {
    let start = Barrier::new(n);
    let (work, start) = (&work, &start);
    std::thread::scope(|threads| {
        let clients: Vec<_> = (0..n)
            .map(|i| {
                threads.spawn(move || {
                    let client = Client::new(base);
                    start.wait();
                    work(i, &client)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for client in clients {
            answers.extend(client.join().map_err(|_| "a client panicked")??);
        }
        Ok(answers)
    })
}
