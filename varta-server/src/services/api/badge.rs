//! Badges: a name and how it is, as a picture or for shields.io.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use varta_proto::Status;

use crate::base::visible::visible_text;
use crate::domain::tracker::{Problem, Verdict};
use crate::services::api::uptime::Uptime;

/// The most characters of a name that are shown.
const MAX_NAME: usize = 40;
/// The width of a character, and the room beside a text, in pixels; digits and letters differ, and the text is stretched
/// to this.
const CHARACTER: usize = 7;
const ROOM: usize = 10;

/// How somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Badge {
    text: String,
    color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Color {
    Good,
    Fair,
    Bad,
    Unknown,
}

impl Color {
    /// Dark enough for white text: a contrast of 4.5 at least (WCAG 2, 1.4.3).
    const fn code(self) -> &'static str {
        match self {
            Color::Good => "#2e7d32",
            Color::Fair => "#8a6100",
            Color::Bad => "#c62828",
            Color::Unknown => "#5f6368",
        }
    }
}

/// How a name is, by the verdicts on its agents: as its worst agent; of those that have said goodbye nothing is known.
pub(super) fn health(agents: impl Iterator<Item = (Verdict, Option<Problem>)>) -> Badge {
    let (mut up, mut degraded, mut worst) = (false, false, None);
    for (verdict, problem) in agents {
        worst = worst.max(problem);
        match verdict {
            Verdict::Up(Status::Ok) => up = true,
            Verdict::Up(Status::Degraded) => degraded = true,
            _ => {}
        }
    }
    let (text, color) = match (worst, degraded, up) {
        (Some(problem), ..) => (problem.as_str(), Color::Bad),
        (None, true, _) => ("degraded", Color::Fair),
        (None, false, true) => ("up", Color::Good),
        (None, false, false) => ("unknown", Color::Unknown),
    };
    Badge { text: text.to_owned(), color }
}

/// How much of a time somebody was well.
pub(super) fn uptime(uptime: Option<Uptime>) -> Badge {
    let Some(Uptime { up, .. }) = uptime else {
        return Badge { text: "unknown".to_owned(), color: Color::Unknown };
    };
    // Never rounded up: 100% says that nothing was missing.
    let hundredths = (up * 10_000.0).floor();
    let color = match hundredths {
        9_900.0.. => Color::Good,
        9_500.0.. => Color::Fair,
        _ => Color::Bad,
    };
    Badge { text: format!("{:.2}%", hundredths / 100.0), color }
}

impl Badge {
    /// As a picture.
    pub(super) fn svg(&self, name: &str) -> Response {
        let name: String = visible_text(name).chars().take(MAX_NAME).collect();
        let [left, right] =
            [name.as_str(), &self.text].map(|text| text.chars().count() * CHARACTER + 2 * ROOM);
        let (width, [name, text]) = (left + right, [name.as_str(), &self.text].map(escaped));
        let [left_length, right_length] = [left, right].map(|width| width - 2 * ROOM);
        let (right_at, color) = (left + ROOM, self.color.code());
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" aria-label=\"{name}: {text}\">\
             <title>{name}: {text}</title>\
             <rect width=\"{left}\" height=\"20\" fill=\"#3c4043\"/>\
             <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{color}\"/>\
             <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
             <text x=\"{ROOM}\" y=\"14\" textLength=\"{left_length}\">{name}</text>\
             <text x=\"{right_at}\" y=\"14\" textLength=\"{right_length}\">{text}</text></g></svg>\n"
        );
        ([(CONTENT_TYPE, "image/svg+xml")], svg).into_response()
    }

    /// As an endpoint of shields.io has it.
    pub(super) fn shields(&self, name: &str) -> Value {
        let name: String = visible_text(name).chars().take(MAX_NAME).collect();
        json!({
            "schemaVersion": 1, "label": name, "message": self.text, "color": self.color.code(),
            "isError": self.color == Color::Bad,
        })
    }
}

/// The text in a document of XML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(agents: &[(Verdict, Option<Problem>)]) -> String {
        health(agents.iter().copied()).text
    }

    #[test]
    fn a_name_is_as_its_worst_agent_and_unknown_where_nothing_is_known() {
        let (up, degraded) = (Verdict::Up(Status::Ok), Verdict::Up(Status::Degraded));
        let of = |verdict| (verdict, Problem::of(verdict));
        assert_eq!(said(&[]), "unknown");
        assert_eq!(said(&[of(Verdict::Gone), of(Verdict::Unknown)]), "unknown");
        assert_eq!(said(&[of(up), of(Verdict::Gone)]), "up");
        assert_eq!(said(&[of(up), of(degraded)]), "degraded");
        assert_eq!(said(&[of(up), of(Verdict::Stalled), of(Verdict::Down)]), "down");
        assert_eq!(said(&[(Verdict::Expected, None)]), "unknown", "its time has not run out");
    }

    #[test]
    fn an_uptime_is_never_rounded_up() {
        let text = |up| uptime(Some(Uptime { up, known: 1.0 })).text;
        assert_eq!([1.0, 0.99999, 0.5, 0.0].map(text), ["100.00%", "99.99%", "50.00%", "0.00%"]);
        assert_eq!(uptime(None).text, "unknown");
    }

    #[test]
    fn a_name_is_text_and_nothing_else() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
