use diesel::prelude::*;
use diesel_session::{Entity, Record};

diesel::table! { users (id) { id -> Integer, nickname -> Text, email -> Text, } }

#[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
struct User {
    id: i32,
    nickname: String,
    email: String,
}

#[derive(Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id))]
struct WithAFieldTooMany {
    nickname: String,
    email: String,
    age: i32,
}

#[derive(Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id))]
struct WithAFieldTooFew {
    nickname: String,
}

#[derive(Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id))]
struct WithAnotherType {
    nickname: String,
    email: Vec<u8>,
}

#[derive(Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(idd))]
struct WithAMistypedColumn {
    nickname: String,
    email: String,
}

fn main() {}
