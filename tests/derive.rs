//! The derives on real models: what they find in the attributes, and that what they write is run by SQLite.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)]

use std::hash::{DefaultHasher, Hash, Hasher};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{BelongsTo, Change, ColumnSet, Embedded, Entity, Insert, LoadChildren, Persist, Record, TableId};

/// Beside the models, as `diesel print-schema` leaves it.
mod schema {
    diesel::table! { users (id) { id -> Integer, nickname -> Text, city -> Nullable<Text>, zip -> Text, color -> Text, version -> Integer, } }
    diesel::table! { posts (id) { id -> BigInt, user_id -> Integer, editor -> Nullable<Integer>, title -> Text, } }
    diesel::table! { tags (name) { name -> Text, kind -> Text, #[sql_name = "uses"] used -> Integer, } }
    diesel::table! { grants (user_id, role) { user_id -> Integer, role -> Text, level -> SmallInt, } }
    diesel::table! { #[sql_name = "Notes"] notes (id) { id -> Integer, payload -> Text, } }
    diesel::table! { events (id) { id -> Integer, #[sql_name = "type"] kind -> Text, version -> SmallInt, key -> Text, column -> Integer, out -> Integer, value -> Integer, entity -> Integer, set -> Integer, old -> Integer, } }
    diesel::table! { #[sql_name = "Visits"] archive.visits (id) { id -> Integer, at -> Text, } }
    diesel::allow_tables_to_appear_in_same_query!(users, posts, tags, grants, notes);
}
use schema::{events, grants, notes, tags, users, visits};

/// Bound as text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Color {
    Red,
    Blue,
}

#[derive(Debug, PartialEq, diesel::expression::AsExpression)]
#[diesel(sql_type = diesel::sql_types::Text)]
struct ColorText(String);

impl<DB: diesel::backend::Backend> diesel::serialize::ToSql<diesel::sql_types::Text, DB> for ColorText
where
    String: diesel::serialize::ToSql<diesel::sql_types::Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, DB>) -> diesel::serialize::Result {
        diesel::serialize::ToSql::<diesel::sql_types::Text, DB>::to_sql(&self.0, out)
    }
}

impl From<Color> for ColorText {
    fn from(color: Color) -> Self {
        Self(match color {
            Color::Red => "red".into(),
            Color::Blue => "blue".into(),
        })
    }
}

impl TryFrom<String> for Color {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "red" => Ok(Self::Red),
            "blue" => Ok(Self::Blue),
            _ => Err(text),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, Embedded)]
#[diesel(table_name = users)]
struct Address {
    city: Option<String>,
    #[diesel(column_name = "zip")]
    code: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Entity)]
struct User {
    id: i32,
    #[diesel(embed)]
    address: Address,
    nickname: String,
    #[diesel(serialize_as = ColorText, deserialize_as = String)]
    color: Color,
    #[entity(version)]
    version: i32,
}

#[derive(Debug, Clone, PartialEq, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id, version))]
struct NewUser {
    nickname: String,
    #[diesel(serialize_as = ColorText)]
    color: Color,
    version: Option<i32>,
    #[diesel(embed)]
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = schema::posts, belongs_to(User))]
#[entity(depends_on(Tag))]
struct Post {
    id: i64,
    user_id: i32,
    editor: Option<i32>,
    title: String,
}

#[derive(Debug, Clone, PartialEq, Insertable, Record)]
#[diesel(table_name = schema::posts)]
#[entity(of = Post)]
struct NewPost {
    title: String,
    editor: Option<i32>,
    user_id: i32,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(primary_key(name))]
struct Tag {
    name: String,
    kind: String,
    used: i32,
}

/// Gives the key, though it is not the entity itself.
#[derive(Debug, Clone, PartialEq, Insertable, Record)]
#[diesel(table_name = tags)]
#[entity(of = Tag, generated(used))]
struct NewTag {
    name: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(primary_key(user_id, role), belongs_to(User))]
struct Grant {
    role: String,
    user_id: i32,
    level: i16,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[entity(generated(id))]
#[diesel(table_name = notes)]
struct Note<T: Clone> {
    #[diesel(skip_insertion)]
    id: i32,
    payload: T,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = visits)]
#[entity(table = "archive.Visits", generated(id))]
struct Visit {
    #[diesel(skip_insertion)]
    id: i32,
    at: String,
}

/// Columns whose names a derive might use itself, in scope as `use users::dsl::*` puts them.
mod names_in_scope {
    use super::events::dsl::*;
    use diesel::prelude::*;
    use diesel_session::{Entity, EntityHooks, Record, RecordHooks, Result, SessionConnection};

    #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Entity)]
    #[diesel(table_name = super::events)]
    #[entity(hooks)]
    pub(crate) struct Event {
        pub(crate) id: i32,
        #[diesel(column_name = kind)]
        pub(crate) r#type: String,
        #[entity(version)]
        pub(crate) version: i16,
        pub(crate) key: String,
        pub(crate) column: i32,
        pub(crate) out: i32,
        pub(crate) value: i32,
        pub(crate) entity: i32,
        pub(crate) set: i32,
        pub(crate) old: i32,
    }

    pub(crate) fn keys(connection: &mut SqliteConnection) -> Vec<String> {
        events.select(key).filter(out.eq(0)).load(connection).unwrap()
    }

    impl<C: SessionConnection> EntityHooks<C> for Event {
        fn before_update(&mut self, _: &mut C) -> Result<()> {
            self.key.push_str(" (updated)");
            Ok(())
        }
    }

    #[derive(Debug, Clone, PartialEq, Default, Insertable, Record)]
    #[diesel(table_name = super::events)]
    #[entity(of = Event, generated(r#type = kind, version, column), hooks)]
    pub(crate) struct NewEvent {
        pub(crate) id: i32,
        #[diesel(column_name = kind)]
        pub(crate) r#type: Option<String>,
        pub(crate) key: String,
        #[diesel(skip_insertion)]
        pub(crate) column: Option<i32>,
        pub(crate) out: i32,
        pub(crate) value: i32,
        pub(crate) entity: i32,
        pub(crate) set: i32,
        pub(crate) old: i32,
    }

    impl<C: SessionConnection> RecordHooks<C> for NewEvent {
        fn before_insert(&mut self, _: &mut C) -> Result<()> {
            self.key.push_str(" (new)");
            Ok(())
        }
    }
}
use names_in_scope::{Event, NewEvent};

fn connection() -> SqliteConnection {
    let mut connection = SqliteConnection::establish(":memory:").unwrap();
    connection
        .batch_execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL, city TEXT, zip TEXT NOT NULL,
                color TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1);
            CREATE TABLE posts (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, editor INTEGER, title TEXT NOT NULL);
            CREATE TABLE tags (name TEXT PRIMARY KEY, kind TEXT NOT NULL, uses INTEGER NOT NULL DEFAULT 7);
            CREATE TABLE grants (user_id INTEGER NOT NULL, role TEXT NOT NULL, level SMALLINT NOT NULL,
                PRIMARY KEY (user_id, role));
            CREATE TABLE Notes (id INTEGER PRIMARY KEY, payload TEXT NOT NULL);
            CREATE TABLE events (id INTEGER PRIMARY KEY, type TEXT NOT NULL DEFAULT 'click',
                version SMALLINT NOT NULL DEFAULT 1, key TEXT NOT NULL, \"column\" INTEGER NOT NULL DEFAULT 4,
                out INTEGER NOT NULL, value INTEGER NOT NULL, entity INTEGER NOT NULL, \"set\" INTEGER NOT NULL,
                old INTEGER NOT NULL);",
        )
        .unwrap();
    connection
}

fn ann() -> NewUser {
    let address = Address { city: Some("Graz".into()), code: "8010".into() };
    NewUser { nickname: "ann".into(), color: Color::Red, version: None, address }
}

/// Inserts one record and gives its entity.
fn store<N: Record>(connection: &mut SqliteConnection, record: N) -> N::Entity
where
    SqliteConnection: Insert<N>,
{
    let generated = Insert::insert(connection, &[&record]).unwrap().remove(0);
    record.finish(generated)
}

#[test]
fn columns_are_numbered_in_field_order_with_embedded_ones_in_place() {
    let names: Vec<_> = (0..6).map(User::column_name).collect();
    assert_eq!(names, ["id", "city", "zip", "nickname", "color", "version"]);
    assert_eq!(User::version_column(), Some(5));
    assert_eq!(User::key_columns(), ColumnSet::of(0));
    assert_eq!(Tag::column_name(2), "uses");
    assert_eq!(Grant::key_columns(), ColumnSet::of(0) | ColumnSet::of(1));
}

#[test]
fn a_diff_names_the_columns_that_differ() {
    let old = ann().finish((1, 1));
    let mut new = old.clone();
    assert!(new.diff(&old).is_empty());
    new.address.code = "8020".into();
    new.color = Color::Blue;
    assert_eq!(new.diff(&old), ColumnSet::of(2) | ColumnSet::of(4));
}

#[test]
fn a_row_feeds_a_hasher_what_its_key_feeds_it() {
    fn check<T: Entity>(row: &T) {
        let (mut by_row, mut by_key) = (DefaultHasher::new(), DefaultHasher::new());
        row.hash_key(&mut by_row);
        row.key().hash(&mut by_key);
        assert_eq!(by_row.finish(), by_key.finish());
        assert!(row.has_key(&row.key()));
    }
    check(&ann().finish((1, 1)));
    check(&Tag { name: "new".into(), kind: "a".into(), used: 0 });
    let grant = Grant { user_id: 1, role: "admin".into(), level: 3 };
    check(&grant);
    assert_eq!(Entity::key(&grant), (1, "admin".to_owned()));
    assert!(!grant.has_key(&(1, "guest".into())));
}

#[test]
fn a_record_knows_its_key_where_it_gives_all_of_it() {
    assert_eq!(ann().given_key(), None);
    assert_eq!(NewTag { name: "new".into(), kind: "a".into() }.given_key(), Some("new".into()));
    let tag = Tag { name: "new".into(), kind: "a".into(), used: 0 };
    assert_eq!(Record::given_key(&tag), Some("new".into()));
    assert_eq!(tag.as_entity(), Some(&tag));
    let note = Note { id: 0, payload: "x".to_owned() };
    assert_eq!(Record::given_key(&note), None);
    assert_eq!(note.as_entity(), None);
}

#[test]
fn a_rolled_back_record_is_what_it_was() {
    let record = ann();
    let again = NewUser::unfinish(record.clone().finish((1, 9)));
    assert_eq!(again, NewUser { version: Some(9), ..record });
}

#[test]
fn a_child_names_its_parents_and_what_it_depends_on() {
    assert_eq!(Post::depends_on(), [TableId::of::<users::table>(), TableId::of::<tags::table>()]);
    let post = Post { id: 1, user_id: 5, editor: None, title: "t".into() };
    let mut seen = Vec::new();
    post.references(&mut |reference| seen.push((reference.table, reference.key, reference.nullable)));
    assert_eq!(seen, [(User::table(), diesel_session::entity::hash_of(&5), None)]);
    assert_eq!(BelongsTo::<User>::parent_key(&post), Some(5));
}

#[test]
fn a_version_is_read_and_set() {
    let mut user = ann().finish((1, 4));
    assert_eq!(user.version(), Some(4));
    user.set_version(5);
    assert_eq!(user.version, 5);
}

#[test]
fn rows_are_stored_loaded_changed_and_deleted() {
    let connection = &mut connection();
    let user = store(connection, ann());
    assert_eq!((user.id, user.version), (1, 1));
    let given = store(connection, NewUser { version: Some(30), ..ann() });
    assert_eq!((given.id, given.version), (2, 30));

    let mut new = user.clone();
    new.address.city = None;
    new.color = Color::Blue;
    let columns = new.diff(&user);
    let found = Persist::<User>::update(connection, &[Change { old: &user, new: &new }], columns).unwrap();
    assert_eq!(found, 1);
    let loaded: Vec<User> = connection.load_by_keys(&[1, 99], None).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((&loaded[0].address, loaded[0].color), (&new.address, Color::Blue));
    assert_eq!(Persist::<User>::delete(connection, &[&loaded[0]]).unwrap(), 1);
}

#[test]
fn the_whole_row_is_read_back_where_nothing_is_named() {
    let connection = &mut connection();
    let record = NewPost { title: "t".into(), editor: None, user_id: 5 };
    let post = store(connection, record.clone());
    assert_eq!(post, Post { id: 1, user_id: 5, editor: None, title: "t".into() });
    assert_eq!(LoadChildren::<Post, User>::load_children(connection, &[5]).unwrap(), std::slice::from_ref(&post));
    assert_eq!(NewPost::unfinish(post), record);
}

#[test]
fn an_entity_may_be_its_own_record() {
    let connection = &mut connection();
    let tag = store(connection, Tag { name: "new".into(), kind: "a".into(), used: 3 });
    assert_eq!(Persist::<Tag>::load_by_keys(connection, &["new".into()], None).unwrap(), [tag]);
    let tag = store(connection, NewTag { name: "old".into(), kind: "a".into() });
    assert_eq!(tag.used, 7);
    let grant = store(connection, Grant { user_id: 1, role: "admin".into(), level: 3 });
    assert_eq!(Persist::<Grant>::load_by_keys(connection, &[Entity::key(&grant)], None).unwrap(), [grant]);
    let note = store(connection, Note { id: 0, payload: "text".to_owned() });
    assert_eq!(note.id, 1);
    assert_eq!(Persist::<Note<String>>::load_by_keys(connection, &[1], None).unwrap(), [note]);
}

#[test]
fn a_field_may_be_called_otherwise_than_its_column() {
    let connection = &mut connection();
    let event = store(connection, NewEvent { id: 1, ..NewEvent::default() });
    assert_eq!((event.r#type.as_str(), event.version, event.column), ("click", 1, 4));
    let event = store(connection, NewEvent { id: 2, r#type: Some("key".into()), ..NewEvent::default() });
    assert_eq!(event.r#type, "key");
    assert_eq!(NewEvent::unfinish(event).r#type.as_deref(), Some("key"));
}

#[test]
fn hooks_are_called_where_the_struct_says_so() {
    let connection = &mut connection();
    let mut record = NewEvent { id: 1, ..NewEvent::default() };
    Insert::before_insert(connection, &mut record).unwrap();
    let mut event = store(connection, record);
    Persist::before_update(connection, &mut event).unwrap();
    assert_eq!(event.key, " (new) (updated)");
    assert_eq!(names_in_scope::keys(connection), [" (new)"]);
    const {
        assert!(<SqliteConnection as Insert<NewEvent>>::HAS_HOOKS);
        assert!(<SqliteConnection as Persist<Event>>::HAS_HOOKS);
        assert!(!<SqliteConnection as Insert<NewUser>>::HAS_HOOKS);
        assert!(!<SqliteConnection as Persist<User>>::HAS_HOOKS);
    }
}

#[test]
fn a_table_is_called_as_in_sql_and_may_be_in_a_schema() {
    assert_eq!(<Note<String> as Entity>::TABLE, "Notes");
    let connection = &mut connection();
    connection
        .batch_execute(
            "ATTACH ':memory:' AS archive; CREATE TABLE archive.Visits (id INTEGER PRIMARY KEY, at TEXT NOT NULL)",
        )
        .unwrap();
    let visit = store(connection, Visit { id: 0, at: "noon".into() });
    assert_eq!(Persist::<Visit>::load_by_keys(connection, &[1], None).unwrap(), [visit]);
}
