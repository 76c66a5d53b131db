use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Session};

fn main() {
    let engine = Engine::<SqliteConnection>::new(":memory:").unwrap();
    let session = Session::new(&engine);
    std::thread::spawn(move || session.commit().unwrap());
}
