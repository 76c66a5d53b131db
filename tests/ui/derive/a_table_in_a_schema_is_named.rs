use diesel::prelude::*;
use diesel_session::Entity;

diesel::table! { archive.users (id) { id -> Integer, } }

#[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
struct User {
    id: i32,
}

fn main() {}
