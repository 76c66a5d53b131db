//! What a thread's connections send, and which statements they prepare to keep.

use std::cell::RefCell;
use std::collections::HashSet;

use diesel::connection::{Instrumentation, InstrumentationEvent};

/// What was seen of some work.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: Vec<Sent>,
    /// Statements that were prepared and put into the connection's cache.
    pub(crate) prepared: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Sent {
    /// Without the binds, the quotes and the numbers of places.
    pub(crate) text: String,
    /// Whether the connection has it in its cache.
    is_kept: bool,
}

thread_local! {
    /// Tests have a thread each, and so have their connections.
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// One connection's.
#[derive(Default)]
struct Recorder {
    cache: HashSet<String>,
}

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::CacheQuery { sql, .. } => {
                let text = plain(sql);
                SEEN.with_borrow_mut(|seen| seen.prepared.push(text.clone()));
                self.cache.insert(text);
            }
            InstrumentationEvent::StartQuery { query, .. } => {
                let text = plain(&query.to_string());
                let is_kept = self.cache.contains(&text);
                SEEN.with_borrow_mut(|seen| seen.sent.push(Sent { text, is_kept }));
            }
            _ => {}
        }
    }
}

pub(crate) fn recorder() -> Box<dyn Instrumentation> {
    Box::<Recorder>::default()
}

pub(crate) fn seen(f: impl FnOnce()) -> Seen {
    SEEN.take();
    f();
    SEEN.take()
}

/// The same text on every backend: no binds, no quotes, `?` for each place.
fn plain(text: &str) -> String {
    let text = text.split(" -- binds:").next().unwrap_or_default();
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' | '`' => {}
            '$' => {
                plain.push('?');
                while letters.next_if(char::is_ascii_digit).is_some() {}
            }
            letter => plain.push(letter),
        }
    }
    plain
}

impl Seen {
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.sent.iter().map(|sent| sent.text.as_str()).collect()
    }

    /// What went out, by kind and in the order in which each came first: `1 BEGIN, 5 INSERT, 1 COMMIT`.
    pub(crate) fn kinds(&self) -> String {
        tally(self.sent.iter().map(|sent| kind(&sent.text)))
    }

    /// The same of what the connection had not prepared before and did not keep.
    pub(crate) fn anew(&self) -> String {
        tally(self.sent.iter().filter(|sent| !sent.is_kept).map(|sent| kind(&sent.text)))
    }
}

fn kind(text: &str) -> &str {
    match text.split(' ').next().unwrap_or_default() {
        "START" => "BEGIN",
        word => word,
    }
}

fn tally<'a>(kinds: impl Iterator<Item = &'a str>) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for kind in kinds {
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}
