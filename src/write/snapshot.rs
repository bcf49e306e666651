//! A staged file as the journal has it.
//!
//! Owns: taking the state of a file that a row is to name, and what of its bytes must stay until there is a newer row, or until a
//! commit has sent them. Does not own: the row (`record`, `db`), the bytes (`disk`).

use super::content::Content;
use super::disk::DiskFile;
use super::plan::Send;
use super::row::{Kind, Row};
use super::staging::Staged;
use crate::types::{ByteRange, Key, WriteId};
use std::io;
use std::sync::Arc;

/// A staged file at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) content: Content,
    /// Name and file that hold its bytes.
    pub(super) file: (String, Arc<dyn DiskFile>),
    pub(super) attempts: Vec<WriteId>,
    /// All bytes of a small one, until its row has them.
    pub(super) body: Option<Vec<u8>>,
    has_body: bool,
    pub(super) change: u64,
    /// The moment of the bytes.
    pub(super) bytes: u64,
}

impl Staged {
    /// The file as of now, for the journal. Its bytes stay as they are from now on, and changes go elsewhere; if the row is to hold them,
    /// until it does.
    pub(super) fn snapshot(&self, has_body: impl FnOnce(&Content) -> bool) -> io::Result<Snapshot> {
        // Before the make-up: a commit that ends meanwhile first has a new base, and then forgets what it has tried.
        let attempts = self.attempts_for_row();
        let content = self.lock();
        self.file.leave_unsafe(&content.journaled())?;
        let has_body = has_body(&content);
        let body = match ByteRange::new(0, content.size()) {
            Some(all) if has_body => Some(self.read_file(all)?.into()),
            _ => has_body.then(Vec::new),
        };
        // Those of an earlier row stay as well until there is this one.
        self.file.keep(&content.journaled());
        let (name, change, bytes) = (self.file.name(), self.last_change(), self.bytes_moment());
        Ok(Snapshot {
            content: content.clone(),
            file: (name, self.file.file()),
            attempts,
            body,
            has_body,
            change,
            bytes,
        })
    }

    /// The file of a commit that sends `send`. If it reads from there, the bytes stay as they are, and who changes them goes on in another
    /// file: whoever waits for the commit is told that they are safe, and with it the journal's row goes. The caller has the lock.
    pub(super) fn begin_commit(&self, content: &mut Content, send: &Send) -> Arc<dyn DiskFile> {
        content.on_commit_began();
        if !matches!(send, Send::Copy(_)) {
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

    /// The journal has the file as `snapshot` says, under the name of `key`.
    pub(super) fn set_recorded(&self, snapshot: &Snapshot, key: Key) {
        let named = Some((key, snapshot.attempts.clone()));
        self.set_row(Some(Row { change: snapshot.change, bytes: snapshot.bytes, named, ..Row::default() }));
        let content = self.lock();
        if snapshot.has_body {
            if content.is_committing() {
                // The commit may carry what is safe from now on, and have read none of it.
                self.file.keep(&content.journaled());
            } else if self.file.name() == snapshot.file.0 {
                self.file.keep_nothing();
            }
        }
        self.file.drop_retired(Some(&snapshot.file.0).filter(|_| !snapshot.has_body).map(String::as_str));
    }

    /// An earlier mount's journal has it.
    pub(super) fn set_recovered(&self, kind: Kind) {
        let content = self.lock();
        if kind == Kind::File {
            self.file.keep(&content.journaled());
        }
        let has_only_attributes = kind == Kind::Attributes;
        let (change, bytes) = (self.last_change(), self.bytes_moment());
        self.set_row(Some(Row { change, bytes, has_only_attributes, ..Row::default() }));
    }

    /// The journal has `other` in its place.
    pub(super) fn set_replaced_by(&self, other: &Staged) {
        if Arc::ptr_eq(&self.file, &other.file) {
            // Adopted by another inode: the bytes that the new row counts on are these.
            self.set_row(None);
        } else {
            self.set_not_recorded();
        }
    }

    /// The journal has nothing of it any more.
    pub(super) fn set_not_recorded(&self) {
        self.set_row(None);
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
