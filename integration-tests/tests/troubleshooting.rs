//! The page on troubleshooting has every warning and every error of the server, word for word, and no other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Messages that are composed where they are found, and say what to do themselves.
const COMPOSED: [&str; 2] = ["…", "…: …"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Collects the text of all sources below a directory that are no tests.
fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !["tests", "worked_example"].contains(&name.as_str()) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
        }
    }
}

/// A string literal at the beginning of `text`, and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut read = String::new();
    let mut rest = inside.chars();
    loop {
        match rest.next()? {
            '"' => return Some((read, rest.as_str())),
            '\\' => match rest.next()? {
                // The line goes on behind the indentation of the next.
                '\n' => {
                    let trimmed = rest.as_str().trim_start();
                    rest = trimmed.chars();
                }
                'n' => read.push('\n'),
                other => read.push(other),
            },
            other => read.push(other),
        }
    }
}

/// The message of a call whose arguments begin here: the first literal that is no target and no format of a field.
fn message(mut arguments: &str) -> String {
    loop {
        let start = arguments.find('"').unwrap_or_else(|| panic!("no message in {}", &arguments[..80]));
        let (text, rest) = literal(&arguments[start..]).unwrap();
        if !text.starts_with("varta::") {
            return with_gaps(&text);
        }
        arguments = rest;
    }
}

/// The message with `…` for each placeholder.
fn with_gaps(format: &str) -> String {
    let mut read = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        match character {
            '{' | '}' if rest.as_str().starts_with(character) => {
                read.push(character);
                rest.next();
            }
            '{' => {
                read.push('…');
                assert!(rest.any(|inside| inside == '}'), "{format}");
            }
            other => read.push(other),
        }
    }
    read
}

#[test]
fn every_warning_and_every_error_of_the_server_is_explained_and_nothing_else_is() {
    let mut texts = Vec::new();
    sources(&top().join("varta-server/src"), &mut texts);
    let calls = texts
        .iter()
        .flat_map(|text| ["warn!(", "error!("].into_iter().flat_map(|name| text.split(name).skip(1)));
    let said: BTreeSet<_> =
        calls.map(message).filter(|message| !COMPOSED.contains(&message.as_str())).collect();

    let page = fs::read_to_string(top().join("docs/TROUBLESHOOTING.md")).unwrap();
    let lines = page.split("## Log lines").nth(1).unwrap().lines();
    let mut explained = BTreeSet::new();
    for row in lines.filter(|line| line.starts_with("| `")) {
        let quote = if row.starts_with("| `` ") { " `` | " } else { "` | " };
        let (cell, advice) = row.split_once(quote).unwrap();
        assert!(advice.trim_matches(['|', ' ']).len() > 6, "{row}");
        assert!(
            explained.insert(cell.trim_start_matches("| `` ").trim_start_matches("| `").to_owned()),
            "{row}"
        );
    }
    assert!(said.len() > 80, "{said:#?}");
    let [missing, unknown] = [said.difference(&explained), explained.difference(&said)].map(Vec::from_iter);
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not explained: {missing:#?}\nnever said: {unknown:#?}"
    );
}
