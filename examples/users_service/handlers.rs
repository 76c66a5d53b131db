//! The handlers: plain synchronous functions. Each runs on a blocking thread, inside the request that `layer.rs` opened
//! there, so `Session::current()` is that request's session. They neither commit nor roll back: an `Ok` is committed
//! before it is sent, an `Err` is rolled back.

use axum::http::StatusCode;
use axum::response::Json;
use diesel::prelude::*;
use diesel_session::OptionalExt;

use crate::database::Session;
use crate::error::{Result, ServiceError};
use crate::model::{Changes, NewUser, User};
use crate::requests::{Body, Created, Nickname, Page, UserList};
use crate::schema::users;

pub(crate) fn create(Body(new): Body<NewUser>) -> Result<Created> {
    new.validate()?;
    let session = Session::current()?;
    session.execute(diesel::insert_into(users::table).values(&new)).map_err(|error| taken(error, &new.nickname))?;
    // Read back in the same transaction: the database gave id, version and time.
    Ok(Created(find(&session, &new.nickname)?))
}

pub(crate) fn get(Nickname(nickname): Nickname) -> Result<Json<User>> {
    Ok(Json(find(&Session::current()?, &nickname)?))
}

pub(crate) fn list(page: Page) -> Result<Json<UserList>> {
    let session = Session::current()?;
    let total = session.get_result(users::table.count())?;
    let users = session.load(
        users::table.select(User::as_select()).order(users::id).limit(page.per_page.into()).offset(page.offset()),
    )?;
    Ok(Json(UserList { users, page: page.page, per_page: page.per_page, total }))
}

/// `PUT`: full name and email, and the version that they replace.
pub(crate) fn replace((nickname, Body(changes)): (Nickname, Body<Changes>)) -> Result<Json<User>> {
    changes.validate_as_replacement()?;
    update(&nickname.0, &changes)
}

/// `PATCH`: what is to be changed, and the version that it was read at.
pub(crate) fn change((nickname, Body(changes)): (Nickname, Body<Changes>)) -> Result<Json<User>> {
    changes.validate()?;
    update(&nickname.0, &changes)
}

pub(crate) fn delete(Nickname(nickname): Nickname) -> Result<StatusCode> {
    let session = Session::current()?;
    match session.execute(diesel::delete(users::table.filter(users::nickname.eq(&nickname))))? {
        0 => Err(ServiceError::NoSuchUser(nickname)),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

fn update(nickname: &str, changes: &Changes) -> Result<Json<User>> {
    let session = Session::current()?;
    let new_nickname = changes.nickname.as_deref().unwrap_or(nickname);
    // The version is compared by the UPDATE itself: reading it first would leave a gap for somebody else's update.
    let unchanged = users::table.filter(users::nickname.eq(nickname).and(users::version.eq(changes.version)));
    let updated = session
        .execute(diesel::update(unchanged).set((changes, users::version.eq(users::version + 1))))
        .map_err(|error| taken(error, new_nickname))?;
    if updated == 0 {
        let stored = find(&session, nickname)?.version;
        return Err(ServiceError::Outdated { nickname: nickname.into(), sent: changes.version, stored });
    }
    Ok(Json(find(&session, new_nickname)?))
}

fn find(session: &Session, nickname: &str) -> Result<User> {
    session
        .first(users::table.filter(users::nickname.eq(nickname)).select(User::as_select()))
        .optional()?
        .ok_or_else(|| ServiceError::NoSuchUser(nickname.into()))
}

/// A violated unique constraint on `users` means that the nickname is somebody else's.
fn taken(error: diesel_session::Error, nickname: &str) -> ServiceError {
    if error.is_unique_violation() { ServiceError::NicknameTaken(nickname.into()) } else { error.into() }
}
