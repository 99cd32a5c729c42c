//! The manual pages and completions: complete, and without fault by the tools that read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use varta_integration_tests::foreign::installed;
use varta_integration_tests::{Scratch, run_to_its_end};
use varta_server::cli::Args;

/// A directory with all of it.
fn written() -> Scratch {
    let scratch = Scratch::make();
    let mut command = Command::new(env!("CARGO_BIN_EXE_varta-packaging"));
    command.arg(scratch.directory()).arg("2026-11-30");
    let ended = run_to_its_end(command);
    assert!(ended.status.success(), "{ended:?}");
    scratch
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The names of a command's page and of those of its subcommands.
fn page_names(command: &clap::Command, before: &str, names: &mut BTreeSet<String>) {
    let name = format!("{before}{}", command.get_name());
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        page_names(subcommand, &format!("{name}-"), names);
    }
    names.insert(format!("{name}.1"));
}

#[test]
fn the_program_and_each_subcommand_have_a_page_and_there_is_no_other() {
    let scratch = written();
    let mut expected = BTreeSet::new();
    page_names(&Args::command(), "", &mut expected);
    let pages = files(&scratch.path("man1"));
    let found: BTreeSet<_> =
        pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
    assert!(found.contains("varta-server-audit-verify.1"), "{found:?}");
}

#[test]
fn the_page_of_the_program_has_each_option_with_its_variable() {
    let scratch = written();
    let page = fs::read_to_string(scratch.path("man1/varta-server.1")).unwrap().replace("\\-", "-");
    for option in Args::command().get_arguments().filter(|option| !option.is_hide_set()) {
        let long = option.get_long().unwrap();
        assert!(page.contains(&format!("\\fB--{long}\\fR")), "--{long}");
        if let Some(variable) = option.get_env() {
            assert!(page.contains(&format!("\\fB{}\\fR", variable.to_str().unwrap())), "{variable:?}");
        }
    }
}

/// What mandoc says of every generated page, and that changes nothing of how a page looks.
const HARMLESS: [&str; 2] = ["skipping paragraph macro: br ", "skipping paragraph macro: PP "];

#[test]
fn mandoc_finds_no_fault_in_the_pages() {
    let scratch = written();
    for page in files(&scratch.path("man1")) {
        let Some(mut mandoc) = installed("mandoc") else { return };
        mandoc.args(["-T", "lint", "-W", "warning"]).arg(&page);
        let said = run_to_its_end(mandoc).stdout;
        let faults: Vec<_> =
            said.lines().filter(|line| !HARMLESS.iter().any(|harmless| line.contains(harmless))).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

#[test]
fn bash_zsh_and_fish_can_read_the_completions() {
    let scratch = written();
    for (shell, file) in [("bash", "varta-server"), ("zsh", "_varta-server"), ("fish", "varta-server.fish")] {
        let Some(mut command) = installed(shell) else { continue };
        command.arg("-n").arg(scratch.path("completions").join(file));
        let ended = run_to_its_end(command);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{shell}: {ended:?}");
    }
}

#[test]
fn bash_completes_subcommands_options_and_the_values_of_options() {
    let scratch = written();
    let Some(mut bash) = installed("bash") else { return };
    let script = r#"
        . "$1"
        function=$(complete -p varta-server | sed 's/.*-F \([^ ]*\).*/\1/')
        complete_line() {
            read -ra COMP_WORDS <<<"$1"
            [ "${1%" "}" = "$1" ] || COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            "$function" varta-server "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        complete_line 'varta-server aud'
        complete_line 'varta-server --stall'
        complete_line 'varta-server --detector '"#;
    bash.env("PATH", "/usr/bin:/bin")
        .args(["-c", script, "bash"])
        .arg(scratch.path("completions/varta-server"));
    let ended = run_to_its_end(bash);
    assert_eq!(ended.stdout, "audit\n--stall-after\nfixed phi chen\n", "{ended:?}");
}
