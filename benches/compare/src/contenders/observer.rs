//! Fills the tables and reads what is stored, on a connection of its own.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::{Conn, SETTLE_PEOPLE, SETTLE_W3, SETTLE_W5};
use crate::models::{Child, Note, Parent, Person, children, notes, parents, people, person};
use crate::work::{Draft, Fallible, Families, Work};

pub struct Observer(Conn);

impl Observer {
    /// Makes the tables and fills the one that is read.
    pub fn new(mut conn: Conn, schema: &str, count: i32) -> Fallible<Self> {
        conn.batch_execute(schema)?;
        let rows: Vec<Person> = (1..=count).map(|id| person(id, 0)).collect();
        conn.transaction(|conn| {
            rows.chunks(1_000)
                .try_for_each(|rows| diesel::insert_into(people::table).values(rows).execute(conn).map(drop))
        })?;
        Ok(Self(conn))
    }

    pub fn settle(&mut self, work: Work) -> Fallible {
        let text = match work {
            Work::W3 => SETTLE_W3,
            Work::W5 => SETTLE_W5,
            Work::W1 | Work::W1Full | Work::W2 | Work::W4 => SETTLE_PEOPLE,
        };
        Ok(self.0.batch_execute(text)?)
    }

    pub fn visits(&mut self) -> Fallible<Vec<i32>> {
        Ok(people::table.order(people::id).select(people::visits).load(&mut self.0)?)
    }

    pub fn notes(&mut self) -> Fallible<Vec<(i32, Draft)>> {
        let rows: Vec<Note> = notes::table.order(notes::id).load(&mut self.0)?;
        Ok(rows.into_iter().map(|n| (n.id, Draft { title: n.title, body: n.body, stars: n.stars })).collect())
    }

    pub fn families(&mut self) -> Fallible<Families> {
        let above: Vec<Parent> = parents::table.order(parents::id).load(&mut self.0)?;
        let below: Vec<Child> = children::table.order(children::id).load(&mut self.0)?;
        Ok((
            above.into_iter().map(|parent| (parent.id, parent.name)).collect(),
            below.into_iter().map(|child| (child.id, child.parent_id, child.name)).collect(),
        ))
    }
}
