//! The contenders, compiled once for each backend; the parent module says how that backend begins.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Error as PoolError, Pool};
use diesel_session::{Error, autocommit, read_only};

use super::super::support::notes;
use super::super::{Arena, Contender, ROWS, Seating, Work, text_of};
use super::db::{Conn, Database, REMOTE, Registry, Session};
use super::{Settings, read, settle, write};

type Note = (i32, String, i32);

impl CustomizeConnection<Conn, PoolError> for Settings {
    fn on_acquire(&self, conn: &mut Conn) -> Result<(), PoolError> {
        self.set_up(conn).map_err(PoolError::QueryError)
    }
}

/// The column that the cycles write, given and checked.
fn check(note: &Note, key: i32, n: i32) {
    assert_eq!((note.0, note.2), (key, n), "a cycle read a row that it should not have");
}

pub fn arena(name: String, settings: Settings) -> Arena {
    let database = Rc::new(Database::new());
    let mut observer = Conn::establish(&database.url).unwrap();
    settings.set_up(&mut observer).unwrap();
    let observer = Rc::new(RefCell::new(observer));
    let seat = {
        let (database, seatings) = (Rc::clone(&database), Cell::new(0));
        move || {
            seatings.set(seatings.get() + 1);
            seat(&database, settings, seatings.get() % 2 == 0)
        }
    };
    fill(&database.registry());
    let mut arena = Arena::new(name, seat());
    arena.seat_anew = REMOTE.then(|| Box::new(seat) as Box<dyn Fn() -> Seating>);
    let settler = Rc::clone(&observer);
    arena.settle = Box::new(move || settle(&mut settler.borrow_mut()));
    arena.stored = Box::new(move || {
        let _keep_the_database = &database;
        notes::table.order(notes::id).load(&mut *observer.borrow_mut()).unwrap()
    });
    arena
}

/// Who connects first takes turns: a server may start its processes on one core after the other.
fn seat(database: &Database, settings: Settings, sessions_first: bool) -> Seating {
    let connect = || {
        let registry = database.registry_with(|builder| settings.engine(builder).max_size(4));
        registry.read(|session| session.load::<Note>(notes::table)).unwrap();
        registry
    };
    let sessions_before = sessions_first.then(connect);
    let pool = Pool::builder()
        .max_size(4)
        .min_idle(Some(1))
        .test_on_check_out(false)
        .connection_customizer(Box::new(settings))
        .build(ConnectionManager::<Conn>::new(&database.url))
        .unwrap();
    let registry = sessions_before.unwrap_or_else(connect);
    let contenders = [bare(&pool), sessions(&registry)].into_iter().flatten().collect();
    // The first registry of a SQLite database is the process's own, as in a server; others are entered for the turn.
    let enter: Box<dyn Fn(&mut dyn FnMut())> = if !REMOTE && registry.clone().install().is_ok() {
        Box::new(|turn| turn())
    } else {
        Box::new(move |turn| registry.enter(turn))
    };
    Seating { contenders, enter }
}

fn fill(registry: &Registry) {
    registry
        .transaction(|session| {
            for key in 1..=ROWS {
                let note = (notes::id.eq(key), notes::text.eq(text_of(key)), notes::n.eq(0));
                session.execute(diesel::insert_into(notes::table).values(note))?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
}

fn bare(pool: &Pool<ConnectionManager<Conn>>) -> Vec<Contender> {
    let contender = |name, work, cycle: fn(&Pool<ConnectionManager<Conn>>, i32, i32)| {
        let pool = pool.clone();
        Contender { name, work, bounded: false, cycle: Box::new(move |key, n| cycle(&pool, key, n)) }
    };
    vec![
        contender("bare Diesel", Work::Read, |pool, key, n| {
            let mut conn = pool.get().unwrap();
            let note = read(&mut conn, |conn| notes::table.find(key).get_result(conn)).unwrap();
            check(&note, key, n);
        }),
        contender("bare Diesel, no transaction", Work::Read, |pool, key, n| {
            let mut conn = pool.get().unwrap();
            let note = notes::table.find(key).get_result(&mut *conn).unwrap();
            check(&note, key, n);
        }),
        contender("bare Diesel", Work::ReadUpdate, |pool, key, n| {
            let mut conn = pool.get().unwrap();
            let note = write(&mut conn, |conn| {
                let note: Note = notes::table.find(key).get_result(conn)?;
                diesel::update(notes::table.find(key)).set(notes::n.eq(note.2 + 1)).execute(conn)?;
                Ok(note)
            });
            check(&note.unwrap(), key, n);
        }),
    ]
}

fn sessions(registry: &Registry) -> Vec<Contender> {
    let contender = |name, work, bounded, cycle: fn(&Registry, i32, i32)| {
        let registry = registry.clone();
        Contender { name, work, bounded, cycle: Box::new(move |key, n| cycle(&registry, key, n)) }
    };
    vec![
        contender("registry.read", Work::Read, true, |registry, key, n| {
            let note = registry.read(|session| session.get_result(notes::table.find(key))).unwrap();
            check(&note, key, n);
        }),
        contender("current_with(read_only), commit, remove", Work::Read, true, |_, key, n| {
            let session = Session::current_with(read_only()).unwrap();
            let note = session.get_result(notes::table.find(key)).unwrap();
            session.commit().unwrap();
            Session::remove();
            check(&note, key, n);
        }),
        contender("current_with(autocommit), remove", Work::Read, false, |_, key, n| {
            let session = Session::current_with(autocommit()).unwrap();
            let note = session.get_result(notes::table.find(key)).unwrap();
            Session::remove();
            check(&note, key, n);
        }),
        contender("registry.transaction", Work::ReadUpdate, true, |registry, key, n| {
            let note = registry
                .transaction(|session| {
                    let note: Note = session.get_result(notes::table.find(key))?;
                    session.execute(diesel::update(notes::table.find(key)).set(notes::n.eq(note.2 + 1)))?;
                    Ok::<_, Error>(note)
                })
                .unwrap();
            check(&note, key, n);
        }),
        contender("current, commit, remove", Work::ReadUpdate, true, |_, key, n| {
            let session = Session::current().unwrap();
            let note: Note = session.get_result(notes::table.find(key)).unwrap();
            session.execute(diesel::update(notes::table.find(key)).set(notes::n.eq(note.2 + 1))).unwrap();
            session.commit().unwrap();
            Session::remove();
            check(&note, key, n);
        }),
    ]
}
