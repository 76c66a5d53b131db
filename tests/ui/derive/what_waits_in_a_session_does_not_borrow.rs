use diesel_session::{Entity, Record};

#[derive(Entity)]
struct User<'a> {
    id: i32,
    nickname: &'a str,
}

#[derive(Record)]
#[entity(of = User)]
struct NewUser<'a> {
    nickname: &'a str,
}

fn main() {}
