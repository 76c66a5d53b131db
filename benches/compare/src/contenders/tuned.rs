//! Diesel by someone who measured: no test at check-out, `get_result` by key, one column updated, 1000 rows an INSERT.

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};

use super::{Conn, Settings, read, write};
use crate::models::{NewNote, Person, children, notes, parents, people};
use crate::records::{children_of, parents_of};
use crate::work::{Fallible, Way, Work};

const NAME: &str = "diesel tuned";
const CHUNK: usize = 1_000;

pub fn ways(url: &str, settings: Settings) -> Fallible<Vec<Way>> {
    let pool = Pool::builder()
        .max_size(4)
        .test_on_check_out(false)
        .connection_customizer(Box::new(settings))
        .build(ConnectionManager::<Conn>::new(url))?;
    let request = {
        let pool = pool.clone();
        move |key: i32| -> Fallible<i32> {
            let conn = &mut *pool.get()?;
            write(conn, |conn| {
                let person: Person = people::table.find(key).get_result(conn)?;
                diesel::update(people::table.find(key)).set(people::visits.eq(person.visits + 1)).execute(conn)?;
                Ok(person.visits)
            })
        }
    };
    let in_transaction = {
        let pool = pool.clone();
        move |key: i32| -> Fallible<i32> {
            let conn = &mut *pool.get()?;
            let person: Person = read(conn, |conn| Ok(people::table.find(key).get_result(conn)?))?;
            Ok(person.visits)
        }
    };
    let alone = {
        let pool = pool.clone();
        move |key: i32| -> Fallible<i32> {
            let person: Person = people::table.find(key).get_result(&mut *pool.get()?)?;
            Ok(person.visits)
        }
    };
    let insert = {
        let pool = pool.clone();
        move |drafts: Vec<_>| -> Fallible<Vec<i32>> {
            let conn = &mut *pool.get()?;
            let rows: Vec<NewNote> = drafts.into_iter().map(NewNote::from).collect();
            write(conn, |conn| {
                let mut keys = Vec::with_capacity(rows.len());
                for rows in rows.chunks(CHUNK) {
                    keys.extend(insert_all!(conn, notes, rows)?);
                }
                Ok(keys)
            })
        }
    };
    let change = {
        let pool = pool.clone();
        move || -> Fallible {
            let conn = &mut *pool.get()?;
            write(conn, |conn| {
                for person in people::table.load::<Person>(conn)? {
                    diesel::update(people::table.find(person.id))
                        .set(people::visits.eq(person.visits + 1))
                        .execute(conn)?;
                }
                Ok(())
            })
        }
    };
    let families = move |mut families: Vec<_>| -> Fallible<_> {
        let conn = &mut *pool.get()?;
        write(conn, |conn| {
            let mut keys = (Vec::new(), Vec::new());
            for rows in parents_of(&mut families).chunks(CHUNK) {
                keys.0.extend(insert_all!(conn, parents, rows)?);
            }
            for rows in children_of(&keys.0, families).chunks(CHUNK) {
                keys.1.extend(insert_all!(conn, children, rows)?);
            }
            Ok(keys)
        })
    };
    Ok(vec![
        Way::request(NAME, Work::W1, request.clone()),
        Way::request(NAME, Work::W1Full, request),
        Way::request(NAME, Work::W2, in_transaction),
        Way::request("diesel tuned, no transaction", Work::W2, alone),
        Way::insert(NAME, insert),
        Way::change(NAME, change),
        Way::families(NAME, families),
    ])
}
