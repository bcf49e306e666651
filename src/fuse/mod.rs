//! The kernel boundary: decode a request, one call on `Fs`, encode the answer. The only importer of `fuser`.
//!
//! Owns: the session, mounting, requests in flight, notifications, replays. Does not own: any decision about files (`fs`).

mod adapter;
mod interrupt;
mod mount;
mod notifier;
mod readahead;
mod readdir;
mod replay;
mod reply;
mod session;
mod task;
mod walkers;
mod watchers;

use crate::fs::Fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use mount::{MountError, MountSettings, mount, unmount};
pub use readahead::KIB as READ_AHEAD_KIB;
pub use session::{FEATURES, Feature, SessionSettings};

/// A mounted session, not yet running.
pub struct Session(fuser::Session<adapter::Adapter>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Threads that read requests. Two: while one copies the bytes of a WRITE, the other takes what comes next.
const THREADS: usize = 2;

impl Session {
    /// Shakes hands with the kernel over the descriptor of the mount at `mountpoint`, and connects `fs` with the kernel's
    /// caches.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(
        fs: &Arc<Fs>,
        fd: std::os::fd::OwnedFd,
        mountpoint: &Path,
        settings: SessionSettings,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Session> {
        let adapter = adapter::Adapter::new(Arc::clone(fs), settings, runtime)?;
        let mut config = fuser::Config::default();
        config.n_threads = Some(THREADS);
        // Who may ask is the kernel's business: without allow_other it lets nobody else through.
        let session = fuser::Session::from_fd(adapter, fd, fuser::SessionACL::All, config)?;
        let replay = replay::start(fs, session.notifier(), mountpoint)?;
        fs.set_kernel(Arc::new(notifier::KernelNotifier::start(session.notifier(), replay)?));
        Ok(Session(session))
    }

    /// Serves requests until the file system is unmounted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(self) -> io::Result<()> {
        self.0.run()
    }
}
