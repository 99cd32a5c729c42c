//! The package where systemd is process 1, from its installation to its purge.

use std::fs;
use std::path::Path;
use std::process::Command;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{Scratch, sys};

use crate::{package, run_long, top};

#[test]
fn under_a_systemd_that_is_process_1_the_service_is_started_reloaded_upgraded_restarted_stopped_and_purged() {
    if sys::user() != 0 || !Path::new("/lib/systemd/systemd").exists() {
        return skip("this wants root, and systemd at /lib/systemd/systemd");
    }
    let scratch = Scratch::make();
    let Some(first) = package(&scratch, "1") else { return };
    let Some(second) = package(&scratch, "2") else { return };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash"]);
    command.arg(top().join("packaging/tests/debian/boot.sh")).arg(scratch.directory()).args([first, second]);
    let (ended, stdout, stderr) = run_long(&command);
    if ended.status.code() == Some(77) {
        return skip(&format!("no systemd can be process 1 here: {stdout}{stderr}"));
    }
    let written = |name: &str| {
        let bytes = fs::read(scratch.path("out").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let expected = [
        "installed: active/running/success restarts=0 as varta, enabled",
        "agent: 1 agent: 1 up",
        "reloaded: active/running/success restarts=0 same=yes",
        "reloaded with a fault: 1, active/running/success restarts=0 same=yes",
        "handed over: active/running/success restarts=0",
        "upgraded: active/running/success restarts=0",
        "hung: active/running/success restarts=1",
        "agent: 1 agent: 1 down",
        "stopped: inactive/dead/success restarts=1",
        "started: active/running/success restarts=0",
        "purged: not-found ",
        "left: ",
    ];
    let (said, errors, log) = (written("said"), written("errors"), written("log"));
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{errors}\n{log}\n{stdout}{stderr}");
    assert!(ended.status.success(), "{ended:?}\n{errors}\n{log}");
}
