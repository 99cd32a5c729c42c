//! The manifest for Kubernetes, by the tools that read such files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use varta_integration_tests::foreign::command;
use varta_integration_tests::{Ended, Scratch, run_server, run_to_its_end};

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/kubernetes/daemonset.yaml")
}

#[test]
fn yamllint_finds_no_fault_in_the_manifest() {
    let Some(mut yamllint) = command("venv/bin/yamllint") else { return };
    // All of its rules, with lines as long as those of the documents.
    yamllint.args(["--strict", "-d", "{extends: default, rules: {line-length: {max: 140}}}"]).arg(manifest());
    let ended = run_to_its_end(yamllint);
    assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
}

/// What the schemas of this version of Kubernetes say of a manifest.
fn validate(version: &str, manifest: &Path) -> Option<Ended> {
    let mut validate = command("venv/bin/kubernetes-validate")?;
    validate.args(["--strict", "--kubernetes-version", version]).arg(manifest);
    Some(run_to_its_end(validate))
}

#[test]
fn the_manifest_follows_the_schemas_of_kubernetes_from_1_25_to_1_37() {
    for version in ["1.25", "1.31", "1.37"] {
        let Some(ended) = validate(version, &manifest()) else { return };
        assert!(ended.status.success(), "{version}: {ended:?}");
    }
    // Names that the schemas do not have are found.
    let text = fs::read_to_string(manifest()).unwrap();
    let scratch = Scratch::make();
    let misspelt = scratch.write("misspelt.yaml", &text.replace("hostPID:", "hostPid:"));
    let Some(ended) = validate("1.37", &misspelt) else { return };
    assert!(!ended.status.success() && ended.stdout.contains("hostPid"), "{ended:?}");
}

#[test]
fn a_server_takes_the_configuration_of_the_manifest_and_finds_each_file_of_it_mounted() {
    let Some(mut python) = command("venv/bin/python") else { return };
    let script = "import sys, tomllib, yaml\n\
                  options, daemons = yaml.safe_load_all(open(sys.argv[1]))\n\
                  text = options['data']['varta.toml']\n\
                  pod = daemons['spec']['template']['spec']\n\
                  [container] = pod['containers']\n\
                  mounts = container['volumeMounts']\n\
                  assert {mount['name'] for mount in mounts} == {volume['name'] for volume in pod['volumes']}\n\
                  paths = [value for value in tomllib.loads(text).values() if str(value).startswith('/')]\n\
                  paths.append(container['args'][1])\n\
                  assert len(paths) > 2\n\
                  for path in paths:\n\
                  \x20   assert any((path + '/').startswith(mount['mountPath'] + '/') for mount in mounts), path\n\
                  print(text, end='')\n";
    python.args(["-c", script]).arg(manifest());
    let ended = run_to_its_end(python);
    assert!(ended.status.success(), "{ended:?}");
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", &ended.stdout);
    let checked = run_server([Path::new("config"), Path::new("check"), &path]);
    assert!(checked.status.success(), "{checked:?}");
}
