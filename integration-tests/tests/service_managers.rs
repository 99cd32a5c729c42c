//! Real prefork servers and a real service manager: what they do to their processes every day is no alarm, and nothing is
//! done about it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use varta_integration_tests::{
    Options, Receiver, Scratch, Server, Signal, agent, any_agent, foreign, http, metric, run_to_its_end, sys,
    wait_until,
};

/// The workers of a prefork server.
const WORKERS: usize = 2;
/// The requests after which a worker is recycled, and how many are made.
const REQUESTS_OF_A_WORKER: usize = 3;
const REQUESTS: usize = 30;

/// A server that tells a receiver of each alarm and would do something about it.
struct Watched {
    receiver: Receiver,
    scratch: Scratch,
    server: Server,
}

impl Watched {
    fn start() -> Self {
        let (receiver, scratch) = (Receiver::start([]), Scratch::make());
        let note = scratch.write("note", "#!/bin/sh\necho \"$1\" >> \"$2\"\n");
        let command = format!("/bin/sh {} {{name}} {}", note.display(), scratch.path("notes").display());
        let options = Options::from(["--stall-after", "1h", "--replaced-within", "5s"])
            .args(["--webhook".to_owned(), receiver.url("/hook")])
            .args(["--recovery-exec".to_owned(), command])
            .path("--audit-log", &scratch.path("audit.log"));
        let server = Server::start(options);
        Watched { receiver, scratch, server }
    }

    /// The module that beats and answers requests.
    fn module(&self) -> PathBuf {
        self.scratch.write("managed_agent.py", include_str!("../src/managed_agent.py"))
    }

    /// Kills an agent whose place nobody takes. When that is told and something was done about it, so was
    /// everything before.
    #[track_caller]
    fn assert_nothing_but_a_real_death_is_told(&self) {
        let victim = self.server.start_agent(&["--name", "victim"]);
        victim.signal(Signal::Kill);
        self.server.expect(agent(&victim).down().because("killed"));
        let requests = self.receiver.await_requests(1);
        let told: Vec<_> = requests.iter().map(|request| request.json()["agent"]["name"].clone()).collect();
        assert_eq!(told, ["victim"]);
        wait_until("something is done about it", || !self.scratch.lines("notes").is_empty());
        assert_eq!(self.scratch.lines("notes"), ["victim"]);
    }
}

/// A program that ends with the test, and its children with it.
struct Program(Child);

impl Program {
    fn start(mut command: Command, watched: &Watched) -> Self {
        let child = command
            .current_dir(watched.module().parent().unwrap())
            .env("VARTA_TEST_SOCKET", watched.server.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Program(child.unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It ends its children before it ends.
        let _ = sys::send_signal(self.0.id(), Signal::Terminate);
        let _ = self.0.wait();
    }
}

/// Makes requests of a prefork server, whose workers end after a few, and each of which is answered.
#[track_caller]
fn assert_recycling_is_no_alarm(command: Command, address: SocketAddr, status: u64) {
    let watched = Watched::start();
    let _program = Program::start(command, &watched);
    watched.server.await_agents("up", WORKERS);
    for request in 1..=REQUESTS {
        let mut answer = None;
        wait_until("it is answered", || {
            answer = http::get(address, "/", &[]).ok();
            answer.is_some()
        });
        assert_eq!(answer.unwrap().status, 200);
        // Those that have answered all theirs end before the next, however the requests were shared out.
        let spread = WORKERS * (REQUESTS_OF_A_WORKER - 1);
        let recycled = request.saturating_sub(spread) / REQUESTS_OF_A_WORKER;
        watched.server.await_scrape("workers are recycled", |scrape| {
            scrape.sum("varta_transitions_total", &[("to", "gone")])
                + scrape.sum("varta_transitions_total", &[("to", "down")])
                >= recycled as f64
        });
    }
    // The end of one whose successor has come already is no more than that it is gone.
    let ends = watched.server.transitions().into_iter().filter(|change| change.to != "up");
    assert!(
        ends.map(|end| end.exit_code).all(|code| code == Some(status)),
        "{:?}",
        watched.server.transitions()
    );
    watched.server.await_scrape("all are up, and no dead one has a row", |scrape| {
        let count = |state| scrape.value("varta_agents", &[("state", state)]);
        count("up") == WORKERS as f64 && count("down") == 0.0
    });
    watched.assert_nothing_but_a_real_death_is_told();
}

#[test]
fn the_workers_that_gunicorn_recycles_are_no_alarm() {
    let Some(mut gunicorn) = foreign::command("venv/bin/gunicorn") else { return };
    let address = Receiver::nowhere();
    gunicorn.args(["--workers", &WORKERS.to_string(), "--max-requests", &REQUESTS_OF_A_WORKER.to_string()]);
    gunicorn.args(["--bind", &address.to_string(), "managed_agent:application"]);
    assert_recycling_is_no_alarm(gunicorn, address, 0);
}

/// Its workers end with status 30, and another takes the place of each.
#[test]
fn the_workers_that_uwsgi_recycles_are_no_alarm() {
    let Some(mut uwsgi) = foreign::command("venv/bin/uwsgi") else { return };
    let address = Receiver::nowhere();
    uwsgi.args(["--master", "--lazy-apps", "--enable-threads", "--processes", &WORKERS.to_string()]);
    uwsgi.args(["--max-requests", &REQUESTS_OF_A_WORKER.to_string(), "--min-worker-lifetime", "0"]);
    uwsgi.args(["--http-socket", &address.to_string(), "--wsgi-file", "managed_agent.py"]);
    assert_recycling_is_no_alarm(uwsgi, address, 30);
}

/// A stop, a restart and a crash that the manager mends.
#[test]
fn what_supervisord_does_to_its_programs_is_no_alarm_and_is_not_undone() {
    let Some(mut supervisord) = foreign::command("venv/bin/supervisord") else { return };
    let watched = Watched::start();
    let python = foreign::command("venv/bin/python").unwrap();
    let (socket, module) = (watched.scratch.path("supervisor.sock"), watched.module());
    let configuration = format!(
        "[supervisord]\nnodaemon = true\nlogfile = /dev/null\nlogfile_maxbytes = 0\npidfile = {pidfile}\n\
         [unix_http_server]\nfile = {socket}\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl = unix://{socket}\n\
         [program:agent]\ncommand = {python} {module}\nprocess_name = agent%(process_num)d\nnumprocs = {WORKERS}\n\
         startsecs = 0\nautorestart = true\n",
        pidfile = watched.scratch.path("supervisord.pid").display(),
        socket = socket.display(),
        python = python.get_program().display(),
        module = module.display(),
    );
    let configuration = watched.scratch.write("supervisord.conf", &configuration);
    supervisord.arg("--configuration").arg(&configuration);
    let _program = Program::start(supervisord, &watched);
    let control = |action: &str| {
        let mut control = foreign::command("venv/bin/supervisorctl").unwrap();
        control.arg("--configuration").arg(&configuration).args([action, "agent:*"]);
        let ended = run_to_its_end(control);
        assert!(ended.status.success(), "{}", ended.stdout);
    };
    let running = |count: usize| {
        let up = metric("varta_agents").with("state", "up").is(count as f64);
        watched.server.expect(up);
    };

    running(WORKERS);
    control("restart");
    watched.server.expect(any_agent().becomes("gone").because("killed"));
    running(WORKERS);
    // The manager starts another at once.
    let scrape = watched.server.scrape();
    let victim = scrape.matching("varta_agent_up", &[]).find(|row| row.value == 1.0).unwrap();
    let victim: u32 = victim.labels["pid"].parse().unwrap();
    sys::send_signal(victim, Signal::Kill).unwrap();
    watched.server.expect(agent(victim).down().because("killed"));
    running(WORKERS);
    control("stop");
    running(0);
    watched.assert_nothing_but_a_real_death_is_told();
}
