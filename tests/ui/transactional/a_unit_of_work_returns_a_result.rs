use diesel_session::transactional;

#[transactional]
fn nothing() {}

#[transactional]
fn unit() -> () {}

#[transactional]
fn number() -> i32 {
    1
}

#[transactional]
fn maybe(name: Option<String>) -> Option<String> {
    name
}

struct Own;

#[transactional]
fn with_an_error_of_its_own() -> Result<i32, Own> {
    Ok(1)
}

fn main() {}
