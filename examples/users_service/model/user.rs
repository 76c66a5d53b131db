//! Users.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel_session::{Entity, Record};
use serde::{Deserialize, Serialize};

use super::{all_well, in_utc};
use crate::error::{Problem, Result};
use crate::schema::users;

/// A user as it is stored, and as clients get it: an entity, which a session tracks.
#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity, Serialize)]
#[diesel(table_name = users)]
pub(crate) struct User {
    pub(crate) id: i32,
    pub(crate) nickname: String,
    pub(crate) full_name: String,
    pub(crate) email: String,
    /// Grows by one with each update; an update says which version it is based on.
    #[entity(version)]
    pub(crate) version: i32,
    #[serde(serialize_with = "in_utc")]
    pub(crate) created_at: NaiveDateTime,
}

/// A user to be created; the database gives the rest.
#[derive(Debug, Deserialize, Insertable, Record)]
#[serde(deny_unknown_fields)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id, version, created_at))]
pub(crate) struct NewUser {
    pub(crate) nickname: String,
    pub(crate) full_name: String,
    pub(crate) email: String,
}

/// What an update changes. What is `None` stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    pub(crate) nickname: Option<String>,
    pub(crate) full_name: Option<String>,
    pub(crate) email: Option<String>,
    /// The version that the client read: the update happens only if it still is the stored one.
    pub(crate) version: i32,
}

impl NewUser {
    pub(crate) fn validate(&self) -> Result<()> {
        let checks = [check_nickname(&self.nickname), check_full_name(&self.full_name), check_email(&self.email)];
        all_well("user", checks.into_iter().flatten().collect())
    }
}

impl Changes {
    pub(crate) fn put_into(self, user: &mut User) {
        let Self { nickname, full_name, email, version: _ } = self;
        for (new, field) in [(nickname, &mut user.nickname), (full_name, &mut user.full_name), (email, &mut user.email)]
        {
            if let Some(new) = new {
                *field = new;
            }
        }
    }

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
        all_well("user", problems)
    }

    /// A PUT replaces all that a client may set. The nickname is in the path and needs no repeating.
    pub(crate) fn validate_as_replacement(&self) -> Result<()> {
        let missing = [("full_name", self.full_name.is_none()), ("email", self.email.is_none())];
        let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing);
        all_well(
            "user",
            missing.map(|(field, _)| Problem { field, problem: "is missing: PUT replaces the user" }).collect(),
        )?;
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
