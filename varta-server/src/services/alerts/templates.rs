//! The bodies of notifications by a template, for receivers that have a form of their own.
//!
//! A template is Jinja, as minijinja has it. In one whose name ends in `.json` each value is written as JSON,
//! so that no text of an agent breaks the form; in all others values are written as they are. The steps of a
//! template and the length of what it writes are bounded.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};

use crate::base::error::Error;
use crate::base::files::bounded_read::{self, Checks, Owner, Symlink};

/// The templates that come with the server: name, file name, text.
const BUILT_IN: [(&str, &str, &str); 3] = [
    ("slack", "slack.json", include_str!("templates/slack.json")),
    ("teams", "teams.json", include_str!("templates/teams.json")),
    ("text", "text.txt", include_str!("templates/text.txt")),
];
/// The longest file of a template in bytes.
const MAX_TEMPLATE_LEN: u64 = 64 << 10;
/// The longest text that a template may write, in bytes.
const MAX_TEXT_LEN: usize = 64 << 10;
/// The most steps of a template, each an instruction of its compiled form.
const MAX_STEPS: u64 = 100_000;

/// Which template is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateName {
    /// One that comes with the server.
    BuiltIn(&'static str),
    /// A file.
    File(PathBuf),
}

/// `slack`, `teams` or `text`; everything else is the path of a file.
impl FromStr for TemplateName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let built_in = BUILT_IN.into_iter().find(|(name, ..)| *name == text);
        Ok(built_in.map_or_else(|| TemplateName::File(text.into()), |(name, ..)| TemplateName::BuiltIn(name)))
    }
}

/// A template that has been tried.
pub struct Template {
    environment: Environment<'static>,
    file_name: String,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("file_name", &self.file_name).finish_non_exhaustive()
    }
}

impl Template {
    /// The stand-in for one that is not read.
    pub(super) fn stand_in() -> Self {
        Template { environment: Environment::new(), file_name: String::new() }
    }

    /// Reads a template, and tries it with a notification of each kind.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or a template that is wrong; the fault names the line.
    pub(super) fn open(name: &TemplateName) -> Result<Self, Error> {
        match name {
            TemplateName::BuiltIn(name) => {
                let found = BUILT_IN.into_iter().find(|(known, ..)| known == name);
                let (_, file_name, text) = found.expect("only those that there are have a name");
                Template::new(file_name, text)
                    .map_err(|fault| Error::Option { option: "--webhook-template", fault })
            }
            TemplateName::File(path) => {
                let text = read(path).map_err(|fault| {
                    let fault = format!("{fault}; the templates that need no file are slack, teams and text");
                    Error::configuration_file(path, fault)
                })?;
                let file_name = path.file_name().unwrap_or_default().to_string_lossy();
                Template::new(&file_name, &text).map_err(|fault| Error::configuration_file(path, fault))
            }
        }
    }

    fn new(file_name: &str, text: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_filter("slack", slack);
        environment
            .add_template_owned(file_name.to_owned(), text.to_owned())
            .map_err(|error| format!("is no template: {}", chain(&error)))?;
        let template = Template { environment, file_name: file_name.to_owned() };
        for sample in samples() {
            let kind = sample["kind"].clone();
            template
                .render(&sample)
                .map_err(|fault| format!("for a notification of kind {kind}: {fault}"))?;
        }
        Ok(template)
    }

    /// The type of what it writes.
    pub(super) fn content_type(&self) -> &'static str {
        if self.is_json() { "application/json" } else { "text/plain; charset=utf-8" }
    }

    fn is_json(&self) -> bool {
        Path::new(&self.file_name).extension().is_some_and(|extension| extension == "json")
    }

    /// Writes a notification; `notice` has the fields of the JSON that the webhook gets without a template.
    ///
    /// # Errors
    ///
    /// The template fails, takes too many steps, writes too much, or what is no JSON where it should.
    pub(super) fn render(&self, notice: &Value) -> Result<String, String> {
        let template = self.environment.get_template(&self.file_name).map_err(|error| chain(&error))?;
        let mut text = Bounded(Vec::new());
        template
            .render_captured_to(with_helpers(notice), &mut text)
            .map_err(|error| format!("the template failed: {}", chain(&error)))?;
        if self.is_json()
            && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&text.0)
        {
            return Err(format!("the template writes what is no JSON: {error}"));
        }
        String::from_utf8(text.0).map_err(|_| "the template writes what is no text".to_owned())
    }
}

/// The one line that tells what a notification is about.
pub(super) fn title(notice: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&notice["kind"]);
    let whom = match (&notice["agent"], &notice["incident"]) {
        (Value::Object(agent), _) => {
            let pid =
                agent.get("pid").and_then(Value::as_u64).map_or_else(String::new, |pid| format!("[{pid}]"));
            let part = |key| agent.get(key).map(text).unwrap_or_default();
            format!("{}{pid} on {}", part("name"), part("host"))
        }
        (_, Value::Object(incident)) => {
            let host = incident.get("host").map(text).unwrap_or_default();
            let of = if host.is_empty() { String::new() } else { format!(" of {host}") };
            let over = if incident.get("is_over") == Some(&Value::Bool(true)) { ", over" } else { "" };
            format!("many agents{of}{over}")
        }
        _ => String::new(),
    };
    format!("{kind}: {whom}")
}

/// The fields of a notification, and those that only templates have.
fn with_helpers(notice: &Value) -> Map<String, Value> {
    let mut fields = notice.as_object().cloned().unwrap_or_default();
    let shown = ["state", "cause", "previous", "at"].into_iter().filter_map(|name| {
        let value = notice[name].as_str()?;
        Some(json!({ "name": name, "value": value }))
    });
    let shown: Vec<_> = shown.collect();
    let is_over = notice["incident"]["is_over"] == Value::Bool(true);
    let color = match notice["kind"].as_str() {
        Some("resolved") => "#2eb67d",
        Some("incident") if is_over => "#2eb67d",
        Some("paused" | "recovery") => "#36c5f0",
        _ => "#e01e5a",
    };
    fields.insert("title".to_owned(), title(notice).into());
    fields.insert("facts_shown".to_owned(), shown.into());
    fields.insert("color".to_owned(), color.into());
    fields
}

/// A notification of each kind that has other fields than the others.
fn samples() -> [Value; 3] {
    let agent = json!({
        "name": "billing", "pid": 4242, "host": "web-1", "transport": "unix", "labels": {"team": "payments"},
        "unit": null,
    });
    let notice = |kind: &str, agent: &Value, incident: &Value, facts: &Value| {
        let mut notice = json!({
            "version": 1, "kind": kind, "agent": agent, "state": "stalled", "previous": "up", "cause": "stopped",
            "silence_ms": 5_001, "at": "2026-11-23T16:00:00.123Z", "summary": "billing[4242] is \"stalled\".",
            "dossier": "stopped", "incident": incident,
        });
        if !facts.is_null() {
            notice["facts"] = facts.clone();
        }
        notice
    };
    let incident = json!({
        "host": "web-1", "started_at": "2026-11-23T16:00:00.123Z", "agents": 9, "agents_in_all": 12, "causes": null,
        "is_over": false,
    });
    let none = Value::Null;
    [
        notice("firing", &agent, &none, &none),
        notice("incident", &none, &incident, &none),
        notice("recovery", &agent, &none, &json!({ "action": "exec" })),
    ]
}

/// What Slack takes for its own marks (`<!channel>`, links) becomes text.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn read(path: &Path) -> Result<String, String> {
    let checks = Checks { max_len: MAX_TEMPLATE_LEN, symlink: Symlink::Followed, owner: Owner::Anybody };
    let (content, _) = bounded_read::read(path, checks).map_err(|error| error.to_string())?;
    String::from_utf8(content.to_vec()).map_err(|_| "is not text in UTF-8".to_owned())
}

/// An error of a template with its line and its sources.
fn chain(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A text of limited length.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT_LEN {
            return Err(io::Error::other(format!("it writes more than {MAX_TEXT_LEN} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in(name: &'static str) -> Template {
        Template::open(&TemplateName::BuiltIn(name)).unwrap()
    }

    fn hostile() -> Value {
        let mut notice = samples()[0].clone();
        notice["agent"]["name"] = "<!channel>\",\"x\":\"".into();
        notice["summary"] = "<https://example.test|here> & \"\\\n{{ kind }}".into();
        notice
    }

    #[test]
    fn what_an_agent_is_called_breaks_no_form_and_calls_nobody() {
        let slack: Value = serde_json::from_str(&built_in("slack").render(&hostile()).unwrap()).unwrap();
        assert_eq!(slack["text"], "firing: &lt;!channel&gt;\",\"x\":\"[4242] on web-1");
        assert_eq!(
            slack["attachments"][0]["text"],
            "&lt;https://example.test|here&gt; &amp; \"\\\n{{ kind }}"
        );
        assert_eq!(
            slack["attachments"][0]["fields"][0],
            json!({"title": "state", "value": "stalled", "short": true})
        );
        let teams: Value = serde_json::from_str(&built_in("teams").render(&hostile()).unwrap()).unwrap();
        let body = &teams["attachments"][0]["content"]["body"];
        assert_eq!(body[0]["inlines"][0]["text"], "firing: <!channel>\",\"x\":\"[4242] on web-1");
        assert_eq!(body[2]["inlines"][0]["text"], "state: stalled");
        let text = built_in("text").render(&samples()[0]).unwrap();
        let expected = "firing: billing[4242] on web-1\n\nbilling[4242] is \"stalled\".\n\nstate: stalled\ncause: stopped\n\
                        previous: up\nat: 2026-11-23T16:00:00.123Z\n\nstopped";
        assert_eq!(text, expected);
        assert_eq!(title(&samples()[1]), "incident: many agents of web-1");
    }

    #[test]
    fn a_template_that_cannot_work_is_refused_with_its_line() {
        let fault = |name: &str, text: &str| Template::new(name, text).unwrap_err();
        assert!(fault("a.txt", "one\n{{ two").contains("a.txt:2"), "{}", fault("a.txt", "one\n{{ two"));
        assert!(fault("a.txt", "{{ agent.name.nothing.here }}").contains("firing"));
        assert!(fault("a.txt", "{{ agent.name }}").contains("incident"), "an incident has no agent");
        assert!(fault("a.json", "{{ summary }},").contains("no JSON"));
        assert!(fault("a.txt", "{{ summary | nonsense }}").contains("nonsense"));
        Template::new("a.json", "{{ summary }}").unwrap();
    }

    #[test]
    fn a_template_ends_though_it_would_not_and_writes_no_more_than_it_may() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let fault = Template::new("a.txt", endless).unwrap_err();
        assert!(fault.contains("fuel"), "{fault}");
        let long = "{% for a in range(9999) %}0123456789{% endfor %}";
        let fault = Template::new("a.txt", long).unwrap_err();
        assert!(fault.contains("more than 65536 bytes"), "{fault}");
    }

    #[test]
    fn a_name_is_one_of_the_servers_own_or_a_file() {
        let of = |text: &str| text.parse::<TemplateName>().unwrap();
        assert_eq!(of("slack"), TemplateName::BuiltIn("slack"));
        assert_eq!(of("./slack"), TemplateName::File("./slack".into()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.txt");
        let open = || Template::open(&TemplateName::File(path.clone()));
        let fault = open().unwrap_err().to_string();
        assert!(fault.contains("mine.txt") && fault.contains("slack, teams and text"), "{fault}");
        std::fs::write(&path, "{{ title }}").unwrap();
        let template = open().unwrap();
        assert_eq!(template.render(&samples()[0]).unwrap(), "firing: billing[4242] on web-1");
        assert_eq!(template.content_type(), "text/plain; charset=utf-8");
    }
}
