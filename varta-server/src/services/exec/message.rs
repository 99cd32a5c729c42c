//! What a message of sd_notify(3) says that counts for exec.
//!
//! It is a list of assignments, one a line, in any order; every byte of it may be wrong, and what is not known is passed
//! over.

use std::time::Duration;

/// The assignments that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// `READY=1`: it is started, or has reloaded.
    pub(super) is_ready: bool,
    /// `RELOADING=1`.
    pub(super) is_reloading: bool,
    /// `STOPPING=1`.
    pub(super) is_stopping: bool,
    /// `WATCHDOG=1`: the keep-alive.
    pub(super) is_alive: bool,
    /// `WATCHDOG=trigger`: it has found itself to be broken.
    pub(super) is_broken: bool,
    /// `EXTEND_TIMEOUT_USEC`: it will be busy for that long.
    pub(super) busy_for: Option<Duration>,
}

impl Message {
    /// Reads a message. Nothing is an error: who sends it would not see one.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut said = Message::default();
        for line in text.split(|byte| *byte == b'\n') {
            match line {
                b"READY=1" => said.is_ready = true,
                b"RELOADING=1" => said.is_reloading = true,
                b"STOPPING=1" => said.is_stopping = true,
                b"WATCHDOG=1" => said.is_alive = true,
                b"WATCHDOG=trigger" => said.is_broken = true,
                _ => {
                    let asked = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=").and_then(number);
                    said.busy_for = said.busy_for.or(asked.map(Duration::from_micros));
                }
            }
        }
        said
    }
}

/// A number as systemd writes it: decimal digits, and white space around them.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    // `parse` would take a sign.
    digits.first().filter(|first| first.is_ascii_digit())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_counts_in_any_order_and_what_is_not_known_is_passed_over() {
        let said = Message::parse(
            b"STATUS=a=b\nWATCHDOG=1\nREADY=1\nEXTEND_TIMEOUT_USEC=30000000\nX_Y=1\n)\n\xff\n",
        );
        let wanted = Message {
            is_ready: true,
            is_alive: true,
            busy_for: Some(Duration::from_secs(30)),
            ..Message::default()
        };
        assert_eq!(said, wanted);
        assert!(Message::parse(b"RELOADING=1\nMONOTONIC_USEC=5").is_reloading);
        assert!(Message::parse(b"STOPPING=1").is_stopping && Message::parse(b"WATCHDOG=trigger").is_broken);
        for nothing in
            ["", "\n", "READY=0", "READY=11", "READY", " WATCHDOG=1", "EXTEND_TIMEOUT_USEC=-1", "ERRNO=22"]
        {
            assert_eq!(Message::parse(nothing.as_bytes()), Message::default(), "{nothing:?}");
        }
    }
}
