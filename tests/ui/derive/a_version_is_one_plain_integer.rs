use diesel_session::Entity;

#[derive(Entity)]
struct Maybe {
    id: i32,
    #[entity(version)]
    version: Option<i32>,
}

#[derive(Entity)]
struct Text {
    id: i32,
    #[entity(version)]
    version: String,
}

#[derive(Entity)]
struct Twice {
    id: i32,
    #[entity(version)]
    version: i32,
    #[entity(version)]
    revision: i32,
}

#[derive(Entity)]
struct Key {
    #[entity(version)]
    id: i32,
}

#[derive(Entity)]
#[entity(version)]
struct OnTheStruct {
    id: i32,
}

fn main() {}
