//! Exit codes.
//!
//! Owns: every code that the program ends with, and what each means. Does not own: the sentences (`daemon::failure`).

use crate::daemon::{FailureKind, MountFailure};
use std::fmt;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ExitCode {
    /// Done.
    Ok = 0,
    /// An option or argument is wrong (mount(8): incorrect invocation).
    Usage = 1,
    /// Could not be mounted, for a reason that has no code of its own (mount(8): mount failure).
    MountFailure = 32,
    /// The bucket does not exist.
    NoSuchBucket = 40,
    /// No credentials, or wrong ones.
    Credentials = 41,
    /// The credentials may not list the bucket.
    AccessDenied = 42,
    /// The server cannot be reached.
    Unreachable = 43,
    /// The mountpoint does not exist or is no directory.
    MountpointMissing = 50,
    /// The mountpoint is not empty.
    MountpointNotEmpty = 51,
    /// Something is mounted there already.
    AlreadyMounted = 52,
    /// FUSE is not to be had.
    NoFuse = 53,
    /// Another mount has this bucket and prefix.
    Busy = 54,
    /// State on this machine cannot be used.
    State = 55,
    /// Nothing of objfs is mounted there.
    NotMounted = 60,
    /// Not everything could be committed, so it was not unmounted.
    NotCommitted = 61,
}

/// Every code with its meaning, for `--help`.
pub(super) const EXIT_CODES: [(ExitCode, &str); 15] = [
    (ExitCode::Ok, "done"),
    (ExitCode::Usage, "wrong option or argument"),
    (ExitCode::MountFailure, "mount failed"),
    (ExitCode::NoSuchBucket, "no such bucket"),
    (ExitCode::Credentials, "credentials missing or wrong"),
    (ExitCode::AccessDenied, "credentials may not list the bucket"),
    (ExitCode::Unreachable, "server cannot be reached"),
    (ExitCode::MountpointMissing, "mountpoint missing"),
    (ExitCode::MountpointNotEmpty, "mountpoint not empty"),
    (ExitCode::AlreadyMounted, "already mounted"),
    (ExitCode::NoFuse, "no /dev/fuse or fusermount3"),
    (ExitCode::Busy, "bucket and prefix mounted elsewhere on this machine"),
    (ExitCode::State, "state on this machine cannot be used"),
    (ExitCode::NotMounted, "not mounted"),
    (ExitCode::NotCommitted, "not everything committed, still mounted"),
];

/// A failure that ends the program.
#[derive(Debug, thiserror::Error)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: ExitCode,
    /// One sentence.
    pub(super) message: String,
}

impl Failure {
    /// A failure with this code.
    pub(super) fn new(code: ExitCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<MountFailure> for Failure {
    fn from(failure: MountFailure) -> Failure {
        let code = match failure.kind {
            FailureKind::Usage => ExitCode::Usage,
            FailureKind::NoSuchBucket => ExitCode::NoSuchBucket,
            FailureKind::Credentials => ExitCode::Credentials,
            FailureKind::AccessDenied => ExitCode::AccessDenied,
            FailureKind::Unreachable => ExitCode::Unreachable,
            FailureKind::MountpointMissing => ExitCode::MountpointMissing,
            FailureKind::MountpointNotEmpty => ExitCode::MountpointNotEmpty,
            FailureKind::AlreadyMounted => ExitCode::AlreadyMounted,
            FailureKind::NoFuse => ExitCode::NoFuse,
            FailureKind::Busy => ExitCode::Busy,
            FailureKind::State => ExitCode::State,
            FailureKind::Other => ExitCode::MountFailure,
        };
        Failure { code, message: failure.message }
    }
}
