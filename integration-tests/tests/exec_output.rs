//! `varta-server exec`: what the command prints arrives as without it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use varta_integration_tests::{Scratch, exec_command, run_to_its_end, wait_for};

#[test]
fn hundreds_of_megabytes_arrive_unchanged_and_each_stream_where_it_belongs() {
    let scratch = Scratch::make();
    let script = "head -c 300000000 /dev/zero | tr '\\0' x; seq 1000 >&2; echo end";
    for option in ["--success-exit-codes=0", "--no-output"] {
        let mut command = exec_command(&scratch.socket(), &["--beat=alive", option], &["sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut stdout = child.stdout.take().unwrap();
        let mut room = vec![0; 1 << 20];
        let (mut length, mut end) = (0, Vec::new());
        loop {
            let read = stdout.read(&mut room).unwrap();
            if read == 0 {
                break;
            }
            length += read;
            let strange = room[..read].iter().position(|byte| *byte != b'x');
            end.extend_from_slice(&room[strange.unwrap_or(read)..read]);
        }
        assert_eq!((length, end.as_slice()), (300_000_004, b"end\n".as_slice()));
        assert!(child.wait().unwrap().success());
        let said = reader.join().unwrap();
        assert!(said.ends_with("999\n1000\n") && said.contains("\n1\n2\n"), "{option}");
    }
}

#[test]
fn two_streams_into_one_file_keep_their_order_and_a_file_that_is_appended_to_is() {
    let scratch = Scratch::make();
    let path = scratch.write("log", "before\n");
    let script = "for i in $(seq 200); do echo out $i; echo err $i >&2; done";
    let log = File::options().append(true).open(&path).unwrap();
    let mut command =
        exec_command(&scratch.socket(), &["--beat=output", "--no-output"], &["sh", "-c", script]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    assert!(command.status().unwrap().success());
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("varta-server exec: ")).collect();
    assert_eq!(lines[0], "before");
    let expected: Vec<String> = (1..=200).flat_map(|i| [format!("out {i}"), format!("err {i}")]).collect();
    assert_eq!(lines[1..], expected);
}

#[test]
fn a_reader_that_leaves_ends_the_command_as_without_exec() {
    let scratch = Scratch::make();
    let mut command = exec_command(&scratch.socket(), &["--beat=alive"], &["yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    let status = wait_for(|| child.try_wait().unwrap()).unwrap();
    assert_eq!(status.signal(), Some(13));
}

#[test]
fn a_command_that_closes_standard_output_closes_it_for_the_reader_and_runs_on() {
    let scratch = Scratch::make();
    let script = "echo words; exec >&-; read line; exit 5";
    let mut command = exec_command(&scratch.socket(), &["--beat=alive"], &["sh", "-c", script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut text = String::new();
    // The end of the stream comes while the command waits for input.
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "words\n");
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    let status = wait_for(|| child.try_wait().unwrap()).unwrap();
    assert_eq!(status.code(), Some(5));
}

#[test]
fn a_command_that_closes_standard_input_closes_it_for_the_writer_and_runs_on() {
    let scratch = Scratch::make();
    let go_on = scratch.path("go on");
    let script =
        format!("read line; exec <&-; echo $line; until [ -e '{}' ]; do sleep 0.05; done", go_on.display());
    let mut command = exec_command(&scratch.socket(), &["--beat=alive"], &["sh", "-c", &script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let error = wait_for(|| stdin.write_all(b"words\n").err()).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(child.try_wait().unwrap().is_none());
    fs::write(go_on, "").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "words\n");
    assert!(wait_for(|| child.try_wait().unwrap()).unwrap().success());
}

#[test]
fn a_reader_that_does_not_read_holds_up_the_command_and_no_beat() {
    let server = varta_integration_tests::Server::start([] as [&str; 0]);
    let options = ["--beat=alive", "--every=50ms", "--stall-after=30s"];
    let mut command =
        exec_command(server.socket(), &options, &["sh", "-c", "head -c 10000000 /dev/zero; exit 7"]);
    let (mut reader, writer) = io::pipe().unwrap();
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    // With it the writing end that is the test's.
    drop(command);
    server.await_beats(&[child.id()], 5);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 10_000_000);
    assert_eq!(wait_for(|| child.try_wait().unwrap()).unwrap().code(), Some(7));
}

#[test]
fn what_is_read_from_standard_input_is_the_commands() {
    let scratch = Scratch::make();
    let input = scratch.write("input", "one\ntwo\n");
    let mut command = exec_command(&scratch.socket(), &["--beat=alive"], &["cat"]);
    command.stdin(File::open(input).unwrap());
    assert_eq!(run_to_its_end(command).stdout, "one\ntwo\n");
}
