//! The model: what a session with entities is to do, written with as little cleverness as possible.

use std::collections::{BTreeMap, BTreeSet};

use diesel_session::ObjectState::{self, Deleted, Detached, Pending, Persistent, Transient};
use diesel_session::SessionState;

mod flush;

use super::rows::{Edit, Key, Kind, Row, Rows};
use super::steps::Action;

/// A thing that the program has, or that waits in the session.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) state: ObjectState,
    /// What a handle shows.
    pub(super) value: Option<Row>,
    /// What the row was before it was changed here.
    pub(super) base: Option<Row>,
    pub(super) marked: bool,
    /// Whether nothing has happened since it was read that could have changed its row.
    pub(super) fresh: bool,
    /// The innermost frame in which it was read or written.
    touched: usize,
    /// While it is pending: what is to be inserted, of what parents.
    record: Option<(Row, Vec<usize>)>,
    pub(super) held: bool,
}

impl Object {
    /// The row that it stands for in the database, as far as the session knows.
    fn known(&self) -> Option<&Row> {
        self.base.as_ref().or(self.value.as_ref())
    }

    fn is(&self, key: &Key) -> bool {
        self.state == Persistent && self.known().is_some_and(|row| row.key() == *key)
    }

    pub(super) fn is_stale(&self) -> bool {
        self.state == Persistent && !self.fresh && self.base.is_none()
    }

    pub(super) fn differs(&self) -> bool {
        self.base.is_some() && self.base != self.value
    }

    pub(super) fn is_modified(&self) -> bool {
        self.state == Pending || self.state == Persistent && (self.marked || self.differs())
    }

    fn drop_changes(&mut self) {
        if let Some(base) = self.base.take() {
            self.value = Some(base);
        }
    }

    fn leave(&mut self) {
        self.state = Detached;
        self.base = None;
        self.marked = false;
        self.fresh = false;
    }
}

#[derive(Debug, Clone, Default)]
struct Frame {
    /// The database when it began.
    rows: Rows,
    /// State and row of what was written in it, before it was.
    undo: BTreeMap<usize, (ObjectState, Option<Row>)>,
    failed: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) stored: Rows,
    /// What the open transaction sees.
    pub(super) rows: Rows,
    pub(super) active: bool,
    /// By number; `None` once nobody can see it any more.
    pub(super) objects: Vec<Option<Object>>,
    /// The transaction, then its savepoints.
    frames: Vec<Frame>,
}

/// What a call gives: the objects that it returns, or the name of its error.
pub(super) type Answer = Result<Vec<usize>, &'static str>;

/// What the real side did, as far as the model can't know it.
pub(super) struct Told<'a> {
    pub(super) went_well: bool,
    /// The rows that are there now, for the keys that the database made.
    pub(super) rows: Option<&'a Rows>,
}

/// Several errors may come first; which one does not matter.
pub(super) const FLUSH_FAILED: &str = "flush failed";

impl Model {
    pub(super) fn new(stored: Rows) -> Self {
        Self { rows: stored.clone(), stored, frames: vec![Frame::default()], ..Self::default() }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (usize, &Object)> {
        self.objects.iter().enumerate().filter_map(|(n, object)| Some((n, object.as_ref()?)))
    }

    pub(super) fn object(&self, n: usize) -> &Object {
        self.objects[n].as_ref().unwrap()
    }

    fn get(&mut self, n: usize) -> &mut Object {
        self.objects[n].as_mut().unwrap()
    }

    pub(super) fn savepoints(&self) -> usize {
        self.frames.len() - 1
    }

    pub(super) fn failed(&self) -> bool {
        self.frames.iter().any(|frame| frame.failed)
    }

    pub(super) fn session_state(&self) -> SessionState {
        match self.active {
            _ if self.failed() => SessionState::Failed,
            true => SessionState::Active,
            false => SessionState::Idle,
        }
    }

    fn find(&self, key: &Key) -> Option<usize> {
        self.live().find(|(_, object)| object.is(key)).map(|(n, _)| n)
    }

    fn persistent(&self) -> Vec<usize> {
        self.live().filter(|(_, object)| object.state == Persistent).map(|(n, _)| n).collect()
    }

    fn push(&mut self, object: Object) -> usize {
        self.objects.push(Some(object));
        self.objects.len() - 1
    }

    fn touch(&mut self, n: usize) {
        let level = self.savepoints();
        let object = self.get(n);
        object.touched = object.touched.max(level);
    }

    fn remember(&mut self, n: usize) {
        self.touch(n);
        let object = self.object(n);
        let before = (object.state, object.known().cloned());
        self.frames.last_mut().unwrap().undo.entry(n).or_insert(before);
    }

    fn all_stale(&mut self) {
        self.objects.iter_mut().flatten().for_each(|object| object.fresh = false);
    }

    /// Forgets what nobody holds and what has nothing left to write.
    pub(super) fn sweep(&mut self) {
        let parents: BTreeSet<usize> =
            self.live().filter_map(|(_, object)| object.record.clone()).flat_map(|(_, parents)| parents).collect();
        for (n, slot) in self.objects.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|object| {
                let waits =
                    object.state == Pending || object.state == Persistent && (object.base.is_some() || object.marked);
                !object.held && !waits && !parents.contains(&n)
            }) {
                *slot = None;
            }
        }
    }

    // ---- statements ----

    /// A row was read: the object that stands for it.
    fn read(&mut self, row: &Row) -> Result<usize, &'static str> {
        let Some(n) = self.find(&row.key()) else {
            return Ok(self.push(Object {
                kind: row.kind(),
                state: Persistent,
                value: Some(row.clone()),
                base: None,
                marked: false,
                fresh: true,
                touched: self.savepoints(),
                record: None,
                held: false,
            }));
        };
        let object = self.get(n);
        match &object.base {
            Some(base) if base.version() != row.version() => return Err("StaleData"),
            Some(_) => {}
            None => {
                object.value = Some(row.clone());
                object.fresh = true;
            }
        }
        self.touch(n);
        Ok(n)
    }

    fn read_key(&mut self, key: &Key) -> Result<Option<usize>, &'static str> {
        self.active = true;
        match self.rows.get(key).cloned() {
            Some(row) => self.read(&row).map(Some),
            None => {
                if let Some(n) = self.find(key) {
                    self.get(n).leave();
                }
                Ok(None)
            }
        }
    }

    /// The row of this very object, changes or not.
    fn reread(&mut self, n: usize) -> Result<(), &'static str> {
        self.active = true;
        let key = self.object(n).known().unwrap().key();
        let row = self.rows.get(&key).cloned();
        let object = self.get(n);
        object.drop_changes();
        match row {
            Some(row) => {
                object.value = Some(row);
                object.fresh = true;
                self.touch(n);
                Ok(())
            }
            None => {
                object.leave();
                Err("RowGone")
            }
        }
    }

    // ---- frames ----

    fn roll_back_to(&mut self, level: usize) {
        for object in self.objects.iter_mut().flatten() {
            object.marked = false;
            if object.state == Pending {
                object.state = Transient;
                object.record = None;
            }
            if object.touched >= level {
                object.touched = level.saturating_sub(1);
                object.fresh = false;
            }
            if object.state == Persistent {
                object.drop_changes();
            }
        }
        for frame in self.frames.split_off(level).into_iter().rev() {
            self.rows = frame.rows;
            for (n, (state, row)) in frame.undo {
                if let Some(object) = self.objects[n].as_mut().filter(|object| object.state != Detached) {
                    (object.state, object.value) = (state, row);
                }
            }
        }
        // Who came last to a key that is another's again leaves.
        let mut keys = BTreeSet::new();
        for n in self.persistent() {
            let object = self.get(n);
            if !keys.insert(object.value.as_ref().unwrap().key()) {
                object.leave();
            }
        }
        if level == 0 {
            self.end(false);
        }
    }

    fn end(&mut self, is_stored: bool) {
        if is_stored {
            self.stored = self.rows.clone();
        }
        self.rows = self.stored.clone();
        self.active = false;
        self.frames = vec![Frame { rows: self.stored.clone(), ..Frame::default() }];
        for object in self.objects.iter_mut().flatten() {
            object.fresh = false;
            object.touched = 0;
            if object.state == Deleted {
                object.state = Detached;
            }
        }
    }

    /// What a handle that is no row of this session answers.
    fn must_be_persistent(&self, n: usize) -> Result<(), &'static str> {
        match self.object(n).state {
            Persistent => Ok(()),
            Pending => Err("Pending"),
            Transient => Err("NotPersistent"),
            _ => Err("Detached"),
        }
    }

    fn may_change(&self) -> Result<(), &'static str> {
        if self.failed() { Err("PendingRollback") } else { Ok(()) }
    }

    // ---- steps ----

    pub(super) fn step(&mut self, action: &Action, told: &Told<'_>) -> Answer {
        match action {
            Action::Add { row, parents } => {
                self.may_change()?;
                return Ok(vec![self.push(Object {
                    kind: row.kind(),
                    state: Pending,
                    value: None,
                    base: None,
                    marked: false,
                    fresh: false,
                    touched: 0,
                    record: Some((row.clone(), parents.clone())),
                    held: true,
                })]);
            }
            Action::Write { n, edit } => self.write(*n, edit)?,
            Action::Delete(n) => {
                self.may_change()?;
                if self.object(*n).state == Pending {
                    self.expunge(*n);
                } else {
                    self.must_be_persistent(*n)?;
                    if !self.object(*n).marked {
                        self.remember(*n);
                    }
                    self.get(*n).marked = true;
                }
            }
            Action::Undelete(n) => {
                self.may_change()?;
                self.must_be_persistent(*n)?;
                self.get(*n).marked = false;
            }
            Action::Expunge(n) => {
                if !matches!(self.object(*n).state, Pending | Deleted) {
                    self.must_be_persistent(*n)?;
                }
                self.expunge(*n);
            }
            Action::ExpungeAll => {
                for n in 0..self.objects.len() {
                    if self.objects[n].is_some() {
                        self.expunge(n);
                    }
                }
            }
            Action::Expire(n) => {
                self.must_be_persistent(*n)?;
                let object = self.get(*n);
                object.drop_changes();
                object.fresh = false;
            }
            Action::ExpireAll => {
                self.persistent().into_iter().for_each(|n| self.get(n).drop_changes());
                self.all_stale();
            }
            Action::Refresh(n) => {
                self.may_change()?;
                self.must_be_persistent(*n)?;
                self.get(*n).drop_changes();
                self.get(*n).fresh = false;
                self.flush(told)?;
                self.must_be_persistent(*n)?;
                self.reread(*n)?;
            }
            Action::RefreshAll => {
                self.flush(told)?;
                for n in self.persistent() {
                    if self.object(n).is_stale() {
                        let _ = self.reread(n);
                    }
                }
            }
            Action::Flush => self.flush(told)?,
            Action::BeginNested => {
                self.flush(told)?;
                self.active = true;
                self.frames.push(Frame { rows: self.rows.clone(), ..Frame::default() });
            }
            Action::Release(level) => self.release(*level, told)?,
            Action::RollBackTo(level) | Action::DropGuard(level) => self.roll_back_to(*level),
            Action::Commit => {
                if self.savepoints() > 0 {
                    return Err("SavepointOpen");
                }
                if self.failed() || self.flush(told).is_err() {
                    self.roll_back_to(0);
                    return Err("RolledBack");
                }
                self.end(true);
            }
            Action::Rollback => self.roll_back_to(0),
            Action::Remove => {
                self.roll_back_to(0);
                self.objects.iter_mut().flatten().filter(|o| o.state == Persistent).for_each(Object::leave);
            }
            Action::Get { key, quiet } => {
                self.may_change()?;
                if let Some(n) = self.find(key).filter(|n| !self.object(*n).is_stale()) {
                    return Ok(vec![n]);
                }
                self.autoflush(*quiet, told)?;
                return Ok(self.read_key(key)?.into_iter().collect());
            }
            Action::GetMany { keys, quiet } => return self.get_many(keys, *quiet, told),
            Action::Load { kind, quiet } => {
                self.autoflush(*quiet, told)?;
                self.active = true;
                let rows: Vec<Row> = self.rows.values().filter(|row| row.kind() == *kind).cloned().collect();
                return rows.iter().map(|row| self.read(row)).collect();
            }
            Action::RawUpdate { key, edit, quiet } => {
                self.autoflush(*quiet, told)?;
                if let Some(row) = self.rows.get_mut(key) {
                    *row = row.edited(edit);
                }
                self.active = true;
                self.all_stale();
            }
            Action::RawDelete { key, quiet } => {
                self.autoflush(*quiet, told)?;
                self.rows.remove(key);
                self.active = true;
                self.all_stale();
            }
            Action::RawInsert { row, quiet } => {
                self.autoflush(*quiet, told)?;
                self.rows.entry(row.key()).or_insert_with(|| row.clone());
                self.active = true;
                self.all_stale();
            }
            Action::Elsewhere(change) => {
                change.apply(&mut self.stored);
                self.rows = self.stored.clone();
            }
            Action::Drop(n) => self.get(*n).held = false,
        }
        Ok(Vec::new())
    }

    fn write(&mut self, n: usize, edit: &Edit) -> Result<(), &'static str> {
        self.must_be_persistent(n)?;
        self.may_change()?;
        if self.object(n).is_stale() {
            self.reread(n)?;
        }
        let old = self.object(n).value.clone().unwrap();
        let new = old.edited(edit);
        if new != old {
            self.remember(n);
            let object = self.get(n);
            object.base.get_or_insert(old);
            object.value = Some(new);
        }
        Ok(())
    }

    fn expunge(&mut self, n: usize) {
        let object = self.get(n);
        match object.state {
            Pending => {
                object.state = Transient;
                object.record = None;
            }
            Persistent | Deleted => object.leave(),
            _ => {}
        }
    }

    fn release(&mut self, level: usize, told: &Told<'_>) -> Result<(), &'static str> {
        if level < self.savepoints() {
            self.roll_back_to(level);
            return Err("SavepointOpen");
        }
        if self.frames[level].failed || self.flush(told).is_err() {
            self.roll_back_to(level);
            return Err("RolledBack");
        }
        let frame = self.frames.pop().unwrap();
        for (n, before) in frame.undo {
            self.frames[level - 1].undo.entry(n).or_insert(before);
        }
        for object in self.objects.iter_mut().flatten() {
            object.touched = object.touched.min(level - 1);
        }
        Ok(())
    }

    fn get_many(&mut self, keys: &[Key], quiet: bool, told: &Told<'_>) -> Answer {
        self.may_change()?;
        let is_missing = |key: &&Key| self.find(key).is_none_or(|n| self.object(n).is_stale());
        let missing: BTreeSet<Key> = keys.iter().filter(is_missing).cloned().collect();
        if !missing.is_empty() {
            self.autoflush(quiet, told)?;
            self.active = true;
            let there: Vec<Row> = missing.iter().filter_map(|key| self.rows.get(key).cloned()).collect();
            for row in &there {
                self.read(row)?;
            }
            for key in &missing {
                if let (Some(n), false) = (self.find(key), self.rows.contains_key(key)) {
                    self.get(n).leave();
                }
            }
        }
        Ok(keys.iter().filter_map(|key| self.find(key)).collect())
    }
}
