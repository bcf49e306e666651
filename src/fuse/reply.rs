//! Our answers in FUSE's words.
//!
//! Owns: errors to errnos with their log line, attributes to `FileAttr`, the shapes of answers. Does not own: which answer
//! (`fs`).

use crate::fs::{Entry, FsError, Opened};
use crate::types::{FileKind, Timestamp};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyEmpty,
    ReplyEntry, ReplyXattr,
};

/// Inode numbers are never used twice, so one generation does.
pub(super) const GENERATION: Generation = Generation(0);

/// The errno of a failure, after its one line in the log.
pub(super) fn errno(operation: &'static str, error: &FsError) -> Errno {
    if error.is_noteworthy() {
        tracing::warn!(operation, errno = error.errno(), %error, "failed");
    } else {
        tracing::trace!(operation, errno = error.errno(), %error, "answered");
    }
    Errno::from_i32(error.errno())
}

/// Attributes as the kernel wants them.
pub(super) fn attr(entry: &Entry) -> FileAttr {
    let attr = &entry.attr;
    FileAttr {
        ino: INodeNo(entry.ino.0),
        size: attr.size,
        // st_blocks counts 512 bytes whatever st_blksize says (stat(3type)).
        blocks: attr.size.div_ceil(512),
        atime: attr.atime.to_system(),
        mtime: attr.mtime.to_system(),
        ctime: attr.ctime.to_system(),
        crtime: Timestamp::default().to_system(),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: entry.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        // What cp(1) and others read and write at once.
        blksize: 128 << 10,
        flags: 0,
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// What the kernel is told of an opened file.
pub(super) fn open_flags(opened: Opened, noflush_allowed: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush && noflush_allowed);
    flags
}

/// The value of an extended attribute, or how long it is, or that the caller's buffer is too small for it (getxattr(2)).
fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Answers of GETXATTR and LISTXATTR, for a buffer of `size` bytes.
pub(super) fn to_xattr(
    operation: &'static str,
    size: u32,
    reply: ReplyXattr,
) -> impl FnOnce(Result<Vec<u8>, FsError>) + Send {
    move |outcome| match outcome {
        Ok(value) => xattr(reply, size, &value),
        Err(e) => reply.error(errno(operation, &e)),
    }
}

/// Answers that carry nothing.
pub(super) fn to_empty(operation: &'static str, reply: ReplyEmpty) -> impl FnOnce(Result<(), FsError>) + Send {
    move |outcome| match outcome {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(operation, &e)),
    }
}

/// Answers that carry an entry.
pub(super) fn to_entry(operation: &'static str, reply: ReplyEntry) -> impl FnOnce(Result<Entry, FsError>) + Send {
    move |outcome| match outcome {
        Ok(entry) => reply.entry(&entry.ttl, &attr(&entry), GENERATION),
        Err(e) => reply.error(errno(operation, &e)),
    }
}

/// Answers that carry attributes.
pub(super) fn to_attr(operation: &'static str, reply: ReplyAttr) -> impl FnOnce(Result<Entry, FsError>) + Send {
    move |outcome| match outcome {
        Ok(entry) => reply.attr(&entry.ttl, &attr(&entry)),
        Err(e) => reply.error(errno(operation, &e)),
    }
}

/// Answers of CREATE.
pub(super) fn to_created(reply: ReplyCreate, outcome: Result<(Entry, Opened), FsError>, noflush_allowed: bool) {
    match outcome {
        Ok((entry, opened)) => {
            let (attr, flags) = (attr(&entry), open_flags(opened, noflush_allowed));
            reply.created(&entry.ttl, &attr, GENERATION, FileHandle(opened.fh.0), flags);
        }
        Err(e) => reply.error(errno("create", &e)),
    }
}
