//! Tests of the audit log.

mod deciding;
mod form;
mod meddling;
mod tampering;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::*;
use crate::base::files::append_log::numbered;
use crate::services::audit::log::AuditLog;
use crate::services::audit::options::AuditOptions;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// A directory with a log in it.
struct Place {
    directory: TempDir,
    options: AuditOptions,
}

impl Place {
    fn new(is_keyed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let key_file = is_keyed.then(|| write_key(directory.path(), KEY));
        let limit = AuditOptions::SMALLEST_LIMIT;
        Place { directory, options: AuditOptions { path, key_file, limit, keep: 0 } }
    }

    fn path(&self) -> &Path {
        &self.options.path
    }

    fn head(&self) -> PathBuf {
        self.directory.path().join("audit.log.head")
    }

    #[track_caller]
    fn open(&self) -> AuditLog {
        AuditLog::open(&self.options).unwrap()
    }

    /// The error of opening the log.
    #[track_caller]
    fn refused(&self) -> String {
        let refused = AuditLog::open(&self.options).unwrap_err();
        assert_eq!(refused.exit_status(), 1, "{refused}");
        refused.to_string()
    }

    fn files(&self) -> Files {
        Files {
            paths: vec![self.path().to_path_buf()],
            key_file: self.options.key_file.clone(),
            expect_last: None,
            from_start: true,
            without_head: false,
        }
    }

    /// The fault that the verification finds.
    #[track_caller]
    fn fault(&self) -> Option<ChainError> {
        verify(&self.files()).unwrap().broken.map(|broken| broken.fault)
    }

    #[track_caller]
    fn assert_whole(&self) -> VerifyReport {
        let found = verify(&self.files()).unwrap();
        assert!(found.broken.is_none(), "{found}");
        found
    }

    /// The records of a file, parsed as JSON.
    #[track_caller]
    fn records(&self, path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn write_key(directory: &Path, key: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join("audit.key");
    fs::write(&path, key).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn fields(number: u64) -> Map<String, Value> {
    let Value::Object(fields) =
        json!({"agent": "billing\n\"7\"", "number": number, "outcome": {"signal": 9}})
    else {
        unreachable!("it is an object")
    };
    fields
}

#[track_caller]
fn append(log: &mut AuditLog, number: u64) -> u64 {
    log.append(at(number), "command_ended", fields(number)).unwrap()
}
