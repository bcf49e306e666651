//! Our answers in FUSE's words.
//!
//! Owns: errors to errnos with their log line, attributes to `FileAttr`. Does not own: which answer (`fs`).

use crate::fs::{Entry, FsError};
use crate::types::{FileKind, Timestamp};
use fuser::{Errno, FileAttr, FileType, INodeNo};

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
        // There are no hard links. 1 for directories tells find(1) not to count on subdirectories.
        nlink: 1,
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
