use diesel_session::Entity;

#[derive(Entity)]
#[diesel(belongs_to(User))]
struct Post {
    id: i32,
    author: i32,
}

#[derive(Entity)]
#[diesel(belongs_to(User, foreign_key = writer))]
struct Note {
    id: i32,
    author: i32,
}

#[derive(Entity)]
#[diesel(belongs_to(User, foreign_key = sender), belongs_to(User, foreign_key = receiver))]
struct Message {
    id: i32,
    sender: i32,
    receiver: i32,
}

fn main() {}
