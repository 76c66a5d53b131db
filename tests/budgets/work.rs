//! The works, as an application writes them.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Bulk, Error, Result, autocommit};

use super::db::{Conn, Database, Registry};
use crate::budget::Cost;
use crate::models::{NewChild, NewParent, Person, new_note, people, person};
use crate::recorder::recorder;

pub(crate) struct Stage {
    pub(crate) registry: Registry,
    _database: Database,
}

impl Stage {
    /// One connection for all, and so many people; the engine takes what `url` makes of the database's.
    pub(crate) fn reached(people: i32, url: impl FnOnce(&str) -> String) -> Self {
        let database = Database::new();
        Conn::establish(&database.url).unwrap().batch_execute(super::SCHEMA).unwrap();
        let url = url(&database.url);
        let engine =
            diesel_session::Engine::<Conn>::builder(url).max_size(1).instrumentation(recorder).build().unwrap();
        let registry = Registry::new(engine);
        registry.transaction(|session| session.bulk_insert((1..=people).map(|id| person(id, 0)), Bulk::new())).unwrap();
        Self { registry, _database: database }
    }

    pub(crate) fn new(people: i32) -> Self {
        Self::reached(people, str::to_owned)
    }
}

/// A work, what it may cost, and how many people there are.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) people: i32,
    pub(crate) cost: Cost,
    pub(crate) run: fn(&Registry),
}

impl Work {
    /// Prepares what it will need. Twice, because a statement of a size that need not come again is kept when it does.
    #[allow(dead_code)]
    pub(crate) fn get_ready(&self, registry: &Registry) {
        (self.run)(registry);
        (self.run)(registry);
    }
}

pub(crate) fn all() -> [Work; 7] {
    let budget = super::BUDGET;
    [
        Work { name: "W1, a request that changes a row", people: 10, cost: budget.request, run: request },
        Work { name: "W2, a request that reads a row", people: 10, cost: budget.read, run: read },
        Work { name: "W2, autocommit", people: 10, cost: budget.read_alone, run: read_alone },
        Work { name: "W3, 10 000 new rows", people: 0, cost: budget.insert, run: insert },
        Work { name: "W4, 1 000 changed rows", people: 1_000, cost: budget.change_1_000, run: change },
        Work { name: "W4, 10 000 changed rows", people: 10_000, cost: budget.change_10_000, run: change },
        Work { name: "W5, 100 parents with 10 children", people: 0, cost: budget.families, run: families },
    ]
}

pub(crate) fn request(registry: &Registry) {
    let key = 7;
    let changed: Result<()> = registry.transaction(|session| {
        session.get_one::<Person>(key)?.write()?.visits += 1;
        Ok(())
    });
    changed.unwrap();
}

pub(crate) fn read(registry: &Registry) {
    let born: Result<i32> = registry.read(|session| Ok(session.get_one::<Person>(7)?.read()?.born));
    assert_eq!(born.unwrap(), person(7, 0).born);
}

pub(crate) fn read_alone(registry: &Registry) {
    let session = registry.current_with(autocommit()).unwrap();
    assert_eq!(session.get_one::<Person>(7).unwrap().read().unwrap().born, person(7, 0).born);
    registry.remove();
}

fn insert(registry: &Registry) {
    let keys: Result<Vec<i32>> = registry.transaction(|session| {
        let added = session.add_all((0..10_000).map(new_note))?;
        session.flush()?;
        added.iter().map(|note| note.id()).collect()
    });
    let keys = keys.unwrap();
    assert!(keys.len() == 10_000 && keys.is_sorted());
}

fn change(registry: &Registry) {
    let changed: Result<()> = registry.transaction(|session| {
        for person in session.load_tracked(people::table.select(Person::as_select()))? {
            person.write()?.visits += 1;
        }
        Ok(())
    });
    changed.unwrap();
}

fn families(registry: &Registry) {
    let count = registry.transaction(|session| {
        let mut children = Vec::new();
        for n in 0..100 {
            let parent = session.add(NewParent { name: format!("parent {n}") })?;
            for child in 0..10 {
                let name = format!("child {child} of {n}");
                children.push(session.add_with(&parent, |parent| NewChild { parent_id: parent.id, name })?);
            }
        }
        session.flush()?;
        let keys: Vec<i32> = children.iter().map(|child| child.id()).collect::<Result<_>>()?;
        Ok::<_, Error>(keys.len())
    });
    assert_eq!(count.unwrap(), 1_000);
}
