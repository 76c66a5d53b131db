//! Posts: each belongs to a user.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel_session::{Entity, Record};
use serde::{Deserialize, Serialize};

use super::{User, all_well, in_utc};
use crate::error::{Problem, Result};
use crate::schema::posts;

/// A post as it is stored, and as clients get it. `belongs_to` says that users come first and lets a session find the
/// posts of users.
#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Associations, Entity, Serialize)]
#[diesel(table_name = posts, belongs_to(User))]
pub(crate) struct Post {
    pub(crate) id: i32,
    pub(crate) user_id: i32,
    pub(crate) title: String,
    pub(crate) body: String,
    #[serde(serialize_with = "in_utc")]
    pub(crate) created_at: NaiveDateTime,
}

/// A post to be created.
#[derive(Debug, Insertable, Record)]
#[diesel(table_name = posts)]
#[entity(of = Post, generated(id, created_at))]
pub(crate) struct NewPost {
    user_id: i32,
    title: String,
    body: String,
}

/// What a client sends to create one; whose it is stands in the path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostText {
    title: String,
    body: String,
}

/// What a PATCH changes. Columns that are `None` stay as they are.
#[derive(Debug, Deserialize, AsChangeset)]
#[serde(deny_unknown_fields)]
#[diesel(table_name = posts)]
pub(crate) struct PostChanges {
    title: Option<String>,
    body: Option<String>,
}

impl NewPost {
    pub(crate) fn by(user: &User, text: PostText) -> Self {
        Self { user_id: user.id, title: text.title, body: text.body }
    }
}

impl PostText {
    pub(crate) fn validate(&self) -> Result<()> {
        all_well("post", [check_title(&self.title), check_body(&self.body)].into_iter().flatten().collect())
    }
}

impl PostChanges {
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems: Vec<Problem> =
            [self.title.as_deref().and_then(check_title), self.body.as_deref().and_then(check_body)]
                .into_iter()
                .flatten()
                .collect();
        if self.title.is_none() && self.body.is_none() {
            problems.push(Problem { field: "body", problem: "has to change title or body" });
        }
        all_well("post", problems)
    }
}

fn check_title(text: &str) -> Option<Problem> {
    let is_good = !text.trim().is_empty() && text.chars().count() <= 200 && !text.contains(char::is_control);
    (!is_good).then_some(Problem { field: "title", problem: "has 1 to 200 characters, not only spaces" })
}

/// NUL is a character that PostgreSQL's text can't hold.
fn check_body(text: &str) -> Option<Problem> {
    let is_good = text.chars().count() <= 10_000 && !text.contains('\0');
    (!is_good).then_some(Problem { field: "body", problem: "has at most 10000 characters, no NUL" })
}
