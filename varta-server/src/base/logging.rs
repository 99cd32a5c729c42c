//! Logging to standard error through a thread of its own, so that a terminal or pipe that blocks delays no
//! beat. Lines that do not fit the queue are dropped and counted.

use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::field::Field;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::base::error::Error;

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

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The number of lines dropped because standard error was too slow.
#[must_use]
pub fn lines_dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Starts logging for this process. Dropping the guard flushes the queue.
///
/// # Errors
///
/// `level` is invalid. Nothing has changed.
pub fn start(format: Option<LogFormat>, level: &str) -> Result<WorkerGuard, Error> {
    let filter = parse_level(level)?;
    let terminal = io::stderr().is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE)
        .thread_name("varta-log")
        .finish(io::stderr());
    DROPPED.get_or_init(|| writer.error_counter());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    match format {
        // The message is complete by itself; its fields are for programs, which read the other format.
        LogFormat::Text => builder.with_ansi(terminal).fmt_fields(format::debug_fn(message_only)).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(guard)
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
}
