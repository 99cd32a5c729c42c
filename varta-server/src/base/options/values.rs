//! Values of options that are more than a text or a number, with their parsers.

use nix::unistd::{Group, User};

use crate::base::error::Error;
use crate::base::options::host_port::{HostPort, parse_host_port};
use crate::base::options::look_ups::LookUps;

/// Permission bits of a file, written in octal: a type of its own keeps them apart from plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// A user or group by name or number. The name has not been looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Id {
    /// The number.
    Number(u32),
    /// The name.
    Name(String),
}

/// An address to listen on, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub Option<HostPort>);

pub(crate) fn parse_mode(text: &str) -> Result<Mode, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(Mode(mode)),
        _ => Err("is not an octal number up to 0777".to_owned()),
    }
}

pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    if text == "none" {
        return Ok(Address(None));
    }
    parse_host_port(text).map(|address| Address(Some(address))).map_err(|error| error + ", nor `none`")
}

pub(crate) fn parse_user(text: &str) -> Result<Id, String> {
    parse_id(text, "user")
}

pub(crate) fn parse_group(text: &str) -> Result<Id, String> {
    parse_id(text, "group")
}

fn parse_id(text: &str, kind: &str) -> Result<Id, String> {
    if text.is_empty() {
        return Err(format!("is neither the name nor the number of a {kind}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Id::Name(text.to_owned()));
    }
    // The highest number is no id: system calls take it for "leave it as it is".
    let number = text.parse().ok().filter(|number| *number != u32::MAX);
    number.map(Id::Number).ok_or_else(|| format!("is no id of a {kind}: they go up to {}", u32::MAX - 1))
}

impl Id {
    /// The number of the user of `option`.
    ///
    /// # Errors
    ///
    /// There is no such user.
    pub(crate) fn user(&self, option: &'static str, look_ups: LookUps) -> Result<u32, Error> {
        let by_name = |name: &str| User::from_name(name).map(|user| Some(user?.uid.as_raw()));
        self.number(option, "user", look_ups, by_name)
    }

    /// The number of the group of `option`.
    ///
    /// # Errors
    ///
    /// There is no such group.
    pub(crate) fn group(&self, option: &'static str, look_ups: LookUps) -> Result<u32, Error> {
        let by_name = |name: &str| Group::from_name(name).map(|group| Some(group?.gid.as_raw()));
        self.number(option, "group", look_ups, by_name)
    }

    fn number(
        &self,
        option: &'static str,
        kind: &str,
        look_ups: LookUps,
        by_name: impl FnOnce(&str) -> nix::Result<Option<u32>>,
    ) -> Result<u32, Error> {
        let name = match self {
            Id::Number(number) => return Ok(*number),
            Id::Name(name) => name,
        };
        let found = || {
            let fault = match by_name(name) {
                Ok(Some(number)) => return Ok(number),
                Ok(None) => format!("this host has no {kind} of this name"),
                Err(error) => format!("the {kind} cannot be looked up: {error}"),
            };
            Err(Error::Option { option, fault: format!("`{}`: {fault}", name.escape_debug()) })
        };
        look_ups.find(found, || 0)
    }
}

pub(crate) fn find_group(name: String, look_ups: LookUps) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = || match Group::from_name(&name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(Error::UnknownGroup { name }),
    };
    look_ups.find(found, || 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_given_by_name_or_number() {
        let user =
            |text: &str| parse_user(text)?.user("--u", LookUps::Done).map_err(|error| error.to_string());
        let group =
            |text: &str| parse_group(text)?.group("--g", LookUps::Done).map_err(|error| error.to_string());
        assert_eq!((user("root"), group("root")), (Ok(0), Ok(0)));
        assert_eq!((user("0"), group("4294967294")), (Ok(0), Ok(4_294_967_294)));
        for text in ["", "no such user", "4294967295", "99999999999", "-1", "1.5"] {
            assert!(user(text).is_err() && group(text).is_err(), "{text}");
        }
        assert_eq!(
            user("no such user"),
            Err("--u: `no such user`: this host has no user of this name".to_owned())
        );
        let elsewhere = parse_user("no such user").unwrap();
        elsewhere.user("--u", LookUps::LeftOut).unwrap();
    }
}
