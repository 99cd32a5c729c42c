//! Snapshots of what the program prints: help, names of metrics, log lines of the start, the text of each
//! refusal.
//!
//! Each test compares its text with a file in `snapshots/`. A value that differs from run to run, such as a
//! port, is a word in capitals there. CONTRIBUTING.md says how to accept a text that changes on purpose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "snapshots/audit_log.rs"]
mod audit_log;
#[path = "snapshots/configuration.rs"]
mod configuration;
#[path = "snapshots/control.rs"]
mod control;
#[path = "snapshots/files.rs"]
mod files;
#[path = "snapshots/full_start.rs"]
mod full_start;
#[path = "snapshots/help.rs"]
mod help;
#[path = "snapshots/options.rs"]
mod options;
#[path = "snapshots/recording.rs"]
mod recording;
#[path = "snapshots/running.rs"]
mod running;
#[path = "snapshots/sandbox.rs"]
mod sandbox;
