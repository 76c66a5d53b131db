//! The `mysql` crate: prepared statements, many rows in one INSERT, many changes in one UPDATE of a join.

use std::cell::RefCell;
use std::rc::Rc;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Params, Statement, Value};

use super::READ;
use crate::models::Person;
use crate::work::{Draft, Fallible, Family, Way, Work};

const NAME: &str = "raw";
/// Rows in an INSERT.
const INSERTED: usize = 2_000;
/// Rows in an UPDATE.
const CHANGED: usize = 1_000;

struct Raw {
    conn: Conn,
    find: Statement,
    visit: Statement,
    all: Statement,
}

fn person((id, name, email, city, born, visits): (i32, String, String, String, i32, i32)) -> Person {
    Person { id, name, email, city, born, visits }
}

/// As many of it as there are rows.
fn repeated(one: &str, between: &str, rows: usize) -> String {
    vec![one; rows].join(between)
}

fn visit_all(rows: usize) -> String {
    let others = " UNION ALL SELECT ?, ?".repeat(rows - 1);
    format!(
        "UPDATE people JOIN (SELECT ? AS id, ? AS visits{others}) AS new ON people.id = new.id SET people.visits = new.visits"
    )
}

impl Raw {
    fn new(url: &str) -> Fallible<Self> {
        // Over TCP, as the others.
        let options = OptsBuilder::from_opts(mysql::Opts::from_url(url)?).prefer_socket(false);
        let mut conn = Conn::new(options)?;
        let select = "SELECT id, name, email, city, born, visits FROM people";
        Ok(Self {
            find: conn.prep(format!("{select} WHERE id = ?"))?,
            visit: conn.prep("UPDATE people SET visits = ? WHERE id = ?")?,
            all: conn.prep(select)?,
            conn,
        })
    }

    /// Ends the program where anything fails, so nothing needs a rollback.
    fn within<T>(&mut self, begin: &str, f: impl FnOnce(&mut Self) -> Fallible<T>) -> Fallible<T> {
        self.conn.query_drop(begin)?;
        let value = f(self)?;
        self.conn.query_drop("COMMIT")?;
        Ok(value)
    }

    fn find(&mut self, key: i32) -> Fallible<Person> {
        Ok(self.conn.exec_first(&self.find, (key,))?.map(person).ok_or("no such person")?)
    }

    fn request(&mut self, key: i32) -> Fallible<i32> {
        self.within("BEGIN", |raw| {
            let person = raw.find(key)?;
            raw.conn.exec_drop(&raw.visit, (person.visits + 1, key))?;
            Ok(person.visits)
        })
    }

    /// The driver keeps the statement prepared: its cache goes by the text. The keys follow the first.
    fn insert_rows(&mut self, into: &str, one: &str, rows: usize, values: Vec<Value>) -> Fallible<Vec<i32>> {
        let text = format!("INSERT INTO {into} VALUES {}", repeated(one, ", ", rows));
        self.conn.exec_drop(text, Params::Positional(values))?;
        let first = i32::try_from(self.conn.last_insert_id())?;
        Ok((0..rows).zip(first..).map(|(_, key)| key).collect())
    }

    fn insert(&mut self, drafts: &[Draft]) -> Fallible<Vec<i32>> {
        self.within("BEGIN", |raw| {
            let mut keys = Vec::with_capacity(drafts.len());
            for rows in drafts.chunks(INSERTED) {
                let value = |row: &Draft| [row.title.as_str().into(), row.body.as_str().into(), row.stars.into()];
                let values = rows.iter().flat_map(value).collect();
                keys.extend(raw.insert_rows("notes (title, body, stars)", "(?, ?, ?)", rows.len(), values)?);
            }
            Ok(keys)
        })
    }

    fn change(&mut self) -> Fallible {
        self.within("BEGIN", |raw| {
            let people: Vec<Person> = raw.conn.exec_map(&raw.all, (), person)?;
            for rows in people.chunks(CHANGED) {
                let value = |row: &Person| [Value::from(row.id), Value::from(row.visits + 1)];
                let values = rows.iter().flat_map(value).collect();
                raw.conn.exec_drop(visit_all(rows.len()), Params::Positional(values))?;
            }
            Ok(())
        })
    }

    fn families(&mut self, families: &[Family]) -> Fallible<(Vec<i32>, Vec<i32>)> {
        self.within("BEGIN", |raw| {
            let mut parents = Vec::with_capacity(families.len());
            for rows in families.chunks(INSERTED) {
                let values = rows.iter().map(|row| row.name.as_str().into()).collect();
                parents.extend(raw.insert_rows("parents (name)", "(?)", rows.len(), values)?);
            }
            let rows: Vec<(i32, &str)> = families
                .iter()
                .zip(&parents)
                .flat_map(|(family, &key)| family.children.iter().map(move |name| (key, name.as_str())))
                .collect();
            let mut children = Vec::with_capacity(rows.len());
            for rows in rows.chunks(INSERTED) {
                let values = rows.iter().flat_map(|(key, name)| [Value::from(*key), Value::from(*name)]).collect();
                children.extend(raw.insert_rows("children (parent_id, name)", "(?, ?)", rows.len(), values)?);
            }
            Ok((parents, children))
        })
    }
}

pub fn ways(url: &str) -> Fallible<Vec<Way>> {
    let raw = Rc::new(RefCell::new(Raw::new(url)?));
    let with = || Rc::clone(&raw);
    let (first, reading, alone, inserting, changing, growing) = (with(), with(), with(), with(), with(), with());
    Ok(vec![
        Way::request(NAME, Work::W1, move |key| first.borrow_mut().request(key)),
        Way::request(NAME, Work::W2, move |key| reading.borrow_mut().within(READ, |raw| Ok(raw.find(key)?.visits))),
        Way::request("raw, no transaction", Work::W2, move |key| Ok(alone.borrow_mut().find(key)?.visits)),
        Way::insert(NAME, move |drafts| inserting.borrow_mut().insert(&drafts)),
        Way::change(NAME, move || changing.borrow_mut().change()),
        Way::families(NAME, move |all| growing.borrow_mut().families(&all)),
    ])
}
