//! The server under systemd: what it tells the service manager, and the files of `deploy/systemd`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::{ptrace, wait};
use nix::unistd::Pid;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    LIMIT, Options, Scratch, Server, Signal, server_command, sys, wait_until, worker_command,
};

/// What a service manager does with `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager(socket)
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut room = [0; 4096];
        let length = self.0.recv(&mut room).expect("the server says something");
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    /// The first message that has this line, and is no keep-alive.
    #[track_caller]
    fn next_with(&self, line: &str) -> String {
        let begun_at = Instant::now();
        loop {
            let message = self.next();
            if message.lines().any(|said| said == line) {
                return message;
            }
            assert!(begun_at.elapsed() < LIMIT, "{line} does not come");
        }
    }

    /// Takes all that has come.
    fn drain(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_the_agents_each_reload_and_the_end() {
    let scratch = Scratch::make();
    let path = scratch.directory().join("notify");
    let manager = Manager::listen(&path);
    let mut server = Server::start(Options::new().env("NOTIFY_SOCKET", &path));
    assert_eq!(manager.next(), "READY=1\nSTATUS=no agents");
    let agent = server.start_agent(&[]);
    assert_eq!(manager.next(), "STATUS=1 agent: 1 up");
    agent.signal(Signal::Kill);
    assert_eq!(manager.next(), "STATUS=1 agent: 1 down");

    let before = monotonic_micros();
    server.signal(Signal::HangUp);
    let reloading = manager.next();
    let at: u64 = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=monotonic_micros()).contains(&at), "{before} {at}");
    assert_eq!(manager.next(), "READY=1");

    server.stop();
    assert_eq!(manager.next(), "STOPPING=1\nWATCHDOG_USEC=0\nSTATUS=stopping");
}

fn monotonic_micros() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_micros().try_into().unwrap()
}

/// The thread of a process that has this name.
fn thread_named(pid: u32, name: &str) -> Pid {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
    let is_it = |thread: &PathBuf| fs::read_to_string(thread.join("comm")).unwrap().trim() == name;
    let thread = threads.into_iter().find(is_it).expect("the server has such a thread");
    Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

#[test]
fn while_the_tracker_hangs_there_is_no_keep_alive_though_the_rest_of_the_server_runs() {
    let scratch = Scratch::make();
    let path = scratch.directory().join("notify");
    let manager = Manager::listen(&path);
    let options = Options::new().env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "60000");
    let mut server = Server::start(options);
    manager.next_with("READY=1");
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    let tracker = thread_named(server.pid(), "varta-ingest");
    // Only this thread stops, as one that hangs.
    if let Err(error) = ptrace::seize(tracker, ptrace::Options::empty()) {
        return skip(&format!("no thread can be stopped here: {error}"));
    }
    ptrace::interrupt(tracker).unwrap();
    wait::waitpid(tracker, Some(wait::WaitPidFlag::__WALL)).unwrap();
    // One may have been on its way.
    assert_eq!(server.get("/healthz").status, 200, "the rest of the server runs");
    manager.drain();
    manager.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(manager.0.recv(&mut [0; 64]).is_err(), "no keep-alive comes");
    manager.0.set_read_timeout(Some(LIMIT)).unwrap();
    ptrace::detach(tracker, None).unwrap();
    manager.next_with("WATCHDOG=1");
    server.stop();
}

/// Runs systemd as the manager of a user, in cgroups and with a `/run` of its own, and `$4` with it: `$1` is the
/// server, `$2` a directory, `$3` the name of the cgroups, and `$5` a program that beats.
const WITH_SYSTEMD: &str = r#"
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -f "$hierarchy/cgroup.procs" ] || continue
    mkdir "$hierarchy/$3" && echo $$ >"$hierarchy/$3/cgroup.procs" || exit 77
done
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/user/0 || exit 77
export XDG_RUNTIME_DIR=/run/user/0 HOME="$2"
mkdir -p "$HOME/.config/systemd/user"
cat >"$HOME/.config/systemd/user/varta.service" <<UNIT
[Service]
Type=notify
ExecStart=$1 --socket $2/varta.sock --metrics-addr none
ExecReload=$1 reload --socket $2/varta.sock
WatchdogSec=1s
Restart=always
RestartSec=10ms
UNIT
/lib/systemd/systemd --user >"$2/manager.log" 2>&1 &
manager=$!
tries=0
until systemctl --user show-environment >/dev/null 2>&1; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || exit 77
    sleep 0.1
done
sh -euc "$4" sh "$1" "$2" "$3" "$4" "$5"
result=$?
systemctl --user stop varta varta.socket varta-control.socket
kill -KILL $manager
exit $result
"#;

#[test]
fn a_real_systemd_knows_when_it_is_ready_what_it_says_and_that_it_hangs() {
    let scratch = Scratch::make();
    let script = "
        systemctl --user start varta
        show() { systemctl --user show --value -p \"$1\" varta; }
        echo \"$(show ActiveState)/$(show SubState)/$(show StatusText)\"
        systemctl --user reload varta
        echo \"$(show ActiveState)\"
        kill -STOP \"$(show MainPID)\"
        tries=0
        until [ \"$(show NRestarts)\" = 1 ] && [ \"$(show SubState)\" = running ]; do
            tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
            sleep 0.1
        done
        echo restarted";
    let Some(said) = with_systemd(&scratch, "hang", script) else { return };
    assert_eq!(said, ["active/running/no agents", "active", "restarted"]);
}

#[test]
fn a_real_systemd_goes_on_with_the_server_that_has_taken_over() {
    let scratch = Scratch::make();
    let script = r#"
        show() { systemctl --user show --value -p "$1" varta; }
        systemctl --user start varta
        mkfifo "$2/commands"
        "$5" --socket "$2/varta.sock" <"$2/commands" >/dev/null &
        exec 3>"$2/commands"
        tries=0
        until [ "$(show StatusText)" = "1 agent: 1 up" ]; do
            tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
            sleep 0.1
        done
        for upgrade in 1 2 3; do
            before=$(show MainPID)
            "$1" upgrade --socket "$2/varta.sock" >/dev/null
            tries=0
            until [ "$(show MainPID)" != "$before" ] && ! [ -d "/proc/$before" ]; do
                tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
                sleep 0.1
            done
            echo "$(show ActiveState)/$(show SubState)/$(show NRestarts)"
        done
        # The watchdog is that of the new one, and a hung one is restarted.
        sleep 2
        echo "$(show ActiveState)/$(show SubState)/$(show NRestarts)"
        kill -STOP "$(show MainPID)"
        tries=0
        until [ "$(show NRestarts)" = 1 ] && [ "$(show SubState)" = running ]; do
            tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
            sleep 0.1
        done
        exec 3>&-
        echo restarted"#;
    let Some(said) = with_systemd(&scratch, "upgrade", script) else { return };
    let same = "active/running/0";
    assert_eq!(said, [same, same, same, same, "restarted"]);
}

#[test]
fn a_real_systemd_keeps_the_socket_for_notifications_while_the_server_is_restarted() {
    let scratch = Scratch::make();
    let script = r#"
        show() { systemctl --user show --value -p "$1" varta; }
        mkdir -p "$HOME/.config/systemd/user/varta.service.d"
        cat >"$HOME/.config/systemd/user/varta.service.d/store.conf" <<UNIT
[Service]
ExecStart=
ExecStart=$1 --socket $2/varta.sock --metrics-addr none --notify-socket $2/notify
FileDescriptorStoreMax=64
UNIT
        systemctl --user daemon-reload
        systemctl --user start varta
        mkfifo "$2/commands"
        # It connects once, and never again.
        NOTIFY_SOCKET="$2/notify" "${5%/*}/it-notifier" <"$2/commands" >/dev/null &
        exec 3>"$2/commands"
        for restart in 1 2 3; do
            echo "say READY=1" >&3
            tries=0
            until [ "$(show StatusText)" = "1 agent: 1 up" ]; do
                tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
                sleep 0.1
            done
            echo "$(show ActiveState)/$(show NFileDescriptorStore)"
            systemctl --user restart varta
        done
        exec 3>&-"#;
    let Some(said) = with_systemd(&scratch, "store", script) else { return };
    assert_eq!(said, ["active/1", "active/1", "active/1"]);
}

/// Runs a script with a systemd of its own, and gives the lines that it prints; `None` where systemd does not run.
fn with_systemd(scratch: &Scratch, name: &str, script: &str) -> Option<Vec<String>> {
    let systemd = Path::new("/lib/systemd/systemd");
    if !systemd.exists() || sys::user() != 0 {
        skip("this wants root, and systemd at /lib/systemd/systemd");
        return None;
    }
    let cgroup = format!("varta-it-systemd-{name}-{}", std::process::id());
    let program = server_command().get_program().to_owned();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", WITH_SYSTEMD, "sh"]);
    command.arg(program).arg(scratch.directory()).arg(&cgroup).arg(script);
    command.arg(worker_command().get_program());
    let output = command.output().unwrap();
    remove_cgroups(&cgroup);
    let log = fs::read_to_string(scratch.directory().join("manager.log")).unwrap_or_default();
    if output.status.code() == Some(77) {
        skip(&format!("systemd does not run here: {output:?} {log}"));
        return None;
    }
    assert!(output.status.success(), "{output:?}\n{log}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn a_real_systemd_holds_the_sockets_and_the_first_beat_starts_the_service() {
    let scratch = Scratch::make();
    let script = r#"
        cat >"$HOME/.config/systemd/user/varta.socket" <<UNIT
[Socket]
ListenDatagram=$2/varta.sock
ListenDatagram=127.0.0.1:45983
PassCredentials=yes
UNIT
        cat >"$HOME/.config/systemd/user/varta-control.socket" <<UNIT
[Socket]
ListenStream=$2/varta.sock.control
Service=varta.service
UNIT
        sed -i 's/^ExecStart=.*/& --udp 127.0.0.1:45983/' "$HOME/.config/systemd/user/varta.service"
        systemctl --user daemon-reload
        show() { systemctl --user show --value -p "$1" varta; }
        await() {
            tries=0
            until [ "$(show StatusText)" = "$1" ] && [ "$(show NRestarts)" = "$2" ]; do
                tries=$((tries + 1)); [ $tries -lt 300 ] || { systemctl --user status varta; exit 1; }
                sleep 0.1
            done
        }
        systemctl --user start varta.socket varta-control.socket
        inode=$(stat -c %i "$2/varta.sock")
        show ActiveState
        mkfifo "$2/commands"
        "$5" --socket "$2/varta.sock" <"$2/commands" >/dev/null &
        worker=$!
        exec 3>"$2/commands"
        await "1 agent: 1 up" 0
        "$1" pause nobody --for 1h --socket "$2/varta.sock" >/dev/null 2>&1
        kill -KILL "$(show MainPID)"
        await "1 agent: 1 up" 1
        # A beat that comes during the stop would have the service started again.
        exec 3>&-
        wait "$worker"
        systemctl --user stop varta
        [ "$(stat -c %i "$2/varta.sock")" = "$inode" ]
        echo done"#;
    // A port that nobody has at the moment.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = script.replace("45983", &port);
    let Some(said) = with_systemd(&scratch, "sockets", &script) else { return };
    assert_eq!(said, ["inactive", "done"]);
}

/// Removes the cgroups of a manager that has ended, as soon as nothing is in them.
fn remove_cgroups(name: &str) {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for top in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(name)) {
        wait_until("the cgroups of systemd are empty", || remove_tree(&top));
    }
}

/// Removes a cgroup with those in it. Whether none is left.
fn remove_tree(cgroup: &Path) -> bool {
    for inner in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&inner.path());
        }
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    let mut command = Command::new("systemd-analyze");
    match command.args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "systemd-analyze: {error}");
            skip("systemd-analyze is not there");
            None
        }
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name)
}

#[test]
fn the_units_are_without_fault_and_expose_little_with_and_without_recovery() {
    let scratch = Scratch::make();
    let unit = scratch.directory().join("varta.service");
    let text = fs::read_to_string(shipped("varta.service")).unwrap();
    let program = server_command().get_program().to_str().unwrap().to_owned();
    fs::write(&unit, text.replace("/usr/bin/varta-server", &program)).unwrap();
    for socket in ["varta.socket", "varta-udp.socket"] {
        fs::copy(shipped(socket), scratch.directory().join(socket)).unwrap();
    }
    for socket in ["varta.socket", "varta-udp.socket"] {
        let Some(verified) = analyze(&["verify"], &scratch.directory().join(socket)) else { return };
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    }
    let drop_ins = scratch.directory().join("varta.service.d");
    for has_recovery in [false, true] {
        if has_recovery {
            fs::create_dir(&drop_ins).unwrap();
            fs::copy(shipped("recovery.conf"), drop_ins.join("recovery.conf")).unwrap();
        }
        let Some(verified) = analyze(&["verify"], &unit) else { return };
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
        let rated = analyze(&["security", "--offline=yes", "--threshold=25"], &unit).unwrap();
        assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
    }
}
