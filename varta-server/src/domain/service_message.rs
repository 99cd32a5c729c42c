//! What a service says of itself by sd_notify(3), the protocol of systemd's service manager.
//!
//! A message is up to 64 KiB of assignments, one a line, in any order, from a process that nobody has asked: every byte
//! of it may be wrong, and what is not known is passed over. Of several assignments to one variable the first counts,
//! as it does for systemd.

use std::time::Duration;

use crate::base::visible::visible_text;
use crate::domain::process::text::truncated;

/// The most bytes that are kept of a status.
pub(crate) const MAX_STATUS_LEN: usize = 256;

/// The assignments of a message that say something of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceMessage {
    /// `READY=1`: it is started, or has reloaded.
    pub(crate) is_ready: bool,
    /// `RELOADING=1`.
    pub(crate) is_reloading: bool,
    /// `STOPPING=1`.
    pub(crate) is_stopping: bool,
    /// `WATCHDOG=1`: the keep-alive.
    pub(crate) is_alive: bool,
    /// `WATCHDOG=trigger`: it has found itself to be broken.
    pub(crate) is_broken: bool,
    /// `WATCHDOG_USEC`: the time within which a keep-alive is to come; zero for none.
    pub(crate) watchdog: Option<Duration>,
    /// `EXTEND_TIMEOUT_USEC`: it will be busy for that long.
    pub(crate) busy_for: Option<Duration>,
    /// `MAINPID`, a number of the PID namespace of who sent it.
    pub(crate) main_pid: Option<u32>,
    /// `STATUS`, which may be empty: at most [`MAX_STATUS_LEN`] bytes.
    pub(crate) status: Option<String>,
}

impl ServiceMessage {
    /// Reads a message. Nothing is an error: who sends it would not see one.
    pub(crate) fn parse(message: &[u8]) -> Self {
        let mut said = ServiceMessage::default();
        let mut watchdog_is_read = false;
        for line in message.split(|byte| *byte == b'\n') {
            let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (variable, value) = (&line[..equals], &line[equals + 1..]);
            match variable {
                b"READY" => said.is_ready |= value == b"1",
                b"RELOADING" => said.is_reloading |= value == b"1",
                b"STOPPING" => said.is_stopping |= value == b"1",
                b"WATCHDOG" => {
                    said.is_alive |= value == b"1";
                    said.is_broken |= value == b"trigger";
                }
                b"WATCHDOG_USEC" if !watchdog_is_read => {
                    watchdog_is_read = true;
                    said.watchdog = number(value).map(Duration::from_micros);
                }
                b"EXTEND_TIMEOUT_USEC" if said.busy_for.is_none() => {
                    said.busy_for = number(value).map(Duration::from_micros);
                }
                b"MAINPID" if said.main_pid.is_none() => {
                    let pid = number(value).and_then(|pid| u32::try_from(pid).ok());
                    said.main_pid = pid.filter(|pid| *pid > 0);
                }
                b"STATUS" if said.status.is_none() => said.status = Some(text(value)),
                // ERRNO and EXIT_STATUS of a service come with its end, which the kernel reports; and what stands for
                // descriptors and barriers is done when they have been closed.
                _ => {}
            }
        }
        said
    }

    /// Whether it says nothing of a service.
    pub(crate) fn is_empty(&self) -> bool {
        *self == ServiceMessage::default()
    }

    /// Whether it comes from a service that is there, and not only from one of its tools.
    pub(crate) fn is_of_service(&self) -> bool {
        self.is_ready
            || self.is_reloading
            || self.is_alive
            || self.is_broken
            || self.watchdog.is_some()
            || self.busy_for.is_some()
            || self.main_pid.is_some()
            || self.status.as_ref().is_some_and(|status| !status.is_empty())
    }
}

/// A number as systemd writes it: decimal digits, and white space around them.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    // `parse` would take a sign.
    digits.first().filter(|first| first.is_ascii_digit())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A status without control characters, cut at a character.
fn text(value: &[u8]) -> String {
    visible_text(&truncated(value, MAX_STATUS_LEN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(message: &str) -> ServiceMessage {
        ServiceMessage::parse(message.as_bytes())
    }

    #[test]
    fn all_that_is_said_in_one_message_counts_in_any_order_and_with_or_without_a_last_line_break() {
        let all = "MAINPID=4242\nWATCHDOG_USEC=2000000\nSTATUS=Serving 7 of 9\nWATCHDOG=1\nREADY=1";
        let wanted = ServiceMessage {
            is_ready: true,
            is_alive: true,
            watchdog: Some(Duration::from_secs(2)),
            main_pid: Some(4242),
            status: Some("Serving 7 of 9".to_owned()),
            ..ServiceMessage::default()
        };
        assert_eq!(parse(all), wanted);
        let lines: Vec<_> = all.lines().rev().collect();
        assert_eq!(parse(&(lines.join("\n") + "\n")), wanted);
        assert!(parse("RELOADING=1\nMONOTONIC_USEC=55").is_reloading);
        assert!(parse("STOPPING=1").is_stopping && parse("WATCHDOG=trigger").is_broken);
        assert_eq!(parse("EXTEND_TIMEOUT_USEC=30000000\n").busy_for, Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_is_empty_unknown_or_makes_no_sense_says_nothing() {
        let nothing = [
            "",
            "\n",
            "\n\n=\n",
            ")",
            "READY",
            "READY=0",
            "READY=11",
            "ready=1",
            " READY=1",
            "WATCHDOG=",
            "WATCHDOG_USEC=-1",
            "WATCHDOG_USEC=+1",
            "WATCHDOG_USEC=1e6",
            "WATCHDOG_USEC=99999999999999999999",
            "MAINPID=0",
            "MAINPID=4294967296",
            "MAINPID=self",
            "X_OTHER=1",
            "FDSTORE=1\nFDNAME=x\nFDPOLL=0",
            "FDSTOREREMOVE=1",
            "BARRIER=1",
            "RESTART_RESET=1",
            "NOTIFYACCESS=all",
            "MAINPIDFD=1",
            "MAINPIDFDID=9",
            "ERRNO=22",
            "BUSERROR=a.b.c",
            "VARLINKERROR=a.b",
            "EXIT_STATUS=3",
            "INVOCATION_ID=0",
        ];
        for message in nothing {
            assert!(parse(message).is_empty(), "{message:?}");
            assert!(!parse(message).is_of_service(), "{message:?}");
        }
        assert!(!parse("STATUS=").is_of_service() && !parse("STOPPING=1").is_of_service());
        assert!(parse("STATUS=Starting").is_of_service());
    }

    #[test]
    fn of_two_assignments_the_first_counts_as_for_the_service_manager() {
        assert_eq!(parse("STATUS=one\nSTATUS=two").status.as_deref(), Some("one"));
        assert_eq!(parse("MAINPID=7\nMAINPID=8").main_pid, Some(7));
        assert_eq!(parse("WATCHDOG_USEC=x\nWATCHDOG_USEC=1").watchdog, None);
        assert!(parse("READY=0\nREADY=1").is_ready, "one of them is what was asked for");
    }

    #[test]
    fn a_status_is_cut_at_a_character_and_holds_nothing_that_a_terminal_obeys() {
        let said = ServiceMessage::parse(b"STATUS=\x1b[31mred\x07 \xff\xfe\xc3\xa9").status.unwrap();
        assert_eq!(said, "?[31mred? \u{fffd}\u{fffd}é");
        let long = parse(&format!("STATUS=x{}", "é".repeat(400))).status.unwrap();
        assert!(long.len() <= MAX_STATUS_LEN && long.starts_with("xé"), "{long}");
        let broken = ServiceMessage::parse(&[b"STATUS=".as_slice(), &[0xff; 4_000]].concat()).status.unwrap();
        assert!(broken.len() <= MAX_STATUS_LEN);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_within_bounds(message in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let said = ServiceMessage::parse(&message);
            prop_assert!(said.status.is_none_or(|status| status.len() <= MAX_STATUS_LEN));
        }

        #[test]
        fn whatever_lines_stand_around_it_a_keep_alive_is_found(before in "[^\n]{0,40}", after in "[^\n]{0,40}") {
            let message = format!("{before}\nWATCHDOG=1\n{after}");
            prop_assert!(parse(&message).is_alive);
        }
    }
}
