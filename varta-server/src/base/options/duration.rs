//! Durations as people write them: `500ms`, `2s`, `1h30m`.

use std::time::Duration;

/// Parses a duration.
///
/// `M` is refused: it is a month in some places and a minute in others, and the two are 43,800 times apart.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut units = text.split(|character: char| !character.is_alphabetic());
    if units.any(|unit| unit == "M") {
        return Err(
            "M may mean minutes or months; write `m` for minutes, as in 1m, and days for months, as in 30d"
                .to_owned(),
        );
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_mean_two_things_is_refused() {
        let of = |text| parse_duration(text).ok();
        assert_eq!(of("1h 30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(of("1m"), Some(Duration::from_secs(60)));
        assert_eq!(of("30d"), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(of("2months"), humantime::parse_duration("2months").ok());
        assert!(of("2months").is_some());
        for text in ["1M", "1h 1M", "1M 1h", "1 M"] {
            assert!(parse_duration(text).unwrap_err().contains("minutes or months"), "{text}");
        }
        assert!(of("soon").is_none() && of("").is_none());
    }
}
