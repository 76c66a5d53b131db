use diesel_session::{Embedded, Entity, Record};

#[derive(Entity)]
#[entity(hook)]
struct User {
    id: i32,
}

#[derive(Entity)]
struct Post {
    #[entity(key)]
    id: i32,
}

#[derive(Entity)]
#[entity(backends(sqlite, oracle))]
struct Tag {
    id: i32,
}

#[derive(Record)]
#[entity(of = Tag, of = Post)]
struct NewTag {
    name: String,
}

#[derive(Embedded)]
#[entity(hooks)]
struct Address {
    city: String,
}

fn main() {}
