//! Types with a mind of their own: comparisons, clones and destructors that panic or use the session.

use super::*;

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
struct Picky(String);

impl ToSql<Text, Sqlite> for Picky {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> diesel::serialize::Result {
        <str as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Text, Sqlite> for Picky {
    fn from_sql(bytes: <Sqlite as diesel::backend::Backend>::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(bytes).map(Self)
    }
}

impl PartialEq for Picky {
    fn eq(&self, other: &Self) -> bool {
        assert!(self.0 != "boom" && other.0 != "boom", "boom");
        self.0 == other.0
    }
}

thread_local! {
    static AT_DROP: RefCell<Option<Session<SqliteConnection>>> = const { RefCell::new(None) };
    static DROPS: Cell<u32> = const { Cell::new(0) };
}

impl Drop for Picky {
    fn drop(&mut self) {
        if self.0 == "asks" {
            AT_DROP.with_borrow(|session| {
                if let Some(session) = session {
                    DROPS.set(DROPS.get() + 1);
                    let _ = session.has_changes();
                    let _ = session.tracked::<PickyNote>().len();
                    let _ = session.new_entities::<PickyNote>().len();
                    let _ = session.dirty_entities::<PickyNote>().len();
                    let _ = session.flush();
                }
            });
        }
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = logs)]
struct PickyNote {
    id: i32,
    text: Picky,
}

/// The value is taken out while user code compares it; a panic there, and the row has none any more.
#[test]
fn a_comparison_that_panics_does_not_take_the_value_away() {
    let session = Session::new(&engine());
    let note = session.add(PickyNote { id: 1, text: Picky("a".into()) }).unwrap();
    session.flush().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| note.write().unwrap().text.0 = "boom".into()));
    assert!(panicked.is_err());
    assert_eq!(note.read().map(|note| note.text.0.clone()).map_err(|error| error.to_string()), Ok("a".into()));
    note.write().unwrap().text.0 = "b".into();
    session.commit().unwrap();
}

/// `expunge_all` clears lists while they are borrowed; the last owner of a value is one of them. Other ends hold.
#[test]
fn values_may_use_the_session_when_they_are_dropped() {
    let mut panicked = Vec::new();
    for end in 0..6 {
        let session = Session::new(&engine());
        let note = session.add(PickyNote { id: 1, text: Picky("a".into()) }).unwrap();
        session.commit().unwrap();
        AT_DROP.set(Some(session.clone()));
        note.write().unwrap().text.0 = "asks".into();
        drop(note);
        let ended = catch_unwind(AssertUnwindSafe(|| match end {
            0 => session.rollback().map(drop),
            1 => session.flush(),
            2 => session.expunge_all(),
            3 => session.expire_all(),
            4 => session.remove_for_test(),
            _ => session.commit().map(drop),
        }));
        AT_DROP.set(None);
        if ended.is_err() {
            panicked.push(["rollback", "flush", "expunge_all", "expire_all", "close", "commit"][end]);
        }
    }
    assert!(panicked.is_empty(), "{panicked:?}");
    assert!(DROPS.get() > 0);
}

trait Close {
    fn remove_for_test(&self) -> Result<()>;
}

impl Close for Session<SqliteConnection> {
    fn remove_for_test(&self) -> Result<()> {
        self.close();
        Ok(())
    }
}
