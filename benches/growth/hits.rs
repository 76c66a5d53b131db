//! `get` of a key that the identity map knows, with ever more entities alive. Beside it the same keys in a bare hash map of
//! `Rc`s: what both gain with the size is the way to memory, not the search.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use diesel::prelude::*;
use hashbrown::HashMap;

use crate::figures::{Report, Rounds};
use crate::options;
use crate::store::{Fallible, Item, Session, Store, items};

const HITS: u32 = 1_000_000;
const ROUNDS: usize = 7;

pub(crate) fn measure(report: &mut Report, quick: bool) -> Fallible {
    let mut times = Rounds::new("hits", "ns/get");
    let (hits, rounds) = if quick { (10_000, 1) } else { (HITS, ROUNDS) };
    for &live in options::live(quick) {
        let store = Store::with_rows(live)?;
        let session = Session::new(store.engine());
        let tracked = session.load_tracked(items::table.select(Item::as_select()).order(items::id))?;
        let bare: HashMap<i32, Rc<Item>> =
            tracked.iter().map(|item| Ok((item.id()?, Rc::new(item.read()?.clone())))).collect::<Fallible<_>>()?;

        let mut random = fastrand::Rng::with_seed(0x5eed);
        let last = i32::try_from(live)?;
        for round in 0..=rounds {
            let keys: Vec<i32> = (0..hits).map(|_| random.i32(1..=last)).collect();
            let in_order: Vec<i32> = (1..=last).cycle().take(keys.len()).collect();
            let took = [
                ("get, random keys", each(&keys, |key| session.get::<Item>(key))?),
                ("get, keys in order", each(&in_order, |key| session.get::<Item>(key))?),
                ("a bare hash map, random keys", each(&keys, |key| Ok(bare.get(&key).cloned()))?),
            ];
            // The first round brings the map to the caches.
            if round > 0 {
                took.into_iter().for_each(|(series, took)| times.note(series, live, took));
            }
        }
        for (item, key) in tracked.iter().zip(1..) {
            if session.get::<Item>(key)?.as_ref() != Some(item) || item.key() != Some(key) {
                return Err(format!("`get` of {key} is not the entity that was loaded").into());
            }
        }
        drop(tracked);
        session.close();
        store.check(live, 0)?;
    }
    report.curve("nanoseconds a `get` of an entity that is in the identity map", times.figures());
    Ok(())
}

/// Nanoseconds a key.
fn each<R>(keys: &[i32], mut get: impl FnMut(i32) -> diesel_session::Result<R>) -> Fallible<f64> {
    let started = Instant::now();
    for key in keys {
        drop(black_box(get(*key)?));
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / keys.len() as f64)
}
