use diesel::sqlite::SqliteConnection;
use diesel_session::{Result, Session};

fn spawn<F: Future + Send + 'static>(_future: F) {}

async fn something_else() {}

async fn handler() -> Result<()> {
    let savepoint = Session::<SqliteConnection>::current()?.begin_nested()?;
    something_else().await;
    savepoint.commit()?;
    Ok(())
}

fn main() {
    spawn(handler());
}
