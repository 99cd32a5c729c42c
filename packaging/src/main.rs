//! Writes the manual pages and the shell completions of `varta-server`, from the definition of its command
//! line, for packages: `varta-packaging DIRECTORY DATE`.
//!
//! A program of its own, so that the server carries neither generator. The directory is made if it is missing.
//! It then has `man1/` with a page for the program and one for each subcommand, and `completions/` with the
//! files for bash, zsh and fish under the names that these shells look for.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use varta_server::cli::Args;

/// The program that is described.
const PROGRAM: &str = "varta-server";

fn main() -> ExitCode {
    let mut matches = definition().get_matches_from(env::args_os());
    let directory: PathBuf = matches.remove_one("directory").expect("clap requires it");
    let date: String = matches.remove_one("date").expect("clap requires it");
    match write(&directory, &date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the only word of a program that a person runs")]
            {
                eprintln!("varta-packaging: {}: {error}", directory.display());
            }
            ExitCode::FAILURE
        }
    }
}

fn definition() -> Command {
    let directory = Arg::new("directory")
        .value_name("DIRECTORY")
        .help("Where man1/ and completions/ are written")
        .value_parser(value_parser!(PathBuf))
        .required(true);
    let date = Arg::new("date").value_name("DATE").help("Date of the pages: YYYY-MM-DD").required(true);
    Command::new("varta-packaging")
        .about("Writes the manual pages and shell completions of varta-server")
        .args([directory, date])
}

fn write(directory: &Path, date: &str) -> io::Result<()> {
    let pages = directory.join("man1");
    fs::create_dir_all(&pages)?;
    let mut program = Args::command()
        .disable_help_subcommand(true)
        // All of the many options, one behind the other, would tell nobody anything.
        .override_usage("varta-server [OPTIONS]\nvarta-server COMMAND [OPTIONS] ...");
    program.build();
    write_pages(&program, &pages, date)?;
    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for (shell, name) in [
        (Shell::Bash, PROGRAM.to_owned()),
        (Shell::Zsh, format!("_{PROGRAM}")),
        (Shell::Fish, format!("{PROGRAM}.fish")),
    ] {
        fs::write(completions.join(name), completion(shell)?)?;
    }
    Ok(())
}

/// The completion for a shell: of options and subcommands from their definition, and of names by the server.
fn completion(shell: Shell) -> io::Result<String> {
    let mut generated = Vec::new();
    // Without what is hidden, which the generators do not heed.
    let whole = Args::command();
    let shown = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).cloned();
    let mut command = Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(shown);
    clap_complete::generate(shell, &mut command, PROGRAM, &mut generated);
    let mut text = String::from_utf8(generated).map_err(io::Error::other)?;
    match shell {
        Shell::Bash => {
            // clap_complete 4.6 goes to one label and has another where the program's name has a hyphen
            // (https://github.com/clap-rs/clap/issues/6421): nothing would be completed behind a subcommand.
            text = text.replace("varta__subcmd__server", "varta__server");
            text.push_str(include_str!("names.bash"));
        }
        Shell::Fish => {
            // clap_complete 4.6 takes a last option that still waits for its value for wrong usage, and then offers no
            // values: the words before it are enough to find the command.
            let parse = |words: &str| {
                format!("argparse -s (__fish_varta_server_global_optspecs) -- {words} 2>/dev/null\n")
            };
            let whole = parse("$cmd");
            text = text.replace(&whole, &format!("{whole}    or {}", parse("$cmd[1..-2]")));
            text.push_str(include_str!("names.fish"));
        }
        // Before its last command, which calls the function.
        Shell::Zsh => {
            let end = text.rfind("if [ \"$funcstack[1]\"");
            let end = end.ok_or_else(|| io::Error::other("the completion for zsh has another form"))?;
            text.insert_str(end, include_str!("names.zsh"));
        }
        other => return Err(io::Error::other(format!("there are no names for {other}"))),
    }
    Ok(text)
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, directory: &Path, date: &str) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand, directory, date)?;
    }
    let name = command.get_display_name().unwrap_or(PROGRAM);
    Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(format!("Varta {}", env!("CARGO_PKG_VERSION")))
        .manual("Varta")
        .generate_to(directory)
        .map(drop)
}
