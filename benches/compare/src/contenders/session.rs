//! This crate, complete: a registry, tracked entities, change detection, hooks and inspection as they are by default.

use diesel::prelude::*;
use diesel_session::{Bulk, Engine, Error, ScopedSession, autocommit};

use super::{Conn, Settings};
use crate::models::{NewChild, NewNote, NewParent, Person, people};
use crate::work::{Fallible, Family, Outcome, Task, Way, Work};

const NAME: &str = "session";

pub fn ways(url: &str, settings: Settings) -> Fallible<Vec<Way>> {
    let engine = settings.engine(Engine::<Conn>::builder(url).max_size(4)).build()?;
    let registry = ScopedSession::new(engine);
    let request = {
        let registry = registry.clone();
        move |key: i32| -> Fallible<i32> {
            let before = registry.transaction(|session| {
                let person = session.get_one::<Person>(key)?;
                let before = person.read()?.visits;
                person.write()?.visits += 1;
                Ok::<_, Error>(before)
            })?;
            Ok(before)
        }
    };
    let read = {
        let registry = registry.clone();
        move |key: i32| -> Fallible<i32> {
            let visits = registry.read(|session| {
                let person = session.get_one::<Person>(key)?;
                Ok::<_, Error>(person.read()?.visits)
            })?;
            Ok(visits)
        }
    };
    let alone = {
        let registry = registry.clone();
        move |key: i32| -> Fallible<i32> {
            let session = registry.current_with(autocommit())?;
            let visits = session.get_one::<Person>(key)?.read()?.visits;
            registry.remove();
            Ok(visits)
        }
    };
    let insert = {
        let registry = registry.clone();
        move |drafts: Vec<_>| -> Fallible<Vec<i32>> {
            let keys = registry.transaction(|session| {
                let added = session.add_all(drafts.into_iter().map(NewNote::from))?;
                session.flush()?;
                added.iter().map(|note| note.id()).collect::<Result<_, Error>>()
            })?;
            Ok(keys)
        }
    };
    let bulk = {
        let registry = registry.clone();
        move |task| -> Fallible<Outcome> {
            let Task::Insert(drafts) = task else { return Err("not a list of rows".into()) };
            registry.transaction(|session| {
                session.bulk_insert(drafts.into_iter().map(NewNote::from), Bulk::new())?;
                Ok::<_, Error>(())
            })?;
            Ok(Outcome::Nothing)
        }
    };
    let change = {
        let registry = registry.clone();
        move || -> Fallible {
            registry.transaction(|session| {
                for person in session.load_tracked(people::table.select(Person::as_select()))? {
                    person.write()?.visits += 1;
                }
                Ok::<_, Error>(())
            })?;
            Ok(())
        }
    };
    let families = move |families: Vec<Family>| -> Fallible<_> {
        let keys = registry.transaction(|session| {
            let (mut parents, mut children) = (Vec::new(), Vec::new());
            for family in families {
                let parent = session.add(NewParent { name: family.name })?;
                for name in family.children {
                    children.push(session.add_with(&parent, |parent| NewChild { parent_id: parent.id, name })?);
                }
                parents.push(parent);
            }
            session.flush()?;
            let parents = parents.iter().map(|parent| parent.id()).collect::<Result<_, Error>>()?;
            let children = children.iter().map(|child| child.id()).collect::<Result<_, Error>>()?;
            Ok::<_, Error>((parents, children))
        })?;
        Ok(keys)
    };
    Ok(vec![
        Way::request(NAME, Work::W1, request.clone()),
        Way::request(NAME, Work::W1Full, request),
        Way::request(NAME, Work::W2, read),
        Way::request("session, autocommit", Work::W2, alone),
        Way::insert(NAME, insert),
        Way::new("session, bulk_insert", Work::W3, bulk),
        Way::change(NAME, change),
        Way::families(NAME, families),
    ])
}
