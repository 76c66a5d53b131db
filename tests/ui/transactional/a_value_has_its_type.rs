use diesel_session::{Result, transactional};

#[transactional(timeout = "5 s".to_owned())]
fn a_text() -> Result<()> {
    Ok(())
}

#[transactional(retry = missing)]
fn a_name_that_is_not_there() -> Result<()> {
    Ok(())
}

#[transactional(String)]
fn a_type_that_is_no_connection() -> Result<()> {
    Ok(())
}

fn main() {}
