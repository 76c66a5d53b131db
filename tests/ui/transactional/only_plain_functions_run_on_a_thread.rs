use diesel_session::{Result, transactional};

#[transactional]
async fn asynchronous() -> Result<()> {
    Ok(())
}

#[transactional]
const fn constant() -> Result<()> {
    Ok(())
}

#[transactional]
struct User {
    id: i32,
}

#[transactional(read_only)]
const NUMBER: i32 = 1;

#[transactional]
impl User {}

trait Store {
    #[transactional]
    fn load(&self) -> Result<()>;
}

fn main() {}
