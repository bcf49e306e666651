//! Tells the kernel what to forget.
//!
//! Owns: the thread that writes notifications, and its queue. Does not own: what is to be forgotten (`fs::invalidate`),
//! replaying changes (`replay`).
//!
//! Notifications about entries and pages take locks of the kernel that a request under way may hold, so they are never written
//! by a thread that answers requests. Those about attributes take none.

use super::watchers;
use crate::fs::{KernelCache, Replay};
use crate::types::{Ino, Name};
use fuser::{INodeNo, Notifier};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

#[derive(Debug)]
enum Forget {
    Entry(Ino, Name),
    Pages(Ino),
}

/// The kernel's caches behind a queue.
#[derive(Debug)]
pub(super) struct KernelNotifier {
    notifier: Notifier,
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
    ) -> io::Result<KernelNotifier> {
        let (forget, queue) = mpsc::channel();
        let own = notifier.clone();
        thread::Builder::new().name("notifier".to_owned()).spawn(move || run(&own, &queue))?;
        Ok(KernelNotifier { notifier, forget, replay, dev })
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
        // The queue may stand still for as long as a rename takes: the new size does not wait for the old pages to go.
        self.forget_attr(ino);
        self.send(Forget::Pages(ino));
    }

    /// At once: a negative offset leaves the pages alone, and takes neither their lock nor that of the directory
    /// (fs/fuse/inode.c, fuse_reverse_inval_inode).
    fn forget_attr(&self, ino: Ino) {
        told(self.notifier.inval_inode(INodeNo(ino.0), -1, 0), &ino);
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
            Forget::Pages(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        };
        self::told(told, &forget);
    }
}

/// ENOENT: the kernel knows nothing of it, which is as good.
fn told(result: io::Result<()>, what: &dyn Debug) {
    if let Err(e) = result
        && e.raw_os_error() != Some(libc::ENOENT)
    {
        tracing::debug!(error = %e, ?what, "the kernel could not be told");
    }
}
