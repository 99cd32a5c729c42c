//! Building blocks of configuration sections: tables of the file, typed values, timestamps, look-ups, faults, suggestions for
//! misspelt names.

pub(crate) mod duration;
pub(crate) mod faults;
pub(crate) mod host_port;
pub(crate) mod look_ups;
pub(crate) mod names;
pub(crate) mod nearest;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod table_key;
pub(crate) mod timestamp;
pub(crate) mod values;

pub(crate) use self::duration::parse_duration;
pub(crate) use self::faults::OptionFaults;
pub(crate) use self::host_port::{HostPort, parse_host_port};
pub(crate) use self::look_ups::LookUps;
pub(crate) use self::names::names;
pub(crate) use self::size::{Size, parse_size};
pub(crate) use self::values::{Address, Id, Mode};
