//! The counters as a list, with which the registry of another process goes on counting.

use metrics::{Key, Label, Recorder};

use crate::metrics::{METADATA, Registry};

/// A counter: its name, its labels and its value.
pub(crate) type CounterValue = (String, Vec<(String, String)>, u64);

impl Registry {
    /// Whether there is a family of this name.
    pub(crate) fn counts(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Goes on counting from a value of another process. Only before this process has counted anything there.
    pub(crate) fn resume(&self, (name, labels, value): CounterValue) {
        let labels: Vec<Label> = labels.into_iter().map(|(key, value)| Label::new(key, value)).collect();
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA).increment(value);
    }
}

/// The counters of a text in the format of Prometheus that are not zero.
pub(crate) fn parse(rendered: &str) -> Vec<CounterValue> {
    let mut counted = None;
    let mut values = Vec::new();
    for line in rendered.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            counted = described.strip_suffix(" counter");
        } else if !line.starts_with('#')
            && let Some(family) = counted
            && let Some(rest) = line.strip_prefix(family)
            && let Some(value) = parse_row(rest)
            && value.1 > 0
        {
            values.push((family.to_owned(), value.0, value.1));
        }
    }
    values
}

/// The labels and the value behind a name.
fn parse_row(text: &str) -> Option<(Vec<(String, String)>, u64)> {
    let mut labels = Vec::new();
    let mut rest = text;
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, behind) = rest.split_once("=\"")?;
            let (value, behind) = parse_quoted(behind)?;
            labels.push((key.to_owned(), value));
            match behind.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = behind.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    Some((labels, rest.trim().parse().ok()?))
}

/// The text up to the closing quote, and what is behind that.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family::Family;

    #[test]
    fn another_registry_goes_on_where_the_first_was() {
        let family = Family::new("varta_test_total", "A test.");
        let other = Family::new("varta_other_total", "Another.");
        let first = Registry::for_test();
        let awkward = "a \"quoted\\ {value},\nof=\"lines\"";
        first.counter(family, &[("a", awkward), ("b", "x")]).increment(7);
        first.counter(family, &[("a", ""), ("b", "x")]).increment(1);
        first.counter(other, &[]).increment(u64::MAX / 2);
        let _zero = first.counter(family, &[("a", "zero"), ("b", "x")]);
        first.gauge(Family::new("varta_gauge", "No counter."), &[]).set(5.0);
        let counters = parse(&first.handle().render());
        assert_eq!(counters.len(), 3, "{counters:?}");
        let second = Registry::for_test();
        for value in counters {
            second.resume(value);
        }
        second.counter(family, &[("a", awkward), ("b", "x")]).increment(1);
        let mut values = parse(&second.handle().render());
        values.sort();
        let labels = |a: &str| vec![("a".to_owned(), a.to_owned()), ("b".to_owned(), "x".to_owned())];
        assert_eq!(
            values,
            [
                ("varta_other_total".to_owned(), Vec::new(), u64::MAX / 2),
                ("varta_test_total".to_owned(), labels(""), 1),
                ("varta_test_total".to_owned(), labels(awkward), 8),
            ]
        );
    }
}
