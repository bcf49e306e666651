//! What each operation means: POSIX over a bucket, without a kernel.
//!
//! Owns: one file per group of operations, open files, errnos, the order of steps across catalogue, bucket and staging,
//! what to tell the kernel. Does not own: FUSE's types (`fuse`), requests (`store`), rows (`db`), staged bytes (`write`).
//!
//! | operation | file |
//! |---|---|
//! | lookup, freshness | `lookup` |
//! | getattr, setattr, statfs | `attr` |
//! | getxattr, setxattr, listxattr, removexattr | `xattr` |
//! | opendir, readdir, mkdir, rmdir | `dir` |
//! | create, mknod, symlink, readlink, unlink | `name` |
//! | rename; ending what an earlier mount began; what is there twice meanwhile | `rename`, `rename_dir`; `resume`; `doubles` |
//! | open, flush, release | `open` |
//! | copies for who has a deleted or replaced file open | `orphans` |
//! | read, write, fsync | `io` |
//! | which reads move an atime | `access` |
//! | fallocate, SEEK_DATA, SEEK_HOLE | `allocate` |
//! | waiting, trying again, saving elsewhere, dropping | `parked` |
//! | what close and fsync wait for; databases | `promise`; `sqlite`, `databases` |
//! | commits, conflicts, background | `commit`, `background` |
//! | listing, ahead of walks, for who makes files, by the poller | `listing`, `walk`, `makers`, `poll` |
//! | headers that listings do not show | `unread` |
//! | how long the kernel believes an answer; st_nlink | `ttl`, `links` |
//! | events of changes made elsewhere, those who watch | `events`, `watchers` |

mod access;
mod allocate;
mod attr;
mod background;
mod begin;
mod commit;
mod conflict;
mod databases;
mod dir;
mod doubles;
mod error;
mod events;
mod filter;
mod handle;
mod headers;
mod invalidate;
mod io;
mod links;
mod listing;
mod lookup;
mod makers;
mod name;
mod open;
mod orphans;
mod parked;
mod place;
mod poll;
mod promise;
mod recover;
mod rename;
mod rename_dir;
mod resume;
mod siblings;
mod sqlite;
mod ttl;
mod unread;
mod walk;
mod watchers;
mod xattr;

use crate::meta::{InodeRow, Meta};
use crate::read::Reader;
use crate::remote::Remote;
use crate::store::{ObjectStore, Upload};
use crate::types::{Attr, FileKind, Ino, Key, ObjectRef, Version};
use crate::write::{Claims, CommitQueue, Staged, Writer};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

pub use attr::{SetAttr, SetTime, Statfs};
pub use background::{Drained, Pending};
use begin::ToTheEnd;
pub use begin::{Begun, begin};
pub use conflict::Conflicts;
pub use dir::DirEntry;
pub use error::FsError;
pub use events::{Act, Replay, Replayed, Step};
pub use filter::Filter;
pub use invalidate::KernelCache;
use invalidate::Touched;
pub use listing::Follow;
pub use lookup::{Looked, Question};
pub use open::Opened;
pub use parked::{Unfinished, Unsaved};
pub use poll::Polling;
pub use promise::{TempNames, WriteMode, Writes};
pub use sqlite::Databases;

/// What an operation answers.
pub type Result<T> = std::result::Result<T, FsError>;

/// What tunes the file system.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Nothing may be changed.
    pub read_only: bool,
    /// Reading moves no atime.
    pub noatime: bool,
    /// How long an answer of the bucket counts as fresh, unless somebody opens the file or directory.
    pub poll_interval: Duration,
    /// LIST requests of the poller in that time, at most; 0 for no polling.
    pub poll_budget: u32,
    /// Which changes made elsewhere raise inotify events.
    pub events: Events,
    /// Which names are shown.
    pub filter: Filter,
    /// What close and fsync wait for.
    pub writes: Writes,
    /// This machine's name, for conflict copies.
    pub host: String,
    /// How long the bucket is waited for when something older can be shown instead.
    pub patience: Duration,
    /// Bytes that the mount's prefix takes of each key.
    pub prefix_len: usize,
}

/// Whose changes made elsewhere raise inotify events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Events {
    /// Those of directories and files that somebody watches.
    #[default]
    Auto,
    /// All: for watchers that we cannot see.
    All,
    /// None.
    Off,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread, as /proc names it (FUSE's `pid` is the thread's id).
    pub tid: u32,
}

/// An inode as the kernel is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub ino: Ino,
    /// Its attributes.
    pub attr: Attr,
    /// st_nlink (inode(7)): 0 once it has no name any more; of a directory 2 and one for each subdirectory, or 1 if these were not
    /// counted.
    pub nlink: u32,
    /// How long the kernel may believe all that.
    pub ttl: Duration,
}

/// Inodes whose last opened version is remembered, until the kernel forgets them. Forgetting one earlier only costs reading
/// its pages again.
const SEEN_MAX: u64 = 100_000;

/// The file system.
#[derive(Debug)]
pub struct Fs {
    meta: Meta,
    remote: Remote,
    store: Arc<dyn ObjectStore>,
    reader: Reader,
    writer: Writer,
    claims: Arc<Claims>,
    /// Who uploads which databases, by their keys.
    databases: Arc<Claims>,
    handles: handle::Handles,
    queue: Mutex<CommitQueue>,
    queue_changed: Notify,
    listings: Mutex<HashMap<Ino, listing::Running>>,
    polled: poll::Polled,
    walks: walk::Walks,
    unread: unread::Unread,
    siblings: siblings::Siblings,
    makers: makers::Makers,
    accessed: Arc<access::Accessed>,
    /// The version that each inode had when it was last opened: the kernel's pages are of that one.
    seen: moka::sync::Cache<Ino, Version>,
    orphans: orphans::Orphans,
    /// Uploads that an earlier mount left.
    left_uploads: Mutex<Vec<Upload>>,
    /// Renames of directories that an earlier mount left, or that have failed, and that are to be ended, by their ids.
    left_renames: Mutex<Vec<String>>,
    /// Those that have failed, of which the journal does not know that.
    failed_renames: Mutex<Vec<String>>,
    conflicts: AtomicU64,
    /// When the bucket is asked again, after it did not answer, in ns since the epoch.
    outage_until: AtomicI64,
    kernel: OnceLock<Arc<dyn KernelCache>>,
    /// The thread that replays changes, and what it does just now.
    replaying: AtomicU32,
    replay: Mutex<Option<Replay>>,
    ghosts: Mutex<events::Ghosts>,
    /// Major and minor number of the mount's device, in 32 bits each; 0 while they are not known.
    device: AtomicU64,
    /// For work that a thread of the kernel's session begins.
    runtime: tokio::runtime::Handle,
    settings: Settings,
}

impl Fs {
    /// A file system over these rooms. [`Fs::recover`] comes before the first request. Made within a runtime, on which it runs.
    pub fn new(meta: Meta, store: Arc<dyn ObjectStore>, reader: Reader, writer: Writer, settings: Settings) -> Arc<Fs> {
        if settings.events == Events::All {
            meta.watches().watch_all();
        }
        let unread = Fs::unread_of(&meta);
        Arc::new(Fs {
            meta,
            remote: Remote::new(Arc::clone(&store)),
            store,
            reader,
            writer,
            claims: Arc::default(),
            databases: Arc::default(),
            handles: handle::Handles::default(),
            queue: Mutex::default(),
            queue_changed: Notify::new(),
            listings: Mutex::default(),
            polled: poll::Polled::default(),
            walks: walk::Walks::default(),
            unread,
            siblings: siblings::Siblings::default(),
            makers: makers::Makers::default(),
            accessed: Arc::default(),
            seen: moka::sync::Cache::new(SEEN_MAX),
            orphans: orphans::Orphans::default(),
            left_uploads: Mutex::default(),
            left_renames: Mutex::default(),
            failed_renames: Mutex::default(),
            conflicts: AtomicU64::new(0),
            outage_until: AtomicI64::new(0),
            kernel: OnceLock::new(),
            replaying: AtomicU32::new(0),
            replay: Mutex::default(),
            ghosts: Mutex::default(),
            device: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::current(),
            settings,
        })
    }

    /// Remote changes are told to `kernel` from now on.
    pub fn set_kernel(&self, kernel: Arc<dyn KernelCache>) {
        if self.kernel.set(kernel).is_err() {
            tracing::debug!("the kernel's caches were connected already");
        }
    }

    /// Which changes made elsewhere raise inotify events.
    pub fn events(&self) -> Events {
        self.settings.events
    }

    /// The catalogue, for status.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Bytes in the disk cache.
    pub fn cached_bytes(&self) -> u64 {
        self.reader.disk_bytes()
    }

    /// Whether nothing may be changed.
    pub fn is_read_only(&self) -> bool {
        self.settings.read_only
    }

    /// The kernel ended the session: nothing is open any more, whatever RELEASE did not come.
    pub fn session_ended(&self) {
        self.handles.clear();
        self.meta.pins().clear();
    }

    /// Closes catalogue and journal. Nothing may be asked afterwards.
    pub fn close(&self) {
        // A last close whose RELEASE was still under way when the session ended would have done it.
        self.writer.drop_all_clean();
        self.writer.close();
        self.send_atimes();
        self.meta.close();
    }

    fn writable(&self) -> Result<()> {
        if self.settings.read_only { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    /// The row of an inode that the kernel names.
    fn row(&self, ino: Ino) -> Result<InodeRow> {
        self.meta.get(ino)?.ok_or(FsError::Stale)
    }

    /// The key of an inode that must have a name.
    fn key(&self, row: &InodeRow) -> Result<Key> {
        Ok(self.meta.key(row)?.ok_or(FsError::Stale)??)
    }

    /// The version that the bucket has of this inode, with its key.
    fn object(&self, row: &InodeRow) -> Result<Option<ObjectRef>> {
        let Some(version) = row.version.clone() else { return Ok(None) };
        Ok(Some(ObjectRef { key: self.key(row)?, version }))
    }

    /// Attributes as they are shown: what is staged, or was read a moment ago, is newer than the row.
    fn shown(&self, ino: Ino, attr: Attr) -> Attr {
        self.shown_with(ino, attr, self.writer.get(ino).as_deref())
    }

    /// The same, with what is `staged` of the inode.
    fn shown_with(&self, ino: Ino, attr: Attr, staged: Option<&Staged>) -> Attr {
        let mut attr = self.meta.defaults().shown(attr);
        if let Some(at) = self.accessed.of(ino) {
            attr.atime = attr.atime.max(at);
        }
        if let Some(staged) = staged {
            attr.size = staged.size();
            if let Some(at) = staged.written_at() {
                attr.mtime = at;
                attr.ctime = attr.ctime.max(at);
            }
        }
        attr
    }

    fn entry(&self, row: &InodeRow) -> Entry {
        if row.attr.kind == FileKind::Dir {
            self.polled.note_told();
        }
        self.entry_of(row.ino, row.attr.clone(), self.links(row), row.into(), self.meta.now())
    }

    fn queue(&self) -> MutexGuard<'_, CommitQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_seen_version(&self, ino: Ino) {
        self.seen.invalidate(&ino);
    }

    /// FORGET: the kernel holds nothing of the inode any more, its pages included.
    pub fn forget(&self, ino: Ino) {
        self.polled.forget(ino);
        self.drop_seen_version(ino);
    }

    /// Runs `work`, which changes what `touched` names, to its end even if whoever waits for it is interrupted. The kernel, which
    /// heard of the interruption only, then looks again.
    async fn changing<T: Send + 'static>(
        self: &Arc<Self>,
        touched: Touched,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let fs = Arc::clone(self);
        ToTheEnd::new(work, move || fs.forget_touched(&touched), self.runtime.clone()).await
    }

    /// Drops what is staged of a clean file that nobody has open.
    fn drop_clean(&self, ino: Ino) {
        self.writer.drop_clean(ino, || self.meta.pins().is_pinned(ino));
    }
}

#[cfg(test)]
mod tests;
