//! Whether the database holds what a turn should have written.

use std::collections::HashMap;

use crate::work::{Draft, Fallible, Families, Family};

pub fn visits(expected: &[i32], stored: &[i32]) -> Fallible {
    if expected == stored { Ok(()) } else { Err("the visits are not those that were made".into()) }
}

fn same_count(what: &str, expected: usize, stored: usize) -> Fallible {
    if expected == stored { Ok(()) } else { Err(format!("{stored} {what} and not {expected}").into()) }
}

/// Every row is stored, and with the key that was given for it.
pub fn notes(expected: &[Draft], stored: &[(i32, Draft)], keys: Option<&[i32]>) -> Fallible {
    same_count("notes", expected.len(), stored.len())?;
    let is_same = |a: &Draft, b: &Draft| a.title == b.title && a.body == b.body && a.stars == b.stars;
    let Some(keys) = keys else {
        let titles: HashMap<&str, &Draft> = expected.iter().map(|draft| (draft.title.as_str(), draft)).collect();
        let is_whole = |stored: &Draft| titles.get(stored.title.as_str()).is_some_and(|draft| is_same(draft, stored));
        let whole = titles.len() == stored.len() && stored.iter().all(|(_, stored)| is_whole(stored));
        return if whole { Ok(()) } else { Err("a note is not what was inserted".into()) };
    };
    same_count("keys", expected.len(), keys.len())?;
    let by_key: HashMap<i32, &Draft> = stored.iter().map(|(key, draft)| (*key, draft)).collect();
    for (draft, key) in expected.iter().zip(keys) {
        if !by_key.get(key).is_some_and(|stored| is_same(stored, draft)) {
            return Err(format!("the note with key {key} is not `{}`", draft.title).into());
        }
    }
    Ok(())
}

pub fn families(expected: &[Family], stored: &Families, parents: &[i32], children: &[i32]) -> Fallible {
    let total = expected.iter().map(|family| family.children.len()).sum();
    same_count("parents", expected.len(), stored.0.len())?;
    same_count("keys of parents", expected.len(), parents.len())?;
    same_count("children", total, stored.1.len())?;
    same_count("keys of children", total, children.len())?;
    let above: HashMap<i32, &str> = stored.0.iter().map(|(key, name)| (*key, name.as_str())).collect();
    let below: HashMap<i32, (i32, &str)> =
        stored.1.iter().map(|(key, parent, name)| (*key, (*parent, name.as_str()))).collect();
    let mut children = children.iter();
    for (family, parent) in expected.iter().zip(parents) {
        if above.get(parent) != Some(&family.name.as_str()) {
            return Err(format!("the parent with key {parent} is not `{}`", family.name).into());
        }
        for (name, child) in family.children.iter().zip(children.by_ref()) {
            if below.get(child) != Some(&(*parent, name.as_str())) {
                return Err(format!("the child with key {child} is not `{name}`").into());
            }
        }
    }
    Ok(())
}
