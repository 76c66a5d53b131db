//! The steps of the demo, in the order of the table. Each asks, then looks into the database by itself.

mod posts;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::Kind;
use serde_json::{Value, json};

use super::client::{Answer, Client, crowd};
use super::routes::HOLD;
use super::table::Table;
use crate::database::{Database, Registry};
use crate::in_words;
use crate::schema::users;

const CLIENTS: usize = 8;
const USERS_EACH: usize = 5;
/// Everybody that the steps leave: those of the crowd, and the one that all clients wanted.
const ALL: usize = CLIENTS * USERS_EACH + 1;
/// How long a step waits for the requests of others before it counts as failed.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Steps<'a> {
    pub(super) base: &'a str,
    pub(super) database: &'a Database,
    pub(super) registry: &'a Registry,
    /// Begins every nickname of this run, so that the database may hold others.
    pub(super) prefix: &'a str,
    pub(super) table: &'a mut Table,
}

type Step = Result<(), String>;

impl Steps<'_> {
    pub(super) fn run(mut self) -> Step {
        self.creates()?;
        self.one_nickname()?;
        self.one_version()?;
        self.pages()?;
        self.posts()?;
        self.refused()?;
        self.panics()?;
        self.forgets()?;
        self.threads_exhausted()?;
        if self.registry.engine().kind() == Kind::Sqlite {
            self.writer_held()?;
        }
        self.deletes()
    }

    fn creates(&mut self) -> Step {
        let answers = crowd(self.base, CLIENTS, |i, client| {
            (0..USERS_EACH).map(|j| client.post("/users", &self.user(&format!("{i}-{j}")))).collect()
        })?;
        let asked = format!("{CLIENTS} clients create {USERS_EACH} users each");
        self.row(&asked, &answers, &[(201, CLIENTS * USERS_EACH)], CLIENTS * USERS_EACH)
    }

    fn one_nickname(&mut self) -> Step {
        let answers = crowd(self.base, CLIENTS, |_, client| Ok(vec![client.post("/users", &self.user("one"))?]))?;
        self.row("all of them create the same nickname", &answers, &[(201, 1), (409, CLIENTS - 1)], ALL)
    }

    fn one_version(&mut self) -> Step {
        let path = format!("/users/{}-one", self.prefix);
        let answers = crowd(self.base, CLIENTS, |i, client| {
            let changes = json!({ "full_name": format!("Name {i}"), "version": 1 });
            Ok(vec![client.ask("PATCH", &path, Some(&changes.to_string()))?])
        })?;
        // Exactly one was told 200, and what it was told is what is stored.
        let told = answers.iter().find(|answer| answer.status == 200);
        let told = told.map(|answer| (answer.json["full_name"].clone(), answer.json["version"].clone()));
        let stored = self
            .registry
            .read(|session| {
                let one = users::table.filter(users::nickname.eq(format!("{}-one", self.prefix)));
                session.first(one.select((users::full_name, users::version)))
            })
            .map(|(full_name, version): (String, i32)| (Value::from(full_name), Value::from(version)))
            .map_err(in_words)?;
        let version = stored.1.clone();
        let as_told = if told == Some(stored) { "as told" } else { "not as told" };
        let holds = (format!("version {version}, {as_told}"), "version 2, as told".to_owned());
        self.table.row("all of them update version 1 of it", &answers, &[(200, 1), (409, CLIENTS - 1)], holds);

        let taken = json!({ "nickname": format!("{}-0-0", self.prefix), "version": 2 });
        let answer = Client::new(self.base).ask("PATCH", &path, Some(&taken.to_string()))?;
        self.row("one is renamed to a nickname in use", &[answer], &[(409, 1)], ALL)
    }

    /// Reads all pages. Others may use the database too, so only this run's users are counted.
    fn pages(&mut self) -> Step {
        let client = Client::new(self.base);
        let (mut answers, mut seen, mut times) = (Vec::new(), BTreeSet::new(), 0);
        for page in 1.. {
            let answer = client.get(&format!("/users?page={page}&per_page=17"))?;
            let list = answer.json["users"].as_array().cloned().unwrap_or_default();
            let total = answer.json["total"].as_i64().unwrap_or_default();
            answers.push(answer);
            let nicknames = list.iter().filter_map(|user| user["nickname"].as_str());
            for nickname in nicknames.filter(|nickname| nickname.starts_with(self.prefix)) {
                seen.insert(nickname.to_owned());
                times += 1;
            }
            if i64::from(page) * 17 >= total || list.is_empty() {
                break;
            }
        }
        self.table.same(
            "users seen on the pages, how often",
            &format!("{}, {times}", seen.len()),
            &format!("{ALL}, {ALL}"),
        );
        let n = answers.len();
        self.row("read page by page, 17 a page", &answers, &[(200, n)], ALL)
    }

    fn refused(&mut self) -> Step {
        let client = Client::new(self.base);
        let bad = json!({ "nickname": format!("{}-bad", self.prefix), "full_name": " ", "email": "nowhere" });
        let answer = client.post("/users", &bad)?;
        let problems = answer.json["problems"].as_array().map_or(0, Vec::len);
        self.table.same("an invalid user: problems named", &problems.to_string(), "2");
        self.row("an invalid user", &[answer], &[(422, 1)], ALL)?;

        let answer = client.ask("POST", "/users", Some("{\"nickname\": \"cut o"))?;
        self.row("malformed JSON", &[answer], &[(400, 1)], ALL)?;

        let answer = client.get(&format!("/users/{}-nobody", self.prefix))?;
        let text = format!("User {}-nobody doesn't exist", self.prefix);
        self.table.same("a missing user: the answer", answer.error(), &text);
        self.row("a user that is not there", &[answer], &[(404, 1)], ALL)?;

        let answers = [client.get("/users?page=0")?, client.get("/nowhere")?, client.ask("DELETE", "/users", None)?];
        self.row("a bad page, an unknown route, a wrong method", &answers, &[(400, 1), (404, 1), (405, 1)], ALL)
    }

    fn panics(&mut self) -> Step {
        let answer = Client::new(self.base).post("/demo/panic", &self.user("panic"))?;
        self.row("a handler that inserts and panics", &[answer], &[(500, 1)], ALL)
    }

    /// The session that is left open belongs to a blocking thread. The first request that comes to this thread finds the
    /// session and rolls it back before it begins its own.
    fn forgets(&mut self) -> Step {
        let client = Client::new(self.base);
        let leaks = || self.registry.inspect().counters.leaks;
        let before = leaks();
        let answer = client.post("/demo/forget", &self.user("forgotten"))?;
        let holds = (self.holds_and_open()?, format!("{ALL} users, 1 transaction open"));

        let (mut reads, started) = (Vec::new(), Instant::now());
        while leaks() == before && started.elapsed() < LONGEST {
            reads.push(client.get("/demo/forget")?);
        }
        let n = reads.len();
        let found = format!("{}, {} found", self.holds_and_open()?, leaks() - before);
        self.table.row("a handler that inserts and forgets remove()", &[answer], &[(201, 1)], holds);
        let holds = (found, format!("{ALL} users, 0 transactions open, 1 found"));
        self.table.row("reads, until one comes to its thread", &reads, &[(200, n)], holds);
        Ok(())
    }

    fn threads_exhausted(&mut self) -> Step {
        let lanes = self.database.inspect().lanes;
        let methods: Vec<_> = lanes.iter().flat_map(|lane| vec![method_of(lane.duty); lane.threads]).collect();
        let n = methods.len();
        let (held, refused) = self.while_held(&methods, |_| {
            crowd(self.base, 2, |i, client| match i {
                0 => Ok(vec![client.get("/users?per_page=1")?]),
                _ => Ok(vec![client.post("/users", &self.user("late"))?]),
            })
        })?;
        let hints = refused.iter().filter(|answer| answer.retry_after).count();
        self.table.same("every database thread busy: answers that say when to try again", &hints.to_string(), "2");
        self.row("a read and a write, every database thread busy", &refused, &[(503, 2)], ALL)?;
        self.row(&format!("the {n} requests that had them"), &held, &[(204, n)], ALL)
    }

    fn writer_held(&mut self) -> Step {
        let (held, mut answers) = self.while_held(&["POST"], |client| {
            Ok(vec![client.post("/users", &self.user("late"))?, client.get("/users?per_page=1")?])
        })?;
        answers.extend(held);
        self.row("a write, a read, while another writes", &answers, &[(200, 1), (204, 1), (503, 1)], ALL)
    }

    fn deletes(&mut self) -> Step {
        let delete = |client: &Client, end: &str| client.ask("DELETE", &format!("/users/{}-{end}", self.prefix), None);
        let mut answers = crowd(self.base, CLIENTS, |i, client| {
            (0..USERS_EACH).map(|j| delete(client, &format!("{i}-{j}"))).collect()
        })?;
        let client = Client::new(self.base);
        answers.extend([delete(&client, "one")?, delete(&client, "one")?]);
        self.row("they delete them all, one of them twice", &answers, &[(204, ALL), (404, 1)], 0)?;
        self.posts_row("and their posts with them", &[], &[], 0)
    }

    fn user(&self, end: &str) -> Value {
        json!({ "nickname": format!("{}-{end}", self.prefix), "full_name": "Ann Example", "email": "ann@example.org" })
    }

    /// Sends requests that hold a database thread each, runs `f`, and lets them go. Gives the answers of both.
    fn while_held(
        &self,
        methods: &[&str],
        f: impl FnOnce(&Client) -> Result<Vec<Answer>, String>,
    ) -> Result<(Vec<Answer>, Vec<Answer>), String> {
        std::thread::scope(|threads| {
            let holders = threads.spawn(|| {
                crowd(self.base, methods.len(), |i, client| {
                    Ok(vec![client.ask(methods[i], "/demo/hold", hold_body(methods[i]))?])
                })
            });
            let answers = HOLD.while_inside(methods.len(), || f(&Client::new(self.base)));
            let held = holders.join().map_err(|_| "a client panicked")??;
            Ok((held, answers?))
        })
    }

    fn holds_and_open(&self) -> Result<String, String> {
        // First the snapshot: counting opens a transaction of its own.
        let open = self.registry.inspect().open_transactions().count();
        Ok(format!("{}, {open} transaction{} open", self.holds()?, if open == 1 { "" } else { "s" }))
    }

    fn holds(&self) -> Result<String, String> {
        let ours = users::table.filter(users::nickname.like(format!("{}%", self.prefix)));
        let n = self.registry.read(|session| session.get_result::<i64>(ours.count())).map_err(in_words)?;
        Ok(format!("{n} users"))
    }

    fn row(&mut self, asked: &str, answers: &[Answer], statuses: &[(u16, usize)], users: usize) -> Step {
        let holds = (self.holds()?, format!("{users} users"));
        self.table.row(asked, answers, statuses, holds);
        Ok(())
    }
}

/// The method of requests that come to the threads of this duty.
fn method_of(duty: &str) -> &'static str {
    if duty == "read" { "GET" } else { "POST" }
}

/// A POST has a body, if only an empty one.
fn hold_body(method: &str) -> Option<&'static str> {
    (method == "POST").then_some("")
}
