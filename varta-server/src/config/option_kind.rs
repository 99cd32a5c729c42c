//! How the values of an option are written in a file, from its definition on the command line.

use std::any::TypeId;

use clap::{Arg, ArgAction, Command};

use crate::base::options::{Id, Size};
use crate::services::alerts::UrlText;
use crate::services::recovery::Variable;

/// How one value of an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OptionKind {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number,
    /// A number.
    Fraction,
    /// The name or the number of a user or group.
    Id,
    /// A number of bytes, or a string with a unit.
    Size,
    /// A string.
    Text,
}

impl OptionKind {
    /// The kind of an option.
    pub(crate) fn of(option: &Arg) -> Self {
        if matches!(option.get_action(), ArgAction::SetTrue) {
            OptionKind::Switch
        } else if is_a::<u32>(option) || is_a::<u64>(option) || is_a::<usize>(option) {
            OptionKind::Number
        } else if is_a::<f64>(option) {
            OptionKind::Fraction
        } else if is_a::<Id>(option) {
            OptionKind::Id
        } else if is_a::<Size>(option) {
            OptionKind::Size
        } else {
            OptionKind::Text
        }
    }
}

/// What of a value is hidden where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Nothing.
    Public,
    /// All of a URL but its scheme, host and port.
    Url,
    /// The value of a variable.
    Variable,
}

impl Secrecy {
    /// What is hidden of the values of an option.
    pub(crate) fn of(option: &Arg) -> Self {
        if is_a::<UrlText>(option) {
            Secrecy::Url
        } else if is_a::<Variable>(option) {
            Secrecy::Variable
        } else {
            Secrecy::Public
        }
    }

    /// A value as it may be shown. What is hidden is replaced, so that the value stays a valid one.
    pub(crate) fn shown(self, value: &str) -> String {
        match self {
            Secrecy::Public => value.to_owned(),
            Secrecy::Url => UrlText::without_secrets(value),
            Secrecy::Variable => {
                let (name, _) = value.split_once('=').unwrap_or_default();
                format!("{name}={HIDDEN}")
            }
        }
    }
}

/// What stands in the place of a secret.
pub(crate) const HIDDEN: &str = UrlText::HIDDEN;

/// Whether the values of an option are of this type.
pub(crate) fn is_a<T: 'static>(option: &Arg) -> bool {
    option.get_value_parser().type_id() == TypeId::of::<T>()
}

/// Whether an option is a setting of the server, which the file may have: not one like `--help`.
pub(crate) fn is_setting(option: &Arg) -> bool {
    let is_value = matches!(option.get_action(), ArgAction::Set | ArgAction::SetTrue | ArgAction::Append);
    is_value && option.get_long().is_some_and(|long| long != ITSELF && long != FOR_ONE_START)
}

/// The option that the file cannot set, because it names the file.
pub(crate) const ITSELF: &str = "config";
/// The option that the file cannot set, because it is meant for one start.
pub(crate) const FOR_ONE_START: &str = "take-over";

/// The values that an option has without being given. Those that depend on others have no definition; `--help` names
/// them.
pub(crate) fn defaults(option: &Arg) -> Vec<String> {
    if OptionKind::of(option) == OptionKind::Switch {
        return vec!["false".to_owned()];
    }
    let defaults = option.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    let defaults: Vec<_> = defaults.collect();
    if defaults.is_empty() { default_in_help(option).into_iter().collect() } else { defaults }
}

/// The default that an option has only together with another: the help says `[default: VALUE]`.
fn default_in_help(option: &Arg) -> Option<String> {
    let help = option.get_help()?.to_string();
    let (_, behind) = help.split_once("[default: ")?;
    let value = behind.strip_suffix(']').filter(|value| !value.contains(char::is_whitespace))?;
    let alone = Command::new("").no_binary_name(true).arg(option.clone().env(None::<&'static str>));
    let argument = format!("--{}={value}", option.get_long()?);
    alone.try_get_matches_from([argument]).is_ok().then(|| value.to_owned())
}
