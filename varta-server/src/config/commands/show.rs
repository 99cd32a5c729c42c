//! The task that shows the configuration that counts.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use varta_proto::address::default_socket_path;

use super::note;
use crate::base::error::Error;
use crate::base::stdout::print;
use crate::config::args::Args;
use crate::config::document::{ShownEntry, ShownTable};
use crate::config::environment::unknown_variables;
use crate::config::file::ConfigFile;
use crate::config::option_kind::OptionKind;
use crate::config::origin::{Origin, Setting};
use crate::config::task::ShowArgs;
use crate::config::toml_text;
use crate::services::maintenance::ControlSocket;

/// Prints each option and table with the place where it is given.
///
/// # Errors
///
/// The result cannot be printed.
pub(super) fn run(show: &ShowArgs, args: &Args) -> Result<(), Error> {
    let file = args.file.as_ref();
    let warning = file.and_then(ConfigFile::warning).map(str::to_owned);
    warning.into_iter().chain(unknown_variables()).for_each(|line| note(&line));
    let mut settings = args.settings.clone();
    add_default_sockets(&mut settings);
    let shown = Shown {
        settings: &settings,
        tables: &file.map(ConfigFile::shown_tables).unwrap_or_default(),
        path: file.map(ConfigFile::path),
    };
    print(&if show.json { shown.to_json() } else { shown.to_toml() })
}

/// Adds the default paths of sockets, which depend on the user, the environment and one another.
fn add_default_sockets(settings: &mut [Setting]) {
    let given = |settings: &[Setting], key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key)?;
        setting.layers.first().map(|(_, values)| values.clone())
    };
    let mut add = |key: &str, path: &Path| {
        if let Some(setting) = settings.iter_mut().find(|setting| setting.key == key) {
            setting.layers.push((Origin::Default, vec![path.to_string_lossy().into_owned()]));
        }
        given(settings, key)
    };
    let sockets = add("socket", &default_socket_path(nix::unistd::geteuid().as_raw()));
    if let Some(first) = sockets.into_iter().flatten().find(|path| path != "none") {
        add("control-socket", &ControlSocket::beside(first.into()).path);
    }
}

struct Shown<'s> {
    settings: &'s [Setting],
    tables: &'s [ShownTable],
    /// The file of `--config`.
    path: Option<&'s Path>,
}

impl Shown<'_> {
    /// A file that says the same, with a comment on each line about where it comes from.
    fn to_toml(&self) -> String {
        let mut text = String::from("# The configuration that counts, and where each value comes from.\n");
        let is_hidden = |setting: &&Setting| {
            let values = setting.layers.first().into_iter().flat_map(|(_, values)| values);
            values.into_iter().any(|value| setting.secrecy.shown(value) != *value)
        };
        let hidden: Vec<_> = self.settings.iter().filter(is_hidden).map(|setting| &*setting.key).collect();
        // Writing to a `String` cannot fail.
        if !hidden.is_empty() {
            let _ = writeln!(text, "# Parts of these values are hidden: {}.", hidden.join(", "));
        }
        let mut heading = "";
        for setting in self.settings {
            if setting.heading != heading {
                heading = &setting.heading;
                let _ = writeln!(text, "\n# --- {heading} ---");
            }
            text.push_str(&self.line(setting));
        }
        for table in self.tables {
            let _ = writeln!(text, "\n[[{}]]  # {}", table.name, self.place_in_file(table.line));
            for entry in &table.entries {
                let (key, place) = (toml_text::key(&entry.key), self.place_in_file(entry.line));
                let _ = writeln!(text, "{key} = {}  # {place}", entry.toml);
            }
        }
        text
    }

    fn line(&self, setting: &Setting) -> String {
        let key = &setting.key;
        let Some(((origin, values), others)) = setting.layers.split_first() else {
            return format!("# {key} is not set\n");
        };
        let mark = if *origin == Origin::Default && setting.is_default_conditional { "# " } else { "" };
        let overridden: Vec<_> = others
            .iter()
            .map(|(origin, values)| {
                format!("{} {}", self.place(origin, key), toml_text::in_comment(&as_toml(setting, values)))
            })
            .collect();
        let overrides = if overridden.is_empty() {
            String::new()
        } else {
            format!(", overrides {}", overridden.join(", "))
        };
        format!("{mark}{key} = {}  # {}{overrides}\n", as_toml(setting, values), self.place(origin, key))
    }

    fn place(&self, origin: &Origin, key: &str) -> String {
        match origin {
            Origin::Flag => format!("--{key}"),
            Origin::Variable(name) => name.clone(),
            Origin::File(line) => self.place_in_file(*line),
            Origin::Default => "default".to_owned(),
        }
    }

    fn place_in_file(&self, line: usize) -> String {
        let path = self.path.unwrap_or(Path::new("")).display().to_string();
        format!("{}:{line}", toml_text::in_comment(&path))
    }

    fn to_json(&self) -> String {
        let layer = |setting: &Setting, (origin, values): &(Origin, Vec<String>)| {
            let mut object = Map::new();
            object.insert("value".to_owned(), as_json(setting, values));
            let (source, detail) = match origin {
                Origin::Flag => ("flag", None),
                Origin::Variable(name) => ("variable", Some(("variable", json!(name)))),
                Origin::File(line) => ("file", Some(("line", json!(line)))),
                Origin::Default => ("default", None),
            };
            object.insert("source".to_owned(), source.into());
            object.extend(detail.map(|(key, value)| (key.to_owned(), value)));
            if values.iter().any(|value| setting.secrecy.shown(value) != *value) {
                object.insert("hidden".to_owned(), true.into());
            }
            Value::Object(object)
        };
        let option = |setting: &Setting| {
            let mut layers = setting.layers.iter().map(|given| layer(setting, given));
            let mut object = layers.next().unwrap_or_else(|| json!({ "value": null, "source": "default" }));
            object["overrides"] = layers.collect();
            (setting.key.clone(), object)
        };
        let options: Map<_, _> = self.settings.iter().map(option).collect();
        let table = |table: &ShownTable| {
            let entry =
                |entry: &ShownEntry| (entry.key.clone(), json!({ "value": entry.json, "line": entry.line }));
            let keys: Map<_, _> = table.entries.iter().map(entry).collect();
            json!({ "table": table.name, "line": table.line, "keys": keys })
        };
        let tables: Vec<_> = self.tables.iter().map(table).collect();
        let file = self.path.map(|path| path.to_string_lossy());
        format!("{:#}\n", json!({ "file": file, "options": options, "tables": tables }))
    }
}

/// The values as TOML, without their secrets.
fn as_toml(setting: &Setting, values: &[String]) -> String {
    let one = |text: &String| {
        let shown = setting.secrecy.shown(text);
        match setting.kind {
            OptionKind::Number => text.parse().map_or(shown, |number: u64| number.to_string()),
            OptionKind::Fraction => text.parse().map_or(shown, |number: f64| format!("{number:?}")),
            OptionKind::Switch => shown,
            OptionKind::Id | OptionKind::Size | OptionKind::Text => toml_text::string(&shown),
        }
    };
    match values {
        [only] if !setting.is_list => one(only),
        _ => toml_text::list(values.iter().map(one)),
    }
}

/// The values as JSON, without their secrets.
fn as_json(setting: &Setting, values: &[String]) -> Value {
    let one = |text: &String| match setting.kind {
        OptionKind::Number => text.parse().map_or_else(|_| json!(text), |number: u64| json!(number)),
        OptionKind::Fraction => text.parse().map_or_else(|_| json!(text), |number: f64| json!(number)),
        OptionKind::Switch => json!(text == "true"),
        OptionKind::Id | OptionKind::Size | OptionKind::Text => json!(setting.secrecy.shown(text)),
    };
    match values {
        [only] if !setting.is_list => one(only),
        _ => values.iter().map(one).collect(),
    }
}
