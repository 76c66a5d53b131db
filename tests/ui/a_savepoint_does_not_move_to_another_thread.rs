use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Session};

fn main() {
    let engine = Engine::<SqliteConnection>::new(":memory:").unwrap();
    let session = Session::new(&engine);
    let savepoint = session.begin_nested().unwrap();
    std::thread::spawn(move || savepoint.commit().unwrap());
}
