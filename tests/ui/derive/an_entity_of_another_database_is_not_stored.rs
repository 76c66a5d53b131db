use diesel::prelude::*;
use diesel_session::{Entity, Insert, Persist, Record};

diesel::table! { users (id) { id -> Integer, } }

#[derive(Clone, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[entity(backends(postgres))]
struct User {
    id: i32,
}

fn store<C: Insert<User> + Persist<User>>() {}

fn main() {
    store::<SqliteConnection>();
}
