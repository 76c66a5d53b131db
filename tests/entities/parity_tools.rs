//! What the tests of parity share: the statements that this thread sent, and rows to begin with.

use diesel::prelude::*;
use diesel_session::Tracked;

use super::db::Session;
use super::models::*;
use super::schema::countries;
use super::tools::{Fixture, recorded};

/// A database whose connections write down what they send.
pub(crate) fn logged() -> Fixture {
    Fixture::watched()
}

const TABLES: [&str; 6] = ["users", "posts", "groups", "memberships", "countries", "rings"];

/// `SELECT users` for a statement about one of the tables; the crate's own and the driver's are of no interest.
fn in_short(text: &str) -> Option<String> {
    let text = text.trim_start_matches(['"', 'Q', 'u', 'e', 'r', 'y', ':', ' ']);
    let verb = text.split_whitespace().next()?;
    let names = TABLES.iter().filter_map(|table| {
        let quoted = ["\"", "`", "\\\""].iter().filter_map(|quote| text.find(&format!("{quote}{table}{quote}")));
        Some((quoted.min()?, table))
    });
    names.min().map(|(_, table)| format!("{verb} {table}"))
}

/// What this thread sent about the tables while `f` ran: its statements in full.
pub(crate) fn sql<R>(f: impl FnOnce() -> R) -> (R, Vec<String>) {
    let (result, sent) = recorded(f);
    let sent = sent.into_iter().filter(|text| in_short(text).is_some()).collect();
    (result, sent)
}

/// What this thread sent about the tables while `f` ran, each as `VERB table`.
pub(crate) fn sent<R>(f: impl FnOnce() -> R) -> (R, Vec<String>) {
    let (result, sent) = sql(f);
    (result, sent.iter().filter_map(|text| in_short(text)).collect())
}

/// Asserts that nothing was sent.
#[track_caller]
pub(crate) fn silent<R>(f: impl FnOnce() -> R) -> R {
    let (result, sent) = sent(f);
    assert!(sent.is_empty(), "{sent:?}");
    result
}

/// The entity of a user by nickname.
#[track_caller]
pub(crate) fn by_name(session: &Session, nickname: &str) -> Tracked<User> {
    use super::schema::users;
    let query = users::table.filter(users::nickname.eq(nickname)).select(User::as_select());
    session.load_tracked(query).unwrap().pop().unwrap()
}

/// The countries that are stored, by code.
pub(crate) fn countries(fixture: &Fixture) -> Vec<Country> {
    let query = countries::table.select(Country::as_select()).order(countries::code);
    fixture.registry.read(|session| session.load(query)).unwrap()
}

pub(crate) fn post(user_id: i32, title: &str) -> NewPost {
    NewPost { user_id, parent_id: None, title: title.into() }
}

/// The titles of a user's posts, as the session has them.
#[track_caller]
pub(crate) fn titles(session: &Session, user: &Tracked<User>) -> Vec<String> {
    let posts = session.related::<Post, _>(std::slice::from_ref(user)).unwrap();
    posts[0].iter().map(|post| post.read().unwrap().title.clone()).collect()
}

/// Changes a nickname past the session, in a transaction of its own.
pub(crate) fn rename_elsewhere(fixture: &Fixture, from: &str, to: &str) {
    fixture
        .registry
        .transaction(|session| {
            by_name(session, from).write()?.nickname = to.into();
            Ok::<(), diesel_session::Error>(())
        })
        .unwrap();
}
