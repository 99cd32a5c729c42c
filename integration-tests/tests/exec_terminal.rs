//! `varta-server exec --beat output`: what is printed on a terminal is seen, and the command has a terminal all the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use varta_integration_tests::{Scratch, Server, Signal, Terminal, agent, exec_command, sys, wait_until};

const OUTPUT: [&str; 1] = ["--beat=output"];

/// The state of a process, as `T` for one that is stopped.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('-')
}

/// A command line of exec that runs a script, as it is typed.
fn typed(socket: &Path, scratch: &Scratch, options: &[&str], script: &str) -> String {
    let path = scratch.write("script.sh", script);
    let command = exec_command(socket, options, &["sh", path.to_str().unwrap()]);
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    words.join(" ")
}

/// Types a command line of exec that runs a script, with no server there.
fn type_exec(terminal: &mut Terminal, scratch: &Scratch, script: &str) {
    let line = typed(&scratch.socket(), scratch, &OUTPUT, script);
    terminal.type_keys(&format!("{line}\n"));
}

fn pids_on(terminal: &Terminal) -> Vec<u32> {
    terminal.await_line("pids ").split(' ').map(|pid| pid.parse().unwrap()).collect()
}

fn expect_status(terminal: &mut Terminal, status: &str) {
    terminal.type_keys("echo status $?\n");
    assert_eq!(terminal.await_line("status "), status);
}

#[test]
fn the_command_sees_terminals_of_the_right_size_and_reads_what_is_typed() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let modes = terminal.modes();
    // What is opened by its name is written to as well.
    let script = "echo by name. >/dev/stderr\ntest -t 0 && test -t 1 && test -t 2 && echo sizes $(stty size) $(stty size <&2)\n\
                  echo words for /dev/tty >/dev/tty\n\
                  read line\necho read $line >&2\nexit 7\n";
    type_exec(&mut terminal, &scratch, script);
    terminal.await_line("by name.");
    assert_eq!(terminal.await_line("sizes "), "33 99 33 99");
    assert_eq!(terminal.await_line("words "), "for /dev/tty");
    terminal.type_keys("some words\n");
    assert_eq!(terminal.await_line("read "), "some words");
    terminal.await_line("varta-server exec: sh exited with status 7");
    expect_status(&mut terminal, "7");
    assert_eq!(terminal.modes(), modes);
    // Each line ends as the shell's do, in the order in which it was printed.
    assert!(terminal.screen().contains("read some words\r\nvarta-server exec: sh exited"), "{terminal:?}");
}

#[test]
fn what_is_printed_on_a_terminal_is_a_beat_and_silence_is_none() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let server = Server::start([] as [&str; 0]);
    let scratch = Scratch::make();
    let script = "echo pids $PPID\nwhile read line; do echo seen $line; done\n";
    let options = ["--beat=output", "--every=100ms", "--stall-after=1s", "--no-output"];
    let line = typed(server.socket(), &scratch, &options, script);
    terminal.type_keys(&format!("{line}\n"));
    let pid = pids_on(&terminal)[0];
    server.expect(agent(pid).stalled());
    terminal.type_keys("a\n");
    server.expect(agent(pid).up().from("stalled"));
    terminal.type_keys("\x04");
    expect_status(&mut terminal, "0");
    server.expect(agent(pid).gone().because("goodbye"));
}

#[test]
fn much_output_arrives_as_a_whole() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let line = typed(&scratch.socket(), &scratch, &OUTPUT, "echo begin.\nseq 100000\necho end.\n");
    // What exec itself says, without a server, would be in the midst of it.
    terminal.type_keys(&format!("{line} 2>/dev/null\n"));
    terminal.await_line("end.");
    let screen = terminal.screen();
    let (_, numbers) = screen.split_once("begin.\r\n").unwrap();
    let (numbers, _) = numbers.split_once("end.\r\n").unwrap();
    let expected: String = (1..=100_000).map(|number| format!("{number}\r\n")).collect();
    assert!(numbers == expected);
    expect_status(&mut terminal, "0");
}

#[test]
fn who_changes_the_size_of_the_window_changes_that_of_the_command() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    // The one that asks is no child of exec, and is told all the same.
    let script = "sh -c 'trap \"echo size \\$(stty size <&2).\" WINCH; echo pids $PPID $$; until read line; do :; done'\n";
    type_exec(&mut terminal, &scratch, script);
    let _ = pids_on(&terminal);
    for (rows, columns) in [(40, 120), (20, 70)] {
        terminal.resize(rows, columns);
        terminal.await_line(&format!("size {rows} {columns}."));
    }
    terminal.type_keys("end\n");
    expect_status(&mut terminal, "0");
}

#[test]
fn an_interrupt_reaches_the_command_once_and_one_that_it_does_not_catch_ends_both() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let done = scratch.path("done");
    let script = format!(
        "trap 'n=$((n+1)); echo seen $n' INT\necho ready.\nwhile [ ! -e {} ]; do sleep 0.05; done\necho count $n\n\
         trap - INT\necho pids $PPID $$\nsleep 1000\n",
        done.display()
    );
    type_exec(&mut terminal, &scratch, &script);
    terminal.await_line("ready.");
    terminal.type_keys("\x03");
    terminal.await_line("seen 1");
    terminal.type_keys("\x03");
    terminal.await_line("seen 2");
    fs::write(&done, "").unwrap();
    assert_eq!(terminal.await_line("count "), "2");
    let pids = pids_on(&terminal);
    terminal.type_keys("\x03");
    wait_until("both have ended", || pids.iter().all(|pid| state(*pid) == '-'));
    expect_status(&mut terminal, "130");
}

#[test]
fn a_job_is_stopped_by_its_key_and_goes_on_in_front_and_behind() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    // What a program does with the screen before it stops is there before the shell says anything.
    let script = "trap 'seq 3000; echo last words.; trap - TSTP; kill -TSTP $$; echo on again.' TSTP\n\
                  echo pids $PPID $$\nuntil read line; do :; done\necho read $line\nexit 9\n";
    type_exec(&mut terminal, &scratch, script);
    let pids = pids_on(&terminal);
    terminal.type_keys("\x1a");
    wait_until("both are stopped", || pids.iter().all(|pid| state(*pid) == 'T'));
    terminal.type_keys("echo shell again.\n");
    terminal.await_line("shell again.");
    let screen = terminal.screen();
    assert!(screen.find("last words.") < screen.find("Stopped"), "{screen}");
    terminal.resize(50, 80);
    terminal.type_keys("bg\n");
    terminal.await_line("on again.");
    terminal.type_keys("fg\n");
    wait_until("both go on", || pids.iter().all(|pid| state(*pid) == 'S'));
    terminal.type_keys("line\n");
    assert_eq!(terminal.await_line("read "), "line");
    expect_status(&mut terminal, "9");
}

#[test]
fn modes_that_a_program_sets_on_its_output_are_those_of_the_terminal() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let before = terminal.modes();
    // As programs made with curses do.
    let script = "old=$(stty -g <&2)\nstty -icanon min 1 <&2\necho set.\nhead -c 1 >/dev/null\n\
                  stty $old <&2\necho back.\nread line\nstty -icanon -onlcr <&2\nprintf 'set.\\r\\n'\nread line\n\
                  stty $old <&2\n";
    type_exec(&mut terminal, &scratch, script);
    terminal.await_line("set.");
    wait_until("lines are no more awaited", || terminal.modes().contains("-icanon"));
    assert!(terminal.modes().contains("\nopost"), "{}", terminal.modes());
    // One key, without the end of the line.
    terminal.type_keys("k");
    terminal.await_line("back.");
    wait_until("lines are awaited", || terminal.modes() == before);
    terminal.type_keys("line\n");
    wait_until("ends of lines are left as they are", || terminal.modes().contains("-onlcr"));
    terminal.type_keys("line\n");
    // The last modes that are set, just before the end.
    wait_until("all is as it was", || terminal.modes() == before);
    expect_status(&mut terminal, "0");
}

#[test]
fn however_exec_is_ended_the_terminal_is_as_it_was_and_nothing_is_left() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let before = terminal.modes();
    for (signal, status) in [(Signal::Terminate, "143"), (Signal::HangUp, "129"), (Signal::Kill, "137")] {
        let scratch = Scratch::make();
        let script = format!("echo pids-{status} $PPID $$\nsleep 1000\n");
        type_exec(&mut terminal, &scratch, &script);
        let line = terminal.await_line(&format!("pids-{status} "));
        let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
        sys::send_signal(pids[0], signal).unwrap();
        wait_until("both have ended", || pids.iter().all(|pid| ['-', 'Z'].contains(&state(*pid))));
        terminal.type_keys(&format!("echo status-{status} $?\n"));
        assert_eq!(terminal.await_line(&format!("status-{status} ")), status);
        assert_eq!(terminal.modes(), before);
    }
}

#[test]
fn a_terminal_that_is_hung_up_ends_the_command() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    type_exec(&mut terminal, &scratch, "echo pids $PPID $$\nwhile :; do echo more; sleep 0.05; done\n");
    let pids = pids_on(&terminal);
    drop(terminal);
    wait_until("both have ended", || pids.iter().all(|pid| ['-', 'Z'].contains(&state(*pid))));
}

#[test]
fn one_stream_may_be_a_terminal_and_the_other_a_pipe() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let script = "test -t 1 || echo out is a pipe.\ntest -t 2 && echo err is a terminal. >&2\nread line\necho read $line\n";
    let line = typed(&scratch.socket(), &scratch, &OUTPUT, script);
    terminal.type_keys(&format!("{line} | cat\n"));
    terminal.await_line("out is a pipe.");
    terminal.await_line("err is a terminal.");
    terminal.type_keys("words\n");
    assert_eq!(terminal.await_line("read "), "words");
    expect_status(&mut terminal, "0");
}
