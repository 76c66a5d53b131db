use diesel::sqlite::SqliteConnection;
use diesel_session::{Result, Session};

fn spawn<F: Future + Send + 'static>(_future: F) {}

async fn something_else() {}

async fn handler() -> Result<()> {
    let session = Session::<SqliteConnection>::current()?;
    something_else().await;
    session.commit()?;
    Ok(())
}

fn main() {
    spawn(handler());
}
