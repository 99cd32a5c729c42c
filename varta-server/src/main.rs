//! `varta-server`: reads its options, starts the server, and stops it on a signal; or does one of the other
//! tasks.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use varta_server::cli::{self, Args, unknown_variables};
use varta_server::config::ConfigFile;
use varta_server::{Error, GivenSockets, Program, Server, logging, reap_adopted_children, reset_inherited};

/// The time that blocking work outside the runtime gets when the server has stopped.
const LAST_WORK_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    let done = match cli::exec_alone(&words) {
        Some(exec) => exec.run(),
        None => Args::read(words).and_then(run),
    };
    match done {
        Ok(status) => status,
        // Ends here with status 2 and a message for a wrong option, with 0 for --help and --version.
        Err(Error::Usage(usage)) => usage.exit(),
        Err(error) => {
            // The last word, when the log may not even have started. Whether anybody can hear it makes no
            // difference.
            let lines = error.to_string().replace('\n', "\nvarta-server: ");
            let _ = writeln!(io::stderr(), "varta-server: {lines}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Error> {
    match &args.task {
        Some(task) => cli::run(task, &args).map_err(|error| args.locate(error)),
        None => serve(args).map(|()| ExitCode::SUCCESS),
    }
}

fn serve(args: Args) -> Result<(), Error> {
    let failed = |action| move |source| Error::Runtime { action, source };
    // Before the log, which starts a thread.
    reset_inherited().map_err(failed("undo what was done to signals"))?;
    let given = GivenSockets::from_environment()?;
    // Written out when it is dropped, so it lives until the end.
    let _log = match logging::start(args.log_format, args.log_level.as_deref()) {
        Ok(log) => log,
        // With all other faults of the configuration.
        Err(error) => return Err(args.into_config().err().unwrap_or(error)),
    };
    let of_file = args.file.as_ref().and_then(ConfigFile::warning).map(str::to_owned);
    for warning in of_file.into_iter().chain(unknown_variables()) {
        tracing::warn!(target: "varta::server", "{warning}");
    }
    let program = Program::of_this_process().map_err(failed("find out where this program is"))?;
    let takes_over = args.take_over;
    let config = args.into_config()?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed("start the runtime"))?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("watch for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("watch for SIGINT"))?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(failed("watch for SIGHUP"))?;
        // Beyond RLIMIT_FSIZE a write to the state fails, which is logged and counted; the signal must not
        // end the server.
        let _ends_nothing = signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(failed("catch SIGXFSZ"))?;
        reap_adopted_children().map_err(failed("watch for SIGCHLD"))?;
        // After the handlers: from here on, a signal ends the server in order, which removes the sockets.
        let server =
            if takes_over { Server::take_over(config, given) } else { Server::bind_or_take(config, given) };
        let server = server?.upgrade_by(program);
        let reloader = server.reloader();
        let reloads = async {
            while hang_up.recv().await.is_some() {
                // The result is in the log.
                drop(reloader.reload().await);
            }
        };
        // A reload that takes long does not hold up the end.
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = reloads => {}
            }
        };
        server.run(shutdown).await
    });
    // A look-up of a name, for an alert, may take longer than anybody wants to wait.
    runtime.shutdown_timeout(LAST_WORK_WITHIN);
    served
}
