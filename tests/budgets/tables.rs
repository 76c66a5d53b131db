//! The tables and models, which are those of `benches/compare`.
#![allow(dead_code, unreachable_pub)]

use diesel::prelude::*;
use diesel_session::{Entity, Record};

diesel::table! {
    people (id) { id -> Integer, name -> Text, email -> Text, city -> Text, born -> Integer, visits -> Integer, }
}
diesel::table! { drafts (id) { id -> Integer, title -> Text, body -> Text, stars -> Integer, } }
diesel::table! { parents (id) { id -> Integer, name -> Text, } }
diesel::table! { children (id) { id -> Integer, parent_id -> Integer, name -> Text, } }

pub const SQLITE: &str = "
CREATE TABLE people (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, email TEXT NOT NULL, city TEXT NOT NULL, born INTEGER NOT NULL, visits INTEGER NOT NULL);
CREATE TABLE drafts (id INTEGER PRIMARY KEY NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL, stars INTEGER NOT NULL);
CREATE TABLE parents (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL);
CREATE TABLE children (id INTEGER PRIMARY KEY NOT NULL, parent_id INTEGER NOT NULL REFERENCES parents (id), name TEXT NOT NULL);
CREATE INDEX children_of ON children (parent_id);";

pub const POSTGRES: &str = "
CREATE TABLE people (id SERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE, email TEXT NOT NULL, city TEXT NOT NULL, born INTEGER NOT NULL, visits INTEGER NOT NULL);
CREATE TABLE drafts (id SERIAL PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL, stars INTEGER NOT NULL);
CREATE TABLE parents (id SERIAL PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE children (id SERIAL PRIMARY KEY, parent_id INTEGER NOT NULL REFERENCES parents (id), name TEXT NOT NULL);
CREATE INDEX children_of ON children (parent_id);";

pub const MYSQL: &str = "
CREATE TABLE people (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL UNIQUE, email VARCHAR(100) NOT NULL, city VARCHAR(100) NOT NULL, born INTEGER NOT NULL, visits INTEGER NOT NULL) ENGINE = InnoDB;
CREATE TABLE drafts (id INTEGER PRIMARY KEY AUTO_INCREMENT, title VARCHAR(100) NOT NULL, body VARCHAR(100) NOT NULL, stars INTEGER NOT NULL) ENGINE = InnoDB;
CREATE TABLE parents (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL) ENGINE = InnoDB;
CREATE TABLE children (id INTEGER PRIMARY KEY AUTO_INCREMENT, parent_id INTEGER NOT NULL, name VARCHAR(100) NOT NULL, FOREIGN KEY (parent_id) REFERENCES parents (id)) ENGINE = InnoDB;";

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = people)]
pub struct Person {
    pub id: i32,
    pub name: String,
    pub email: String,
    pub city: String,
    pub born: i32,
    pub visits: i32,
}

/// Everybody is somebody else.
pub fn person(id: i32) -> Person {
    Person {
        id,
        name: format!("person number {id}"),
        email: format!("{id}@example.org"),
        city: format!("Town {}", id % 100),
        born: 1930 + id % 90,
        visits: 0,
    }
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = drafts)]
pub struct Draft {
    pub id: i32,
    pub title: String,
    pub body: String,
    pub stars: i32,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = drafts)]
#[entity(of = Draft, generated(id))]
pub struct NewDraft {
    pub title: String,
    pub body: String,
    pub stars: i32,
}

pub fn draft(n: i32) -> NewDraft {
    NewDraft { title: format!("draft {n}"), body: format!("what there is to say about {n}"), stars: n % 6 }
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = parents)]
pub struct Parent {
    pub id: i32,
    pub name: String,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = parents)]
#[entity(of = Parent, generated(id))]
pub struct NewParent {
    pub name: String,
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = children, belongs_to(Parent))]
pub struct Child {
    pub id: i32,
    pub parent_id: i32,
    pub name: String,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = children)]
#[entity(of = Child, generated(id))]
pub struct NewChild {
    pub parent_id: i32,
    pub name: String,
}
