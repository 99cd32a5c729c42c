//! Logging to standard error through a thread of its own, so that a terminal or pipe that blocks delays no
//! beat. Lines that do not fit the queue are dropped and counted.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::base::error::Error;
use crate::base::log_limit::LineLimit;
use crate::base::progress::{beside_bar, draw_by};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The capacity in lines. The queue is allocated and written at the start, which takes two milliseconds for
/// eight times as many.
const QUEUE: usize = 8_192;

/// Replaces the filter of the running log.
type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The number of lines dropped because standard error was too slow.
#[must_use]
pub fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// The level when neither the option nor `RUST_LOG` says one.
const DEFAULT_LEVEL: &str = "info";

/// Starts logging for this process. Dropping the guard flushes the queue.
///
/// Without a `level` it is that of the environment's `RUST_LOG`, and without that `info`. A `RUST_LOG` that
/// cannot be parsed is warned of. Where standard error is the journal of systemd, each line begins with its
/// priority.
///
/// # Errors
///
/// `level` is invalid. Nothing has changed.
pub fn start(format: Option<LogFormat>, level: Option<&str>) -> Result<WorkerGuard, Error> {
    let (filter, warning) = filter_of(level)?;
    let terminal = io::stderr().is_terminal();
    let term = env::var_os("TERM");
    let colours = terminal && has_colours(env::var_os("NO_COLOR").as_deref(), term.as_deref());
    let in_journal = is_journal(env::var_os("JOURNAL_STREAM").as_deref(), stderr_identity());
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE)
        .thread_name("varta-log")
        .finish(io::stderr());
    DROPPED.get_or_init(|| writer.error_counter());
    if terminal && term.is_some_and(|term| term != "dumb") {
        draw_by(writer.clone());
    }
    let writer = Lines { writer, in_journal };
    let builder = tracing_subscriber::fmt().with_writer(writer);
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    match format {
        // The message is complete by itself; its fields are for programs, which read the other format.
        LogFormat::Text => {
            let builder = builder.with_ansi(colours).fmt_fields(format::debug_fn(message_only));
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            keep(builder.reload_handle());
            builder.finish().with(LineLimit::new()).init();
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            keep(builder.reload_handle());
            builder.finish().with(LineLimit::new()).init();
        }
    }
    if let Some(warning) = warning {
        tracing::warn!(target: "varta::log", "{warning}");
    }
    Ok(guard)
}

/// A level of log lines that does not count yet.
#[derive(Debug)]
pub(crate) struct StagedLevel(EnvFilter);

impl StagedLevel {
    /// Parses the level as [`start`] does.
    ///
    /// # Errors
    ///
    /// `level` is invalid.
    pub(crate) fn new(level: Option<&str>) -> Result<Self, Error> {
        filter_of(level).map(|(filter, _)| StagedLevel(filter))
    }

    /// Has it count from now on. Does nothing where the log was not started here.
    pub(crate) fn commit(self) {
        if let Some(set) = SET_FILTER.get() {
            set(self.0);
        }
    }
}

/// Keeps what replaces the filter of the log that starts.
fn keep<S: 'static>(handle: reload::Handle<EnvFilter, S>) {
    // It fails only when the log has ended, which lives as long as the process.
    SET_FILTER.get_or_init(|| Box::new(move |filter| drop(handle.reload(filter))));
}

/// The filter of an option's level, or without one that of the environment, and what is wrong with that.
fn filter_of(level: Option<&str>) -> Result<(EnvFilter, Option<String>), Error> {
    match level {
        Some(level) => Ok((parse_level(level)?, None)),
        None => Ok(level_of(env::var_os("RUST_LOG"))),
    }
}

/// The filter that `RUST_LOG` asks for, and what is wrong with it.
fn level_of(variable: Option<OsString>) -> (EnvFilter, Option<String>) {
    let wanted = variable.filter(|text| !text.is_empty());
    let Some(wanted) = wanted else { return (EnvFilter::new(DEFAULT_LEVEL), None) };
    let text = wanted.to_string_lossy();
    match EnvFilter::builder().parse(&text) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let fault = format!(
                "RUST_LOG: `{}`: {error}; the level is {DEFAULT_LEVEL}, as if it were not set",
                text.escape_debug()
            );
            (EnvFilter::new(DEFAULT_LEVEL), Some(fault))
        }
    }
}

/// Whether a terminal may be sent colours: not with a `NO_COLOR` that is not empty, nor to a dumb terminal.
fn has_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Device and inode of standard error.
fn stderr_identity() -> Option<(u64, u64)> {
    nix::sys::stat::fstat(io::stderr()).ok().map(|found| (found.st_dev, found.st_ino))
}

/// Whether a stream is the one that systemd has connected to the journal: `JOURNAL_STREAM` names its device
/// and inode. A child with another standard error inherits the variable, so the variable alone is no proof.
fn is_journal(variable: Option<&OsStr>, stream: Option<(u64, u64)>) -> bool {
    let named = variable.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == stream
}

/// The priority of a line in the journal, as sd-daemon(3) has it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Makes the writer of each line, which puts the priority before it in the journal.
#[derive(Debug)]
struct Lines<W = NonBlocking> {
    writer: W,
    in_journal: bool,
}

/// The writer of one event.
#[derive(Debug)]
struct Line<W> {
    writer: W,
    prefix: &'static str,
}

impl<'w, W: Write + Clone + 'w> MakeWriter<'w> for Lines<W> {
    type Writer = Line<W>;

    fn make_writer(&'w self) -> Line<W> {
        Line { writer: self.writer.clone(), prefix: "" }
    }

    fn make_writer_for(&'w self, event: &Metadata<'_>) -> Line<W> {
        let prefix = if self.in_journal { priority(*event.level()) } else { "" };
        Line { writer: self.writer.clone(), prefix }
    }
}

impl<W: Write> Write for Line<W> {
    /// Writes a whole event: the queue takes it as one.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return beside_bar(|| self.writer.write(event));
        }
        let mut lines = Vec::with_capacity(event.len() + self.prefix.len());
        for line in event.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(self.prefix.as_bytes());
            lines.extend_from_slice(line);
        }
        beside_bar(|| self.writer.write_all(&lines))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A word that is no level would be read as a target, and all other targets would be silent.
fn parse_level(text: &str) -> Result<EnvFilter, Error> {
    let refused =
        |fault: String| Error::Option { option: "--log-level", fault: format!("`{text}`: {fault}") };
    for directive in text.split(',').filter(|directive| !directive.contains('=')) {
        if directive.is_empty() || directive.parse::<LevelFilter>().is_err() {
            return Err(refused(format!(
                "`{directive}` is none of off, error, warn, info, debug, trace, nor a directive such as varta::agent=warn"
            )));
        }
    }
    EnvFilter::builder().parse(text).map_err(|error| refused(error.to_string()))
}

fn message_only(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() == "message" { write!(writer, "{value:?}") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        assert!(parse_level("warn").is_ok());
        assert!(parse_level("info,varta::agent=warn").is_ok());
        for wrong in ["inf", "garbage text", "", "varta::agent=loud"] {
            let error = parse_level(wrong).unwrap_err();
            assert!(error.to_string().starts_with("--log-level"), "{error}");
            assert_eq!(error.exit_status(), 2);
        }
    }

    #[test]
    fn the_variable_of_the_environment_has_directives_and_a_wrong_one_is_told_and_not_taken() {
        let of = |text: &str| {
            let (filter, warning) = level_of(Some(text.into()));
            (filter.to_string(), warning)
        };
        assert_eq!(level_of(None).0.to_string(), "info");
        assert_eq!(of(""), ("info".to_owned(), None));
        assert_eq!(of("debug"), ("debug".to_owned(), None));
        assert_eq!(of("varta::agent=warn"), ("varta::agent=warn".to_owned(), None));
        let (filter, warning) = of("varta=loud");
        assert_eq!(filter, "info");
        assert!(warning.unwrap().starts_with("RUST_LOG: `varta=loud`: "));
    }

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        let of = |no_color: Option<&str>, term: Option<&str>| {
            has_colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(of(None, None) && of(None, Some("xterm")) && of(Some(""), Some("xterm")));
        assert!(!of(Some("1"), Some("xterm")) && !of(Some("0"), None) && !of(None, Some("dumb")));
    }

    #[test]
    fn a_stream_is_the_journal_when_device_and_inode_are_those_that_systemd_names() {
        let of = |variable: &str, stream| is_journal(Some(OsStr::new(variable)), stream);
        assert!(of("9:1234", Some((9, 1_234))));
        assert!(!of("9:1234", Some((9, 1_235))) && !of("9:1234", None) && !of("x", None) && !of("", None));
        assert!(!is_journal(None, None) && !is_journal(None, Some((9, 1_234))));
    }

    /// What is written of an event of each level.
    fn written(in_journal: bool) -> String {
        #[derive(Clone, Default)]
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shared = Shared::default();
        let format = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
        let format = format.with_level(false).with_max_level(Level::TRACE);
        let log = format.with_writer(Lines { writer: shared.clone(), in_journal }).finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!("a");
            tracing::warn!("b");
            tracing::info!("c");
            tracing::debug!("d\ne");
            tracing::trace!("f");
        });
        let bytes = shared.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().replace(' ', "")
    }

    #[test]
    fn in_the_journal_each_line_has_its_priority_and_elsewhere_none() {
        assert_eq!(written(true), "<3>a\n<4>b\n<6>c\n<7>d\n<7>e\n<7>f\n");
        assert_eq!(written(false), "a\nb\nc\nd\ne\nf\n");
    }
}
