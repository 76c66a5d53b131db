use diesel_session::{Result, on_database_thread};

#[on_database_thread]
async fn asynchronous() -> Result<()> {
    Ok(())
}

#[on_database_thread]
const fn constant() -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn nothing() {}

#[on_database_thread(propagation = RequiresNew)]
fn with_an_option_of_transactional() -> Result<()> {
    Ok(())
}

#[on_database_thread]
enum Kind {}

fn main() {}
