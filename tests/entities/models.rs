//! The entities, as an application writes them.
#![allow(dead_code)]

use diesel::prelude::*;
use diesel_session::{Entity, Record};

use crate::schema::{countries, groups, memberships, posts, rings, users};

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = users)]
pub struct User {
    pub id: i32,
    pub nickname: String,
    pub email: Option<String>,
    pub balance: i64,
    #[entity(version)]
    pub version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id, version))]
pub struct NewUser {
    pub nickname: String,
    pub email: Option<String>,
    pub balance: i64,
}

pub fn user(nickname: &str) -> NewUser {
    NewUser { nickname: nickname.into(), email: None, balance: 0 }
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = posts, belongs_to(User), belongs_to(Post, foreign_key = parent_id))]
pub struct Post {
    pub id: i32,
    pub user_id: i32,
    pub parent_id: Option<i32>,
    pub title: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = posts)]
#[entity(of = Post, generated(id))]
pub struct NewPost {
    pub user_id: i32,
    pub parent_id: Option<i32>,
    pub title: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = groups, belongs_to(User, foreign_key = owner_id))]
pub struct Group {
    pub id: i32,
    pub name: String,
    pub owner_id: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = groups)]
#[entity(of = Group, generated(id))]
pub struct NewGroup {
    pub name: String,
    pub owner_id: Option<i32>,
}

#[derive(
    Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record,
)]
#[diesel(table_name = memberships, primary_key(user_id, group_id), belongs_to(User), belongs_to(Group))]
pub struct Membership {
    pub user_id: i32,
    pub group_id: i32,
    pub role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = countries, primary_key(code))]
pub struct Country {
    pub code: String,
    pub name: String,
    pub population: i64,
}

pub fn country(code: &str, name: &str) -> Country {
    Country { code: code.into(), name: name.into(), population: 0 }
}

#[derive(
    Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record,
)]
#[diesel(table_name = rings, belongs_to(Ring, foreign_key = next_id))]
pub struct Ring {
    pub id: i32,
    pub next_id: Option<i32>,
}
