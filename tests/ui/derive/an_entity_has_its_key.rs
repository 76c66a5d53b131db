use diesel_session::Entity;

#[derive(Entity)]
struct Tag {
    name: String,
}

#[derive(Entity)]
#[diesel(primary_key(user_id, role))]
struct Grant {
    user_id: i32,
    level: i32,
}

#[derive(Entity)]
struct User {
    #[diesel(serialize_as = String)]
    id: i32,
}

fn main() {}
