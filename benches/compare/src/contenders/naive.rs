//! Diesel as most people begin: r2d2's defaults, `.first()`, `save_changes`, one INSERT a row.

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};

use super::{Conn, Settings};
use crate::models::{NewNote, Person, children, notes, parents, people};
use crate::records::{children_of, parents_of};
use crate::work::{Fallible, Way, Work};

const NAME: &str = "diesel naive";

pub fn ways(url: &str, settings: Settings) -> Fallible<Vec<Way>> {
    let pool = Pool::builder()
        .max_size(4)
        .connection_customizer(Box::new(settings))
        .build(ConnectionManager::<Conn>::new(url))?;
    let request = {
        let pool = pool.clone();
        move |key: i32| -> Fallible<i32> {
            let conn = &mut *pool.get()?;
            conn.transaction(|conn| {
                let mut person: Person = people::table.find(key).first(conn)?;
                person.visits += 1;
                let person: Person = person.save_changes(conn)?;
                Ok(person.visits - 1)
            })
        }
    };
    let read = {
        let pool = pool.clone();
        move |key: i32| -> Fallible<i32> {
            let conn = &mut *pool.get()?;
            conn.transaction(|conn| {
                let person: Person = people::table.find(key).first(conn)?;
                Ok(person.visits)
            })
        }
    };
    let insert = {
        let pool = pool.clone();
        move |drafts: Vec<_>| -> Fallible<Vec<i32>> {
            let conn = &mut *pool.get()?;
            conn.transaction(|conn| {
                let mut keys = Vec::with_capacity(drafts.len());
                for draft in drafts {
                    keys.push(insert_one!(conn, notes, &NewNote::from(draft))?);
                }
                Ok(keys)
            })
        }
    };
    let change = {
        let pool = pool.clone();
        move || -> Fallible {
            let conn = &mut *pool.get()?;
            conn.transaction(|conn| {
                for mut person in people::table.load::<Person>(conn)? {
                    person.visits += 1;
                    let _: Person = person.save_changes(conn)?;
                }
                Ok(())
            })
        }
    };
    let families = move |mut families: Vec<_>| -> Fallible<_> {
        let conn = &mut *pool.get()?;
        conn.transaction(|conn| {
            let mut keys = (Vec::new(), Vec::new());
            for parent in parents_of(&mut families) {
                keys.0.push(insert_one!(conn, parents, &parent)?);
            }
            for child in children_of(&keys.0, families) {
                keys.1.push(insert_one!(conn, children, &child)?);
            }
            Ok(keys)
        })
    };
    Ok(vec![
        Way::request(NAME, Work::W1, request.clone()),
        Way::request(NAME, Work::W1Full, request),
        Way::request(NAME, Work::W2, read),
        Way::insert(NAME, insert).share(10),
        Way::change(NAME, change),
        Way::families(NAME, families),
    ])
}
