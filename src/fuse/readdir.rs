//! Directories as the kernel reads them.
//!
//! Owns: filling READDIR and READDIRPLUS buffers, how much the first of a directory is given, and waiting for the listing of
//! one that is read while it is listed for the first time. Does not own: which entries there are (`fs`).

use super::adapter::{Adapter, ino};
use super::reply;
use crate::fs::{DirEntry, Fs, FsError};
use crate::types::Ino;
use fuser::{Errno, FileHandle, INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Handles of directories. Cookies name their place by themselves, so that nothing else is to be remembered.
pub(super) const WHOLE: FileHandle = FileHandle(0);
/// More entries come while it is read.
pub(super) const LISTED_STILL: FileHandle = FileHandle(1);

/// Entries that the first READDIRPLUS of a large directory is given, at most, unless its reader is known to look at them
/// (`walkers`).
const FIRST_PLUS_MAX: usize = 32;
/// A directory of up to so many entries goes into one answer: who reads all names before the first stat (du) then asks for none.
const SMALL_DIR_MAX: usize = 128;

/// A buffer that is filled with entries.
pub(super) trait Buffer: Send + 'static {
    /// Takes an entry, or says that it is full.
    fn add(&mut self, entry: &DirEntry<'_>) -> bool;
    fn ok(self);
    fn error(self, errno: Errno);
}

impl Buffer for ReplyDirectory {
    fn add(&mut self, e: &DirEntry<'_>) -> bool {
        let kind = reply::file_type(e.entry.attr.kind);
        self.add(INodeNo(e.entry.ino.0), e.cookie, kind, OsStr::from_bytes(e.name))
    }

    fn ok(self) {
        self.ok();
    }

    fn error(self, errno: Errno) {
        self.error(errno);
    }
}

/// A READDIRPLUS buffer that takes so many entries at most.
pub(super) struct Plus {
    reply: ReplyDirectoryPlus,
    left: usize,
}

impl Plus {
    pub(super) fn new(reply: ReplyDirectoryPlus, adapter: &Adapter, tid: u32, dir: Ino, offset: u64) -> Plus {
        let is_first = offset == 0 && adapter.fs.has_more_entries_than(dir, SMALL_DIR_MAX);
        let is_given_all = !is_first || adapter.walkers.on_read(tid, dir);
        Plus { reply, left: if is_given_all { usize::MAX } else { FIRST_PLUS_MAX } }
    }
}

impl Buffer for Plus {
    fn add(&mut self, e: &DirEntry<'_>) -> bool {
        let (attr, file) = (reply::attr(&e.entry), OsStr::from_bytes(e.name));
        let is_full = self.left == 0
            || self.reply.add(INodeNo(e.entry.ino.0), e.cookie, file, &e.entry.ttl, &attr, reply::GENERATION);
        self.left = self.left.saturating_sub(1);
        is_full
    }

    fn ok(self) {
        self.reply.ok();
    }

    fn error(self, errno: Errno) {
        self.reply.error(errno);
    }
}

impl Adapter {
    /// Reads a directory from `offset` on. Answers at once, unless all that is known was read and the listing goes on.
    pub(super) fn read_dir(
        &self,
        request: &Request,
        dir: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut buffer: impl Buffer,
    ) {
        let (fs, dir) = (Arc::clone(&self.fs), ino(dir));
        let follow = (fh == LISTED_STILL).then(|| fs.follow(dir));
        let filled = fill(&fs, dir, offset, &mut buffer);
        let Some(mut follow) = follow.filter(|_| matches!(filled, Ok(false))) else {
            return answer(buffer, filled.map(drop));
        };
        let work = async move { follow.until_more(offset).await };
        self.spawn(request, work, move |waited: Result<(), FsError>| {
            let filled = waited.and_then(|()| fill(&fs, dir, offset, &mut buffer));
            answer(buffer, filled.map(drop));
        });
    }
}

/// Answers whether there was any entry.
fn fill(fs: &Fs, dir: Ino, offset: u64, buffer: &mut impl Buffer) -> Result<bool, FsError> {
    let mut has_any = false;
    fs.readdir(dir, offset, &mut |entry| {
        has_any = true;
        buffer.add(&entry)
    })?;
    Ok(has_any)
}

fn answer(buffer: impl Buffer, outcome: Result<(), FsError>) {
    match outcome {
        Ok(()) => buffer.ok(),
        Err(e) => buffer.error(reply::errno("readdir", &e)),
    }
}
