//! Keys that change, closures and clones that panic.

use super::*;

diesel::table! { areas (code) { code -> Text, name -> Text, } }
diesel::table! { plots (area, number) { area -> Text, number -> Integer, size -> Integer, } }

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = areas, primary_key(code))]
struct Area {
    code: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record)]
#[diesel(table_name = plots, primary_key(area, number), belongs_to(Area, foreign_key = area))]
struct Plot {
    area: String,
    number: i32,
    size: i32,
}

fn land() -> Session<SqliteConnection> {
    let engine = engine();
    Session::with_options(&engine, diesel_session::autocommit())
        .unwrap()
        .batch_execute(
            "CREATE TABLE areas (code TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
             CREATE TABLE plots (area TEXT NOT NULL REFERENCES areas (code) ON UPDATE CASCADE ON DELETE CASCADE, number INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (area, number))",
        )
        .unwrap();
    let session = Session::new(&engine);
    session.add(Area { code: "A".into(), name: "a".into() }).unwrap();
    session.add(Plot { area: "A".into(), number: 1, size: 1 }).unwrap();
    session.commit().unwrap();
    session
}

/// "`None` where the foreign key is NULL": the parent is in the map, under the key that the child refers to.
#[test]
fn a_parent_that_is_to_have_another_key_is_found() {
    let session = land();
    let (area, plot) = (
        session.get_one::<Area>("A").unwrap(),
        session.load_tracked(plots::table.select(Plot::as_select())).unwrap().remove(0),
    );
    area.write().unwrap().code = "B".into();
    assert_eq!(session.parents::<Area, _>(&[plot]).unwrap(), [Some(area)]);
}

/// Panics in user code fail the flush; the session goes on after a rollback, and nothing of it is stored.
#[test]
fn a_panic_in_a_closure_that_makes_a_record_leaves_a_session_that_works() {
    let session = Session::new(&engine());
    let city = session.add(City { code: "DE".into(), name: "x".into() }).unwrap();
    let street = session.add_with(&city, |_| -> Street { panic!("no street") }).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| session.flush())).is_err());
    assert!(matches!(session.flush(), Err(Error::PendingRollback { .. })));
    assert!(session.commit().is_err());
    assert_eq!((city.state(), street.state()), (ObjectState::Transient, ObjectState::Transient));
    assert_eq!(city.into_new::<City>().unwrap().code, "DE");
    assert!(!session.has_changes());
    session.add(City { code: "FR".into(), name: "x".into() }).unwrap();
    session.commit().unwrap();
    assert_eq!(session.load::<String>(cities::table.select(cities::code)).unwrap(), ["FR"]);
}

thread_local! {
    static BOOM: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
struct Fragile(String);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!BOOM.get(), "boom");
        Self(self.0.clone())
    }
}

impl ToSql<Text, Sqlite> for Fragile {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> diesel::serialize::Result {
        <str as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Text, Sqlite> for Fragile {
    fn from_sql(bytes: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(bytes).map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = logs)]
struct FragileNote {
    id: i32,
    text: Fragile,
}

/// `write` opens its guard before it clones the value; a clone that panics leaves a guard that nobody holds, and
/// until a rollback, which loses everything, nothing can be flushed or committed.
#[test]
fn a_clone_that_panics_leaves_values_as_they_are() {
    let session = Session::new(&engine());
    let note = session.add(FragileNote { id: 1, text: Fragile("a".into()) }).unwrap();
    session.commit().unwrap();
    BOOM.set(true);
    let panicked = catch_unwind(AssertUnwindSafe(|| note.write().map(drop)));
    BOOM.set(false);
    assert!(panicked.is_err());
    assert_eq!(note.read().unwrap().text.0, "a");
    note.write().unwrap().text.0 = "b".into();
    session.commit().unwrap();
    assert_eq!(session.load::<String>(logs::table.select(logs::text)).unwrap(), ["b"]);
}
