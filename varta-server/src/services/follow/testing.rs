//! A server that gives prepared answers.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

/// Answers each connection with the next of its texts, and closes it.
pub(super) struct FakeServer {
    directory: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    pub(super) fn start<const N: usize>(answers: [&'static str; N]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("control")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let mut length = 0;
                // A body ends with its brace.
                while !request[..length].ends_with(b"\r\n\r\n") && !request[..length].ends_with(b"}") {
                    length += stream.read(&mut request[length..]).unwrap();
                }
                kept.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        FakeServer { directory, requests }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
