//! The annotations of alerts, which a person on call reads.

use crate::base::clock::WallClock;
use crate::domain::describe::describe;
use crate::domain::tracker::Transition;
use crate::services::alerts::alert::Texts;

/// The longest annotation in bytes.
const MAX_ANNOTATION_LEN: usize = 1_024;

/// The annotation that says why an alert is over.
pub(super) const RESOLVED: &str = "resolved";
/// The annotation that says why an alert is over of which the agent got worse.
pub(super) const ESCALATED: &str = "escalated";
/// The annotation that says that an alert is over because of a pause, and not because all is well.
pub(super) const PAUSED: &str = "paused";
/// The annotation with the `alertname` of the alert that ended because its agent got worse.
pub(super) const ESCALATED_FROM: &str = "escalated_from";

/// The annotation that says who has acknowledged the alarm, when and why.
pub(super) const ACKNOWLEDGED: &str = "acknowledged";

/// The annotations of one agent in alarm.
pub(super) fn of_agent(transition: &Transition, now: WallClock) -> Texts {
    let Transition { to, cause, at, silence, silence_is_at_least, last, said, dossier, .. } = transition;
    let mut texts = Texts::new();
    let mut put = |name: &str, value: &str| texts.insert(name.to_owned(), cut(value));
    put("summary", &describe(transition));
    put("state", &to.to_string());
    put("cause", cause.as_str());
    let at_least = if *silence_is_at_least { "at least " } else { "" };
    put("silence", &format!("{at_least}{silence:.3?}"));
    put("since", &now.at(*at).to_string());
    if last.beats > 0 && !silence_is_at_least {
        put("last_beat", &now.at(*at).before(*silence).to_string());
    }
    if let Some(said) = said {
        put("said", said);
    }
    if let Some(dossier) = dossier {
        put("dossier", &dossier.to_string());
    }
    texts
}

/// Truncates a text to the longest annotation.
fn cut(text: &str) -> String {
    if text.len() <= MAX_ANNOTATION_LEN {
        return text.to_owned();
    }
    let mut end = MAX_ANNOTATION_LEN - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = "ü".repeat(MAX_ANNOTATION_LEN);
        assert!(cut(&long).len() <= MAX_ANNOTATION_LEN && cut(&long).ends_with('…'));
        assert_eq!(cut("short"), "short");
    }
}
