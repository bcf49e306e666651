//! What `objfs status` shows.
//!
//! Owns: the status record, which later versions only extend. Does not own: its layout for people (`cli`).

use crate::fs::{Fs, Pending};
use crate::store::open::Opened;
use crate::store::{Conditions, Op};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a mount is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// `mounted` or `draining`.
    pub state: String,
    /// Bucket and prefix.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Read-only.
    pub read_only: bool,
    /// `ok`, or why not.
    pub health: String,
    /// Whether the server did not answer the last request: what is known is shown.
    pub offline: bool,
    /// What people should know.
    pub notices: Vec<String>,
    /// What the bucket does not have yet.
    pub pending: PendingStatus,
    /// Requests by kind since the mount: sent, failed, bytes.
    pub requests: BTreeMap<String, RequestCount>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Which conditions the server keeps, or nothing if it was not probed yet (before the first write).
    pub conditional_writes: Option<Conditions>,
    /// Directories that are listed again by themselves.
    pub polled_directories: usize,
    /// Of those, how many somebody watches: changes made elsewhere raise inotify events there.
    pub watched_directories: usize,
    /// How often each of the others is listed, in seconds.
    pub poll_period: f64,
    /// How often each of those that somebody watches is listed, in seconds.
    pub watched_poll_period: f64,
    /// For how long names and attributes count as fresh, and the kernel believes them at most, in seconds. No period is shorter.
    pub lifetime: f64,
    /// LIST requests that this costs in an hour.
    pub polls_per_hour: f64,
    /// Files and directories in the catalogue.
    pub known_files: u64,
    /// The sum of their sizes in bytes.
    pub known_bytes: u64,
    /// Bytes in the disk cache.
    pub cached_bytes: u64,
    /// Keys that no path can express.
    pub unmappable_keys: u64,
    /// Catalogue, journal and log are here.
    pub state_dir: String,
}

/// What the bucket does not have yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingStatus {
    /// Files with changes.
    pub files: usize,
    /// Directories whose marker is owed.
    pub markers: usize,
    /// Commits that failed.
    pub failed: Vec<FailedCommit>,
    /// Conflicts since the mount; each left two files.
    pub conflicts: u64,
    /// Open files.
    pub open_files: usize,
}

/// A commit that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCommit {
    /// The path within the mount.
    pub path: String,
    /// Why.
    pub reason: String,
    /// Whether it is tried again by itself.
    pub retried: bool,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCount {
    /// Sent, retries included.
    pub sent: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Bytes of bodies received.
    pub bytes_received: u64,
}

impl From<Pending> for PendingStatus {
    fn from(p: Pending) -> PendingStatus {
        let failed = |(path, reason, retried)| FailedCommit { path, reason, retried };
        PendingStatus {
            files: p.files,
            markers: p.markers,
            failed: p.failed.into_iter().map(failed).collect(),
            conflicts: p.conflicts,
            open_files: p.handles,
        }
    }
}

impl Status {
    /// The status of a mount.
    pub(super) fn of(
        config: &super::MountConfig,
        fs: &Fs,
        store: &Opened,
        state: &str,
        refused: Option<&String>,
    ) -> Status {
        let silent = store.counters.silent_for();
        let (pending, mut health) = match fs.pending() {
            Ok(pending) if pending.failed.is_empty() => (pending, "ok".to_owned()),
            Ok(pending) => {
                let health = format!("{} files could not be committed", pending.failed.len());
                (pending, health)
            }
            Err(e) => (Pending::default(), e.to_string()),
        };
        if let Some(time) = silent {
            health = format!("offline: no answer for {} s; showing what is known", time.as_secs());
        } else if let Some(refused) = refused {
            health.clone_from(refused);
        }
        let polling = fs.polling();
        let (known_files, known_bytes) = fs.meta().totals().unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: state.to_owned(),
            source: config.source(),
            mountpoint: config.mountpoint.display().to_string(),
            read_only: config.read_only,
            health,
            offline: silent.is_some(),
            notices: fs.meta().notice().into_iter().map(str::to_owned).collect(),
            pending: pending.into(),
            requests: requests(store),
            in_flight: store.limit.in_flight() as u64,
            conditional_writes: store.guard.conditions(),
            polled_directories: polling.directories,
            watched_directories: polling.watched,
            poll_period: polling.periods.others.as_secs_f64(),
            watched_poll_period: polling.periods.watched.as_secs_f64(),
            lifetime: polling.lifetime.as_secs_f64(),
            polls_per_hour: polling.lists_per_hour,
            known_files,
            known_bytes,
            cached_bytes: fs.cached_bytes(),
            unmappable_keys: fs.meta().count_unmappable().unwrap_or_default(),
            state_dir: config.state_folder().display().to_string(),
        }
    }
}

fn requests(store: &Opened) -> BTreeMap<String, RequestCount> {
    let count = |op: Op| {
        let of = store.counters.of(op);
        let count = RequestCount {
            sent: of.requests,
            failed: of.errors,
            bytes_sent: of.bytes_out,
            bytes_received: of.bytes_in,
        };
        (of.requests > 0).then(|| (op.as_str().to_owned(), count))
    };
    Op::ALL.into_iter().filter_map(count).collect()
}
