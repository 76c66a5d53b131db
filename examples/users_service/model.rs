//! Users and their posts: as they are stored, as clients send them, and what makes them valid.

mod post;
mod user;

use chrono::NaiveDateTime;
use serde::{Serialize, Serializer};

use crate::error::{Problem, Result, ServiceError};

pub(crate) use post::{NewPost, Post, PostChanges, PostText};
pub(crate) use user::{Changes, NewUser, User, is_nickname};

fn all_well(what: &'static str, problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid { what, problems }) }
}

/// The database keeps UTC without saying so; clients are told.
fn in_utc<S: Serializer>(time: &NaiveDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    time.and_utc().serialize(serializer)
}
