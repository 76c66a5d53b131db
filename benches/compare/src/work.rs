//! The works that are measured, and what a contender is given and gives back.

use std::error::Error;

pub type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// What is done in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// A request: one transaction that reads a row by its key and changes one column of it.
    W1,
    /// The same with `synchronous = FULL`; only SQLite has it.
    W1Full,
    /// A request that reads a row by its key.
    W2,
    /// Many rows inserted in one transaction; the keys that the database makes are known afterwards.
    W3,
    /// Many rows loaded, one column changed in each, written back, in one transaction.
    W4,
    /// Parents with ten children each, all new, in one transaction; all keys are known afterwards.
    W5,
}

impl Work {
    pub const ALL: [Self; 6] = [Self::W1, Self::W1Full, Self::W2, Self::W3, Self::W4, Self::W5];

    pub fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W1Full => "W1F",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W4 => "W4",
            Self::W5 => "W5",
        }
    }

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::W1 => "request: read and update",
            Self::W1Full => "the same, synchronous=FULL",
            Self::W2 => "request: read",
            Self::W3 => "insert, keys known",
            Self::W4 => "load, change, write back",
            Self::W5 => "parents with 10 children",
        }
    }

    /// What its times are counted by.
    pub fn unit(self) -> &'static str {
        match self {
            Self::W1 | Self::W1Full | Self::W2 => "cycle",
            Self::W3 | Self::W4 => "row",
            Self::W5 => "family",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name().eq_ignore_ascii_case(name))
    }

    /// Whether a turn is many short cycles, and not one long transaction.
    pub fn is_cycle(self) -> bool {
        self.unit() == "cycle"
    }

    pub fn writes(self) -> bool {
        self != Self::W2
    }
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub people: i32,
    pub notes: usize,
    pub families: usize,
    pub children: usize,
}

impl Sizes {
    pub const FULL: Self = Self { people: 10_000, notes: 100_000, families: 1_000, children: 10 };
    pub const SMOKE: Self = Self { people: 200, notes: 2_500, families: 20, children: 10 };

    /// As many of everything that is counted.
    pub fn with_rows(self, rows: u16) -> Self {
        Self { people: rows.into(), notes: rows.into(), families: rows.into(), ..self }
    }
}

/// A row that is not there yet, in plain terms: each contender makes its own type of it.
#[derive(Debug, Clone)]
pub struct Draft {
    pub title: String,
    pub body: String,
    pub stars: i32,
}

#[derive(Debug, Clone)]
pub struct Family {
    pub name: String,
    pub children: Vec<String>,
}

/// What a contender is asked for, made before the clock starts.
#[derive(Debug, Clone)]
pub enum Task {
    /// The keys, and how many visits each of the rows has had.
    Requests(Vec<(i32, i32)>),
    Insert(Vec<Draft>),
    LoadAndChange,
    Families(Vec<Family>),
}

/// What it gives back, to be checked after the clock stopped.
#[derive(Debug)]
pub enum Outcome {
    Nothing,
    /// The keys of the new rows, in the order of the task.
    Keys(Vec<i32>),
    /// The keys of the parents, and those of all children, family by family.
    Families(Vec<i32>, Vec<i32>),
}

/// One way to do a work: a contender has one for each work that it takes part in.
pub struct Way {
    pub name: &'static str,
    pub work: Work,
    /// The task is cut to one of so many, where it would take too long; times are per unit anyway.
    pub share: usize,
    pub run: Box<dyn FnMut(Task) -> Fallible<Outcome>>,
}

impl Way {
    pub fn new(name: &'static str, work: Work, run: impl FnMut(Task) -> Fallible<Outcome> + 'static) -> Self {
        Self { name, work, share: 1, run: Box::new(run) }
    }

    /// A request at a time.
    pub fn request(name: &'static str, work: Work, mut one: impl FnMut(i32) -> Fallible<i32> + 'static) -> Self {
        Self::new(name, work, move |task| {
            let Task::Requests(requests) = task else { return Err("not a list of requests".into()) };
            for (key, visits) in requests {
                check(key, visits, one(key)?)?;
            }
            Ok(Outcome::Nothing)
        })
    }

    pub fn insert(name: &'static str, mut all: impl FnMut(Vec<Draft>) -> Fallible<Vec<i32>> + 'static) -> Self {
        Self::new(name, Work::W3, move |task| {
            let Task::Insert(drafts) = task else { return Err("not a list of rows".into()) };
            Ok(Outcome::Keys(all(drafts)?))
        })
    }

    pub fn change(name: &'static str, mut all: impl FnMut() -> Fallible + 'static) -> Self {
        Self::new(name, Work::W4, move |_| all().map(|()| Outcome::Nothing))
    }

    pub fn families(
        name: &'static str,
        mut all: impl FnMut(Vec<Family>) -> Fallible<(Vec<i32>, Vec<i32>)> + 'static,
    ) -> Self {
        Self::new(name, Work::W5, move |task| {
            let Task::Families(families) = task else { return Err("not a list of families".into()) };
            let (parents, children) = all(families)?;
            Ok(Outcome::Families(parents, children))
        })
    }

    /// Lets it do one of so many of each task.
    pub fn share(mut self, share: usize) -> Self {
        self.share = share;
        self
    }
}

/// What a request read is what was written before.
pub fn check(key: i32, expected: i32, read: i32) -> Fallible {
    if read == expected { Ok(()) } else { Err(format!("row {key} has {read} visits and not {expected}").into()) }
}

/// A database with the tables, and everybody who works on it.
pub trait Arena {
    /// The contenders, with connections of their own; the one that all are compared with comes first of each work.
    fn ways(&self) -> Fallible<Vec<Way>>;

    /// Brings the database to the same state before a turn: tables that the turn fills are empty.
    fn settle(&mut self, work: Work) -> Fallible;

    /// The visits of each person, in the order of their keys.
    fn visits(&mut self) -> Fallible<Vec<i32>>;

    /// The notes in the order of their keys.
    fn notes(&mut self) -> Fallible<Vec<(i32, Draft)>>;

    /// Key and name of each parent, and key, parent and name of each child, in the order of their keys.
    fn families(&mut self) -> Fallible<Families>;
}

pub type Families = (Vec<(i32, String)>, Vec<(i32, i32, String)>);

pub fn drafts(count: usize) -> Vec<Draft> {
    (0..count)
        .zip(0..)
        .map(|(n, stars)| Draft {
            title: format!("note {n}"),
            body: format!("what there is to say about {n}"),
            stars: stars % 6,
        })
        .collect()
}

pub fn families(count: usize, children: usize) -> Vec<Family> {
    let family = |n| Family {
        name: format!("family {n}"),
        children: (0..children).map(|child| format!("child {child} of {n}")).collect(),
    };
    (0..count).map(family).collect()
}
