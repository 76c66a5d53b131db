//! `#[transactional]` gets along with what stands around it: strict lints, names that user code takes, `macro_rules!`.
#![cfg(feature = "sqlite")]
#![deny(warnings, missing_docs, unused_qualifications, clippy::pedantic)]

use std::time::Duration;

use diesel::sqlite::SqliteConnection;
// What the attribute names with its whole path.
use diesel_session::{Error, Propagation, RetryPolicy, TransactionOptions, transactional};

/// Names that the prelude has, too.
#[expect(dead_code, reason = "only in the way")]
mod shadows {
    pub(crate) struct Ok;
    pub(crate) struct Result;
    pub(crate) struct Option;
    pub(crate) struct Clone;
    pub(crate) struct From;
}
#[expect(unused_imports, reason = "only in the way")]
use shadows::{Clone, From, Ok, Option, Result};

type Session = diesel_session::Session<SqliteConnection>;
type Answer<T> = diesel_session::Result<T>;

/// Changes its arguments and returns early.
///
/// # Errors
/// What the session answers.
#[transactional(SqliteConnection, retry = 2, timeout = Duration::from_secs(count), propagation = RequiresNew)]
pub fn count_up(mut count: u64, mut texts: Vec<String>, _unused: &str, r#type: &str) -> Answer<u64> {
    if texts.is_empty() {
        return Answer::Ok(count);
    }
    count += 1;
    texts.push(r#type.to_owned());
    Session::current()?.batch_execute(&texts.join(";"))?;
    Answer::Ok(count)
}

/// Keeps what was put into it.
#[derive(Debug, Default)]
pub struct Kept(Vec<&'static str>);

impl Kept {
    /// Puts one more into it.
    ///
    /// # Errors
    /// What the session answers.
    #[transactional]
    pub fn put(&mut self, text: &'static str) -> Answer<&mut Self> {
        #![expect(unused_variables, reason = "an attribute inside the body")]
        let length = text.len();
        Session::current()?.batch_execute("SELECT 1")?;
        self.0.push(text);
        Answer::Ok(self)
    }
}

macro_rules! make {
    ($name:ident($argument:ident: $ty:ty) -> $answer:ty $body:block) => {
        #[transactional(retry = RetryPolicy::new(2))]
        fn $name($argument: $ty) -> $answer $body
    };
}

make!(made(text: String) -> Answer<String> {
    drop::<Answer<()>>(Session::current()?.batch_execute(&text));
    Answer::Ok(text)
});

#[test]
fn what_it_writes_needs_no_names_and_meets_strict_lints() {
    let registry = diesel_session::ScopedSession::<SqliteConnection>::new(
        diesel_session::Engine::new(":memory:").expect("SQLite in memory"),
    );
    let options = TransactionOptions::new().propagation(Propagation::Mandatory);
    let none = registry.transaction_with(options, |_| Answer::Ok(()));
    assert!(matches!(none, Answer::Err(Error::NoOpenTransaction)));
    registry.enter(|| {
        assert!(matches!(count_up(5, vec!["SELECT 1".to_owned()], "", "SELECT 2"), Answer::Ok(6)));
        assert!(matches!(count_up(5, Vec::new(), "", ""), Answer::Ok(5)));
        let mut kept = Kept::default();
        assert!(kept.put("a").and_then(|kept| kept.put("b")).is_ok());
        assert_eq!(kept.0, ["a", "b"]);
        assert!(matches!(made("SELECT 1".to_owned()), Answer::Ok(text) if text == "SELECT 1"));
    });
}
