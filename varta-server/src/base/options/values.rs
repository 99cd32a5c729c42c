//! Values of options that are more than a text or a number, with their parsers.

use crate::base::error::Error;
use crate::base::options::host_port::{HostPort, parse_host_port};

/// Permission bits of a file, written in octal: a type of its own keeps them apart from plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// The id of a user or group, given by name or as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub u32);

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
    let by_name = |name: &str| nix::unistd::User::from_name(name).map(|user| Some(user?.uid.as_raw()));
    parse_id(text, "user", by_name)
}

pub(crate) fn parse_group(text: &str) -> Result<Id, String> {
    let by_name = |name: &str| nix::unistd::Group::from_name(name).map(|group| Some(group?.gid.as_raw()));
    parse_id(text, "group", by_name)
}

fn parse_id(
    text: &str,
    kind: &str,
    by_name: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> Result<Id, String> {
    // The highest number is no id: system calls take it for "leave it as it is".
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number != u32::MAX);
        return number.map(Id).ok_or_else(|| format!("is no id of a {kind}: they go up to {}", u32::MAX - 1));
    }
    match by_name(text) {
        Ok(Some(id)) => Ok(Id(id)),
        Ok(None) => Err(format!("this host has no {kind} of this name")),
        Err(error) => Err(format!("the {kind} cannot be looked up: {error}")),
    }
}

pub(crate) fn find_group(name: String) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match nix::unistd::Group::from_name(&name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(Error::UnknownGroup { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_given_by_name_or_number() {
        assert_eq!((parse_user("root"), parse_group("root")), (Ok(Id(0)), Ok(Id(0))));
        assert_eq!((parse_user("0"), parse_group("4294967294")), (Ok(Id(0)), Ok(Id(4_294_967_294))));
        for text in ["", "no such user", "4294967295", "99999999999", "-1", "1.5"] {
            assert!(parse_user(text).is_err() && parse_group(text).is_err(), "{text}");
        }
    }
}
