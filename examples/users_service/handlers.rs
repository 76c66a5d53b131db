//! The handlers: plain synchronous functions. Each runs on a database thread, as the job that `layer.rs` makes of its
//! request, so `Session::current()` is that request's session. They neither commit nor roll back: an `Ok` is committed
//! before it is sent, an `Err` is rolled back.
//!
//! What a request changes are entities: the session writes them in a flush. A handler that answers to a violation, or shows
//! what the database made, flushes itself; for the others the commit does. Lists are plain Diesel.

pub(crate) mod posts;
pub(crate) mod users;

use diesel::prelude::*;
use diesel_session::{OptionalExt, Tracked};

use crate::database::Session;
use crate::error::{Result, ServiceError};
use crate::model::User;
use crate::schema;

/// The user of this nickname, as the session's object.
fn find(session: &Session, nickname: &str) -> Result<Tracked<User>> {
    let of_that_name = schema::users::table.filter(schema::users::nickname.eq(nickname)).select(User::as_select());
    session.first_tracked(of_that_name).optional()?.ok_or_else(|| ServiceError::NoSuchUser(nickname.into()))
}
