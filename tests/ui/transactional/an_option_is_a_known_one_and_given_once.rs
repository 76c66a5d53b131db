use diesel_session::{Result, transactional};

#[transactional(readonly)]
fn unknown() -> Result<()> {
    Ok(())
}

#[transactional(isolated = Serializable)]
fn unknown_with_a_value() -> Result<()> {
    Ok(())
}

#[transactional(durable, read_only, durable)]
fn twice() -> Result<()> {
    Ok(())
}

#[transactional(SqliteConnection, SqliteConnection)]
fn two_connections() -> Result<()> {
    Ok(())
}

#[transactional(read_only = true)]
fn a_flag_with_a_value() -> Result<()> {
    Ok(())
}

#[transactional(retry)]
fn no_value() -> Result<()> {
    Ok(())
}

#[transactional(timeout(5))]
fn no_value_but_parentheses() -> Result<()> {
    Ok(())
}

#[transactional(propagation = New)]
fn unknown_value() -> Result<()> {
    Ok(())
}

#[transactional(propagation = Propagation::RequiresNew)]
fn a_whole_path() -> Result<()> {
    Ok(())
}

#[transactional(isolation = "serializable")]
fn a_text() -> Result<()> {
    Ok(())
}

#[transactional(timeout = 5)]
fn a_number_of_what() -> Result<()> {
    Ok(())
}

#[transactional(retry = "often")]
fn not_a_number() -> Result<()> {
    Ok(())
}

#[transactional(read_only durable)]
fn no_comma() -> Result<()> {
    Ok(())
}

#[transactional(&SqliteConnection)]
fn not_a_connection() -> Result<()> {
    Ok(())
}

fn main() {}
