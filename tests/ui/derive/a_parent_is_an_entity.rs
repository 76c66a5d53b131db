use diesel::prelude::*;
use diesel_session::Entity;

diesel::table! { users (id) { id -> Integer, } }
diesel::table! { posts (id) { id -> Integer, user_id -> Integer, } }

#[derive(Identifiable)]
struct User {
    id: i32,
}

#[derive(Clone, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(belongs_to(User))]
struct Post {
    id: i32,
    user_id: i32,
}

fn main() {}
