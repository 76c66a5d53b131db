//! libpq itself: the requests, with prepared statements and binary values. It is the C library that Diesel uses, too.

use std::rc::Rc;

use libpq::{Connection, Format, Status};

use super::READ;
use crate::models::Person;
use crate::work::{Fallible, Way, Work};

const NAME: &str = "raw";

struct Raw(Connection);

impl Raw {
    fn new(url: &str) -> Fallible<Self> {
        let raw = Self(Connection::new(url)?);
        raw.prepare("find", "SELECT id, name, email, city, born, visits FROM people WHERE id = $1::int4")?;
        raw.prepare("visit", "UPDATE people SET visits = $1::int4 WHERE id = $2::int4")?;
        Ok(raw)
    }

    fn ok(result: libpq::Result) -> Fallible<libpq::Result> {
        match result.status() {
            Status::CommandOk | Status::TupplesOk => Ok(result),
            _ => Err(result.error_message().unwrap_or_default().into()),
        }
    }

    fn prepare(&self, name: &str, text: &str) -> Fallible {
        Self::ok(self.0.prepare(Some(name), text, &[])).map(drop)
    }

    fn run(&self, text: &str) -> Fallible {
        Self::ok(self.0.exec(text)).map(drop)
    }

    fn execute(&self, name: &str, values: &[i32]) -> Fallible<libpq::Result> {
        let values: Vec<Option<Vec<u8>>> = values.iter().map(|value| Some(value.to_be_bytes().to_vec())).collect();
        let formats = vec![Format::Binary; values.len()];
        Self::ok(self.0.exec_prepared(Some(name), &values, &formats, Format::Binary))
    }

    fn find(&self, key: i32) -> Fallible<Person> {
        let result = self.execute("find", &[key])?;
        if result.ntuples() != 1 {
            return Err(format!("no person {key}").into());
        }
        let bytes = |column| result.value(0, column).ok_or("NULL");
        let number = |column| -> Fallible<i32> { Ok(i32::from_be_bytes(bytes(column)?.try_into()?)) };
        let text = |column| -> Fallible<String> { Ok(std::str::from_utf8(bytes(column)?)?.to_owned()) };
        Ok(Person {
            id: number(0)?,
            name: text(1)?,
            email: text(2)?,
            city: text(3)?,
            born: number(4)?,
            visits: number(5)?,
        })
    }

    fn request(&self, key: i32) -> Fallible<i32> {
        self.run("BEGIN")?;
        let person = self.find(key)?;
        self.execute("visit", &[person.visits + 1, key])?;
        self.run("COMMIT")?;
        Ok(person.visits)
    }

    fn read(&self, key: i32) -> Fallible<i32> {
        self.run(READ)?;
        let person = self.find(key)?;
        self.run("COMMIT")?;
        Ok(person.visits)
    }
}

pub fn ways(url: &str) -> Fallible<Vec<Way>> {
    let raw = Rc::new(Raw::new(url)?);
    let (first, reading, alone) = (Rc::clone(&raw), Rc::clone(&raw), raw);
    Ok(vec![
        Way::request(NAME, Work::W1, move |key| first.request(key)),
        Way::request(NAME, Work::W2, move |key| reading.read(key)),
        Way::request("raw, no transaction", Work::W2, move |key| Ok(alone.find(key)?.visits)),
    ])
}
