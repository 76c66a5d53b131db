use diesel_session::Entity;

#[derive(Entity)]
struct User {
    id: i32,
    #[diesel(select_expression = diesel::dsl::count(users::id), select_expression_type = diesel::dsl::count<users::id>)]
    users: i64,
}

#[derive(Entity)]
struct Generic<T> {
    id: i32,
    #[diesel(embed)]
    part: Part<T>,
}

struct Part<T>(T);

fn main() {}
