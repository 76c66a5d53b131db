//! Every row of SQLAlchemy's suite that is in scope is held by a test or written down as a difference.
//!
//! `tests/parity/rows.txt` lists the rows, a test says `// parity: Class::test` for each that it holds, and the
//! `tests/parity/differences*.md` say for some why they are different on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TAG: &str = "// parity: ";

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// Whether it reads like `Class::test_name`.
fn is_row(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    text.split_once("::").is_some_and(|(class, test)| word(class) && word(test) && test.starts_with("test"))
}

/// The functions that the tags of a file stand over: tag, and the name of the test.
fn tags(source: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut waiting: Vec<String> = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if let Some(row) = line.strip_prefix(TAG) {
            waiting.push(row.to_owned());
        } else if line == "#[test]" {
            is_test = true;
        } else if line.starts_with("#[") || waiting.is_empty() {
            // Other attributes may stand between; untagged code is of no interest.
            is_test &= line.starts_with("#[");
        } else if let Some(name) = line.strip_prefix("fn ").filter(|_| is_test) {
            let name = name.split('(').next().unwrap_or_default();
            found.extend(waiting.drain(..).map(|row| (row, name.to_owned())));
            is_test = false;
        } else {
            return Err(format!("{waiting:?} stand over no test, but over `{line}`"));
        }
    }
    if waiting.is_empty() { Ok(found) } else { Err(format!("{waiting:?} stand over nothing")) }
}

#[test]
fn every_row_in_scope_is_held_by_a_test_and_every_difference_has_a_reason() {
    let mut problems = Vec::new();
    let list = read(&tests().join("parity/rows.txt"));
    let lines: Vec<&str> = list.lines().collect();
    let rows: BTreeSet<&str> = lines.iter().copied().collect();
    problems.extend(lines.iter().filter(|row| !is_row(row)).map(|row| format!("rows.txt: `{row}` is no row")));
    problems.extend(
        lines
            .windows(2)
            .filter(|pair| pair[0] >= pair[1])
            .map(|pair| format!("rows.txt: `{}` stands twice or out of order after `{}`", pair[1], pair[0])),
    );

    let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let suites = ["suite", "entities"].map(|suite| {
        let lists = ["main.rs", "promises.rs"].map(|file| read(&tests().join(suite).join(file)));
        (tests().join(suite), lists.concat())
    });
    for path in sources(&tests()).iter().filter(|path| !path.ends_with("tests/parity.rs")) {
        match tags(&read(path)) {
            Ok(found) => {
                let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
                let suite = suites.iter().find(|(folder, _)| path.parent() == Some(folder));
                let is_left_out = suite.is_some_and(|(_, modules)| !modules.contains(&format!("mod {module};")));
                if is_left_out && !found.is_empty() {
                    problems.push(format!("{}: no part of the suite", path.display()));
                }
                for (row, test) in found {
                    held.entry(row).or_default().insert(test);
                }
            }
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    problems.extend(
        held.keys()
            .filter(|row| !rows.contains(row.as_str()))
            .map(|row| format!("a test names `{row}`, no row in scope")),
    );

    let files = std::fs::read_dir(tests().join("parity")).unwrap().map(|entry| entry.unwrap().path());
    let text: String = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| read(&path))
        .collect();
    let mut different = BTreeSet::new();
    for line in text.lines() {
        let Some((row, reason)) = line.split_once(": ").filter(|(row, _)| is_row(row)) else {
            if line.contains("::test") {
                problems.push(format!("differences.md: no `Class::test: reason (source)`: {line}"));
            }
            continue;
        };
        if !rows.contains(row) {
            problems.push(format!("differences.md: `{row}` is no row in scope"));
        }
        if !different.insert(row) {
            problems.push(format!("differences.md: `{row}` stands there twice"));
        }
        let source = reason.trim_end().strip_suffix(')').and_then(|reason| reason.rsplit_once('('));
        if source.is_none_or(|(reason, source)| reason.trim().is_empty() || source.trim().is_empty()) {
            problems.push(format!("differences.md: `{row}` has no reason or names no source"));
        }
        if !held.contains_key(row) {
            problems.push(format!("differences.md: no test holds what happens instead of `{row}`"));
        }
    }
    problems.extend(
        rows.iter()
            .filter(|row| !held.contains_key(**row) && !different.contains(**row))
            .map(|row| format!("`{row}` is neither held by a test nor a difference")),
    );

    let holding: BTreeSet<&String> = held.values().flatten().collect();
    println!(
        "{} rows in scope: {} the same, {} different on purpose; {} tests hold them",
        rows.len(),
        rows.iter().filter(|row| !different.contains(**row)).count(),
        different.len(),
        holding.len(),
    );
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    assert!(!rows.is_empty());
}

#[test]
fn a_tag_has_to_stand_over_a_test() {
    let held = tags("// parity: A::test_a\n// parity: B::test_b\n#[test]\nfn one() {\n}\n").unwrap();
    assert_eq!(held, [("A::test_a".into(), "one".into()), ("B::test_b".into(), "one".into())]);
    assert!(tags("// parity: A::test_a\nfn helper() {}\n").is_err());
    assert!(tags("#[test]\nfn one() {}\n// parity: A::test_a\n").is_err());
    assert!(is_row("A::test_a") && !is_row("A::b") && !is_row("text") && !is_row("A::test_a "));
}
