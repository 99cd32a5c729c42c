//! Sizes as people write them: `4096`, `64MiB`, `64M`.

use std::fmt;

/// A number of bytes. Without a unit it is bytes; the units are powers of 1,024, as systemd and logrotate have
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// The units with their factors, each of which is written with or without `iB`.
const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// Parses a size.
///
/// `MB` is refused: it is 1,000,000 bytes in some places and 1,048,576 in others.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse_size(text: &str) -> Result<Size, String> {
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.to_ascii_uppercase();
    let factor = match unit.strip_suffix("IB").unwrap_or(&unit) {
        "" if unit.is_empty() => Some(1),
        name => UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor),
    };
    let (Some(factor), false) = (factor, number.is_empty()) else {
        return Err(
            "is no size: write a whole number of bytes, as in 4096, or one with K, M, G, T or KiB, MiB, \
                    GiB, TiB, which are powers of 1024, as in 64MiB"
                .to_owned(),
        );
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.map(Size).ok_or_else(|| "is too large".to_owned())
}

impl fmt::Display for Size {
    /// In the largest unit of which it is a multiple.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size(bytes) = *self;
        match UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}iB", bytes / factor),
            None => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_bytes_and_a_unit_a_power_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64mib", 64 << 20),
            ("4k", 4_096),
            ("1G", 1 << 30),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_may_mean_two_things_or_is_no_size_is_refused_with_the_forms_that_there_are() {
        for text in
            ["", "M", "iB", "64MB", "64B", "1.5G", "-1", "+1", "64 MiB", "64iB", "64Mi", "64MiBB", "much"]
        {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains("4096") && error.contains("64MiB"), "{text}: {error}");
        }
        for text in ["18446744073709551616", "16777216T"] {
            assert_eq!(parse_size(text), Err("is too large".to_owned()), "{text}");
        }
    }

    #[test]
    fn it_is_shown_in_its_largest_unit_and_read_back_as_what_it_was() {
        for (bytes, shown) in [
            (0, "0"),
            (1_000, "1000"),
            (1_024, "1KiB"),
            (8 << 20, "8MiB"),
            (3 << 29, "1536MiB"),
            (1 << 40, "1TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), shown);
            assert_eq!(parse_size(shown), Ok(Size(bytes)));
        }
    }
}
