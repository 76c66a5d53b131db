//! Steps as numbers, which mean something only beside the state that they meet: so any of them can be left out.

use diesel_session::ObjectState::{Pending, Persistent};

use super::super::*;
use super::reference::{Model, Object};
use super::rows::{Edit, Key, Kind, Row, Rows};

#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    what: u8,
    a: u8,
    b: u8,
    quiet: bool,
    /// For what must be like nothing else.
    serial: u32,
}

/// What a step is in the state that it meets; objects go by their numbers.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Add { row: Row, parents: Vec<usize> },
    Write { n: usize, edit: Edit },
    Delete(usize),
    Undelete(usize),
    Expunge(usize),
    ExpungeAll,
    Expire(usize),
    ExpireAll,
    Refresh(usize),
    RefreshAll,
    Flush,
    BeginNested,
    Release(usize),
    RollBackTo(usize),
    DropGuard(usize),
    Commit,
    Rollback,
    Remove,
    Get { key: Key, quiet: bool },
    GetMany { keys: Vec<Key>, quiet: bool },
    Load { kind: Kind, quiet: bool },
    RawUpdate { key: Key, edit: Edit, quiet: bool },
    RawDelete { key: Key, quiet: bool },
    RawInsert { row: Row, quiet: bool },
    Elsewhere(Elsewhere),
    Drop(usize),
}

/// What another session changes and commits.
#[derive(Debug, Clone)]
pub(super) enum Elsewhere {
    Balance { key: Key, balance: i64 },
    Population { key: Key, population: i64 },
    Delete(Key),
    Insert(Row),
}

impl Elsewhere {
    pub(super) fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Balance { key, balance } => {
                if let Some(Row::User(user)) = rows.get_mut(key) {
                    user.balance = *balance;
                    user.version += 1;
                }
            }
            Self::Population { key, population } => {
                if let Some(Row::Country(country)) = rows.get_mut(key) {
                    country.population = *population;
                }
            }
            Self::Delete(key) => drop(rows.remove(key)),
            Self::Insert(row) => drop(rows.entry(row.key()).or_insert_with(|| row.clone())),
        }
    }
}

const CODES: [&str; 5] = ["AA", "BB", "CC", "DD", "EE"];
const NAMES: [&str; 7] = ["ann", "bob", "cat", "dan", "eva", "fay", "gus"];
const ROWS_AT_MOST: usize = 12;

fn pick<T: Clone>(from: &[T], number: u8) -> Option<T> {
    if from.is_empty() { None } else { from.get(usize::from(number) % from.len()).cloned() }
}

/// How often each kind of step comes.
const WEIGHTS: [(u8, u32); 26] = [
    (0, 6),
    (1, 7),
    (2, 2),
    (3, 4),
    (4, 3),
    (5, 12),
    (6, 7),
    (7, 7),
    (8, 2),
    (9, 3),
    (10, 2),
    (11, 2),
    (12, 5),
    (13, 8),
    (14, 6),
    (15, 5),
    (16, 4),
    (17, 2),
    (18, 1),
    (19, 8),
    (20, 3),
    (21, 4),
    (22, 4),
    (23, 3),
    (24, 5),
    (25, 1),
];

pub(super) fn random(random: &mut fastrand::Rng, count: usize) -> Vec<Step> {
    let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut step = |serial| {
        let mut left = random.u32(0..total);
        let what = WEIGHTS.iter().find(|(_, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        Step { what: what.unwrap().0, a: random.u8(..), b: random.u8(..), quiet: random.u8(0..6) == 0, serial }
    };
    (0..u32::try_from(count).unwrap()).map(&mut step).collect()
}

impl Step {
    /// What it does here; nothing if there is nothing to do it to.
    pub(super) fn meet(&self, model: &Model) -> Option<Action> {
        let Self { a, b, quiet, serial, .. } = *self;
        let held = |wanted: &dyn Fn(&Object) -> bool| -> Vec<usize> {
            model.live().filter(|(_, object)| object.held && wanted(object)).map(|(n, _)| n).collect()
        };
        let any = || pick(&held(&|_| true), a);
        let mostly_persistent = || match a % 8 {
            0 => any(),
            _ => pick(&held(&|object| object.state == Persistent), a).or_else(any),
        };
        let parent = |kind, number| {
            pick(&held(&|object| object.kind == kind && matches!(object.state, Pending | Persistent)), number)
        };
        let count = |kind| model.rows.keys().filter(|(other, _)| *other == kind).count();
        let has_room = |kind| (count(kind) < ROWS_AT_MOST).then_some(());
        let code = |number| pick(&CODES, number).map(str::to_owned);
        let country = |number| Some((Kind::Country, code(number)?));
        let level = |number: u8| match model.savepoints() {
            0 => None,
            // Mostly the innermost one.
            depth if !number.is_multiple_of(4) => Some(depth),
            depth => Some(1 + usize::from(number / 4) % depth),
        };
        let key = |kind, number| {
            let known: Vec<Key> = model.rows.keys().filter(|(other, _)| *other == kind).cloned().collect();
            let code = match kind {
                Kind::Country if number % 3 == 0 || known.is_empty() => country(number / 3),
                _ => None,
            };
            code.or_else(|| pick(&known, number)).unwrap_or_else(|| (kind, "00099999".to_owned()))
        };
        let kind = |number: u8| match number % 8 {
            0..=2 => Kind::Country,
            3..=5 => Kind::User,
            6 => Kind::Post,
            _ => Kind::Membership,
        };
        let number = i64::from(serial);
        Some(match self.what {
            0 => {
                has_room(Kind::User)?;
                let nickname = pick(&NAMES, a)?.to_owned();
                let user = User { id: 0, nickname, email: None, balance: number, version: 1 };
                Action::Add { row: Row::User(user), parents: Vec::new() }
            }
            1 => {
                let row = Country { code: code(a)?, name: format!("added {}", b % 2), population: i64::from(b % 2) };
                Action::Add { row: Row::Country(row), parents: Vec::new() }
            }
            2 => {
                has_room(Kind::Group)?;
                let group = Group { id: 0, name: format!("new {serial}"), owner_id: None };
                Action::Add { row: Row::Group(group), parents: Vec::new() }
            }
            3 => {
                has_room(Kind::Post)?;
                let parents = std::iter::once(parent(Kind::User, a)?);
                let parents = parents.chain(parent(Kind::Post, b).filter(|_| b % 2 == 0)).collect();
                let post = Post { id: 0, user_id: 0, parent_id: None, title: format!("new {serial}") };
                Action::Add { row: Row::Post(post), parents }
            }
            4 => {
                let parents = vec![parent(Kind::User, a)?, parent(Kind::Group, b)?];
                let row = Membership { user_id: 0, group_id: 0, role: format!("new {}", b % 2) };
                Action::Add { row: Row::Membership(row), parents }
            }
            5 => {
                let n = mostly_persistent()?;
                let edit = match b % 8 {
                    0 => Edit::Text(pick(&NAMES, b / 8)?.to_owned()),
                    // Back to what it was, perhaps.
                    1 => Edit::Number(i64::from(b / 8 % 2)),
                    _ => Edit::Number(number),
                };
                Action::Write { n, edit }
            }
            6 => Action::Write {
                n: pick(&held(&|object| object.kind == Kind::Country && object.state == Persistent), a)?,
                edit: Edit::Code(code(b)?),
            },
            7 => Action::Delete(mostly_persistent()?),
            8 => Action::Undelete(pick(&held(&|object| object.marked), a).or_else(any)?),
            9 => Action::Expunge(any()?),
            10 => Action::Expire(mostly_persistent()?),
            11 => Action::Refresh(mostly_persistent()?),
            12 => Action::Flush,
            13 => {
                (model.savepoints() < 5).then_some(())?;
                Action::BeginNested
            }
            14 => Action::Release(level(a)?),
            15 if b % 2 == 0 => Action::DropGuard(level(a)?),
            15 => Action::RollBackTo(level(a)?),
            16 => Action::Commit,
            17 => Action::Rollback,
            18 => Action::Remove,
            19 => Action::Get { key: key(kind(a), b), quiet },
            20 => Action::GetMany { keys: vec![key(kind(a), b), key(kind(a), b / 3), key(kind(a), b / 7)], quiet },
            21 => Action::Load { kind: kind(a), quiet },
            22 if a % 3 == 0 => {
                let (_, code) = country(b)?;
                let row = Country { code, name: format!("raw {}", a % 2), population: i64::from(a % 2) };
                let key = (Kind::Country, row.code.clone());
                let is_free = !model.rows.contains_key(&key) && !model.has_work();
                is_free.then_some(Action::RawInsert { row: Row::Country(row), quiet })?
            }
            22 => {
                let kind = if a % 2 == 0 { Kind::User } else { Kind::Country };
                Action::RawUpdate { key: key(kind, b), edit: Edit::Number(number), quiet }
            }
            23 if a % 2 == 0 => Action::RawDelete { key: country(b)?, quiet },
            23 => {
                (!model.active).then_some(())?;
                Action::Elsewhere(match b % 4 {
                    0 => Elsewhere::Balance { key: key(Kind::User, a / 2), balance: number },
                    1 => Elsewhere::Population { key: country(a / 2)?, population: number },
                    2 => Elsewhere::Delete(country(a / 2)?),
                    _ => {
                        let code = code(a / 2)?;
                        let row = Country { code, name: "elsewhere".into(), population: number };
                        Elsewhere::Insert(Row::Country(row))
                    }
                })
            }
            24 => Action::Drop(any()?),
            _ => match a % 4 {
                0 => Action::ExpungeAll,
                1 => Action::ExpireAll,
                _ => Action::RefreshAll,
            },
        })
    }
}
