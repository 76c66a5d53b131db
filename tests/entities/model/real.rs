//! The real session, driven by the same steps.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Savepoint, SessionState, Tracked, read_only};

use super::super::db::{Conn, Registry, Session};
use super::super::schema::{countries, groups, memberships, posts, users};
use super::super::*;
use super::rows::{Edit, Key, Kind, Row, Rows};
use super::steps::{Action, Elsewhere};

#[derive(Clone, PartialEq)]
pub(super) enum Handle {
    User(Tracked<User>),
    Group(Tracked<Group>),
    Country(Tracked<Country>),
    Post(Tracked<Post>),
    Membership(Tracked<Membership>),
}

/// Does the same with a handle of any type.
macro_rules! each {
    ($handle:expr, $tracked:ident, $row:ident => $body:expr) => {
        match $handle {
            Handle::User($tracked) => {
                let $row = Row::User;
                $body
            }
            Handle::Group($tracked) => {
                let $row = Row::Group;
                $body
            }
            Handle::Country($tracked) => {
                let $row = Row::Country;
                $body
            }
            Handle::Post($tracked) => {
                let $row = Row::Post;
                $body
            }
            Handle::Membership($tracked) => {
                let $row = Row::Membership;
                $body
            }
        }
    };
}

/// What a handle shows.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) state: ObjectState,
    pub(super) value: Option<Row>,
    pub(super) key: Option<Key>,
    pub(super) is_stale: bool,
    pub(super) is_modified: bool,
}

pub(super) struct Real {
    registry: Registry,
    pub(super) session: Session,
    guards: Vec<Savepoint<Conn>>,
    /// Of savepoints that an outer one has ended.
    spent: Vec<Savepoint<Conn>>,
    /// By the numbers of the model's objects.
    pub(super) handles: Vec<Option<Handle>>,
}

pub(super) type Answer = Result<Vec<Handle>, String>;

fn name_of(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn number(text: &str) -> i32 {
    text.parse().unwrap()
}

fn load_rows(session: &Session) -> diesel_session::Result<Rows> {
    let mut rows = Vec::new();
    rows.extend(session.load(users::table.select(User::as_select()))?.into_iter().map(Row::User));
    rows.extend(session.load(groups::table.select(Group::as_select()))?.into_iter().map(Row::Group));
    rows.extend(session.load(countries::table.select(Country::as_select()))?.into_iter().map(Row::Country));
    rows.extend(session.load(posts::table.select(Post::as_select()))?.into_iter().map(Row::Post));
    let found = session.load(memberships::table.select(Membership::as_select()))?;
    rows.extend(found.into_iter().map(Row::Membership));
    Ok(rows.into_iter().map(|row| (row.key(), row)).collect())
}

impl Real {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            session: Session::new(registry.engine()),
            guards: Vec::new(),
            spent: Vec::new(),
            handles: Vec::new(),
        }
    }

    /// What the transaction sees, or, where there is none, what is stored; nothing after a failure.
    pub(super) fn rows(&self) -> Result<Option<Rows>, String> {
        let rows = match self.session.state() {
            SessionState::Active => self.session.no_autoflush(|| load_rows(&self.session)),
            SessionState::Failed => return Ok(None),
            _ => load_rows(&Session::with_options(self.registry.engine(), read_only()).unwrap()),
        };
        rows.map(Some).map_err(|error| format!("the rows could not be read: {error}"))
    }

    pub(super) fn shown(&self, handle: &Handle) -> Shown {
        each!(handle, tracked, row => {
            let value = tracked.read().ok().map(|value| row((*value).clone()));
            let key = tracked.key().map(|_| value.as_ref().unwrap().key());
            Shown {
                state: tracked.state(),
                value,
                key,
                is_stale: tracked.is_stale(),
                is_modified: self.session.is_modified(tracked),
            }
        })
    }

    /// What is new, dirty, to be deleted, and in the identity map.
    pub(super) fn lists(&self) -> [Vec<Handle>; 4] {
        let mut lists: [Vec<Handle>; 4] = Default::default();
        let session = &self.session;
        macro_rules! add {
            ($($name:ident),+) => { $(
                lists[0].extend(session.new_entities::<$name>().into_iter().map(Handle::$name));
                lists[1].extend(session.dirty_entities::<$name>().into_iter().map(Handle::$name));
                lists[2].extend(session.deleted_entities::<$name>().into_iter().map(Handle::$name));
                lists[3].extend(session.tracked::<$name>().into_iter().map(Handle::$name));
            )+ };
        }
        add!(User, Group, Country, Post, Membership);
        lists
    }

    fn handle(&self, n: usize) -> Handle {
        self.handles[n].clone().unwrap()
    }

    fn loud<R>(&self, quiet: bool, f: impl FnOnce(&Session) -> R) -> R {
        if quiet { self.session.no_autoflush(|| f(&self.session)) } else { f(&self.session) }
    }

    pub(super) fn step(&mut self, action: &Action) -> Answer {
        let answer = self.try_step(action).map_err(|error| name_of(&error));
        self.spent.clear();
        answer
    }

    fn try_step(&mut self, action: &Action) -> diesel_session::Result<Vec<Handle>> {
        let session = self.session.clone();
        match action {
            Action::Add { row, parents } => return self.add(row, parents).map(|handle| vec![handle]),
            Action::Write { n, edit } => self.write(*n, edit)?,
            Action::Delete(n) => each!(self.handle(*n), tracked, _row => session.delete(&tracked)?),
            Action::Undelete(n) => each!(self.handle(*n), tracked, _row => session.undelete(&tracked)?),
            Action::Expunge(n) => each!(self.handle(*n), tracked, _row => session.expunge(&tracked)?),
            Action::ExpungeAll => session.expunge_all()?,
            Action::Expire(n) => each!(self.handle(*n), tracked, _row => session.expire(&tracked)?),
            Action::ExpireAll => session.expire_all()?,
            Action::Refresh(n) => each!(self.handle(*n), tracked, _row => session.refresh(&tracked)?),
            Action::RefreshAll => session.refresh_all()?,
            Action::Flush => session.flush()?,
            Action::BeginNested => self.guards.push(session.begin_nested()?),
            Action::Release(level) => drop(self.guard(*level).commit()?),
            Action::RollBackTo(level) => drop(self.guard(*level).rollback()?),
            Action::DropGuard(level) => drop(self.guard(*level)),
            Action::Commit => drop(session.commit()?),
            Action::Rollback => {
                session.rollback()?;
                self.guards.clear();
            }
            Action::Remove => {
                session.close();
                self.guards.clear();
            }
            Action::Get { key, quiet } => return self.loud(*quiet, |session| get(session, key)),
            Action::GetMany { keys, quiet } => {
                return self.loud(*quiet, |session| get_many(session, keys));
            }
            Action::Load { kind, quiet } => return self.loud(*quiet, |session| load(session, *kind)),
            Action::RawUpdate { key, edit, quiet } => {
                self.loud(*quiet, |session| update(session, key, edit))?;
            }
            Action::RawDelete { key, quiet } => {
                let rows = countries::table.filter(countries::code.eq(&key.1));
                self.loud(*quiet, |session| session.execute(diesel::delete(rows)))?;
            }
            Action::RawInsert { row, quiet } => {
                self.loud(*quiet, |session| insert_country(session, row))?;
            }
            Action::Elsewhere(change) => {
                let session = Session::new(self.registry.engine());
                elsewhere(&session, change)?;
                session.commit()?;
            }
            Action::Drop(n) => self.handles[*n] = None,
        }
        Ok(Vec::new())
    }

    /// The guard of this savepoint leaves; those inside it are spent with it.
    fn guard(&mut self, level: usize) -> Savepoint<Conn> {
        let mut inner = self.guards.split_off(level - 1);
        let guard = inner.remove(0);
        // Alive until the outer one has ended; then their drops find nothing to do.
        self.spent = inner;
        guard
    }

    fn add(&self, row: &Row, parents: &[usize]) -> diesel_session::Result<Handle> {
        let session = &self.session;
        let parents: Vec<Handle> = parents.iter().map(|n| self.handle(*n)).collect();
        match (row.clone(), parents.as_slice()) {
            (Row::User(User { nickname, email, balance, .. }), _) => {
                session.add(NewUser { nickname, email, balance }).map(Handle::User)
            }
            (Row::Group(Group { name, owner_id, .. }), _) => {
                session.add(NewGroup { name, owner_id }).map(Handle::Group)
            }
            (Row::Country(country), _) => session.add(country).map(Handle::Country),
            (Row::Post(post), [Handle::User(user)]) => {
                let make = move |user: &User| NewPost { user_id: user.id, parent_id: None, title: post.title };
                session.add_with(user, make).map(Handle::Post)
            }
            (Row::Post(post), [Handle::User(user), Handle::Post(parent)]) => {
                let make = move |(user, parent): (&User, &Post)| NewPost {
                    user_id: user.id,
                    parent_id: Some(parent.id),
                    title: post.title,
                };
                session.add_with((user, parent), make).map(Handle::Post)
            }
            (Row::Membership(Membership { role, .. }), [Handle::User(user), Handle::Group(group)]) => {
                let make = |(user, group): (&User, &Group)| Membership { user_id: user.id, group_id: group.id, role };
                session.add_with((user, group), make).map(Handle::Membership)
            }
            _ => panic!("no such parents"),
        }
    }

    fn write(&self, n: usize, edit: &Edit) -> diesel_session::Result<()> {
        macro_rules! edit {
            ($tracked:ident, $name:ident) => {{
                let mut guard = $tracked.write()?;
                if let Row::$name(row) = Row::$name(guard.clone()).edited(edit) {
                    *guard = row;
                }
            }};
        }
        match self.handle(n) {
            Handle::User(tracked) => edit!(tracked, User),
            Handle::Group(tracked) => edit!(tracked, Group),
            Handle::Country(tracked) => edit!(tracked, Country),
            Handle::Post(tracked) => edit!(tracked, Post),
            Handle::Membership(tracked) => edit!(tracked, Membership),
        }
        Ok(())
    }
}

fn get_many(session: &Session, keys: &[Key]) -> diesel_session::Result<Vec<Handle>> {
    let texts = keys.iter().map(|key| key.1.as_str());
    Ok(match keys[0].0 {
        Kind::User => session.get_many::<User, i32>(texts.map(number))?.into_iter().map(Handle::User).collect(),
        Kind::Group => session.get_many::<Group, i32>(texts.map(number))?.into_iter().map(Handle::Group).collect(),
        Kind::Country => {
            session.get_many::<Country, String>(texts.map(str::to_owned))?.into_iter().map(Handle::Country).collect()
        }
        Kind::Post => session.get_many::<Post, i32>(texts.map(number))?.into_iter().map(Handle::Post).collect(),
        Kind::Membership => {
            let found = session.get_many::<Membership, (i32, i32)>(texts.map(pair))?;
            found.into_iter().map(Handle::Membership).collect()
        }
    })
}

fn pair(text: &str) -> (i32, i32) {
    let (user, group) = text.split_once('/').unwrap_or((text, "0"));
    (number(user), number(group))
}

fn get(session: &Session, key: &Key) -> diesel_session::Result<Vec<Handle>> {
    let text = key.1.as_str();
    Ok(match key.0 {
        Kind::User => session.get::<User>(number(text))?.map(Handle::User),
        Kind::Group => session.get::<Group>(number(text))?.map(Handle::Group),
        Kind::Country => session.get::<Country>(text.to_owned())?.map(Handle::Country),
        Kind::Post => session.get::<Post>(number(text))?.map(Handle::Post),
        Kind::Membership => session.get::<Membership>(pair(text))?.map(Handle::Membership),
    }
    .into_iter()
    .collect())
}

fn load(session: &Session, kind: Kind) -> diesel_session::Result<Vec<Handle>> {
    macro_rules! load {
        ($name:ident, $table:ident, $order:expr) => {{
            let found = session.load_tracked($table::table.select($name::as_select()).order($order))?;
            found.into_iter().map(Handle::$name).collect()
        }};
    }
    Ok(match kind {
        Kind::User => load!(User, users, users::id),
        Kind::Group => load!(Group, groups, groups::id),
        Kind::Country => load!(Country, countries, countries::code),
        Kind::Post => load!(Post, posts, posts::id),
        Kind::Membership => load!(Membership, memberships, (memberships::user_id, memberships::group_id)),
    })
}

fn insert_country(session: &Session, row: &Row) -> diesel_session::Result<usize> {
    let Row::Country(country) = row else { panic!("only countries have keys of their own") };
    session.execute(diesel::insert_into(countries::table).values(country))
}

fn update(session: &Session, key: &Key, edit: &Edit) -> diesel_session::Result<usize> {
    let Edit::Number(n) = edit else { panic!("only numbers are changed this way") };
    match key.0 {
        Kind::User => {
            let row = users::table.filter(users::id.eq(number(&key.1)));
            session.execute(diesel::update(row).set(users::balance.eq(n)))
        }
        _ => {
            let row = countries::table.filter(countries::code.eq(&key.1));
            session.execute(diesel::update(row).set(countries::population.eq(n)))
        }
    }
}

fn elsewhere(session: &Session, change: &Elsewhere) -> diesel_session::Result<()> {
    match change {
        Elsewhere::Balance { key, balance } => {
            let row = users::table.filter(users::id.eq(number(&key.1)));
            let set = (users::balance.eq(balance), users::version.eq(users::version + 1));
            session.execute(diesel::update(row).set(set))?;
        }
        Elsewhere::Population { key, population } => {
            update(session, key, &Edit::Number(*population))?;
        }
        Elsewhere::Delete(key) => {
            session.execute(diesel::delete(countries::table.filter(countries::code.eq(&key.1))))?;
        }
        Elsewhere::Insert(row) => {
            let there: i64 = session.get_result(countries::table.filter(countries::code.eq(&row.key().1)).count())?;
            if there == 0 {
                insert_country(session, row)?;
            }
        }
    }
    Ok(())
}
