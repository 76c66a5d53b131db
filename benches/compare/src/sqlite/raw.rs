//! rusqlite on one connection, every statement prepared once.

use std::rc::Rc;

use rusqlite::{Connection, Row, params};

use super::Settings;
use crate::models::Person;
use crate::work::{Draft, Fallible, Family, Way, Work};

const NAME: &str = "raw";
/// Rows in an UPDATE, where that is of several.
const CHUNK: usize = 250;
const SELECT: &str = "SELECT id, name, email, city, born, visits FROM people WHERE id = ?";
const UPDATE: &str = "UPDATE people SET visits = ? WHERE id = ?";

fn person(row: &Row<'_>) -> rusqlite::Result<Person> {
    Ok(Person {
        id: row.get(0)?,
        name: row.get(1)?,
        email: row.get(2)?,
        city: row.get(3)?,
        born: row.get(4)?,
        visits: row.get(5)?,
    })
}

fn run(conn: &Connection, text: &str) -> Fallible {
    conn.prepare_cached(text)?.execute([])?;
    Ok(())
}

/// Ends the program where anything fails, so nothing needs a rollback.
fn within<T>(conn: &Connection, begin: &str, f: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    run(conn, begin)?;
    let value = f()?;
    run(conn, "COMMIT")?;
    Ok(value)
}

fn find(conn: &Connection, key: i32) -> Fallible<Person> {
    Ok(conn.prepare_cached(SELECT)?.query_row([key], person)?)
}

fn request(conn: &Connection, key: i32) -> Fallible<i32> {
    within(conn, "BEGIN IMMEDIATE", || {
        let person = find(conn, key)?;
        conn.prepare_cached(UPDATE)?.execute([person.visits + 1, key])?;
        Ok(person.visits)
    })
}

/// A key for each row, from SQLite's memory.
fn insert(conn: &Connection, drafts: &[Draft]) -> Fallible<Vec<i32>> {
    within(conn, "BEGIN IMMEDIATE", || {
        let mut statement = conn.prepare_cached("INSERT INTO notes (title, body, stars) VALUES (?, ?, ?)")?;
        let one = |draft: &Draft| Ok(statement.insert(params![draft.title, draft.body, draft.stars])?.try_into()?);
        drafts.iter().map(one).collect()
    })
}

fn change(conn: &Connection) -> Fallible {
    within(conn, "BEGIN IMMEDIATE", || {
        let mut select = conn.prepare_cached("SELECT id, name, email, city, born, visits FROM people")?;
        let people: Vec<Person> = select.query_map([], person)?.collect::<Result<_, _>>()?;
        let mut update = conn.prepare_cached(UPDATE)?;
        for person in &people {
            update.execute([person.visits + 1, person.id])?;
        }
        Ok(())
    })
}

/// The same with the rows of a chunk in one UPDATE, from a list of values.
fn change_together(conn: &Connection) -> Fallible {
    within(conn, "BEGIN IMMEDIATE", || {
        let mut select = conn.prepare_cached("SELECT id, name, email, city, born, visits FROM people")?;
        let people: Vec<Person> = select.query_map([], person)?.collect::<Result<_, _>>()?;
        for people in people.chunks(CHUNK) {
            let values = vec!["(?, ?)"; people.len()].join(", ");
            let mut update = conn.prepare_cached(&format!(
                "UPDATE people SET visits = new.column2 FROM (VALUES {values}) AS new WHERE people.id = new.column1"
            ))?;
            update
                .execute(rusqlite::params_from_iter(people.iter().flat_map(|person| [person.id, person.visits + 1])))?;
        }
        Ok(())
    })
}

fn families(conn: &Connection, families: &[Family]) -> Fallible<(Vec<i32>, Vec<i32>)> {
    within(conn, "BEGIN IMMEDIATE", || {
        let mut parent = conn.prepare_cached("INSERT INTO parents (name) VALUES (?)")?;
        let mut child = conn.prepare_cached("INSERT INTO children (parent_id, name) VALUES (?, ?)")?;
        let (mut parents, mut children) = (Vec::new(), Vec::new());
        for family in families {
            let key: i32 = parent.insert([&family.name])?.try_into()?;
            for name in &family.children {
                children.push(child.insert(params![key, name])?.try_into()?);
            }
            parents.push(key);
        }
        Ok((parents, children))
    })
}

pub fn ways(path: &str, settings: Settings) -> Fallible<Vec<Way>> {
    let conn = Connection::open(path)?;
    conn.execute_batch(&settings.pragmas())?;
    conn.set_prepared_statement_cache_capacity(100);
    let conn = Rc::new(conn);
    let with = || Rc::clone(&conn);
    let (first, full, in_transaction, alone) = (with(), with(), with(), with());
    let (inserting, changing, together, growing) = (with(), with(), with(), with());
    Ok(vec![
        Way::request(NAME, Work::W1, move |key| request(&first, key)),
        Way::request(NAME, Work::W1Full, move |key| request(&full, key)),
        Way::request(NAME, Work::W2, move |key| {
            within(&in_transaction, "BEGIN", || Ok(find(&in_transaction, key)?.visits))
        }),
        Way::request("raw, no transaction", Work::W2, move |key| Ok(find(&alone, key)?.visits)),
        Way::insert(NAME, move |drafts| insert(&inserting, &drafts)),
        Way::change(NAME, move || change(&changing)),
        Way::change("raw, 250 rows an UPDATE", move || change_together(&together)),
        Way::families(NAME, move |all| families(&growing, &all)),
    ])
}
