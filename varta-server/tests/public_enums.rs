//! Which public enums of the crates may get more variants in a minor release.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

/// The enums whose users must decide about each variant, so that another one is a new major release.
const EXHAUSTIVE: [(&str, &str); 4] = [
    ("BeatOutcome", "a beat was sent, may be sent later, or cannot be sent: there is no fourth"),
    ("Status", "the protocol has these, and another one is another version of it"),
    ("Glance", "a reader of a page that passes over what it saw loses beats"),
    ("Verdict", "an operator's program that does not know a verdict does the wrong thing about it"),
];

/// Collects the public enums of a folder, with whether each is non-exhaustive.
fn collect(folder: &Path, found: &mut Vec<(String, bool)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let Some(rest) = line.strip_prefix("pub enum ") else { continue };
                let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap();
                // The attributes stand between the documentation and the enum.
                let attributes = lines[..number].iter().rev().take_while(|line| !line.starts_with("///"));
                let may_grow = attributes.into_iter().any(|line| line.contains("non_exhaustive"));
                found.push((name.to_owned(), may_grow));
            }
        }
    }
}

#[test]
fn a_public_enum_may_get_more_variants_unless_its_users_must_know_them_all() {
    let mut found = Vec::new();
    for package in ["varta-proto", "varta-agent", "varta-server"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src"), &mut found);
    }
    assert!(found.len() > 30, "{found:?}");
    let mut exhaustive: Vec<&str> =
        found.iter().filter(|(_, may_grow)| !may_grow).map(|(name, _)| name.as_str()).collect();
    let mut expected = EXHAUSTIVE.map(|(name, _)| name);
    exhaustive.sort_unstable();
    expected.sort_unstable();
    assert_eq!(exhaustive, expected);
}
