//! Command lines of operators: split into words as a shell does, with placeholders for properties of the
//! agent, and run without a shell.

use std::fmt;
use std::sync::Arc;

use crate::services::recovery::interpreter::{CodeWord, Word, code_word};

/// A placeholder in the arguments of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Pid,
    Name,
    Unit,
    State,
    Cause,
    Silence,
}

impl Placeholder {
    const ALL: [Placeholder; 6] = [
        Placeholder::Pid,
        Placeholder::Name,
        Placeholder::Unit,
        Placeholder::State,
        Placeholder::Cause,
        Placeholder::Silence,
    ];

    /// The name in the braces.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Placeholder::Pid => "pid",
            Placeholder::Name => "name",
            Placeholder::Unit => "unit",
            Placeholder::State => "state",
            Placeholder::Cause => "cause",
            Placeholder::Silence => "silence",
        }
    }
}

/// A command with placeholders.
///
/// ```
/// use varta_server::recovery::CommandLine;
///
/// let command: CommandLine = "systemctl restart {unit}".parse()?;
/// assert_eq!(command.to_string(), "systemctl restart {unit}");
/// assert!("{name} --restart".parse::<CommandLine>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    text: Arc<str>,
    program: Arc<str>,
    arguments: Arc<[Vec<Part>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Place(Placeholder),
}

/// The reason why a placeholder cannot be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFilled {
    /// No value is known.
    Unknown(Placeholder),
    /// The value is empty, could be parsed as an option, or has a control character.
    Unsafe(Placeholder),
}

impl CommandLine {
    /// The longest command line in bytes.
    pub(super) const MAX_LEN: usize = 4_096;

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether the placeholder occurs in an argument.
    pub(crate) fn has(&self, place: Placeholder) -> bool {
        self.arguments.iter().flatten().any(|part| *part == Part::Place(place))
    }

    /// Whether the command is the same for all agents of a name: it contains the name or the unit, and no
    /// pid.
    pub(super) fn is_for_group(&self) -> bool {
        (self.has(Placeholder::Unit) || self.has(Placeholder::Name)) && !self.has(Placeholder::Pid)
    }

    /// Fills in the placeholders of the arguments with the values of `known`.
    ///
    /// A value is one argument or a part of one, whatever characters it has. At the beginning of an argument
    /// it must not begin with a dash: an agent with the name `-Hevil` would pass the program an option.
    ///
    /// # Errors
    ///
    /// [`NotFilled`] for the first placeholder without a value, or without a safe one.
    pub(crate) fn fill<'k>(
        &self,
        known: impl Fn(Placeholder) -> Option<std::borrow::Cow<'k, str>>,
    ) -> Result<Vec<String>, NotFilled> {
        let argument = |parts: &Vec<Part>| {
            let mut argument = String::new();
            for part in parts {
                match part {
                    Part::Text(text) => argument.push_str(text),
                    Part::Place(place) => {
                        let value = known(*place).ok_or(NotFilled::Unknown(*place))?;
                        let is_option = argument.is_empty() && value.starts_with('-');
                        if is_option || value.is_empty() || value.chars().any(char::is_control) {
                            return Err(NotFilled::Unsafe(*place));
                        }
                        argument.push_str(&value);
                    }
                }
            }
            Ok(argument)
        };
        self.arguments.iter().map(argument).collect()
    }
}

impl std::str::FromStr for CommandLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(format!("has more than {} bytes, or a control character", Self::MAX_LEN));
        }
        let words = shlex::split(text).ok_or("has a quote that is not closed, or ends with a backslash")?;
        let Some((program, arguments)) = words.split_first() else {
            return Err("names no program".to_owned());
        };
        if program.is_empty() {
            return Err("names no program".to_owned());
        }
        if parts_of(program)?.iter().any(|part| matches!(part, Part::Place(_))) {
            return Err(format!(
                "`{program}`: what is known of an agent may stand in any word but the first, which is the program"
            ));
        }
        let arguments: Vec<Vec<Part>> =
            arguments.iter().map(|word| parts_of(word)).collect::<Result<_, String>>()?;
        check_for_code(&words, &arguments)?;
        Ok(CommandLine {
            text: text.into(),
            program: program.replace("{{", "{").replace("}}", "}").into(),
            arguments: arguments.into(),
        })
    }
}

/// Refuses a placeholder in a word that an interpreter takes for code.
fn check_for_code(words: &[String], arguments: &[Vec<Part>]) -> Result<(), String> {
    let has_place = |parts: &Vec<Part>| parts.iter().any(|part| matches!(part, Part::Place(_)));
    let with_places = std::iter::once(false).chain(arguments.iter().map(has_place));
    let words: Vec<_> =
        words.iter().zip(with_places).map(|(text, has_placeholder)| Word { text, has_placeholder }).collect();
    match code_word(&words) {
        None => Ok(()),
        Some(CodeWord { program, word }) => Err(format!(
            "`{word}`: {program} takes this word for code, and what an agent calls itself would run as a part of it; \
             have the code take it as an argument, as in sh -c 'restart \"$1\"' -- {{name}}"
        )),
    }
}

/// Writes the text that was parsed.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits a word at its placeholders. `{{` and `}}` are escaped braces.
fn parts_of(word: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
        if let Some(after) = after.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let place = after.split_once('}').filter(|_| brace == "{").and_then(|(name, after)| {
            Some((Placeholder::ALL.into_iter().find(|place| place.as_str() == name)?, after))
        });
        let Some((place, after)) = place else {
            let known = Placeholder::ALL.map(|place| format!("{{{}}}", place.as_str())).join(" ");
            return Err(format!("`{word}`: braces stand for one of {known}; write {{{{ and }}}} for braces"));
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text).into()));
        }
        parts.push(Part::Place(place));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn fill(command: &str, name: &str) -> Result<Vec<String>, NotFilled> {
        let command: CommandLine = command.parse().unwrap();
        command.fill(|place| match place {
            Placeholder::Pid => Some(Cow::Borrowed("4242")),
            Placeholder::Name => Some(Cow::Owned(name.to_owned())),
            Placeholder::Unit => None,
            Placeholder::State => Some(Cow::Borrowed("stalled")),
            Placeholder::Cause => Some(Cow::Borrowed("stopped")),
            Placeholder::Silence => Some(Cow::Borrowed("5.2s")),
        })
    }

    #[test]
    fn words_are_split_as_a_shell_does_and_what_is_filled_in_stays_one_argument() {
        let filled =
            fill("logger -t 'va rta' \"{name}: {state}\" x{pid}y {cause}/{silence}", "a b; rm -rf /");
        assert_eq!(filled.unwrap(), ["-t", "va rta", "a b; rm -rf /: stalled", "x4242y", "stopped/5.2s"]);
        assert_eq!(fill("awk '{{print}}'", "a").unwrap(), ["{print}"]);
        assert_eq!(fill("true ''", "a").unwrap(), [""]);
    }

    #[test]
    fn what_an_agent_calls_itself_is_never_an_option() {
        assert_eq!(fill("systemctl restart {name}", "-Hevil"), Err(NotFilled::Unsafe(Placeholder::Name)));
        assert_eq!(fill("x --name={name}", "-Hevil").unwrap(), ["--name=-Hevil"]);
        assert_eq!(fill("x {name}", "a\nb"), Err(NotFilled::Unsafe(Placeholder::Name)));
        assert_eq!(fill("x {name}", ""), Err(NotFilled::Unsafe(Placeholder::Name)));
        assert_eq!(fill("x {unit}", "a"), Err(NotFilled::Unknown(Placeholder::Unit)));
    }

    #[test]
    fn a_command_that_makes_no_sense_is_refused() {
        for (command, fault) in [
            ("", "no program"),
            ("  ", "no program"),
            ("''", "no program"),
            ("'open", "quote"),
            ("{name} restart", "the program"),
            ("restart {nam}", "{name}"),
            ("restart {name", "{name}"),
            ("restart name}", "{name}"),
            ("a\nb", "control"),
            ("sh -c 'systemctl restart {name}'", "sh takes this word for code"),
            ("env sh -c 'kill {pid}'", "sh -c 'restart \"$1\"' -- {name}"),
            ("sh {name}", "for code"),
        ] {
            let said = command.parse::<CommandLine>().unwrap_err();
            assert!(said.contains(fault), "{command}: {said}");
        }
    }
}
