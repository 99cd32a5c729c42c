//! The samples of a text of metrics, as far as checks need them.

/// The text of the families.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples<'t>(pub(super) &'t str);

impl<'t> Samples<'t> {
    /// The samples of a family: the text of the labels, and the value.
    pub(super) fn of(self, family: &str) -> impl Iterator<Item = (&'t str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(family)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }

    /// Their sum.
    pub(super) fn sum(self, family: &str) -> f64 {
        self.of(family).map(|(_, value)| value).sum()
    }

    /// The only one, if there is one.
    pub(super) fn only(self, family: &str) -> Option<f64> {
        self.of(family).next().map(|(_, value)| value)
    }
}

/// The value of a label in the text of labels. Escaped characters stay so.
pub(super) fn label<'t>(labels: &'t str, name: &str) -> Option<&'t str> {
    let (_, behind) = labels.split_once(&format!("{name}=\""))?;
    behind.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_its_whole_name_with_and_without_labels() {
        let samples = Samples("# HELP a x\na{b=\"c\",d=\"e\"} 2\na{b=\"f\"} 3\na_total 9\nb 1.5\n");
        assert_eq!(samples.of("a").collect::<Vec<_>>(), [("b=\"c\",d=\"e\"", 2.0), ("b=\"f\"", 3.0)]);
        assert_eq!((samples.sum("a"), samples.only("b"), samples.only("c")), (5.0, Some(1.5), None));
        assert_eq!((label("b=\"c\",d=\"e\"", "d"), label("b=\"c\"", "d")), (Some("e"), None));
    }
}
