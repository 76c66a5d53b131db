//! `/users/{nickname}/posts` and `/users/{nickname}/posts/{id}`.

use axum::http::StatusCode;
use axum::response::Json;
use diesel_session::Tracked;

use super::find;
use crate::database::Session;
use crate::error::{Result, ServiceError};
use crate::model::{NewPost, Post, PostChanges, PostText};
use crate::requests::{Body, Created, Nickname, PostList, PostPath};

pub(crate) fn create((Nickname(nickname), Body(text)): (Nickname, Body<PostText>)) -> Result<Created<Post>> {
    text.validate()?;
    let session = Session::current()?;
    let user = find(&session, &nickname)?;
    let post = session.add(NewPost::by(&*user.read()?, text))?;
    // The user may have been deleted since it was found.
    session.flush().map_err(|error| match error.is_foreign_key_violation() {
        true => ServiceError::NoSuchUser(nickname.clone()),
        false => error.into(),
    })?;
    Ok(Created { at: format!("/users/{nickname}/posts/{}", post.id()?), made: post.into_value()? })
}

/// All posts of the user, oldest first.
pub(crate) fn list(Nickname(nickname): Nickname) -> Result<Json<PostList>> {
    let session = Session::current()?;
    let user = find(&session, &nickname)?;
    // One list for each user that is asked for, all in one SELECT.
    let posts = session.related::<Post, _>(&[user])?.into_iter().flatten();
    let posts = posts.map(Tracked::into_value).collect::<diesel_session::Result<_>>()?;
    Ok(Json(PostList { posts }))
}

pub(crate) fn get(path: PostPath) -> Result<Json<Post>> {
    Ok(Json(find_post(&Session::current()?, path)?.into_value()?))
}

/// `PATCH`: posts have no version, so the last writer wins, column by column.
pub(crate) fn change((path, Body(changes)): (PostPath, Body<PostChanges>)) -> Result<Json<Post>> {
    changes.validate()?;
    let session = Session::current()?;
    let post = find_post(&session, path)?;
    session.apply(&post, &changes)?;
    Ok(Json(post.into_value()?))
}

pub(crate) fn delete(path: PostPath) -> Result<StatusCode> {
    let session = Session::current()?;
    session.delete(&find_post(&session, path)?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A post is found under its own user's path only.
fn find_post(session: &Session, PostPath { nickname, id }: PostPath) -> Result<Tracked<Post>> {
    let user = find(session, &nickname)?;
    match session.get::<Post>(id)? {
        Some(post) if post.read()?.user_id == user.id()? => Ok(post),
        _ => Err(ServiceError::NoSuchPost(id)),
    }
}
