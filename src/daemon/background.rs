//! Starting in the background: the command returns when the mount answers, or with the reason why it does not.
//!
//! Owns: starting the daemon as a process of its own, and the pipe over which it says how that went.
//! Does not own: what the daemon does (`serve`).

use super::failure::{FailureKind, MountFailure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

/// Tells the daemon which descriptor its starter listens on. Not an argument: those are the user's.
const READY_VARIABLE: &str = "OBJFS_READY_FD";

/// Starts this program again with the same arguments, as a daemon, and waits for its word.
///
/// # Errors
/// The failure that the daemon reports, or that it ended without a word.
pub fn start(arguments: &[OsString]) -> Result<(), MountFailure> {
    let other = |e: io::Error| MountFailure::new(FailureKind::Other, format!("the daemon could not be started: {e}"));
    let program = std::env::current_exe().map_err(other)?;
    let (reader, writer) = nix::unistd::pipe().map_err(|e| other(e.into()))?;
    keep_descriptors().map_err(other)?;
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| other(e.into()))?;
    let mut command = Command::new(program);
    if let Some((name, rest)) = arguments.split_first() {
        use std::os::unix::process::CommandExt;
        command.arg0(name).args(rest);
    }
    let mut child = command
        .env(READY_VARIABLE, writer.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(other)?;
    drop(writer);
    let mut word = String::new();
    File::from(reader).read_to_string(&mut word).map_err(other)?;
    match serde_json::from_str::<Result<(), MountFailure>>(&word) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => {
            // It ends by itself; waiting leaves no zombie.
            drop(child.wait());
            Err(failure)
        }
        Err(_) => {
            let status = child.wait().map_err(other)?;
            Err(MountFailure::new(FailureKind::Other, format!("the daemon ended before the mount was ready: {status}")))
        }
    }
}

/// The daemon's end of the pipe.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// The pipe, if this process was started as a daemon; then it also leaves its starter's session.
    pub fn inherited() -> Option<Ready> {
        let fd: RawFd = std::env::var(READY_VARIABLE).ok()?.parse().ok()?;
        let pipe = own(fd)?;
        if nix::unistd::setsid().is_err() {
            tracing::debug!("leads a session of its own already");
        }
        Some(Ready(Some(pipe)))
    }

    /// Nobody listens: the daemon stays in the foreground.
    pub fn nobody() -> Ready {
        Ready(None)
    }

    /// Tells the starter, once.
    pub fn tell(&mut self, outcome: &Result<(), MountFailure>) {
        let Some(mut pipe) = self.0.take() else { return };
        let word = serde_json::to_string(outcome).unwrap_or_default();
        if let Err(e) = pipe.write_all(word.as_bytes()) {
            tracing::debug!(error = %e, "whoever started the mount is gone");
        }
        // Standard error is the starter's terminal: from here on there is the log.
        redirect_stderr();
    }
}

/// The daemon inherits nothing but its standard streams: a lock or a pipe of whoever called us is not held for its life.
#[expect(unsafe_code, reason = "nix has no close_range")]
fn keep_descriptors() -> io::Result<()> {
    // SAFETY: sets a flag on descriptors, and closes none.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "an inherited descriptor is a plain number until somebody owns it")]
fn own(fd: RawFd) -> Option<File> {
    if fd <= 2 {
        return None;
    }
    // SAFETY: our starter made this descriptor for us alone; if the number is stale, fcntl below says so.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Some(File::from(owned)),
        Err(_) => {
            std::mem::forget(owned);
            None
        }
    }
}

fn redirect_stderr() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null")
        && let Err(e) = nix::unistd::dup2_stderr(&null)
    {
        tracing::debug!(error = %e, "standard error stays open");
    }
}
