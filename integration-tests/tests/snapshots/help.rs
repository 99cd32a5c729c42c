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
        for task in [
            "replay",
            "pause",
            "resume",
            "pauses",
            "forget",
            "ack",
            "unack",
            "audit",
            "audit verify",
            "exec",
            "schedule",
            "config",
            "config check",
            "config show",
            "config schema",
        ] {
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

/// The options of a help text by their headings, in order.
fn headings(help: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in help.lines() {
        let option = line.split_whitespace().find(|word| word.starts_with("--"));
        match (line.strip_suffix(':'), found.last_mut()) {
            (Some(heading), _) if !line.starts_with(' ') => found.push((heading, Vec::new())),
            (_, Some((_, options))) if line.starts_with("  -") || line.starts_with("      --") => {
                options.extend(option);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn the_summary_has_a_line_for_each_option_and_leaves_out_those_that_few_need() {
    let said = |words: &[&str]| {
        let mut command = server_command();
        command.env("VARTA_STALL_AFTER", "7s").args(words);
        run_to_its_end(command).stdout
    };
    for task in [
        &[][..],
        &["replay"],
        &["pause"],
        &["resume"],
        &["pauses"],
        &["forget"],
        &["ack"],
        &["unack"],
        &["audit", "verify"],
        &["audit", "restart"],
    ] {
        let short = said(&[task, &["-h"]].concat());
        let lists = short.lines().skip_while(|line| !line.ends_with(':'));
        // A text that does not fit its line goes on further to the right than any option begins.
        let continued: Vec<_> = lists.filter(|line| line.starts_with("       ")).collect();
        assert!(continued.is_empty(), "{task:?}: {continued:#?}");
        assert!(!short.contains("[env: "), "{short}");
        let long = said(&[task, &["--help"]].concat());
        let (short, long) = (headings(&short), headings(&long));
        for (heading, options) in &short {
            let all = long.iter().find(|(long, _)| long == heading);
            let all = all.unwrap_or_else(|| unreachable!("{heading}: {long:?}"));
            assert!(options.iter().all(|option| all.1.contains(option)), "{options:?}, {all:?}");
        }
    }
    let count = |help: &str| headings(help).iter().map(|(_, options)| options.len()).sum::<usize>();
    let (short, long) = (said(&["-h"]), said(&["--help"]));
    assert!(count(&short) <= 40 && count(&long) > 70, "{} of {}", count(&short), count(&long));
    let options: Vec<_> = headings(&long).into_iter().filter(|(_, options)| !options.is_empty()).collect();
    let in_none = options.iter().find(|(heading, _)| *heading == "Options").unwrap();
    assert_eq!(in_none.1, ["--config", "--take-over", "--help", "--version"]);
}

#[test]
fn help_shows_what_the_environment_says_and_hides_what_may_be_secret() {
    let mut command = server_command();
    command.env("VARTA_STALL_AFTER", "7s").env("VARTA_WEBHOOK", "http://localhost/secret").arg("--help");
    let help = run_to_its_end(command).stdout;
    let shown = |option: &str| -> String {
        let lines = help.lines().skip_while(|line| !line.trim_start().starts_with(option)).skip(1);
        let lines = lines.take_while(|line| !line.trim_start().starts_with("--") && !line.ends_with(':'));
        lines.filter(|line| !line.trim().is_empty()).map(|line| format!("{}\n", line.trim())).collect()
    };
    assert!(!help.contains("localhost/secret"), "{help}");
    assert_unchanged("help_environment", &format!("{}{}", shown("--stall-after"), shown("--webhook ")));
}
