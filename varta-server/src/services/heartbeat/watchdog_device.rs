//! The device of a hardware watchdog: fed, or it resets the host.
//!
//! Opening it arms it. The letter `V`, the last that is written before it is closed, disarms it; without that it
//! resets the host when its time is up, unless another server opens and feeds it before.
#![allow(unsafe_code, reason = "the requests of the device have no safe interface")]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `WATCHDOG_IOCTL_BASE` of the kernel's `linux/watchdog.h`.
const BASE: u32 = b'W' as u32;
/// `WDIOC_GETSUPPORT`.
const GET_SUPPORT: libc::Ioctl = libc::_IOR::<Support>(BASE, 0);
/// `WDIOC_SETTIMEOUT`. The kernel writes back the time that it has set.
const SET_TIMEOUT: libc::Ioctl = libc::_IOWR::<libc::c_int>(BASE, 6);
/// `WDIOC_GETTIMEOUT`.
const GET_TIMEOUT: libc::Ioctl = libc::_IOR::<libc::c_int>(BASE, 7);
/// `WDIOF_MAGICCLOSE`.
const MAGIC_CLOSE: u32 = 0x0100;

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Support {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// The size is part of the request's number.
const _: () = assert!(size_of::<Support>() == 40);

/// An armed watchdog.
#[derive(Debug)]
pub(super) struct WatchdogDevice {
    file: File,
    path: PathBuf,
    /// The time after which it resets the host.
    timeout: Duration,
    /// What the driver calls itself.
    driver: String,
    /// Whether the driver can be told to stop.
    can_disarm: bool,
    /// Whether it is to stay armed when it is closed.
    is_held: bool,
}

impl WatchdogDevice {
    /// Opens the device, which arms it, and sets its time in whole seconds, if one is given. It is disarmed again
    /// when it is dropped before it was fed.
    ///
    /// # Errors
    ///
    /// The fault, which begins with the path: it is no watchdog, is in use, or does not take the time.
    pub(super) fn open(path: &Path, timeout: Option<Duration>) -> Result<Self, String> {
        let refused = |fault: &dyn fmt::Display| format!("{}: {fault}", path.display());
        // Before it is opened, which would wait for the other end of a pipe.
        let kind = fs::metadata(path).map_err(|error| refused(&error))?.file_type();
        if !kind.is_char_device() {
            return Err(refused(&"is no character device; a watchdog is one, such as /dev/watchdog0"));
        }
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(
            |error| match error.raw_os_error() {
                Some(libc::EBUSY) => refused(
                    &"is in use by another program, as systemd with RuntimeWatchdogSec=; name another device",
                ),
                _ => refused(&error),
            },
        )?;
        let support = support(file.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => refused(&"is a device, but no watchdog"),
            _ => refused(&error),
        })?;
        let mut device = WatchdogDevice::new(file, path);
        device.can_disarm = support.options & MAGIC_CLOSE != 0;
        device.driver =
            String::from_utf8_lossy(&support.identity).trim_end_matches('\0').escape_debug().to_string();
        if let Some(timeout) = timeout {
            let seconds = libc::c_int::try_from(timeout.as_secs()).unwrap_or(libc::c_int::MAX);
            set_timeout(device.file.as_fd(), seconds)
                .map_err(|error| refused(&format!("does not take a timeout of {timeout:?}: {error}")))?;
        }
        let seconds = get_timeout(device.file.as_fd())
            .map_err(|error| refused(&format!("does not tell its timeout: {error}")))?;
        device.timeout = Duration::from_secs(seconds.try_into().unwrap_or_default());
        Ok(device)
    }

    /// A device that is open.
    fn new(file: File, path: &Path) -> Self {
        let path = path.to_owned();
        WatchdogDevice {
            file,
            path,
            timeout: Duration::ZERO,
            driver: String::new(),
            can_disarm: true,
            is_held: false,
        }
    }

    /// The time after which it resets the host when it is not fed.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the driver can be told to stop.
    pub(super) fn can_disarm(&self) -> bool {
        self.can_disarm
    }

    /// Starts its time anew. From then on it stays armed until [`disarm`](WatchdogDevice::disarm).
    ///
    /// # Errors
    ///
    /// That of the driver.
    pub(super) fn feed(&mut self) -> io::Result<()> {
        self.is_held = true;
        self.file.write_all(b"\0")
    }

    /// Disarms and closes it.
    ///
    /// # Errors
    ///
    /// That of the driver: it stays armed.
    pub(super) fn disarm(mut self) -> io::Result<()> {
        self.is_held = true;
        self.file.write_all(b"V")
    }
}

impl Drop for WatchdogDevice {
    fn drop(&mut self) {
        if !self.is_held
            && let Err(error) = self.file.write_all(b"V")
        {
            tracing::error!(target: "varta::heartbeat", "{}: stays armed: {error}", self.path.display());
        }
    }
}

impl fmt::Display for WatchdogDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.driver)
    }
}

fn support(device: BorrowedFd<'_>) -> io::Result<Support> {
    let mut support = Support::default();
    // SAFETY: the request writes a `struct watchdog_info`, which `Support` is, and the descriptor is open.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), GET_SUPPORT, &raw mut support) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(support) }
}

fn set_timeout(device: BorrowedFd<'_>, mut seconds: libc::c_int) -> io::Result<()> {
    // SAFETY: the request reads and writes an `int`, and the descriptor is open.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn get_timeout(device: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut seconds: libc::c_int = 0;
    // SAFETY: the request writes an `int`, and the descriptor is open.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), GET_TIMEOUT, &raw mut seconds) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(seconds) }
}

#[cfg(test)]
impl WatchdogDevice {
    /// One whose driver is a file.
    pub(super) fn for_test(path: &Path, timeout: Duration) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        let mut device = WatchdogDevice::new(file, path);
        device.timeout = timeout;
        device
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_no_watchdog_is_refused_without_waiting_or_writing() {
        let directory = tempfile::tempdir().unwrap();
        let [file, pipe, socket] = ["file", "pipe", "socket"].map(|name| directory.path().join(name));
        fs::write(&file, "text").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [file.as_path(), &pipe, &socket, directory.path()] {
            let said = WatchdogDevice::open(path, None).unwrap_err();
            let wanted = format!("{}: is no character device", path.display());
            assert!(said.starts_with(&wanted), "{said}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        let said = WatchdogDevice::open(Path::new("/dev/null"), None).unwrap_err();
        assert_eq!(said, "/dev/null: is a device, but no watchdog");
        assert!(
            WatchdogDevice::open(&directory.path().join("none"), None).unwrap_err().contains("No such file")
        );
    }

    #[test]
    fn a_device_is_disarmed_by_its_letter_or_when_it_was_never_fed_and_else_stays_armed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        let make = || {
            _ = fs::remove_file(&path);
            WatchdogDevice::for_test(&path, Duration::from_secs(30))
        };
        drop(make());
        assert_eq!(fs::read(&path).unwrap(), b"V");
        let mut fed = make();
        fed.feed().unwrap();
        fed.feed().unwrap();
        drop(fed);
        assert_eq!(fs::read(&path).unwrap(), b"\0\0");
        let mut disarmed = make();
        disarmed.feed().unwrap();
        disarmed.disarm().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\0V");
    }
}
