//! `/users` and `/users/{nickname}`.

use axum::http::StatusCode;
use axum::response::Json;
use diesel::prelude::*;
use diesel_session::RowLock;

use super::find;
use crate::database::Session;
use crate::error::{Result, ServiceError};
use crate::model::{Changes, NewUser, Post, User};
use crate::requests::{Body, Created, Nickname, Page, UserList};
use crate::schema::users;

pub(crate) fn create(Body(new): Body<NewUser>) -> Result<Created<User>> {
    new.validate()?;
    let nickname = new.nickname.clone();
    let session = Session::current()?;
    let user = session.add(new)?;
    // The INSERT, which gives back what the database made: id, version and time.
    session.flush().map_err(|error| taken(error, &nickname))?;
    Ok(Created { at: format!("/users/{nickname}"), made: user.into_value()? })
}

pub(crate) fn get(Nickname(nickname): Nickname) -> Result<Json<User>> {
    Ok(Json(find(&Session::current()?, &nickname)?.into_value()?))
}

/// Rows to show and nothing to change: `load`, of which the session keeps nothing.
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
    update(&nickname.0, changes)
}

/// `PATCH`: what is to be changed, and the version that it was read at.
pub(crate) fn change((nickname, Body(changes)): (Nickname, Body<Changes>)) -> Result<Json<User>> {
    changes.validate()?;
    update(&nickname.0, changes)
}

/// With all that the user wrote. The flush deletes the posts before the user.
pub(crate) fn delete(Nickname(nickname): Nickname) -> Result<StatusCode> {
    let session = Session::current()?;
    let user = find(&session, &nickname)?;
    // Nobody adds a post to a locked user (on SQLite this session has the file already).
    if session.get_for_update::<User>(user.id()?, RowLock::update())?.is_none() {
        return Err(ServiceError::NoSuchUser(nickname));
    }
    for post in session.related::<Post, _>(std::slice::from_ref(&user))?.iter().flatten() {
        session.delete(post)?;
    }
    session.delete(&user)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Two versions are compared. The client's with the one that was read here: older means that the client saw another user.
/// And, by the UPDATE itself, that one with the row's: another request may change it just now.
fn update(nickname: &str, changes: Changes) -> Result<Json<User>> {
    let session = Session::current()?;
    let user = find(&session, nickname)?;
    let (sent, stored) = (changes.version, user.read()?.version);
    if sent != stored {
        return Err(ServiceError::Outdated { nickname: nickname.into(), sent, stored: Some(stored) });
    }
    let new_nickname = changes.nickname.clone().unwrap_or_else(|| nickname.into());
    user.update(|user| changes.put_into(user))?;
    session.flush().map_err(|error| {
        if error.is_stale_data() {
            ServiceError::Outdated { nickname: nickname.into(), sent, stored: None }
        } else {
            taken(error, &new_nickname)
        }
    })?;
    Ok(Json(user.into_value()?))
}

/// A violated unique constraint on `users` means that the nickname is somebody else's.
fn taken(error: diesel_session::Error, nickname: &str) -> ServiceError {
    if error.is_unique_violation() { ServiceError::NicknameTaken(nickname.into()) } else { error.into() }
}
