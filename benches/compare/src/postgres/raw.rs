//! The `postgres` crate: many rows as arrays through `unnest`, and the requests beside libpq.

use std::cell::RefCell;
use std::rc::Rc;

use postgres::{Client, NoTls, Row, Statement};

use crate::models::Person;
use crate::work::{Draft, Fallible, Family, Way, Work};

const NAME: &str = "raw";
const REQUESTS: &str = "postgres crate";
/// Rows in a statement.
const CHUNK: usize = 5_000;

struct Raw {
    client: Client,
    find: Statement,
    visit: Statement,
    all: Statement,
    visit_all: Statement,
    insert: Statement,
    parents: Statement,
    children: Statement,
}

fn person(row: &Row) -> Fallible<Person> {
    Ok(Person {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        email: row.try_get(2)?,
        city: row.try_get(3)?,
        born: row.try_get(4)?,
        visits: row.try_get(5)?,
    })
}

fn keys(rows: &[Row]) -> Fallible<Vec<i32>> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

impl Raw {
    fn new(url: &str) -> Fallible<Self> {
        let mut client = Client::connect(url, NoTls)?;
        let select = "SELECT id, name, email, city, born, visits FROM people";
        Ok(Self {
            find: client.prepare(&format!("{select} WHERE id = $1"))?,
            visit: client.prepare("UPDATE people SET visits = $1 WHERE id = $2")?,
            all: client.prepare(select)?,
            visit_all: client.prepare(
                "UPDATE people SET visits = new.visits FROM unnest($1::int4[], $2::int4[]) AS new (id, visits) \
                 WHERE people.id = new.id",
            )?,
            insert: client.prepare(
                "INSERT INTO notes (title, body, stars) SELECT * FROM unnest($1::text[], $2::text[], $3::int4[]) RETURNING id",
            )?,
            parents: client.prepare("INSERT INTO parents (name) SELECT * FROM unnest($1::text[]) RETURNING id")?,
            children: client.prepare(
                "INSERT INTO children (parent_id, name) SELECT * FROM unnest($1::int4[], $2::text[]) RETURNING id",
            )?,
            client,
        })
    }

    fn request(&mut self, key: i32) -> Fallible<i32> {
        let mut transaction = self.client.transaction()?;
        let person = person(&transaction.query_one(&self.find, &[&key])?)?;
        transaction.execute(&self.visit, &[&(person.visits + 1), &key])?;
        transaction.commit()?;
        Ok(person.visits)
    }

    fn read(&mut self, key: i32) -> Fallible<i32> {
        let level = postgres::IsolationLevel::RepeatableRead;
        let mut transaction = self.client.build_transaction().isolation_level(level).read_only(true).start()?;
        let person = person(&transaction.query_one(&self.find, &[&key])?)?;
        transaction.commit()?;
        Ok(person.visits)
    }

    fn insert(&mut self, drafts: &[Draft]) -> Fallible<Vec<i32>> {
        let mut transaction = self.client.transaction()?;
        let mut made = Vec::with_capacity(drafts.len());
        for rows in drafts.chunks(CHUNK) {
            let titles: Vec<&str> = rows.iter().map(|row| row.title.as_str()).collect();
            let bodies: Vec<&str> = rows.iter().map(|row| row.body.as_str()).collect();
            let stars: Vec<i32> = rows.iter().map(|row| row.stars).collect();
            made.extend(keys(&transaction.query(&self.insert, &[&titles, &bodies, &stars])?)?);
        }
        transaction.commit()?;
        Ok(made)
    }

    fn change(&mut self) -> Fallible {
        let mut transaction = self.client.transaction()?;
        let rows = transaction.query(&self.all, &[])?;
        let people: Vec<Person> = rows.iter().map(person).collect::<Fallible<_>>()?;
        for rows in people.chunks(CHUNK) {
            let ids: Vec<i32> = rows.iter().map(|row| row.id).collect();
            let visits: Vec<i32> = rows.iter().map(|row| row.visits + 1).collect();
            transaction.execute(&self.visit_all, &[&ids, &visits])?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn families(&mut self, families: &[Family]) -> Fallible<(Vec<i32>, Vec<i32>)> {
        let mut transaction = self.client.transaction()?;
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        let parents = keys(&transaction.query(&self.parents, &[&names])?)?;
        let rows: Vec<(i32, &str)> = families
            .iter()
            .zip(&parents)
            .flat_map(|(family, &key)| family.children.iter().map(move |name| (key, name.as_str())))
            .collect();
        let mut children = Vec::with_capacity(rows.len());
        for rows in rows.chunks(CHUNK) {
            let above: Vec<i32> = rows.iter().map(|row| row.0).collect();
            let names: Vec<&str> = rows.iter().map(|row| row.1).collect();
            children.extend(keys(&transaction.query(&self.children, &[&above, &names])?)?);
        }
        transaction.commit()?;
        Ok((parents, children))
    }
}

pub fn ways(url: &str) -> Fallible<Vec<Way>> {
    let raw = Rc::new(RefCell::new(Raw::new(url)?));
    let with = || Rc::clone(&raw);
    let (first, reading, inserting, changing, growing) = (with(), with(), with(), with(), with());
    Ok(vec![
        Way::request(REQUESTS, Work::W1, move |key| first.borrow_mut().request(key)),
        Way::request(REQUESTS, Work::W2, move |key| reading.borrow_mut().read(key)),
        Way::insert(NAME, move |drafts| inserting.borrow_mut().insert(&drafts)),
        Way::change(NAME, move || changing.borrow_mut().change()),
        Way::families(NAME, move |all| growing.borrow_mut().families(&all)),
    ])
}
