//! The models of the works, for Diesel and for the session the same structs: those of `benches/compare`, too.
#![allow(dead_code, unreachable_pub)]

use diesel::prelude::*;
use diesel_session::{Entity, Record};

diesel::table! {
    people (id) { id -> Integer, name -> Text, email -> Text, city -> Text, born -> Integer, visits -> Integer, }
}
diesel::table! { notes (id) { id -> Integer, title -> Text, body -> Text, stars -> Integer, } }
diesel::table! { parents (id) { id -> Integer, name -> Text, } }
diesel::table! { children (id) { id -> Integer, parent_id -> Integer, name -> Text, } }
diesel::joinable!(children -> parents (parent_id));
diesel::allow_tables_to_appear_in_same_query!(parents, children);

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, AsChangeset, Insertable, Entity, Record)]
#[diesel(table_name = people)]
pub struct Person {
    pub id: i32,
    pub name: String,
    pub email: String,
    pub city: String,
    pub born: i32,
    pub visits: i32,
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = notes)]
pub struct Note {
    pub id: i32,
    pub title: String,
    pub body: String,
    pub stars: i32,
}

#[derive(Debug, Insertable, Record)]
#[diesel(table_name = notes)]
#[entity(of = Note, generated(id))]
pub struct NewNote {
    pub title: String,
    pub body: String,
    pub stars: i32,
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

/// Everybody is somebody else.
pub fn person(id: i32, visits: i32) -> Person {
    Person {
        id,
        name: format!("person number {id}"),
        email: format!("{id}@example.org"),
        city: format!("Town {}", id % 100),
        born: 1930 + id % 90,
        visits,
    }
}

pub fn new_note(n: i32) -> NewNote {
    NewNote { title: format!("note {n}"), body: format!("what there is to say about {n}"), stars: n % 6 }
}
