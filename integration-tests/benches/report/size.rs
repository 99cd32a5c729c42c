//! By how much the SDK makes a program bigger, beside the peer's: three tiny programs, built as a release and stripped.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Fallible;
use crate::statistics::Comparison;
use crate::table::{Reach, Row};

const WITHOUT: &str = r#"
fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    println!("{path}");
}
"#;

/// The same with one beat, by the crate of this name.
fn with(package: &str) -> String {
    let package = package.replace('-', "_");
    format!(
        r#"
fn main() {{
    let path = std::env::args().nth(1).unwrap_or_default();
    println!("{{path}}");
    let Ok(mut agent) = {package}::Varta::connect(&path) else {{ return }};
    let _ = agent.beat({package}::Status::Ok, 0);
}}
"#
    )
}

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
    let peer = version_of("varta-client", &fs::read_to_string(workspace.join("Cargo.toml"))?)?;
    let agent = workspace.join("varta-agent").display().to_string();
    let directory = tempfile::tempdir()?;
    let build = |name: &str, dependency: &str, source: &str| {
        let home = directory.path().join(name);
        fs::create_dir_all(home.join("src"))?;
        fs::copy(workspace.join("Cargo.lock"), home.join("Cargo.lock"))?;
        fs::write(home.join("src/main.rs"), source)?;
        fs::write(home.join("Cargo.toml"), manifest(name, dependency))?;
        size_of_release(&home, name, &directory.path().join("target"))
    };
    let without = build("without", "", WITHOUT)?;
    let ours = build("with-agent", &format!("varta-agent = {{ path = {agent:?} }}"), &with("varta-agent"))?;
    let peers = build("with-client", &format!("varta-client = {peer:?}"), &with("varta-client"))?;
    let added = |size: u64| size.checked_sub(without).ok_or("smaller with than without");
    let compared = Comparison::once(added(ours)? as f64, added(peers)? as f64);
    let show = |bytes: f64| format!("{:.1} kB", bytes / 1e3);
    let reach = Reach { text: "≤ 2", holds: |compared| compared.ratio <= 2.0 };
    let work = format!("what the SDK adds to a program of {}", show(without as f64));
    Ok(vec![Row::new(work, &compared, "the peer's", show, reach)])
}

/// The version that a manifest asks for.
fn version_of(package: &str, manifest: &str) -> Fallible<String> {
    let wanted = manifest.lines().find_map(|line| line.strip_prefix(package)?.split_once("version = \""));
    let version = wanted.and_then(|(_, rest)| rest.split('"').next());
    Ok(version.ok_or_else(|| format!("the workspace does not name a version of {package}"))?.to_owned())
}

fn manifest(name: &str, dependency: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{dependency}\n\n[profile.release]\nstrip = true\n\n[workspace]\n"
    )
}

/// Builds a package from what is on this machine already, and gives the length of its program in bytes.
fn size_of_release(home: &Path, name: &str, target: &Path) -> Fallible<u64> {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--offline", "--target-dir"])
        .arg(target)
        .current_dir(home)
        .stdout(Stdio::null())
        .status()?;
    if !built.success() {
        return Err(format!("cannot build a program {name}").into());
    }
    Ok(fs::metadata(target.join("release").join(name))?.len())
}
