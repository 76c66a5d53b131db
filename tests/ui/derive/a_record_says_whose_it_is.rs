use diesel::prelude::*;
use diesel_session::Record;

diesel::table! { users (id) { id -> Integer, nickname -> Text, } }

#[derive(Insertable, Record)]
#[diesel(table_name = users)]
struct NewUser {
    nickname: String,
}

fn main() {}
