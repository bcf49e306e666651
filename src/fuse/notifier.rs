//! Tells the kernel what to forget.
//!
//! Owns: the thread that writes notifications, and its queue. Does not own: what is to be forgotten (`fs::invalidate`),
//! replaying changes (`replay`).
//!
//! Notifications take locks of the kernel that a request under way may hold, so they are never written by a thread that
//! answers requests.

use super::watchers;
use crate::fs::{KernelCache, Replay};
use crate::types::{Ino, Name};
use fuser::{INodeNo, Notifier};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

#[derive(Debug)]
enum Forget {
    Entry(Ino, Name),
    Content(Ino),
    Attr(Ino),
}

/// The kernel's caches behind a queue.
#[derive(Debug)]
pub(super) struct KernelNotifier {
    forget: mpsc::Sender<Forget>,
    replay: mpsc::Sender<Replay>,
    dev: Arc<OnceLock<u64>>,
}

impl KernelNotifier {
    /// Starts the thread; it ends when this is dropped. Changes to be replayed go to `replay`.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start(
        notifier: Notifier,
        (replay, dev): (mpsc::Sender<Replay>, Arc<OnceLock<u64>>),
    ) -> std::io::Result<KernelNotifier> {
        let (forget, queue) = mpsc::channel();
        thread::Builder::new().name("notifier".to_owned()).spawn(move || run(&notifier, &queue))?;
        Ok(KernelNotifier { forget, replay, dev })
    }

    fn send(&self, forget: Forget) {
        if self.forget.send(forget).is_err() {
            tracing::debug!("the session is over: nothing is left to forget");
        }
    }
}

impl KernelCache for KernelNotifier {
    fn forget_entry(&self, parent: Ino, name: &Name) {
        self.send(Forget::Entry(parent, name.clone()));
    }

    fn forget_content(&self, ino: Ino) {
        self.send(Forget::Content(ino));
    }

    fn forget_attr(&self, ino: Ino) {
        self.send(Forget::Attr(ino));
    }

    fn replay(&self, replay: Replay) {
        if self.replay.send(replay).is_err() {
            tracing::debug!("nobody replays changes: the session is over");
        }
    }

    fn watched(&self) -> HashSet<Ino> {
        self.dev.get().map(|dev| watchers::watched(*dev)).unwrap_or_default()
    }
}

fn run(notifier: &Notifier, queue: &mpsc::Receiver<Forget>) {
    while let Ok(forget) = queue.recv() {
        let told = match &forget {
            Forget::Entry(parent, name) => notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes())),
            Forget::Content(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
            // A negative offset leaves the pages alone (fs/fuse/inode.c, fuse_reverse_inval_inode).
            Forget::Attr(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        };
        // ENOENT: the kernel knows nothing of it, which is as good.
        if let Err(e) = told
            && e.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::debug!(error = %e, ?forget, "the kernel could not be told");
        }
    }
}
