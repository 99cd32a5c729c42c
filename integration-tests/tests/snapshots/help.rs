//! The help texts.

use varta_integration_tests::{run_to_its_end, server_command};

use super::sandbox::{Sandbox, assert_unchanged};

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A description that does not fit stands further to the right.
    let listed = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The help of the program itself or of a subcommand, and of all below it.
fn add_help(option: &str, task: &[&str], sandbox: &mut Sandbox) {
    let words = [task, &[option]].concat();
    let mut command = server_command();
    command.args(&words);
    let ended = run_to_its_end(command);
    sandbox.add_prompt("", &words);
    sandbox.add_ended(&ended);
    for below in subcommands(&ended.stdout) {
        add_help(option, &[task, &[&below]].concat(), sandbox);
    }
}

#[test]
fn help_of_the_program_and_of_every_subcommand() {
    for (option, name) in [("--help", "help_long"), ("-h", "help_short")] {
        let mut sandbox = Sandbox::new();
        add_help(option, &[], &mut sandbox);
        let transcript = sandbox.transcript();
        for task in ["replay", "pause", "resume", "pauses", "audit", "audit verify"] {
            assert!(transcript.contains(&format!("$ varta-server {task} {option}\n")), "{task} is missing");
        }
        assert_unchanged(name, &transcript);
    }
}

#[test]
fn help_shows_what_the_environment_says_and_hides_what_may_be_secret() {
    let mut command = server_command();
    command.env("VARTA_STALL_AFTER", "7s").env("VARTA_WEBHOOK", "http://localhost/secret").arg("-h");
    let help = run_to_its_end(command).stdout;
    let shown = |option: &str| -> String {
        let lines = help.lines().skip_while(|line| !line.trim_start().starts_with(option)).skip(1);
        let lines = lines.take_while(|line| !line.trim_start().starts_with("--") && !line.is_empty());
        lines.map(|line| format!("{}\n", line.trim())).collect()
    };
    assert!(!help.contains("localhost/secret"), "{help}");
    assert_unchanged("help_environment", &format!("{}{}", shown("--stall-after"), shown("--webhook ")));
}
