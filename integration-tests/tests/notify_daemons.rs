//! Daemons of a distribution, with nothing but a small configuration, and clients of others, at the socket for
//! notifications: each is started, reloaded, stopped by SIGSTOP, killed, and ended in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use varta_integration_tests::sys::NOBODY;
use varta_integration_tests::{
    AgentProcess, ExecProcess, Options, Scratch, Server, Signal, agent, exec_command, foreign, line_with,
    metric, notify_crate_command, sys, wait_for, wait_until,
};

/// What a daemon does when it is told to end in order.
#[derive(Clone, Copy)]
enum End {
    /// It says that it stops.
    Goodbye,
    /// It just ends, with status 0.
    Exit,
}

/// A daemon of which this is the way to start it in a directory, and to have it reload.
struct Daemon {
    server: Server,
    scratch: Scratch,
    address: String,
    program: String,
    command: fn(&mut Command, &Scratch),
}

/// A running daemon, which is killed when this is dropped.
struct Running(Child);

impl Running {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        sys::send_signal(self.pid(), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// `None` where it was not fetched.
    fn fetched(program: &str, command: fn(&mut Command, &Scratch)) -> Option<Self> {
        foreign::command(&format!("daemons/{program}"))?;
        let scratch = Scratch::make();
        // Some of them become another user.
        fs::set_permissions(scratch.path("."), fs::Permissions::from_mode(0o777)).unwrap();
        let address = scratch.path("notify").to_str().unwrap().to_owned();
        let server = Server::start(Options::from(["--stall-after", "2s", "--notify-socket", &address]));
        Some(Daemon { server, scratch, address, program: program.to_owned(), command })
    }

    /// Starts it, and waits until it is known.
    fn start(&self) -> Running {
        let mut command = foreign::command(&format!("daemons/{}", self.program)).unwrap();
        command.env("LD_LIBRARY_PATH", libraries()).env("PATH", "/usr/bin:/bin");
        command.env("NOTIFY_SOCKET", &self.address).stdout(Stdio::null()).stderr(Stdio::null());
        (self.command)(&mut command, &self.scratch);
        let running = Running(command.spawn().unwrap());
        self.server.expect(agent(running.pid()).over("notify").up());
        running
    }

    /// The story that every daemon has: nothing is told but what happened.
    fn is_told_rightly(&self, reload: Option<Signal>, end: End) {
        let mut running = self.start();
        if let Some(reload) = reload {
            running.signal(reload);
        }
        // It never sends a keep-alive, so that nobody can know that it does nothing.
        running.signal(Signal::Stop);
        // When this one is called stalled, an agent that was to beat would be.
        let clock = self.server.start_agent(&["--name", "clock"]);
        clock.signal(Signal::Stop);
        self.server.expect(agent(&clock).stalled());
        running.signal(Signal::Continue);
        running.signal(Signal::Terminate);
        let gone = agent(running.pid()).gone();
        self.server.expect(gone.because(match end {
            End::Goodbye => "goodbye",
            End::Exit => "exited",
        }));
        running.wait();
        let running = self.start();
        running.signal(Signal::Kill);
        self.server.expect(agent(running.pid()).down().because("killed"));
        drop(running);
        let again = self.start();
        let changes = self.server.transitions();
        let alarms = changes.iter().filter(|change| matches!(change.to.as_str(), "down" | "stalled"));
        assert_eq!(alarms.count(), 2, "the clock, and the one that was killed");
        drop(again);
    }
}

/// As libraries of this architecture are in a directory of.
fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// Where the libraries of the daemons are.
fn libraries() -> String {
    ["usr/lib", "lib"].map(|at| daemons().join(at).join(triplet()).display().to_string()).join(":")
}

fn daemons() -> PathBuf {
    foreign::directory().join("daemons")
}

#[test]
fn redis_says_that_it_stops() {
    let Some(redis) = Daemon::fetched("usr/bin/redis-server", |command, scratch| {
        command
            .args(["--port", "0", "--supervised", "systemd", "--save", "", "--dir"])
            .arg(scratch.path("."));
        command.arg("--unixsocket").arg(scratch.path("redis.sock"));
    }) else {
        return;
    };
    redis.is_told_rightly(None, End::Goodbye);
}

#[test]
fn unbound_reloads_and_says_that_it_stops() {
    let Some(unbound) = Daemon::fetched("usr/sbin/unbound", |command, scratch| {
        let text = format!(
            "server:\n username: \"\"\n chroot: \"\"\n directory: {:?}\n do-daemonize: no\n use-syslog: no\n \
             pidfile: \"\"\n interface: 127.0.0.1@{}\n do-tcp: no\n",
            scratch.path("."),
            free_udp_port()
        );
        command.arg("-d").arg("-c").arg(scratch.write("unbound.conf", &text));
    }) else {
        return;
    };
    unbound.is_told_rightly(Some(Signal::HangUp), End::Goodbye);
}

#[test]
fn mariadb_says_that_it_stops() {
    let Some(mariadb) = Daemon::fetched("usr/sbin/mariadbd", |command, scratch| {
        let data = scratch.path("data");
        fs::create_dir_all(&data).unwrap();
        let share = daemons().join("usr/share/mysql");
        command.args(["--no-defaults", "--user=root", "--skip-grant-tables", "--skip-networking"]);
        command.arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", scratch.path("maria.sock").display()));
        command.arg(format!("--lc-messages-dir={}", share.display()));
        command.arg(format!("--character-sets-dir={}", share.join("charsets").display()));
    }) else {
        return;
    };
    mariadb.is_told_rightly(None, End::Goodbye);
}

#[test]
fn haproxy_reloads_before_it_is_ready_and_after_that() {
    let Some(haproxy) = Daemon::fetched("usr/sbin/haproxy", |command, scratch| {
        let text = format!(
            "defaults\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nfrontend f\n bind unix@{}\n",
            scratch.path("haproxy.sock").display()
        );
        command.args(["-Ws", "-f"]).arg(scratch.write("haproxy.cfg", &text));
    }) else {
        return;
    };
    let running = haproxy.start();
    running.signal(Signal::User2);
    haproxy.server.expect(
        metric("varta_frames_total").with("transport", "notify").with("outcome", "accepted").at_least(4.0),
    );
    running.signal(Signal::User1);
    haproxy.server.expect(agent(running.pid()).gone().because("goodbye"));
    haproxy.server.expect_history(running.pid(), &["up: first_beat", "gone: goodbye"]);
    drop(running);
    let running = haproxy.start();
    running.signal(Signal::Kill);
    haproxy.server.expect(agent(running.pid()).down().because("killed"));
}

#[test]
fn a_php_fpm_that_hangs_is_found_by_its_keep_alives() {
    let found = fs::read_dir(daemons().join("usr/sbin")).ok();
    let names = found.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.starts_with("php-fpm")).max().unwrap_or_else(|| "php-fpm".to_owned());
    let Some(php) = Daemon::fetched(&format!("usr/sbin/{name}"), |command, scratch| {
        let text = format!(
            "[global]\nerror_log={}\ndaemonize=no\n[www]\nlisten={}\nuser=root\ngroup=root\npm=static\n\
             pm.max_children=1\n",
            scratch.path("php.log").display(),
            scratch.path("php.sock").display()
        );
        // With as many microseconds as it takes for it to send keep-alives.
        command
            .env("WATCHDOG_USEC", "4000000")
            .args(["-F", "-R", "-y"])
            .arg(scratch.write("php.conf", &text));
    }) else {
        return;
    };
    let mut running = php.start();
    wait_until("its keep-alives are awaited", || {
        php.server.scrape().of_agent("varta_beats_total", running.pid()) >= 5.0
    });
    running.signal(Signal::User2);
    wait_until("it has reloaded and goes on", || {
        php.server.scrape().of_agent("varta_beats_total", running.pid()) >= 8.0
    });
    running.signal(Signal::Stop);
    php.server.expect(agent(running.pid()).stalled().seen_as("stopped"));
    running.signal(Signal::Continue);
    php.server.expect(agent(running.pid()).up().because("recovered"));
    running.signal(Signal::Terminate);
    php.server.expect(agent(running.pid()).gone().because("exited"));
    running.wait();
    let running = php.start();
    running.signal(Signal::Kill);
    php.server.expect(agent(running.pid()).down().because("killed"));
}

#[test]
fn mosquitto_just_ends() {
    let Some(mosquitto) = Daemon::fetched("usr/sbin/mosquitto", |command, scratch| {
        let text = format!("listener 0 {}\nuser root\n", scratch.path("mosquitto.sock").display());
        command.arg("-c").arg(scratch.write("mosquitto.conf", &text));
    }) else {
        return;
    };
    mosquitto.is_told_rightly(Some(Signal::HangUp), End::Exit);
}

#[test]
fn rsyslog_just_ends() {
    let Some(rsyslog) = Daemon::fetched("usr/sbin/rsyslogd", |command, scratch| {
        let modules = daemons().join("usr/lib").join(triplet()).join("rsyslog");
        let text = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket={:?})\n*.* {}\n",
            scratch.path("log.sock"),
            scratch.path("log").display()
        );
        command.args(["-n", "-f"]).arg(scratch.write("rsyslog.conf", &text));
        command.arg("-i").arg(scratch.path("rsyslog.pid")).arg("-M").arg(modules);
    }) else {
        return;
    };
    rsyslog.is_told_rightly(Some(Signal::HangUp), End::Exit);
}

#[test]
fn openvpn_just_ends() {
    let Some(openvpn) = Daemon::fetched("usr/sbin/openvpn", |command, scratch| {
        let key: String = (0..16).map(|line| format!("{:032x}\n", 0x1f2e_3d4c_u64 + line)).collect();
        let key =
            format!("-----BEGIN OpenVPN Static key V1-----\n{key}-----END OpenVPN Static key V1-----\n");
        let key = scratch.write("key", &key);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        command.args([
            "--dev",
            "null",
            "--lport",
            "0",
            "--proto",
            "udp",
            "--cipher",
            "AES-256-CBC",
            "--secret",
        ]);
        command.arg(key);
    }) else {
        return;
    };
    let mut running = openvpn.start();
    // It misses a signal that comes right before it begins to wait.
    wait_until("it ends", || {
        running.signal(Signal::Terminate);
        running.0.try_wait().unwrap().is_some()
    });
    openvpn.server.expect(agent(running.pid()).gone().because("exited"));
    let running = openvpn.start();
    running.signal(Signal::Kill);
    openvpn.server.expect(agent(running.pid()).down().because("killed"));
}

#[test]
fn the_kid_of_squid_is_the_service_and_the_next_kid_takes_its_place() {
    if sys::user() != 0 {
        return foreign::skip("only root can start squid as another user");
    }
    let Some(mut command) = foreign::command("daemons/usr/sbin/squid") else { return };
    let scratch = Scratch::make();
    fs::set_permissions(scratch.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    let address = scratch.path("notify").to_str().unwrap().to_owned();
    let nobody = NOBODY.to_string();
    let options = ["--stall-after", "1h", "--notify-socket", &address, "--allow-uid", &nobody];
    let server = Server::start(Options::from(options).args(["--notify-socket-mode", "0666"]));
    let at = |place: &str| daemons().join(place).display().to_string();
    let text = format!(
        "http_port 127.0.0.1:{}\npid_filename {}\ncache_log /dev/null\naccess_log none\ncache_mem 8 MB\n\
         icon_directory {}\nerror_directory {}\nmime_table {}\nunlinkd_program {}\npinger_enable off\n\
         shutdown_lifetime 1 seconds\nnetdb_filename none\n",
        free_port(),
        scratch.path("squid.pid").display(),
        at("usr/share/squid/icons"),
        at("usr/share/squid/errors/en"),
        at("usr/share/squid/mime.conf"),
        at("usr/lib/squid/unlinkd"),
    );
    command.arg("--foreground").arg("-f").arg(scratch.write("squid.conf", &text));
    // As another user from the start: one that changes its user has the kid found without these libraries.
    command.env("LD_LIBRARY_PATH", libraries()).env("NOTIFY_SOCKET", &address).uid(NOBODY).gid(NOBODY);
    let mut squid = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let kid = server.expect(agent("squid").over("notify").up()).pid;
    assert_ne!(kid, squid.pid());
    sys::send_signal(kid, Signal::Kill).unwrap();
    server.expect(agent(kid).down().because("killed"));
    let next = wait_for(|| {
        let changes = server.transitions();
        changes.iter().find(|change| change.to == "up" && change.pid != kid).map(|change| change.pid)
    });
    let next = next.unwrap();
    squid.signal(Signal::Terminate);
    server.expect(agent(next).gone().because("exited"));
    squid.wait();
}

#[test]
fn nats_says_nothing_by_itself_and_is_watched_by_exec() {
    let Some(nats) = foreign::command("daemons/usr/sbin/nats-server") else { return };
    let scratch = Scratch::make();
    let address = scratch.path("notify").to_str().unwrap().to_owned();
    let server = Server::start(Options::from(["--stall-after", "1h", "--notify-socket", &address]));
    let program = nats.get_program().to_str().unwrap();
    let start = || {
        // It ends with status 1 also when it was asked to.
        let options = ["--beat=alive", "--every=100ms", "--success-exit-codes=1"];
        let words = [program, "--addr", "127.0.0.1", "--port", "-1"];
        let mut command = exec_command(server.socket(), &options, &words);
        command.env("LD_LIBRARY_PATH", libraries()).env("NOTIFY_SOCKET", &address);
        let exec = ExecProcess::run(command);
        server.expect(agent(exec.pid()).over("unix").up());
        exec
    };
    let exec = start();
    exec.await_said("Server is ready");
    sys::send_signal(exec.command_pid(), Signal::Stop).unwrap();
    server.expect(agent(exec.pid()).stalled());
    sys::send_signal(exec.command_pid(), Signal::Continue).unwrap();
    server.expect(agent(exec.pid()).up().because("recovered"));
    exec.signal(Signal::Terminate);
    server.expect(agent(exec.pid()).gone().because("goodbye"));
    let exec = start();
    sys::send_signal(exec.command_pid(), Signal::Kill).unwrap();
    server.expect(agent(exec.pid()).down().because("killed"));
    assert!(
        server.transitions().iter().all(|change| change.transport == "unix"),
        "it speaks no sd_notify(3)"
    );
}

#[test]
fn a_script_that_uses_systemd_notify_is_the_service() {
    let Some(notify) = foreign::installed("systemd-notify") else { return };
    let scratch = Scratch::make();
    let address = scratch.path("notify").to_str().unwrap().to_owned();
    let server = Server::start(Options::from(["--stall-after", "1h", "--notify-socket", &address]));
    let tool = PathBuf::from(notify.get_program());
    let text = format!(
        "#!/bin/sh\n{tool} --ready --status=one\necho ready\nwhile read -r line; do {tool} \"$line\"; echo ok; done\n",
        tool = tool.display()
    );
    let script = scratch.write("service", &text);
    let mut command = Command::new("/bin/sh");
    command.arg(script).env("NOTIFY_SOCKET", &address);
    let mut service = AgentProcess::run(command);
    server.expect(agent(&service).over("notify").up());
    service.ask("WATCHDOG_USEC=1500000");
    service.ask("WATCHDOG=1");
    server.expect(agent(&service).stalled());
    service.ask("WATCHDOG=1");
    server.expect(agent(&service).up().because("recovered"));
    service.ask("STOPPING=1");
    server.expect(agent(&service).gone().because("goodbye"));
    assert_eq!(server.scrape().value("varta_notify_services", &[]), 1.0, "no call of the tool is a service");
}

#[test]
fn clients_for_python_are_understood() {
    let scratch = Scratch::make();
    let address = scratch.path("notify").to_str().unwrap().to_owned();
    let server = Server::start(Options::from(["--stall-after", "1h", "--notify-socket", &address]));
    let run = |program: &str| {
        let mut command = foreign::command("venv/bin/python")?;
        command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "1500000").args(["-c", program]);
        Some(AgentProcess::run(command))
    };
    let Some(mut service) = run(
        "import sdnotify, sys\nn = sdnotify.SystemdNotifier()\nn.notify('READY=1')\nprint('ready', flush=True)\n\
         for line in sys.stdin:\n    n.notify(line.strip())\n    print('ok', flush=True)\n",
    ) else {
        return;
    };
    server.expect(agent(&service).over("notify").up());
    service.ask("WATCHDOG=1");
    server.expect(agent(&service).stalled());
    service.ask("WATCHDOG=1");
    server.expect(agent(&service).up().because("recovered"));
    service.ask("STOPPING=1");
    server.expect(agent(&service).gone());
    // One that keeps its own time: it pings at once, and once per half of the watchdog's time.
    let watched = run(
        "import systemd_watchdog, sys, select\nw = systemd_watchdog.watchdog()\nw.ready()\nprint('ready', flush=True)\n\
         while not select.select([sys.stdin], [], [], 0.1)[0]:\n    w.ping()\n",
    )
    .unwrap();
    server.expect(agent(&watched).over("notify").up());
    server.await_scrape("it keeps alive", |scrape| {
        scrape
            .get("varta_beats_total", &[("pid", &watched.pid().to_string())])
            .is_some_and(|beats| beats >= 2.0)
    });
    watched.signal(Signal::Kill);
    server.expect(agent(&watched).down().because("killed"));
}

#[test]
fn crates_for_rust_are_understood() {
    let scratch = Scratch::make();
    let path = scratch.path("notify").to_str().unwrap().to_owned();
    let abstract_name = format!("@varta-crates-{}", std::process::id());
    let sockets = ["--notify-socket", &path, "--notify-socket", &abstract_name];
    let server = Server::start(Options::from(["--stall-after", "1h"]).args(sockets));
    // The first knows no abstract addresses.
    for (name, address) in [("sd-notify", &path), ("libsystemd", &path), ("libsystemd", &abstract_name)] {
        let mut service = AgentProcess::run(notify_crate_command(name, address));
        // An empty list is an empty datagram, which says nothing.
        service.ask("nothing");
        service.ask("ready");
        let up = server.expect(agent(&service).over("notify").up());
        service.ask("deadline 1500000");
        service.ask("keep-alive");
        server.expect(agent(&service).stalled());
        service.ask("status tired\u{e9}");
        service.ask("keep-alive");
        server.expect(agent(&service).up().because("recovered"));
        let told = line_with(&format!("{}[{}] went from stalled to up", up.agent, up.pid));
        assert_eq!(server.expect(told)["said"], "tired\u{e9}");
        service.ask("reloading");
        service.ask("ready");
        service.ask("stopping");
        server.expect(agent(&service).gone().because("goodbye"));
        let told = ["up: first_beat", "stalled: idle", "up: recovered", "gone: goodbye"];
        server.expect_history(&service, &told);
    }
}

#[test]
fn gunicorn_is_one_service_with_its_workers() {
    let Some(mut command) = foreign::command("venv/bin/python") else { return };
    let scratch = Scratch::make();
    let address = scratch.path("notify").to_str().unwrap().to_owned();
    let server = Server::start(Options::from(["--stall-after", "1h", "--notify-socket", &address]));
    scratch.write("app.py", "def application(environ, start_response):\n    raise SystemExit\n");
    command
        .args(["-m", "gunicorn", "--workers", "2", "--bind"])
        .arg(format!("unix:{}", scratch.path("g.sock").display()));
    command.arg("--chdir").arg(scratch.path(".")).arg("app:application");
    command.env("NOTIFY_SOCKET", &address).stdout(Stdio::null()).stderr(Stdio::null());
    let mut arbiter = Running(command.spawn().unwrap());
    server.expect(agent(arbiter.pid()).over("notify").up());
    arbiter.signal(Signal::HangUp);
    arbiter.signal(Signal::Terminate);
    server.expect(agent(arbiter.pid()).gone());
    arbiter.wait();
    assert_eq!(server.transitions().len(), 2, "{:?}", server.transitions());
}

/// The same of TCP.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port that was free a moment ago.
fn free_udp_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
