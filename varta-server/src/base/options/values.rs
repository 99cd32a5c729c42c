//! Values of options that are more than a text or a number, with their parsers.

use std::net::SocketAddr;

use crate::base::error::Error;

/// Permission bits of a file, written in octal: a type of its own keeps them apart from plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// A socket address, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub Option<SocketAddr>);

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
    let address =
        text.parse().map_err(|_| "is neither IP:PORT, as in 127.0.0.1:9843 or [::1]:9843, nor `none`")?;
    Ok(Address(Some(address)))
}

pub(crate) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not IP:PORT, as in 127.0.0.1:9844 or [::1]:9844".to_owned())
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
