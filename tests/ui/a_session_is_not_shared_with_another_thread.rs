use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Session};

/// As `std::thread::Scope::spawn`.
fn spawn_scoped<F: FnOnce() + Send>(_f: F) {}

fn main() {
    let engine = Engine::<SqliteConnection>::new(":memory:").unwrap();
    let session = Session::new(&engine);
    spawn_scoped(|| drop(session.commit()));
}
