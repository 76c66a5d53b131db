// The models of the guide's examples, and what they start with. Included in each of them, unseen.
use diesel::prelude::*;
use diesel_session::*;

diesel::table! {
    users (id) { id -> Integer, nickname -> Text, email -> Nullable<Text>, version -> Integer, }
}
diesel::table! {
    posts (id) { id -> Integer, user_id -> Integer, title -> Text, }
}
diesel::table! {
    countries (code) { code -> Text, name -> Text, }
}
diesel::joinable!(posts -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(posts, users);

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = users)]
struct User {
    id: i32,
    nickname: String,
    email: Option<String>,
    #[entity(version)]
    version: i32,
}

#[derive(Debug, Clone, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id, version))]
struct NewUser {
    nickname: String,
    email: Option<String>,
}

#[derive(Debug, Clone, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = posts, belongs_to(User))]
struct Post {
    id: i32,
    user_id: i32,
    title: String,
}

#[derive(Debug, Clone, Insertable, Record)]
#[diesel(table_name = posts)]
#[entity(of = Post, generated(id))]
struct NewPost {
    user_id: i32,
    title: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = countries, primary_key(code))]
struct Country {
    code: String,
    name: String,
}

fn user(nickname: &str) -> NewUser {
    NewUser { nickname: nickname.into(), email: None }
}

/// A database in memory with the tables, and Ann, number 1, with a post.
fn registry() -> Result<ScopedSession<SqliteConnection>> {
    let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
    registry.transaction(|session| -> Result<()> {
        session.batch_execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY NOT NULL, nickname TEXT NOT NULL UNIQUE, email TEXT,
                 version INTEGER NOT NULL DEFAULT 1);
             CREATE TABLE posts (id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER NOT NULL REFERENCES users (id),
                 title TEXT NOT NULL);
             CREATE TABLE countries (code TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);",
        )?;
        let ann = session.add(user("ann"))?;
        session.add_with(&ann, |ann| NewPost { user_id: ann.id, title: "first".into() })?;
        Ok(())
    })?;
    Ok(registry)
}

fn session() -> Result<Session<SqliteConnection>> {
    Ok(Session::new(registry()?.engine()))
}
