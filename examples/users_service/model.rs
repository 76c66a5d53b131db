//! Users: as they are stored, as clients send them, and what makes them valid.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Problem, Result, ServiceError};
use crate::schema::users;

/// A user as it is stored, and as clients get it.
#[derive(Debug, Queryable, Selectable, Serialize)]
#[diesel(table_name = users)]
pub(crate) struct User {
    pub(crate) id: i32,
    pub(crate) nickname: String,
    pub(crate) full_name: String,
    pub(crate) email: String,
    /// Grows by one with each update; an update says which version it is based on.
    pub(crate) version: i32,
    #[serde(serialize_with = "in_utc")]
    pub(crate) created_at: NaiveDateTime,
}

/// A user to be created; the database gives the rest.
#[derive(Debug, Deserialize, Insertable)]
#[serde(deny_unknown_fields)]
#[diesel(table_name = users)]
pub(crate) struct NewUser {
    pub(crate) nickname: String,
    pub(crate) full_name: String,
    pub(crate) email: String,
}

/// What an update changes. Columns that are `None` stay as they are.
#[derive(Debug, Deserialize, AsChangeset)]
#[serde(deny_unknown_fields)]
#[diesel(table_name = users)]
pub(crate) struct Changes {
    pub(crate) nickname: Option<String>,
    pub(crate) full_name: Option<String>,
    pub(crate) email: Option<String>,
    /// The version that the client read: the update happens only if it still is the stored one.
    #[diesel(skip_update)]
    pub(crate) version: i32,
}

impl NewUser {
    pub(crate) fn validate(&self) -> Result<()> {
        let checks = [check_nickname(&self.nickname), check_full_name(&self.full_name), check_email(&self.email)];
        all_well(checks.into_iter().flatten().collect())
    }
}

impl Changes {
    /// What is there has to be valid.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems: Vec<Problem> = [
            self.nickname.as_deref().and_then(check_nickname),
            self.full_name.as_deref().and_then(check_full_name),
            self.email.as_deref().and_then(check_email),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.nickname.is_none() && self.full_name.is_none() && self.email.is_none() {
            problems.push(Problem { field: "body", problem: "has to change nickname, full_name or email" });
        }
        all_well(problems)
    }

    /// A PUT replaces all that a client may set. The nickname is in the path and needs no repeating.
    pub(crate) fn validate_as_replacement(&self) -> Result<()> {
        let missing = [("full_name", self.full_name.is_none()), ("email", self.email.is_none())];
        let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing);
        all_well(missing.map(|(field, _)| Problem { field, problem: "is missing: PUT replaces the user" }).collect())?;
        self.validate()
    }
}

/// Whether this can be anybody's nickname. It is part of the path, so it needs no escaping there.
pub(crate) fn is_nickname(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

fn check_nickname(text: &str) -> Option<Problem> {
    let problem = "has 1 to 64 letters (a-z, A-Z), digits, dots, hyphens and underscores; a letter or digit first";
    (!is_nickname(text)).then_some(Problem { field: "nickname", problem })
}

fn check_full_name(text: &str) -> Option<Problem> {
    let is_good = !text.trim().is_empty() && text.chars().count() <= 200 && !text.contains(char::is_control);
    (!is_good).then_some(Problem { field: "full_name", problem: "has 1 to 200 characters, not only spaces" })
}

fn check_email(text: &str) -> Option<Problem> {
    let is_good = text.len() <= 254
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    (!is_good).then_some(Problem { field: "email", problem: "looks like name@example.org" })
}

fn all_well(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

/// The database keeps UTC without saying so; clients are told.
fn in_utc<S: Serializer>(time: &NaiveDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    time.and_utc().serialize(serializer)
}
