//! The table that the demo prints, and whether it came out as it should.

use std::collections::BTreeMap;

use super::client::Answer;

/// What was asked, what came back, what the database then holds.
type Row = [String; 3];

#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    differences: Vec<String>,
}

impl Table {
    /// Adds a row and compares it: `statuses` with how often each should have come back, and `holds` with what the
    /// database should hold.
    pub(super) fn row(&mut self, asked: &str, answers: &[Answer], statuses: &[(u16, usize)], holds: (String, String)) {
        let mut counts = BTreeMap::<u16, usize>::new();
        for answer in answers {
            *counts.entry(answer.status).or_default() += 1;
        }
        let came_back = show(counts.into_iter());
        self.same(&format!("{asked}: came back"), &came_back, &show(statuses.iter().copied()));
        self.same(&format!("{asked}: the database"), &holds.0, &holds.1);
        self.rows.push([asked.to_owned(), came_back, holds.0]);
    }

    /// Compares something that has no row of its own.
    pub(super) fn same(&mut self, what: &str, is: &str, should_be: &str) {
        if is != should_be {
            self.differences.push(format!("{what}: {is}, should be {should_be}"));
        }
    }

    /// For what went so wrong that there is nothing to compare.
    pub(super) fn failed(&mut self, error: String) {
        self.differences.push(error);
    }

    pub(super) fn differences(&self) -> &[String] {
        &self.differences
    }

    /// The rows below each other, columns aligned.
    pub(super) fn lines(&self) -> Vec<String> {
        let head = ["asked", "came back", "the database then holds"].map(str::to_owned);
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&head]).map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let (first, second) = (width(0), width(1));
        let rule = ["-".repeat(first), "-".repeat(second), "-".repeat(width(2))];
        [&head, &rule].into_iter().chain(&self.rows).map(|[a, b, c]| format!("{a:first$}  {b:second$}  {c}")).collect()
    }
}

fn show(counts: impl Iterator<Item = (u16, usize)>) -> String {
    counts.map(|(status, n)| format!("{status} x {n}")).collect::<Vec<_>>().join(", ")
}
