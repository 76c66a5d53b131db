use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Session};

/// As `std::thread::spawn`.
fn spawn<F: FnOnce() + Send + 'static>(_f: F) {}

fn main() {
    let engine = Engine::<SqliteConnection>::new(":memory:").unwrap();
    let session = Session::new(&engine);
    let savepoint = session.begin_nested().unwrap();
    spawn(move || drop(savepoint.commit()));
}
