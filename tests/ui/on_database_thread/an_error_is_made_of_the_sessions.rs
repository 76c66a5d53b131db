use diesel_session::on_database_thread;

struct Mine;

#[on_database_thread]
fn create() -> Result<i32, Mine> {
    Ok(1)
}

fn main() {}
