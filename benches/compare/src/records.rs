//! What a work brings, as records.

use crate::models::{NewChild, NewNote, NewParent};
use crate::work::{Draft, Family};

impl From<Draft> for NewNote {
    fn from(draft: Draft) -> Self {
        Self { title: draft.title, body: draft.body, stars: draft.stars }
    }
}

/// The children of parents whose keys are known.
pub fn children_of(parents: &[i32], families: Vec<Family>) -> Vec<NewChild> {
    let with_parent = |(family, &parent_id): (Family, &i32)| {
        family.children.into_iter().map(move |name| NewChild { parent_id, name })
    };
    families.into_iter().zip(parents).flat_map(with_parent).collect()
}

/// The parents, moved out of their families.
pub fn parents_of(families: &mut [Family]) -> Vec<NewParent> {
    families.iter_mut().map(|family| NewParent { name: std::mem::take(&mut family.name) }).collect()
}
