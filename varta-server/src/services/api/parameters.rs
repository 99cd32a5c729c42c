//! The query of a request: names and values, each known, once where it may be there once, and within its bounds.

use std::fmt::Display;
use std::str::FromStr;

use crate::base::Glob;

/// The most bytes of a query.
const MAX_LEN: usize = 8 << 10;
/// The most names and values.
const MAX_PAIRS: usize = 100;

/// The parameters that have not been taken yet.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of the query of an address.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub(super) fn of(query: Option<&str>) -> Result<Self, String> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_LEN {
            return Err(format!("the query is longer than {MAX_LEN} bytes"));
        }
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if pairs.len() > MAX_PAIRS {
            return Err(format!("the query has more than {MAX_PAIRS} parameters"));
        }
        Ok(Parameters(pairs))
    }

    /// All values of a parameter.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, rest) = std::mem::take(&mut self.0).into_iter().partition(|(known, _)| known == name);
        self.0 = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a parameter; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// It is there more than once.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(format!("{name}: is there more than once")),
        }
    }

    /// A value that is read as another type.
    ///
    /// # Errors
    ///
    /// It is there more than once, or not of that type; `what` says what it is to be.
    pub(super) fn value<T: FromStr>(&mut self, name: &str, what: impl Display) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("{name}: `{}` is not {what}", text.escape_debug())),
        }
    }

    /// A number within bounds.
    ///
    /// # Errors
    ///
    /// It is there more than once, or out of bounds.
    pub(super) fn number(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<usize>,
        otherwise: usize,
    ) -> Result<usize, String> {
        let what = format!("a number from {} to {}", bounds.start(), bounds.end());
        let number = self.value(name, &what)?.unwrap_or(otherwise);
        if bounds.contains(&number) { Ok(number) } else { Err(format!("{name}: {number} is not {what}")) }
    }

    /// A pattern of names.
    ///
    /// # Errors
    ///
    /// It is there more than once, or no pattern.
    pub(super) fn pattern(&mut self, name: &str) -> Result<Option<Glob>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        Glob::parse(&text).map(Some).map_err(|fault| format!("{name}: {fault}"))
    }

    /// Some of these words, separated by commas, by their places; `None` where the parameter is not there.
    ///
    /// # Errors
    ///
    /// It is there more than once, or has another word.
    pub(super) fn words(&mut self, name: &str, known: &[&str]) -> Result<Option<Vec<usize>>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let place = |word: &str| {
            known
                .iter()
                .position(|known| *known == word)
                .ok_or_else(|| format!("{name}: `{}` is none of {}", word.escape_debug(), known.join(", ")))
        };
        text.split(',').map(place).collect::<Result<_, _>>().map(Some)
    }

    /// Checks that all of them were taken.
    ///
    /// # Errors
    ///
    /// One has no meaning here.
    pub(super) fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{}: is no parameter of this", name.escape_debug())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_there_once_within_its_bounds_and_known() {
        let all = |query| Parameters::of(Some(query)).unwrap();
        let mut some = all("limit=5&name=web-*&state=up,down&id=a&id=b%20c");
        assert_eq!(some.number("limit", 1..=500, 100), Ok(5));
        assert_eq!(some.pattern("name").unwrap().unwrap().as_str(), "web-*");
        assert_eq!(some.words("state", &["down", "gone", "up"]), Ok(Some(vec![2, 0])));
        assert_eq!(some.all("id"), ["a", "b c"]);
        assert_eq!(some.number("offset", 0..=9, 7), Ok(7));
        some.end().unwrap();
        for (query, fault) in [
            ("limit=0", "limit: 0 is not a number from 1 to 500"),
            ("limit=-1", "limit: `-1` is not a number from 1 to 500"),
            ("limit=1&limit=1", "limit: is there more than once"),
        ] {
            assert_eq!(all(query).number("limit", 1..=500, 100).unwrap_err(), fault);
        }
        assert_eq!(all("state=up,upp").words("state", &["up"]).unwrap_err(), "state: `upp` is none of up");
        assert_eq!(all("stat=up").end().unwrap_err(), "stat: is no parameter of this");
        assert!(all("name=").pattern("name").is_err());
        assert!(Parameters::of(Some(&"a".repeat(MAX_LEN + 1))).is_err());
        assert!(Parameters::of(Some(&"a&".repeat(MAX_PAIRS + 1))).is_err());
    }
}
