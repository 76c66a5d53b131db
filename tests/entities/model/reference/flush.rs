//! The flush of the model.

use std::collections::BTreeSet;

use diesel_session::ObjectState::{Deleted, Pending, Persistent, Transient};

use super::super::rows::{Key, Kind, Row, Rows};
use super::{FLUSH_FAILED, Model, Told};

impl Model {
    pub(crate) fn has_work(&self) -> bool {
        self.live().any(|(_, object)| {
            object.state == Pending || object.state == Persistent && (object.marked || object.base.is_some())
        })
    }

    pub(super) fn flush(&mut self, told: &Told<'_>) -> Result<(), &'static str> {
        if self.failed() {
            return Err("PendingRollback");
        }
        if !self.has_work() {
            return Ok(());
        }
        self.active = true;
        let mut after = self.clone();
        let mut is_clear = true;
        let good = after.write_all(told, &mut is_clear);
        if good.is_some() && (is_clear || told.went_well) {
            *self = after;
            // What was only kept for its statement.
            self.sweep();
            return Ok(());
        }
        self.frames.last_mut().unwrap().failed = true;
        Err(FLUSH_FAILED)
    }

    pub(super) fn autoflush(&mut self, quiet: bool, told: &Told<'_>) -> Result<(), &'static str> {
        match quiet {
            true if self.failed() => Err("PendingRollback"),
            true => Ok(()),
            false => self.flush(told),
        }
    }

    /// Changes, new rows, deletes. `is_clear` ends up false where the order of statements decides whether it works.
    pub(super) fn write_all(&mut self, told: &Told<'_>, is_clear: &mut bool) -> Option<()> {
        let before = self.rows.clone();
        let updated = self.write_changes(is_clear)?;
        let mut pending: Vec<usize> = self.live().filter(|(_, o)| o.state == Pending).map(|(n, _)| n).collect();
        // SQLite may give a parent the key of one that is gone, and so a child of that one a parent.
        pending.sort_by_key(|n| self.object(*n).kind);
        let mut marked: Vec<usize> = self.persistent().into_iter().filter(|n| self.object(*n).marked).collect();
        // Gone, and another row has been given its key: before or after somebody looked?
        let is_mistaken = |row: &Row| !before.contains_key(&row.key()) && self.rows.contains_key(&row.key());
        *is_clear &= !marked.iter().any(|n| self.object(*n).known().is_some_and(is_mistaken));
        let mut deleted = Vec::new();
        let mut inserted = Vec::new();
        for n in pending {
            let row = self.record_of(n, &inserted, told)?;
            let key = row.key();
            if row.references().iter().any(|key| !self.rows.contains_key(key)) {
                return None;
            }
            let switched = marked.iter().position(|m| self.object(*m).is(&key));
            match switched {
                Some(position) => {
                    self.rows.get(&key)?;
                    deleted.push(marked.remove(position));
                }
                None if self.rows.contains_key(&key) => return None,
                None => {}
            }
            let taken = |other: &Row| row.nickname().is_some() && other.nickname() == row.nickname();
            if self.rows.values().any(taken) {
                return None;
            }
            self.rows.insert(key, row.clone());
            inserted.push((n, row));
        }
        for n in marked {
            let row = self.object(n).known().unwrap().clone();
            let there = self.rows.remove(&row.key())?;
            if there.version() != row.version() {
                return None;
            }
            deleted.push(n);
        }
        let is_broken = |row: &Row| row.references().iter().any(|key| !self.rows.contains_key(key));
        if self.rows.values().any(is_broken) {
            return None;
        }
        self.settle(updated, inserted, deleted);
        Some(())
    }

    /// The UPDATEs; gives what each object shows afterwards.
    pub(super) fn write_changes(&mut self, is_clear: &mut bool) -> Option<Vec<(usize, Row)>> {
        let before = self.rows.clone();
        let mut updated = Vec::new();
        let mut written = Vec::new();
        for n in self.persistent() {
            let object = self.object(n);
            let (Some(base), Some(value), false) = (&object.base, &object.value, object.marked) else { continue };
            if base == value {
                updated.push((n, base.clone()));
                continue;
            }
            let there = before.get(&base.key())?;
            if there.version() != base.version() {
                return None;
            }
            let mut value = value.clone();
            value.set_version(base.version().unwrap_or_default() + 1);
            written.push((base.key(), there.with_changes(base, &value)));
            updated.push((n, value));
        }
        for (key, _) in &written {
            self.rows.remove(key);
        }
        for (key, row) in written {
            let was_taken = |(other_key, other): (&Key, &Row)| {
                *other_key != key
                    && (*other_key == row.key() || row.nickname().is_some() && other.nickname() == row.nickname())
            };
            // Somebody else had it, and gives it up in this flush at the latest: before or after?
            *is_clear &= !before.iter().any(was_taken);
            if self.rows.iter().any(was_taken) || self.rows.contains_key(&row.key()) {
                return None;
            }
            self.rows.insert(row.key(), row);
        }
        Some(updated)
    }

    pub(super) fn record_of(&self, n: usize, inserted: &[(usize, Row)], told: &Told<'_>) -> Option<Row> {
        let (mut row, parents) = self.object(n).record.clone().unwrap();
        let mut made_of = Vec::new();
        for parent in parents {
            let staged = inserted.iter().find(|(n, _)| *n == parent).map(|(_, row)| row.clone());
            made_of.push(staged.or_else(|| self.object(parent).value.clone())?);
        }
        match (&mut row, made_of.as_slice()) {
            (Row::Post(post), [Row::User(user), rest @ ..]) => {
                post.user_id = user.id;
                if let [Row::Post(parent)] = rest {
                    post.parent_id = Some(parent.id);
                }
            }
            (Row::Membership(membership), [Row::User(user), Row::Group(group)]) => {
                (membership.user_id, membership.group_id) = (user.id, group.id);
            }
            _ => {}
        }
        let name = row.name().to_owned();
        let kind = row.kind();
        if let Some(id) = row.id() {
            // Without an answer of the database any key will do.
            *id = -1 - i32::try_from(n).unwrap();
            let mut there = told.rows.into_iter().flat_map(Rows::values);
            let there = there.find(|row| row.kind() == kind && row.name() == name).cloned();
            if let Some(mut there) = there {
                *id = *there.id().unwrap();
            }
        }
        Some(row)
    }

    pub(super) fn settle(&mut self, updated: Vec<(usize, Row)>, inserted: Vec<(usize, Row)>, deleted: Vec<usize>) {
        // What the database may have deleted or changed with them.
        let kinds: BTreeSet<Kind> = deleted.iter().map(|n| self.object(*n).kind).collect();
        for object in self.objects.iter_mut().flatten().filter(|object| object.state == Persistent) {
            object.fresh &= !kinds.iter().any(|kind| object.kind.may_go_with(*kind));
        }
        for n in deleted {
            self.remember(n);
            let object = self.get(n);
            object.drop_changes();
            object.marked = false;
            object.state = Deleted;
        }
        let mut new_keys = Vec::new();
        for (n, row) in updated {
            self.remember(n);
            let object = self.get(n);
            if object.base.as_ref().is_some_and(|base| base.key() != row.key()) {
                new_keys.push(n);
            }
            object.value = Some(row);
            object.base = None;
        }
        for (n, row) in inserted {
            self.touch(n);
            self.frames.last_mut().unwrap().undo.insert(n, (Transient, None));
            let object = self.get(n);
            object.state = Persistent;
            object.value = Some(row);
            object.record = None;
            object.fresh = true;
            new_keys.push(n);
        }
        // Whoever had one of these keys before has no row any more.
        for n in &new_keys {
            let key = self.object(*n).value.as_ref().unwrap().key();
            for other in self.persistent() {
                if !new_keys.contains(&other) && self.object(other).is(&key) {
                    self.get(other).leave();
                }
            }
        }
    }
}
