use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Session};

fn main() {
    let engine = Engine::<SqliteConnection>::new(":memory:").unwrap();
    let session = Session::new(&engine);
    std::thread::scope(|threads| {
        threads.spawn(|| session.commit().unwrap());
    });
}
