use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Result, Session};

fn main() -> Result<()> {
    let session = Session::new(&Engine::<SqliteConnection>::new(":memory:")?);
    let savepoint = session.begin_nested()?;
    savepoint.commit()?;
    savepoint.rollback()?;
    Ok(())
}
