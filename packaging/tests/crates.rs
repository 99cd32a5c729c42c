//! The crates as a registry gets them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

use varta_integration_tests::{Scratch, run_to_its_end};

const CRATES: [&str; 3] = ["varta-proto", "varta-agent", "varta-server"];

/// The lines of the one warning that stays while the crates have no address of their own: that of a repository
/// that does not exist would be worse.
const WITHOUT_ADDRESS: [&str; 2] =
    ["manifest has no documentation, homepage or repository", "package-metadata"];

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).args(arguments).arg("--offline");
    command
}

#[test]
fn each_crate_is_packaged_without_a_warning_and_has_its_readme_and_both_licences() {
    let scratch = Scratch::make();
    let mut command = cargo(&["package", "--no-verify", "--allow-dirty", "--quiet"]);
    command.env("CARGO_TARGET_DIR", scratch.directory());
    command.args(CRATES.iter().flat_map(|name| ["-p", *name]));
    let ended = run_to_its_end(command);
    assert!(ended.status.success(), "{ended:?}");
    let is_expected = |line: &str| line == "  |" || WITHOUT_ADDRESS.iter().any(|text| line.contains(text));
    let said: Vec<_> = ended.stderr.lines().filter(|line| !line.is_empty() && !is_expected(line)).collect();
    assert!(said.is_empty(), "{said:#?}");

    for name in CRATES {
        let directory = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let mut tar = Command::new("tar");
        tar.arg("tf").arg(scratch.path(&format!("package/{directory}.crate")));
        let files = run_to_its_end(tar).stdout;
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.lock", "src/lib.rs"] {
            assert!(
                files.lines().any(|line| line == format!("{directory}/{file}")),
                "{name}: {file}: {files}"
            );
        }
    }
}

#[test]
fn each_crate_says_what_it_is_and_how_its_documentation_is_built() {
    let metadata = run_to_its_end(cargo(&["metadata", "--no-deps", "--format-version=1"])).stdout;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    for name in CRATES {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        for key in ["description", "license", "readme", "rust_version"] {
            assert!(package[key].as_str().is_some_and(|value| !value.is_empty()), "{name}: {key}");
        }
        for key in ["keywords", "categories"] {
            let count = package[key].as_array().unwrap().len();
            assert!((1..=5).contains(&count), "{name}: {key}");
        }
        let of_docs = package["metadata"]["docs"]["rs"].as_object().unwrap();
        let features: Vec<_> =
            of_docs.get("features").and_then(|list| list.as_array()).into_iter().flatten().collect();
        for feature in features {
            assert!(package["features"].get(feature.as_str().unwrap()).is_some(), "{name}: {feature}");
            assert_ne!(feature, "test-hooks", "{name}");
        }
    }
}
