//! A line of the table.

use crate::statistics::Comparison;

/// What a figure is to be beside its yardstick: as text, and as a test.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) text: &'static str,
    pub(crate) holds: fn(&Comparison) -> bool,
}

impl Reach {
    /// For what is only told.
    pub(crate) const NONE: Reach = Reach { text: "–", holds: |_| true };
}

/// One line of the table.
pub(crate) struct Row {
    work: String,
    ours: String,
    yardstick: String,
    ratio: f64,
    reach: Reach,
    reached: bool,
}

impl Row {
    /// Compares a piece of work with the yardstick of that name; `show` writes either figure.
    pub(crate) fn new(
        work: impl Into<String>,
        compared: &Comparison,
        yardstick: &str,
        show: fn(f64) -> String,
        reach: Reach,
    ) -> Self {
        Row {
            work: work.into(),
            ours: show(compared.ours),
            yardstick: format!("{yardstick} {}", show(compared.yardstick)),
            ratio: compared.ratio,
            reach,
            reached: (reach.holds)(compared),
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { work, ours, yardstick, ratio, reach, reached } = self;
        let mark = if *reached { "" } else { " (missed)" };
        write!(f, "| {work} | {ours} | {yardstick} | {ratio:.2} | {}{mark} |", reach.text)
    }
}
