//! Compares the public API of the SDK's crates with the snapshots in the tree, and reports types of other
//! crates in it.
//!
//! `scripts/check-public-api` runs it. The input is the JSON of a nightly rustdoc with all features enabled.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The crates: package, library, and the crates whose types may appear in its public API. The standard
/// library may always.
const CRATES: [(&str, &str, &[&str]); 2] =
    [("varta-proto", "varta_proto", &[]), ("varta-agent", "varta_agent", &["varta_proto"])];

/// Traits without a stable name, or without a meaning for users. Which of them a listing has depends on the
/// nightly.
const UNSTABLE_TRAITS: [&str; 3] =
    ["std::marker::Freeze", "std::marker::UnsafeUnpin", "std::marker::StructuralPartialEq"];

/// Set to rewrite the snapshots.
const UPDATE_ENV: &str = "UPDATE_PUBLIC_API";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let [_, root, json] = &std::env::args().map(PathBuf::from).collect::<Vec<_>>()[..] else {
        return Err("usage: varta-public-api ROOT-OF-THE-REPOSITORY FOLDER-OF-RUSTDOC-JSON".into());
    };
    let update = std::env::var_os(UPDATE_ENV).is_some();
    let mut passed = true;
    for (package, library, allowed) in CRATES {
        let json = json.join(library).with_extension("json");
        let text = fs::read_to_string(&json).map_err(|error| format!("{}: {error}", json.display()))?;
        let format = format_version(&text);
        if format != Some(rustdoc_types::FORMAT_VERSION) {
            println!(
                "not run: this nightly's rustdoc writes JSON of format {}, and the crate public-api of \
                 scripts/public-api/Cargo.toml reads format {}",
                format.map_or("?".to_owned(), |format| format.to_string()),
                rustdoc_types::FORMAT_VERSION
            );
            return Ok(ExitCode::SUCCESS);
        }
        let api = public_api(&json, library, allowed)?;
        for line in foreign(&api, library, allowed) {
            eprintln!("{package}: a type of another crate in the public API: {line}");
            passed = false;
        }
        passed &= compare(&root.join(package).join("tests/public-api.txt"), &api, update)?;
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Finds the version of the format without knowing the format.
fn format_version(json: &str) -> Option<u32> {
    const KEY: &str = "\"format_version\":";
    let (_, rest) = json.split_once(KEY)?;
    let rest = rest.trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

/// Lists the public items with the names of parameters, one a line, sorted: which `impl` block holds an item
/// makes no difference.
fn public_api(json: &Path, library: &str, allowed: &[&str]) -> Result<String, Box<dyn Error>> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .include_function_parameter_names(true)
        .build()?;
    let lines: BTreeSet<_> = api
        .items()
        .map(|item| normalise(&item.to_string(), library, allowed))
        .filter(|line| !UNSTABLE_TRAITS.iter().any(|name| line.contains(name)))
        .collect();
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// Rewrites the paths that say where an item is defined and not where users find it: `core` and `alloc`
/// become `std`, and the private modules of another crate of this workspace are left out.
fn normalise(line: &str, library: &str, allowed: &[&str]) -> String {
    let mut normal = String::new();
    for piece in paths(line) {
        match piece.split_once("::") {
            Some(("core" | "alloc", rest)) => normal.extend(["std::", rest]),
            Some((root, rest)) if root != library && allowed.contains(&root) => {
                let name = rest.rsplit("::").next().unwrap_or(rest);
                normal.extend([root, "::", name]);
            }
            _ => normal.push_str(piece),
        }
    }
    normal
}

/// Gives the lines with a path that begins with the name of another crate.
fn foreign<'a>(api: &'a str, library: &str, allowed: &[&str]) -> Vec<&'a str> {
    let is_known = |root: &str| root == "std" || root == library || allowed.contains(&root) || is_type(root);
    api.lines()
        .filter(|line| {
            paths(line).any(|piece| piece.split_once("::").is_some_and(|(root, _)| !is_known(root)))
        })
        .collect()
}

/// `Self` and type parameters begin paths too (`T::Item`); a crate's name has no capital.
fn is_type(root: &str) -> bool {
    root.is_empty() || root.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Cuts a line into paths (`std::fmt::Debug`) and what is between them.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = is_path(rest.chars().next()?);
        let end = rest.find(|c| is_path(c) != first).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// Compares a listing with its snapshot and prints the difference, or writes the snapshot.
fn compare(snapshot: &Path, api: &str, update: bool) -> Result<bool, Box<dyn Error>> {
    if update {
        fs::write(snapshot, api)?;
        return Ok(true);
    }
    let expected =
        fs::read_to_string(snapshot).map_err(|error| format!("{}: {error}", snapshot.display()))?;
    if expected == api {
        return Ok(true);
    }
    let [before, now] = [&*expected, api].map(|text| text.lines().collect::<BTreeSet<_>>());
    eprintln!("{} is not the public API:", snapshot.display());
    for line in before.symmetric_difference(&now) {
        eprintln!("{} {line}", if before.contains(line) { '-' } else { '+' });
    }
    eprintln!("if the change is meant, run {UPDATE_ENV}=1 scripts/check-public-api and commit the snapshot");
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_another_crate_is_found_wherever_it_stands() {
        let api = "pub fn own::Handle::task(&self) -> &tokio::task::JoinHandle<()>\n\
                   impl std::convert::From<libc::c_int> for own::Error\n\
                   pub fn own::send(std::net::SocketAddr, friend::Key) -> std::io::Result<T::Item>\n\
                   pub fn own::get(&self) -> Self::Item\n";
        let found = foreign(api, "own", &["friend"]);
        assert_eq!(found, api.lines().take(2).collect::<Vec<_>>());
    }

    #[test]
    fn where_an_item_is_defined_does_not_show() {
        let line =
            "pub fn own::a::f(core::time::Duration, friend::b::c::Key<'_>) -> alloc::vec::Vec<own::a::X>";
        let normal = "pub fn own::a::f(std::time::Duration, friend::Key<'_>) -> std::vec::Vec<own::a::X>";
        assert_eq!(normalise(line, "own", &["friend"]), normal);
    }

    #[test]
    fn the_version_of_the_format_is_found_in_any_json() {
        assert_eq!(format_version("{\"root\":1,\"format_version\":57}"), Some(57));
        assert_eq!(format_version("{\"format_version\": 9,\"x\":{}}"), Some(9));
        assert_eq!(format_version("{}"), None);
    }
}
