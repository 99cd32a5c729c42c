//! The help texts.

use varta_integration_tests::{run_to_its_end, server_command};

use super::sandbox::{Sandbox, assert_unchanged};

/// The subcommands that a help text lists, but for the one that prints such texts.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A description that does not fit stands further to the right.
    let listed = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names = listed.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    names.filter(|name| name != "help").collect()
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
        for task in ["replay", "pause", "resume", "pauses", "forget", "ack", "unack", "audit", "audit verify"]
        {
            assert!(transcript.contains(&format!("$ varta-server {task} {option}\n")), "{task} is missing");
        }
        assert_unchanged(name, &transcript);
    }
}

#[test]
fn the_command_help_says_what_the_option_says() {
    let said = |words: &[&str]| {
        let mut command = server_command();
        // Of which help does not care.
        command.env("VARTA_CONFIG", "/nowhere").env("VARTA_STALL_AFTER", "soon").args(words);
        run_to_its_end(command)
    };
    for task in [&[][..], &["pause"], &["audit"], &["audit", "verify"]] {
        let [by_command, by_option] =
            [[&["help"], task].concat(), [task, &["--help"]].concat()].map(|words| said(&words));
        assert_eq!(by_command.status.code(), Some(0), "{by_command:?}");
        assert_eq!(by_command.stdout, by_option.stdout);
    }
    let unknown = said(&["help", "paus"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains("paus"), "{unknown:?}");
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
