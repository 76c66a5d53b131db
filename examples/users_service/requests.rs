//! What handlers take and give, as HTTP has it. All of this runs on axum's own threads and touches no database, so a
//! client that sends its body slowly holds no connection.

use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ServiceError;
use crate::model::{Post, User, is_nickname};

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ServiceError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServiceError> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// The nickname in the path. One that can't be a nickname belongs to nobody: that is 404 without asking the database.
pub(crate) struct Nickname(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Nickname {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let Path(nickname) = Path::<String>::from_request_parts(parts, state).await?;
        known_form(nickname).map(Self)
    }
}

/// A post in the path: whose it is, and its number.
pub(crate) struct PostPath {
    pub(crate) nickname: String,
    pub(crate) id: i32,
}

impl<S: Send + Sync> FromRequestParts<S> for PostPath {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let Path((nickname, id)) = Path::<(String, i32)>::from_request_parts(parts, state).await?;
        Ok(Self { nickname: known_form(nickname)?, id })
    }
}

fn known_form(nickname: String) -> Result<String, ServiceError> {
    if is_nickname(&nickname) { Ok(nickname) } else { Err(ServiceError::NoSuchUser(nickname)) }
}

/// Which part of the list: `?page=2&per_page=50`. Pages count from 1.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Page {
    pub(crate) page: u32,
    pub(crate) per_page: u32,
}

impl Page {
    const LARGEST: u32 = 100;

    pub(crate) fn offset(self) -> i64 {
        i64::from(self.page - 1) * i64::from(self.per_page)
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { page: 1, per_page: 20 }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        let Query(page) = Query::<Self>::from_request_parts(parts, state).await?;
        if page.page == 0 || !(1..=Self::LARGEST).contains(&page.per_page) {
            let message = format!("page counts from 1, per_page is 1 to {}", Self::LARGEST);
            return Err(ServiceError::Refused(StatusCode::BAD_REQUEST, message));
        }
        Ok(page)
    }
}

/// A page of users; `total` is the number of all users, counted in the same transaction.
#[derive(Debug, Serialize)]
pub(crate) struct UserList {
    pub(crate) users: Vec<User>,
    pub(crate) page: u32,
    pub(crate) per_page: u32,
    pub(crate) total: i64,
}

/// The posts of a user.
#[derive(Debug, Serialize)]
pub(crate) struct PostList {
    pub(crate) posts: Vec<Post>,
}

/// 201, what was made and where it is.
pub(crate) struct Created<T> {
    pub(crate) at: String,
    pub(crate) made: T,
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, [(header::LOCATION, self.at)], Json(self.made)).into_response()
    }
}
