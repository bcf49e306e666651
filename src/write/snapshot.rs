//! A staged file as the journal has it.
//!
//! Owns: taking the state of a file that a row is to name, and what of its bytes must stay until there is a newer row, or until a
//! commit has sent them. Does not own: the row (`record`, `db`), the bytes (`disk`).

use super::content::Content;
use super::disk::DiskFile;
use super::staging::Staged;
use crate::types::{ByteRange, WriteId};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A staged file at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) content: Content,
    /// Name and file that hold its bytes.
    pub(super) file: (String, Arc<dyn DiskFile>),
    pub(super) attempts: Vec<WriteId>,
    /// All bytes of a small one.
    pub(super) body: Option<Vec<u8>>,
    pub(super) change: u64,
    /// The moment of the bytes.
    bytes: u64,
}

impl Staged {
    /// Whether the journal has the file as it is now.
    pub fn is_recorded(&self) -> bool {
        self.is_journaled() && self.recorded() == self.last_change()
    }

    /// Whether the journal has bytes of it that somebody was told are safe, and that the bucket does not have: not attributes only, and
    /// not what a commit has carried there.
    pub fn is_acknowledged(&self) -> bool {
        self.is_journaled() && !self.attributes_only.load(Ordering::SeqCst) && self.recorded() > self.carried()
    }

    /// Whether these are all up to a change.
    pub fn is_acknowledged_up_to(&self, change: u64) -> bool {
        self.is_acknowledged() && self.recorded() >= change
    }

    /// The last change that the journal has.
    pub(super) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::SeqCst)
    }

    /// The file as of now, for the journal. Its bytes stay as they are from now on, and changes go elsewhere; if the row is to hold them,
    /// until it does.
    pub(super) fn snapshot(&self, has_body: impl FnOnce(&Content) -> bool) -> io::Result<Snapshot> {
        // Before the make-up: a commit that ends meanwhile first has a new base, and then forgets what it has tried.
        let attempts = self.attempts_for_row();
        let content = self.lock();
        let body = match has_body(&content) {
            true => Some(match ByteRange::new(0, content.size()) {
                Some(all) => self.read_file(all)?.to_vec(),
                None => Vec::new(),
            }),
            false => None,
        };
        // Those of an earlier row stay as well until there is this one.
        self.file.keep(&content.journaled());
        let (name, change, bytes) = (self.file.name(), self.last_change(), self.bytes_moment());
        Ok(Snapshot { content: content.clone(), file: (name, self.file.file()), attempts, body, change, bytes })
    }

    /// The file of a commit. If it reads from there what it sends, the bytes stay as they are, and who changes them goes on in another
    /// file: whoever waits for the commit is told that they are safe, and with it the journal's row goes. The caller has the lock.
    pub(super) fn begin_commit(&self, content: &mut Content, is_read: bool) -> Arc<dyn DiskFile> {
        content.on_commit_began();
        if is_read {
            self.file.keep(&content.journaled());
        }
        self.file.file()
    }

    /// The commit has ended: if the journal has no row, and none is being written, nobody counts on any bytes. The caller has the lock.
    pub(super) fn commit_ended(&self) {
        if !self.is_journaled() {
            self.file.keep_nothing();
            self.file.drop_retired(None);
        }
    }

    /// The journal has the file as `snapshot` says.
    pub(super) fn set_recorded(&self, snapshot: &Snapshot) {
        self.recorded_bytes.store(snapshot.bytes, Ordering::SeqCst);
        self.recorded.store(snapshot.change, Ordering::SeqCst);
        self.attributes_only.store(false, Ordering::SeqCst);
        self.set_journaled(true);
        let content = self.lock();
        if snapshot.body.is_some() {
            if content.is_committing() {
                // The commit may carry what is safe from now on, and have read none of it.
                self.file.keep(&content.journaled());
            } else if self.file.name() == snapshot.file.0 {
                self.file.keep_nothing();
            }
        }
        self.file.drop_retired(Some(&snapshot.file.0).filter(|_| snapshot.body.is_none()).map(String::as_str));
    }

    /// An earlier mount's journal has it.
    pub(super) fn set_recovered(&self, has_body: bool) {
        let content = self.lock();
        if !has_body {
            self.file.keep(&content.journaled());
        }
        self.recorded_bytes.store(self.bytes_moment(), Ordering::SeqCst);
        self.recorded.store(self.last_change(), Ordering::SeqCst);
        self.set_journaled(true);
    }

    /// The journal has `other` in its place.
    pub(super) fn set_replaced_by(&self, other: &Staged) {
        if Arc::ptr_eq(&self.file, &other.file) {
            // Adopted by another inode: the bytes that the new row counts on are these.
            self.set_journaled(false);
        } else {
            self.set_not_recorded();
        }
    }

    /// The journal has nothing of it any more.
    pub(super) fn set_not_recorded(&self) {
        self.set_journaled(false);
        self.attributes_only.store(false, Ordering::SeqCst);
        self.keep_no_bytes();
    }

    /// The journal counts on none of its bytes any more.
    pub(super) fn keep_no_bytes(&self) {
        let content = self.lock();
        if !content.is_committing() {
            self.file.keep_nothing();
        }
        self.file.drop_retired(None);
    }
}
