//! OpenMetrics 1.0 from the text format. The two differ little: a counter's family is named without the suffix
//! of its samples, units are stated, upper bounds of buckets are floating-point numbers, and the text has an end.

use std::fmt::Write as _;

use bytes::Bytes;

/// The media type with its version.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The last line.
pub(crate) const END: &str = "# EOF\n";
/// Units that a name may end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Rewrites whole families, each with its lines HELP and TYPE, in this order, before its samples.
pub(crate) fn rewrite(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + text.len() / 4);
    let mut help = None;
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let help = help.take().filter(|(of, _)| *of == name).map(|(_, help)| help);
            put_metadata(&mut written, name, kind, help);
        } else {
            put_sample(&mut written, line);
        }
    }
    written
}

/// Rewrites one family that is no histogram. Its samples, of which there may be very many, stay as they are
/// and are not copied.
pub(crate) fn rewrite_rows(family: &Bytes) -> [Bytes; 2] {
    let comments = family.split_inclusive(|byte| *byte == b'\n').take_while(|line| line.starts_with(b"#"));
    let length = comments.map(<[u8]>::len).sum();
    let comments = rewrite(&String::from_utf8_lossy(&family[..length]));
    [Bytes::from(comments), family.slice(length..)]
}

fn put_metadata(written: &mut String, name: &str, kind: &str, help: Option<&str>) {
    let family = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let is_unit = |unit: &&str| family.strip_suffix(*unit).is_some_and(|before| before.ends_with('_'));
    // Writing to memory cannot fail.
    let _ = writeln!(written, "# TYPE {family} {kind}");
    if let Some(unit) = UNITS.into_iter().find(is_unit) {
        let _ = writeln!(written, "# UNIT {family} {unit}");
    }
    if let Some(help) = help {
        // Backslashes and line feeds are escaped in either format, quotes only here.
        let _ = writeln!(written, "# HELP {family} {}", help.replace('"', "\\\""));
    }
}

fn put_sample(written: &mut String, line: &str) {
    let (before, bound, after) = match split_at_bound(line) {
        Some(parts) => parts,
        None => (line, "", ""),
    };
    let is_whole = !bound.is_empty() && bound.bytes().all(|byte| byte.is_ascii_digit());
    for part in [before, bound, if is_whole { ".0" } else { "" }, after, "\n"] {
        written.push_str(part);
    }
}

/// The sample of a bucket in three parts, the second of which is the upper bound.
fn split_at_bound(line: &str) -> Option<(&str, &str, &str)> {
    if !line[..line.find('{')?].ends_with("_bucket") {
        return None;
    }
    // Within a label's value the quote would be escaped.
    let begin = ["{le=\"", ",le=\""].into_iter().find_map(|label| Some(line.find(label)? + label.len()))?;
    let end = begin + line[begin..].find('"')?;
    Some((&line[..begin], &line[begin..end], &line[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_counters_lose_the_suffix_that_their_samples_keep_and_units_are_stated() {
        let table = [
            (
                "# HELP a_total Some \"a\" \\\\ b.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n",
                "# TYPE a counter\n# HELP a Some \\\"a\\\" \\\\ b.\na_total{x=\"1\"} 2\n",
            ),
            (
                "# HELP a_seconds_total S.\n# TYPE a_seconds_total counter\na_seconds_total 0.5\n",
                "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds S.\na_seconds_total 0.5\n",
            ),
            (
                "# HELP a_bytes B.\n# TYPE a_bytes gauge\na_bytes 5\n",
                "# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes B.\na_bytes 5\n",
            ),
            // No unit: it is the whole name, or a part of a word.
            ("# TYPE bytes gauge\nbytes 5\n", "# TYPE bytes gauge\nbytes 5\n"),
            ("# TYPE kilobytes gauge\nkilobytes 5\n", "# TYPE kilobytes gauge\nkilobytes 5\n"),
            // A gauge may be named like a counter's sample.
            ("# TYPE a_total gauge\na_total 1\n", "# TYPE a_total gauge\na_total 1\n"),
        ];
        for (text, expected) in table {
            assert_eq!(rewrite(text), expected);
            assert_eq!(rewrite_rows(&Bytes::from(text)).concat(), expected.as_bytes());
        }
    }

    #[test]
    fn upper_bounds_are_floating_point_numbers_and_nothing_else_of_a_sample_changes() {
        let table = [
            (r#"a_bucket{le="5"} 5"#, r#"a_bucket{le="5.0"} 5"#),
            (r#"a_bucket{x="1",le="10"} 5"#, r#"a_bucket{x="1",le="10.0"} 5"#),
            (r#"a_bucket{le="0.005"} 5"#, r#"a_bucket{le="0.005"} 5"#),
            (r#"a_bucket{le="+Inf"} 5"#, r#"a_bucket{le="+Inf"} 5"#),
            (r#"a_bucket{role="5"} 5"#, r#"a_bucket{role="5"} 5"#),
            (r#"a_bucket{x=",le=\"7\"",le="5"} 5"#, r#"a_bucket{x=",le=\"7\"",le="5.0"} 5"#),
            (r#"a{le="5"} 5"#, r#"a{le="5"} 5"#),
            ("a_bucket 5", "a_bucket 5"),
            ("a_bucket{", "a_bucket{"),
        ];
        for (line, expected) in table {
            assert_eq!(rewrite(&format!("{line}\n")), format!("{expected}\n"));
        }
    }

    #[test]
    fn the_samples_of_agents_are_not_copied() {
        let family =
            Bytes::from("# HELP a_total A.\n# TYPE a_total counter\na_total 1\na_total{x=\"#\"} 2\n");
        let [comments, samples] = rewrite_rows(&family);
        assert_eq!(comments, "# TYPE a counter\n# HELP a A.\n");
        assert_eq!(samples, "a_total 1\na_total{x=\"#\"} 2\n");
        assert!(family.as_ptr_range().contains(&samples.as_ptr()));
    }
}
