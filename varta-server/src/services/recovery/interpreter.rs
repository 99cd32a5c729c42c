//! Programs that take a word of their command line for code: what an agent says of itself must not get into that
//! word, where it would run with the rights of the server.

use std::path::Path;

/// A word of a command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'w> {
    /// As it was written, with its placeholders.
    pub(super) text: &'w str,
    pub(super) has_placeholder: bool,
}

/// A word with a placeholder that a program of the command takes for code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeWord<'w> {
    pub(super) program: &'w str,
    pub(super) word: &'w str,
}

/// What a program does with the words behind its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interpreter {
    /// The first operand is code after `-c`, else the file with the code; the words after it are arguments.
    Shell,
    /// The same, with these letters for the option before code.
    Language { code: &'static str },
    /// Runs the word after `-c` in a shell, wherever it stands.
    Login,
    /// Joins all words, and has them parsed by a shell of another host.
    Remote,
}

/// By the name of the program, without a version behind it.
const INTERPRETERS: [(&str, Interpreter); 21] = [
    ("sh", Interpreter::Shell),
    ("bash", Interpreter::Shell),
    ("dash", Interpreter::Shell),
    ("ash", Interpreter::Shell),
    ("ksh", Interpreter::Shell),
    ("mksh", Interpreter::Shell),
    ("zsh", Interpreter::Shell),
    ("fish", Interpreter::Shell),
    ("csh", Interpreter::Shell),
    ("tcsh", Interpreter::Shell),
    ("rbash", Interpreter::Shell),
    ("python", Interpreter::Language { code: "c" }),
    ("pypy", Interpreter::Language { code: "c" }),
    ("perl", Interpreter::Language { code: "eE" }),
    ("ruby", Interpreter::Language { code: "e" }),
    ("node", Interpreter::Language { code: "ep" }),
    ("php", Interpreter::Language { code: "r" }),
    ("lua", Interpreter::Language { code: "e" }),
    ("su", Interpreter::Login),
    ("runuser", Interpreter::Login),
    ("ssh", Interpreter::Remote),
];

/// The first word with a placeholder that would be taken for code.
///
/// Each word is looked at as the name of a program, so that `env sh -c`, `sudo sh -c`, `busybox sh -c` and the
/// like are found. One that is not the first counts only where an option for code follows it: it may be a mere
/// argument.
pub(super) fn code_word<'w>(words: &[Word<'w>]) -> Option<CodeWord<'w>> {
    words.iter().enumerate().find_map(|(at, program)| {
        let interpreter = named(program.text)?;
        let behind = &words[at + 1..];
        let is_code = |place: &usize| interpreter.takes_for_code(behind, *place, at == 0);
        let place = (0..behind.len()).filter(|place| behind[*place].has_placeholder).find(is_code)?;
        Some(CodeWord { program: program.text, word: behind[place].text })
    })
}

fn named(word: &str) -> Option<Interpreter> {
    let name = Path::new(word).file_name()?.to_str()?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.iter().find(|(known, _)| *known == name).map(|(_, interpreter)| *interpreter)
}

impl Interpreter {
    /// Whether the word at this place behind the program's name is code, or among the options before it.
    fn takes_for_code(self, words: &[Word<'_>], place: usize, is_program: bool) -> bool {
        match self {
            Interpreter::Remote => true,
            Interpreter::Login => {
                let is_option = |word: &str| matches!(word, "-c" | "--command" | "--session-command");
                let word = words[place].text;
                word.starts_with("-c")
                    || word.starts_with("--command=")
                    || place.checked_sub(1).is_some_and(|before| is_option(words[before].text))
            }
            Interpreter::Shell | Interpreter::Language { .. } => {
                let (end, has_code) = self.end_of_code(words);
                place < end && (is_program || has_code)
            }
        }
    }

    /// The number of words up to the code or the file with it, and whether an option says that there is code.
    fn end_of_code(self, words: &[Word<'_>]) -> (usize, bool) {
        let (mut end, mut has_code, mut expects_code) = (0, false, false);
        let mut words = words.iter().map(|word| word.text).peekable();
        let mut may_be_option = true;
        while let Some(word) = words.next() {
            end += 1;
            if may_be_option && word == "--" {
                may_be_option = false;
            } else if may_be_option && word.len() > 1 && word.starts_with(['-', '+']) {
                if self.is_code_option(word) {
                    (has_code, expects_code) = (true, true);
                }
                if self == Interpreter::Shell && word.ends_with(['o', 'O']) && !word.starts_with("--") {
                    // The name of an option of the shell.
                    end += usize::from(words.next().is_some());
                }
            } else if expects_code && self.repeats() && words.peek().is_some_and(|next| next.starts_with('-'))
            {
                expects_code = false;
            } else {
                break;
            }
        }
        (end, has_code)
    }

    fn is_code_option(self, word: &str) -> bool {
        match self {
            Interpreter::Shell => word.starts_with('-') && !word.starts_with("--") && word.contains('c'),
            Interpreter::Language { code } => {
                word.ends_with(|letter| code.contains(letter))
                    || word.starts_with("--eval")
                    || word.starts_with("--print")
            }
            Interpreter::Login | Interpreter::Remote => false,
        }
    }

    /// Whether code may be followed by more options with code.
    fn repeats(self) -> bool {
        matches!(self, Interpreter::Language { code } if code != "c")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<(String, String)> {
        let words = shlex::split(line).unwrap();
        let words: Vec<_> =
            words.iter().map(|text| Word { text, has_placeholder: text.contains("{name}") }).collect();
        code_word(&words).map(|CodeWord { program, word }| (program.to_owned(), word.to_owned()))
    }

    #[test]
    fn a_placeholder_in_code_is_found_behind_whatever_stands_before_it() {
        for (line, program, word) in [
            ("sh -c 'restart {name}'", "sh", "restart {name}"),
            ("sh -c {name}", "sh", "{name}"),
            ("sh {name}", "sh", "{name}"),
            ("sh -- {name} x", "sh", "{name}"),
            ("sh -c -e 'x {name}' y", "sh", "x {name}"),
            ("/bin/bash -euo pipefail -c 'x {name}'", "/bin/bash", "x {name}"),
            ("bash -lc 'x {name}'", "bash", "x {name}"),
            ("bash --rcfile{name} -c true", "bash", "--rcfile{name}"),
            ("/usr/bin/env sh -c 'x {name}'", "sh", "x {name}"),
            ("env A=b -i dash -c 'x {name}'", "dash", "x {name}"),
            ("busybox sh -c 'x {name}'", "sh", "x {name}"),
            ("sudo -u nobody zsh -c 'x {name}'", "zsh", "x {name}"),
            ("timeout 5 ksh93 -c 'x {name}'", "ksh93", "x {name}"),
            ("python3.11 -c 'print(\"{name}\")'", "python3.11", "print(\"{name}\")"),
            ("python3 -u -cprint({name})", "python3", "-cprint({name})"),
            ("perl -ne 'print \"{name}\"' file", "perl", "print \"{name}\""),
            ("perl -e 'a' -e 'b {name}'", "perl", "b {name}"),
            ("ruby -e 'x {name}'", "ruby", "x {name}"),
            ("node --eval 'x {name}'", "node", "x {name}"),
            ("php -r 'x {name}'", "php", "x {name}"),
            ("su - nobody -c 'x {name}'", "su", "x {name}"),
            ("runuser -u nobody --command 'x {name}'", "runuser", "x {name}"),
            ("ssh host systemctl restart {name}", "ssh", "{name}"),
            ("timeout 9 ssh host systemctl restart {name}", "ssh", "{name}"),
        ] {
            assert_eq!(found(line), Some((program.to_owned(), word.to_owned())), "{line}");
        }
    }

    #[test]
    fn a_placeholder_that_stays_an_argument_is_none() {
        for line in [
            "systemctl restart {name}",
            "systemctl restart name={name} sh",
            "sh -c 'restart \"$1\"' -- {name}",
            "sh -c 'restart $0' {name}",
            "sh -c 'restart' -- a=b-{name}",
            "bash -o pipefail -c 'restart \"$1\"' -- {name}",
            "sh /etc/varta/restart {name}",
            "sh -- /etc/varta/restart {name}",
            "python3 -m restart {name}",
            "python3 -c 'import sys' --name={name}",
            "perl -e 'x' {name}",
            "perl /etc/varta/restart -e {name}",
            "env sh -c 'restart \"$1\"' -- {name}",
            "su nobody -s /bin/restart {name}",
            "logger -t sh {name}",
            "logger -t perl -- {name}",
            "my-ssh {name}",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
