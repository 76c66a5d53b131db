use diesel_session::{Result, on_database_thread};
use std::borrow::Cow;

struct User {
    id: i32,
}

#[on_database_thread]
fn text(_name: &str) -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn slice(_id: i32, _names: Option<&[String]>) -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn value(_user: &mut User) -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn lifetime<'a>(_name: Cow<'a, str>) -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn elided(_name: Cow<'_, str>) -> Result<()> {
    Ok(())
}

#[on_database_thread]
fn answer(names: &'static [String]) -> Result<&str> {
    Ok(&names[0])
}

#[on_database_thread]
fn hidden(names: Vec<String>) -> Result<impl Iterator<Item = String>> {
    Ok(names.into_iter())
}

impl User {
    #[on_database_thread]
    fn save(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {}
