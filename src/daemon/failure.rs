//! Why a mount could not be made, in the words that the user reads.
//!
//! Owns: [`MountFailure`]: one kind for each thing that the user can do about it, one sentence for each.
//! Does not own: exit codes (`cli`).

use crate::store::{ErrorKind, StoreError};
use std::path::Path;

/// What kind of failure it is: what the user can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FailureKind {
    /// An option or argument is wrong.
    Usage,
    /// The bucket does not exist.
    NoSuchBucket,
    /// No credentials, or wrong ones.
    Credentials,
    /// The credentials are good, but not for this bucket.
    AccessDenied,
    /// The server cannot be reached.
    Unreachable,
    /// The mountpoint does not exist or is no directory.
    MountpointMissing,
    /// The mountpoint has entries.
    MountpointNotEmpty,
    /// Something is mounted there.
    AlreadyMounted,
    /// FUSE is not to be had.
    NoFuse,
    /// Another mount has this bucket and prefix.
    Busy,
    /// State on this machine cannot be used.
    State,
    /// Anything else.
    Other,
}

/// A failure with its sentence.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct MountFailure {
    /// Its kind.
    pub kind: FailureKind,
    /// One sentence that says what is wrong and, where it is known, what to do.
    pub message: String,
}

impl MountFailure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> MountFailure {
        MountFailure { kind, message: message.into() }
    }

    pub(super) fn state(what: &Path, error: impl std::fmt::Display) -> MountFailure {
        MountFailure::new(FailureKind::State, format!("{}: {error}", what.display()))
    }

    /// The bucket did not answer the first question.
    pub(super) fn from_store(error: &StoreError, bucket: &str, endpoint: Option<&str>) -> MountFailure {
        let server = endpoint.unwrap_or("AWS");
        let (kind, sentence) = match error.kind {
            ErrorKind::NoSuchBucket | ErrorKind::NotFound => (
                FailureKind::NoSuchBucket,
                format!("the bucket {bucket:?} does not exist on {server}: create it, or check its name"),
            ),
            ErrorKind::Credentials => (
                FailureKind::Credentials,
                format!("the credentials for {server} are missing or wrong: {}", error.message),
            ),
            ErrorKind::AccessDenied => (
                FailureKind::AccessDenied,
                format!("these credentials may not list the bucket {bucket:?}: {}", error.message),
            ),
            ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Broken => (
                FailureKind::Unreachable,
                format!("{server} cannot be reached: {}; check endpoint= and the network", error.message),
            ),
            _ => (FailureKind::Other, format!("{server} refused to list the bucket {bucket:?}: {error}")),
        };
        MountFailure { kind, message: sentence }
    }
}
