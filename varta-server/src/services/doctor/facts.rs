//! Gathers what the checks judge: from the server, the kernel, and by trying.

use std::fs::Metadata;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, eaccess};
use varta_proto::address::candidate_socket_paths;

use crate::base::clock::wall_now;
use crate::base::clock_sync;
use crate::observe::host_facts::{self, CgroupLimits, Use};
use crate::services::maintenance::{ControlArgs, Examination, examine};

/// How long a receiver of alerts may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The most receivers that are tried.
const MAX_RECEIVERS: usize = 16;

/// All that is judged.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the server says, or why it says nothing.
    pub(super) server: Result<Examination, String>,
    pub(super) sockets: Vec<Socket>,
    pub(super) clock: ClockFacts,
    pub(super) rmem_max: Option<u64>,
    pub(super) max_dgram_qlen: Option<u64>,
    pub(super) descriptors: Option<Use>,
    pub(super) cgroup: Option<CgroupLimits>,
    pub(super) state: Option<Place>,
    /// By `HOST:PORT`.
    pub(super) receivers: Vec<(String, Result<(), String>)>,
    /// What `config check --environment` says of the server's file; `None` where there is none.
    pub(super) configuration: Option<(PathBuf, Result<(), String>)>,
}

/// The clock of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockFacts {
    pub(super) now: SystemTime,
    /// When this program was built or installed: no earlier than that is the present.
    pub(super) program_from: Option<SystemTime>,
    pub(super) is_synchronised: Option<bool>,
}

/// A Unix socket on which agents beat.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) path: String,
    /// Its owner and mode; or what is wrong with it.
    pub(super) found: Result<(u32, u32), String>,
}

/// A directory to which the server writes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) found: Result<Room, String>,
}

/// What a file system has left for its users, of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) bytes: Use,
    /// `None` where files are not counted.
    pub(super) files: Option<Use>,
}

impl Facts {
    /// Gathers them. Takes some seconds if a receiver does not answer.
    pub(super) fn gather(control: &ControlArgs) -> Self {
        let server = control.path().and_then(|path| examine(&path)).map_err(|error| error.to_string());
        let pid = server.as_ref().ok().map(|server| server.pid);
        let sockets = match &server {
            Ok(server) => server.sockets.unix.clone(),
            Err(_) => likely_socket(control).into_iter().collect(),
        };
        let state = server.as_ref().ok().and_then(|server| server.state_dir.clone());
        let receivers = server.as_ref().map(|server| server.alertmanagers.clone()).unwrap_or_default();
        let file = control.config.clone().or_else(|| pid.and_then(host_facts::config_file));
        Facts {
            sockets: sockets.into_iter().map(Socket::look).collect(),
            clock: ClockFacts {
                now: wall_now(),
                program_from: std::env::current_exe().and_then(|path| path.metadata()?.modified()).ok(),
                is_synchronised: clock_sync::is_synchronised(),
            },
            rmem_max: host_facts::sysctl("net/core/rmem_max"),
            max_dgram_qlen: host_facts::sysctl("net/unix/max_dgram_qlen"),
            descriptors: pid.and_then(host_facts::descriptors),
            cgroup: pid.and_then(host_facts::cgroup_limits),
            state: state.map(Place::look),
            receivers: receivers
                .into_iter()
                .take(MAX_RECEIVERS)
                .map(|address| {
                    let reached = reach(&address);
                    (address, reached)
                })
                .collect(),
            configuration: file.map(|file| {
                let checked = check_configuration(&file);
                (file, checked)
            }),
            server,
        }
    }
}

/// Where the socket of a server would be that does not answer.
fn likely_socket(control: &ControlArgs) -> Option<String> {
    let given = control.socket.first().cloned();
    let usual = || {
        let paths = candidate_socket_paths(nix::unistd::geteuid().as_raw());
        let there = paths.iter().find(|path| path.exists()).or(paths.first());
        there.cloned()
    };
    Some(given.or_else(usual)?.to_string_lossy().into_owned())
}

impl Socket {
    fn look(path: String) -> Self {
        let found = look_at_socket(Path::new(&path));
        Socket { path, found }
    }
}

fn look_at_socket(path: &Path) -> Result<(u32, u32), String> {
    let found: Metadata = path.symlink_metadata().map_err(|error| format!("cannot be seen: {error}"))?;
    if !found.file_type().is_socket() {
        return Err("is no socket".to_owned());
    }
    let own = UnixDatagram::unbound().map_err(|error| format!("cannot be tried: {error}"))?;
    own.connect(path).map_err(|error| format!("cannot be connected to: {error}"))?;
    Ok((found.uid(), found.mode() & 0o7777))
}

impl Place {
    fn look(path: String) -> Self {
        let found = look_at_place(Path::new(&path));
        Place { path, found }
    }
}

fn look_at_place(path: &Path) -> Result<Room, String> {
    eaccess(path, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|error| format!("cannot be written to: {}", std::io::Error::from(error)))?;
    let found = statvfs(path).map_err(|error| format!("cannot be asked for room: {error}"))?;
    let size = found.fragment_size();
    let of = |free: u64, all: u64| Use { used: all.saturating_sub(free), most: all };
    Ok(Room {
        bytes: of(found.blocks_available().saturating_mul(size), found.blocks().saturating_mul(size)),
        files: (found.files() > 0).then(|| of(found.files_available(), found.files())),
    })
}

/// Whether somebody accepts a connection at `HOST:PORT`.
fn reach(address: &str) -> Result<(), String> {
    let addresses = address.to_socket_addrs().map_err(|error| format!("has no address: {error}"))?;
    let mut fault = "has no address".to_owned();
    for address in addresses.take(4) {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(_) => return Ok(()),
            Err(error) => fault = format!("cannot be reached: {error}"),
        }
    }
    Err(fault)
}

/// What the check of a configuration file says, by this program.
fn check_configuration(file: &Path) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot be checked: {error}"))?;
    let ran = Command::new(program).args(["config", "check", "--environment"]).arg(file).output();
    let ran = ran.map_err(|error| format!("cannot be checked: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let lines: Vec<_> =
        said.lines().map(|line| line.strip_prefix("varta-server: ").unwrap_or(line)).collect();
    Err(lines.join("; "))
}
