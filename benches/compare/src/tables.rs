//! The tables and models for Diesel and for the session, which are the same structs.
//!
//! The tables are as one would have them: a unique name, an index on the foreign key.

use diesel::prelude::*;
use diesel_session::{Entity, Record};

use crate::work::{Draft, Family};

diesel::table! {
    people (id) { id -> Integer, name -> Text, email -> Text, city -> Text, born -> Integer, visits -> Integer, }
}
diesel::table! { notes (id) { id -> Integer, title -> Text, body -> Text, stars -> Integer, } }
diesel::table! { parents (id) { id -> Integer, name -> Text, } }
diesel::table! { children (id) { id -> Integer, parent_id -> Integer, name -> Text, } }
diesel::joinable!(children -> parents (parent_id));
diesel::allow_tables_to_appear_in_same_query!(parents, children);

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, AsChangeset, Insertable, Entity)]
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

impl From<Draft> for NewNote {
    fn from(draft: Draft) -> Self {
        Self { title: draft.title, body: draft.body, stars: draft.stars }
    }
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

/// The children of parents whose keys are known.
pub fn children_of(parents: &[i32], families: Vec<Family>) -> Vec<NewChild> {
    let with_parent = |(family, &parent_id): (Family, &i32)| {
        family.children.into_iter().map(move |name| NewChild { parent_id, name })
    };
    families.into_iter().zip(parents).flat_map(with_parent).collect()
}

/// The parents, moved out of their families.
pub fn parents_of(families: &mut [Family]) -> Vec<NewParent> {
    families.iter_mut().map(|family| NewParent { name: std::mem::take(&mut family.name) }).collect()
}
