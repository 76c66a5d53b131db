use diesel_session::{Result, transactional};

#[transactional]
fn wrong_value() -> Result<i32> {
    Ok("one")
}

#[transactional]
fn no_value() -> Result<i32> {
    wrong_value()?;
}

fn main() {}
