//! Timestamps with an offset from UTC, as RFC 3339 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::time::{END_OF_RFC3339, parse_rfc3339};

/// The error message for an invalid timestamp.
pub(crate) const NOT_A_MOMENT: &str = "is not a moment from 1970 to 9999 with its offset from UTC, such as \
                                       2026-12-24T22:00:00Z or 2026-12-24T23:00:00+01:00";

/// Parses an RFC 3339 timestamp. `None` if it is malformed, has no offset, or is before 1970 or after 9999.
pub(crate) fn parse_moment(text: &str) -> Option<SystemTime> {
    let (local, offset) = split_offset(text)?;
    let local = local.ends_with(|last: char| last.is_ascii_digit()).then_some(local)?;
    let local = parse_rfc3339(&format!("{local}Z")).ok()?;
    let at = match offset {
        Offset::East(offset) => local.checked_sub(offset)?,
        Offset::West(offset) => local.checked_add(offset)?,
    };
    at.duration_since(UNIX_EPOCH).is_ok_and(|since| since < END_OF_RFC3339).then_some(at)
}

/// An offset from UTC.
enum Offset {
    /// Ahead of UTC.
    East(Duration),
    /// Behind UTC.
    West(Duration),
}

/// Splits the offset from the end of a timestamp.
fn split_offset(text: &str) -> Option<(&str, Offset)> {
    if let Some(local) = text.strip_suffix('Z') {
        return Some((local, Offset::East(Duration::ZERO)));
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let &[sign, h, hh, b':', m, mm] = offset.as_bytes() else { return None };
    let two = |tens: u8, ones: u8| {
        let is_number = tens.is_ascii_digit() && ones.is_ascii_digit();
        is_number.then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
    };
    let hours = two(h, hh).filter(|hours| *hours < 24)?;
    let minutes = two(m, mm).filter(|minutes| *minutes < 60)?;
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    match sign {
        b'+' => Some((local, Offset::East(offset))),
        b'-' => Some((local, Offset::West(offset))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        Some(parse_moment(text)?.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn an_offset_is_taken_off() {
        assert_eq!(seconds("1970-01-02T00:00:00Z"), Some(86_400));
        assert_eq!(seconds("1970-01-02T01:30:00+01:30"), Some(86_400));
        assert_eq!(seconds("1970-01-01T19:00:00-05:00"), Some(86_400));
        assert_eq!(seconds("1970-01-02T00:00:00.999-00:00"), Some(86_400));
    }

    #[test]
    fn what_is_no_moment_or_could_be_several_is_none() {
        for wrong in [
            "",
            "Z",
            "tomorrow",
            "2026-12-24",
            "22:00:00Z",
            "2026-12-24T22:00:00",
            "2026-12-24T22:00:00.5",
            "2026-12-24T22:00:00ZZ",
            "2026-12-24T22:00:00+00:00Z",
            "2026-12-24T22:00:00+24:00",
            "2026-12-24T22:00:00+01:60",
            "2026-12-24T22:00:00++1:00",
            "2026-12-24T22:00:00+0100",
            "2026-13-24T22:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-00:01",
            "éééééé",
        ] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
