//! What a family of metrics is: its name is a contract with people's alert rules.

/// A family's name, its HELP text and, if it is a histogram, the upper bounds of its buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// Ascending; in the family's unit.
    pub(crate) buckets: Option<&'static [f64]>,
}

impl Family {
    pub(crate) const fn new(name: &'static str, help: &'static str) -> Self {
        Family { name, help, buckets: None }
    }

    pub(crate) const fn with_buckets(self, buckets: &'static [f64]) -> Self {
        Family { buckets: Some(buckets), ..self }
    }
}

/// Defines a part's families as constants, each by name, HELP text and, if it is a histogram, buckets, and
/// the slice `FAMILIES` of all of them.
macro_rules! families {
    ($($constant:ident = $name:literal, $help:literal $(, $buckets:expr)?;)*) => {
        $(pub(crate) const $constant: $crate::metrics::family::Family =
            $crate::metrics::family::Family::new($name, $help)$(.with_buckets(&$buckets))?;)*

        pub(crate) const FAMILIES: &[$crate::metrics::family::Family] = &[$($constant),*];
    };
}

pub(crate) use families;
