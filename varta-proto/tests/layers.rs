//! How the files of a crate's `src` are arranged: no two of them import each other, directly or through
//! others.
//!
//! An import counts for the file that defines the name, and not for a `mod.rs` that re-exports it. Tests are
//! left out. varta-agent includes this file and checks its own `src` with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The text of each file by its path below `src`, without comments, tests and strings that span lines.
type Sources = BTreeMap<String, String>;

/// The most lines of one file.
const MAX_LINES: usize = 450;

#[test]
fn no_two_files_import_each_other() {
    let sources = sources(&read_all());
    let imports = imports(&sources);
    let edges: usize = imports.values().map(BTreeSet::len).sum();
    assert!(edges >= sources.len() / 2, "only {edges} imports were found in {} files", sources.len());
    let loops = loops(&imports);
    assert!(loops.is_empty(), "files that import each other:\n{}", loops.join("\n"));
}

#[test]
fn no_file_is_longer_than_450_lines() {
    let files = read_all();
    let long: Vec<_> =
        files.iter().filter(|(_, text)| text.lines().count() > MAX_LINES).map(|(name, _)| name).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn a_folder_of_modules_has_its_mod_rs_and_no_file_of_its_name() {
    let names: BTreeSet<_> = read_all().into_keys().collect();
    for name in &names {
        let Some((folder, _)) = name.rsplit_once('/') else { continue };
        assert!(names.contains(&format!("{folder}/mod.rs")), "{folder} has no mod.rs");
        assert!(!names.contains(&format!("{folder}.rs")), "{folder}.rs stands outside of its folder");
    }
}

#[test]
fn a_loop_through_a_re_export_is_found() {
    let files = [
        ("lib.rs", "mod low;\nmod high;\npub use high::face::High;\nmod other;\n"),
        ("high/mod.rs", "mod face;\nmod part;\npub use face::High;\n"),
        ("high/face.rs", "use super::part::{self, Part as P};\npub struct High;\n"),
        ("high/part.rs", "use crate::low::Low; // crate::other::Other\npub struct Part;\n"),
        ("low.rs", "use crate::{high::High, low};\n#[cfg(test)]\nmod tests {\n use crate::other::Other; }\n"),
        ("other.rs", "use crate::high::High;\n"),
    ];
    let imports = imports(&sources(&files.map(|(name, text)| (name.to_owned(), text.to_owned())).into()));
    let of = |name: &str| imports[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("high/face.rs"), ["high/part.rs"]);
    assert_eq!(of("high/part.rs"), ["low.rs"]);
    assert_eq!(of("low.rs"), ["high/face.rs"]);
    assert_eq!(of("other.rs"), ["high/face.rs"]);
    assert_eq!(loops(&imports), ["high/face.rs, high/part.rs, low.rs"]);
}

fn read_all() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    collect(&src, &src, &mut files);
    files
}

fn collect(src: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of the crate can be read") {
        let path = entry.expect("its entries too").path();
        let name = path.strip_prefix(src).expect("it is below src");
        let name = name.to_str().expect("a module's name is UTF-8").replace('\\', "/");
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "test_vectors");
        if path.is_dir() && !is_test {
            collect(src, &path, files);
        } else if name.ends_with(".rs") && !is_test {
            files.insert(name, fs::read_to_string(&path).expect("source code is UTF-8"));
        }
    }
}

fn sources(files: &BTreeMap<String, String>) -> Sources {
    let strip = |text: &str| {
        let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let code = code.join("\n");
        // The tests of a file stand at its end.
        let end = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
        code[..end].to_owned()
    };
    files.iter().map(|(name, text)| (name.clone(), strip(text))).collect()
}

/// The files that each file imports.
fn imports(sources: &Sources) -> BTreeMap<String, BTreeSet<String>> {
    let re_exports: BTreeMap<_, _> =
        sources.iter().map(|(name, text)| (name.as_str(), re_exports(text))).collect();
    sources
        .iter()
        .map(|(name, text)| {
            let imported = paths(&without_re_exports(text), &modules(text))
                .iter()
                .filter_map(|path| resolve(sources, &re_exports, name, path))
                .filter(|target| target != name)
                .collect();
            (name.clone(), imported)
        })
        .collect()
}

/// The groups of files of which each imports each, through others or not.
fn loops(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reachable = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = imports[start].iter().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(imports.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|name| (name, reachable(name))).collect();
    let groups: BTreeSet<_> = imports
        .keys()
        .filter(|name| reached[name].contains(name))
        .map(|name| {
            let group: Vec<_> = reached[name].iter().filter(|other| reached[*other].contains(name)).collect();
            group.into_iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        })
        .collect();
    groups.into_iter().collect()
}

/// The modules that a file declares in other files.
fn modules(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect()
}

/// The statements that re-export names, from `pub` to `;`.
fn re_export_statements(text: &str) -> Vec<&str> {
    ["pub use ", "pub(crate) use ", "pub(super) use "]
        .iter()
        .flat_map(|start| text.match_indices(start))
        .map(|(at, _)| &text[at..at + text[at..].find(';').unwrap_or(0)])
        .collect()
}

fn without_re_exports(text: &str) -> String {
    re_export_statements(text).iter().fold(text.to_owned(), |text, statement| text.replace(statement, ""))
}

/// The names that a file re-exports, each with the path to it.
fn re_exports(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for statement in re_export_statements(text) {
        let (_, path) = statement.split_once("use ").expect("every statement has it");
        let mut paths = Vec::new();
        expand(path, &mut Vec::new(), &mut paths);
        names.extend(paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path))));
    }
    names
}

/// All paths that begin with `crate`, `self`, `super` or one of these modules.
fn paths(text: &str, modules: &[&str]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for root in ["crate", "super", "self"].iter().chain(modules) {
        for (at, _) in text.match_indices(&format!("{root}::")) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && before != '_' && before != ':' {
                expand(&text[at..], &mut Vec::new(), &mut paths);
            }
        }
    }
    paths
}

/// Takes the path at the beginning of a text apart, with the braces in it, and returns the text behind it.
fn expand<'t>(mut text: &'t str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'t str {
    let depth = prefix.len();
    text = text.trim_start();
    if let Some(rest) = text.strip_prefix('{') {
        text = rest;
        while !text.trim_start().starts_with('}') && !text.is_empty() {
            text = expand(text, prefix, paths).trim_start();
            let item_end = text.find([',', '}']).unwrap_or(text.len());
            text = text[item_end..].trim_start_matches(',');
        }
        return text.trim_start().strip_prefix('}').unwrap_or(text);
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !name.is_empty() {
        prefix.push(name.to_owned());
    }
    let rest = match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => expand(rest, prefix, paths),
        _ => {
            paths.push(prefix.clone());
            rest
        }
    };
    prefix.truncate(depth);
    rest
}

/// The file that defines what a path names, with re-exports followed; `None` if it is in another crate.
fn resolve(
    sources: &Sources,
    re_exports: &BTreeMap<&str, BTreeMap<String, Vec<String>>>,
    from: &str,
    path: &[String],
) -> Option<String> {
    let mut module: Vec<&str> = from.trim_end_matches(".rs").split('/').collect();
    if matches!(module.last(), Some(&("mod" | "lib"))) {
        module.pop();
    }
    let mut file = from.to_owned();
    let mut rest = path;
    while let Some(name) = rest.first() {
        match name.as_str() {
            "crate" => module.clear(),
            "super" => drop(module.pop()),
            "self" => {}
            name => {
                module.push(name);
                if file_of(sources, &module).is_none() {
                    let next = re_exports.get(file.as_str()).and_then(|names| names.get(name));
                    return match next {
                        Some(next) => {
                            let path: Vec<_> = next.iter().chain(&rest[1..]).cloned().collect();
                            resolve(sources, re_exports, &file, &path)
                        }
                        // Of another crate, or defined right here.
                        None if rest.len() == path.len() => None,
                        None => Some(file),
                    };
                }
            }
        }
        file = file_of(sources, &module)?;
        rest = &rest[1..];
    }
    Some(file)
}

fn file_of(sources: &Sources, module: &[&str]) -> Option<String> {
    let path = module.join("/");
    let names = match path.as_str() {
        "" => vec!["lib.rs".to_owned()],
        path => vec![format!("{path}.rs"), format!("{path}/mod.rs")],
    };
    names.into_iter().find(|name| sources.contains_key(name))
}
