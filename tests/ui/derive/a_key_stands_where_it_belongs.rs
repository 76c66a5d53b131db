use diesel_session::{Entity, Record};

#[derive(Entity)]
#[entity(of = Post)]
struct User {
    id: i32,
}

#[derive(Entity)]
struct Post {
    #[entity(hooks)]
    id: i32,
}

#[derive(Record)]
#[entity(of = Post, depends_on(User))]
struct NewPost {
    title: String,
}

#[derive(Record)]
#[entity(of = Post, no_relations)]
struct OtherPost {
    title: String,
}

#[derive(Record)]
#[entity(of = Post, table = "archive.posts")]
struct OldPost {
    title: String,
}

#[derive(Record)]
#[entity(of = Post)]
struct VersionedPost {
    #[entity(version)]
    version: i32,
}

fn main() {}
