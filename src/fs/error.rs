//! What an operation of the file system can answer but success, and the one table from there to errnos.
//!
//! Owns: [`FsError`] and its errno. Does not own: the errors of lower layers, which it wraps.

use crate::meta::DbError;
use crate::store::{ErrorKind, StoreError};
use crate::types::KeyError;
use crate::write::{CommitError, JournalError, Prospect, UploadsError};
use std::io;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The inode is not what it was: its name, its version or itself is gone.
    #[error("the file was changed or removed elsewhere")]
    Stale,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// Not a directory.
    #[error("not a directory")]
    NotDir,
    /// A directory where none may be.
    #[error("is a directory")]
    IsDir,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The mount is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The handle was not opened for this, or is not one.
    #[error("the file is not open for that")]
    BadHandle,
    /// Nothing follows there: neither data nor a hole.
    #[error("nothing follows there in the file")]
    PastEnd,
    /// The arguments make no sense together.
    #[error("invalid argument")]
    Invalid,
    /// Never possible on a bucket: hard links. With `nometa`, what only an object's metadata could tell: links, pipes, devices.
    #[error("a bucket cannot do that")]
    Impossible,
    /// Not offered (yet).
    #[error("not supported")]
    NotSupported,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// An extended attribute that only tells something.
    #[error("the attribute cannot be set or removed")]
    FixedAttribute,
    /// The store would not take so much metadata of one object.
    #[error("the object has no room for more metadata")]
    MetadataFull,
    /// A name of objfs' own.
    #[error("the name belongs to objfs")]
    Reserved,
    /// The mount option `include=` or `exclude=` hides the name.
    #[error("the mount's include= and exclude= hide the name")]
    Hidden,
    /// The caller was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The name makes no key, or is none.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogue failed.
    #[error("catalogue: {0}")]
    Catalogue(#[from] DbError),
    /// The journal failed: nothing may be acknowledged.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// The staging disk failed.
    #[error("staging: {0}")]
    Disk(#[from] io::Error),
    /// A commit failed.
    #[error(transparent)]
    Commit(CommitError),
    /// A conflict for which no copy could be made.
    #[error("a conflict, and no copy could be made: {0}")]
    ConflictUnresolved(Box<FsError>),
    /// A task of ours ended without an answer.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<UploadsError> for FsError {
    fn from(error: UploadsError) -> FsError {
        match error {
            UploadsError::Store(e) => FsError::Store(e),
            UploadsError::Journal(e) => FsError::Journal(e.into()),
        }
    }
}

impl From<CommitError> for FsError {
    fn from(error: CommitError) -> FsError {
        match error {
            CommitError::Store(e) => FsError::Store(e),
            CommitError::Disk(e) => FsError::Disk(e),
            other => FsError::Commit(other),
        }
    }
}

impl FsError {
    /// The one errno of this failure. SEMANTICS.md explains each line.
    pub fn errno(&self) -> i32 {
        match self {
            FsError::NotFound => libc::ENOENT,
            FsError::Stale => libc::ESTALE,
            FsError::Exists => libc::EEXIST,
            FsError::NotDir => libc::ENOTDIR,
            FsError::IsDir => libc::EISDIR,
            FsError::NotEmpty => libc::ENOTEMPTY,
            FsError::ReadOnly => libc::EROFS,
            FsError::BadHandle => libc::EBADF,
            FsError::PastEnd => libc::ENXIO,
            FsError::Invalid => libc::EINVAL,
            FsError::Impossible => libc::EPERM,
            FsError::NotSupported => libc::EOPNOTSUPP,
            FsError::NoAttribute => libc::ENODATA,
            FsError::FixedAttribute => libc::EPERM,
            FsError::MetadataFull => libc::ENOSPC,
            FsError::Reserved | FsError::Hidden => libc::EACCES,
            FsError::Interrupted => libc::EINTR,
            FsError::Name(KeyError::KeyTooLong | KeyError::NameTooLong) => libc::ENAMETOOLONG,
            FsError::Name(KeyError::NameInvalid) => libc::EINVAL,
            FsError::Store(e) => store_errno(e.kind),
            FsError::Disk(e) => disk_errno(e),
            FsError::Journal(e) | FsError::Commit(CommitError::Journal(e)) => journal_errno(e),
            FsError::Catalogue(e) => db_errno(e),
            FsError::Internal(_) => libc::EIO,
            FsError::Commit(CommitError::TooLarge(_)) => libc::EFBIG,
            FsError::Commit(CommitError::Conflict | CommitError::Disturbed) => libc::EBUSY,
            FsError::Commit(_) => libc::ESTALE,
            FsError::ConflictUnresolved(_) => libc::EBUSY,
        }
    }

    /// Whether trying again later cannot help unless somebody does something.
    pub fn is_permanent(&self) -> bool {
        match self {
            FsError::Store(e) => !e.kind.is_retryable(),
            // The next try finds what is there, and makes the conflict copy.
            FsError::Commit(
                CommitError::Conflict
                | CommitError::BaseDeleted
                | CommitError::NotCopied
                | CommitError::Disturbed
                | CommitError::Spoiled
                | CommitError::Journal(_),
            ) => false,
            FsError::Commit(_) | FsError::Name(_) | FsError::Reserved | FsError::Hidden => true,
            FsError::ConflictUnresolved(e) => e.is_permanent(),
            _ => false,
        }
    }

    /// What is to be expected of another try.
    pub fn prospect(&self) -> Prospect {
        match self {
            // A session is renewed, or a service answers again that gives keys.
            FsError::Store(e) if e.kind == ErrorKind::Credentials => Prospect::Unlikely,
            FsError::ConflictUnresolved(e) => e.prospect(),
            e if e.is_permanent() => Prospect::Never,
            _ => Prospect::Passing,
        }
    }

    /// Whether this is a failure that somebody should read about in the log, and not an ordinary answer.
    pub fn is_noteworthy(&self) -> bool {
        match self {
            FsError::Store(e) => e.kind != ErrorKind::NotFound,
            FsError::Catalogue(_)
            | FsError::Journal(_)
            | FsError::Disk(_)
            | FsError::Commit(_)
            | FsError::ConflictUnresolved(_)
            | FsError::Internal(_) => true,
            _ => false,
        }
    }

    /// Whether the network or the server is at fault, so that what is known locally may be shown instead.
    pub fn is_outage(&self) -> bool {
        use ErrorKind::{Broken, Server, Throttled, Timeout, Unreachable};
        matches!(self, FsError::Store(e) if matches!(e.kind, Broken | Server | Throttled | Timeout | Unreachable))
    }
}

fn store_errno(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound | ErrorKind::NoSuchBucket => libc::ENOENT,
        ErrorKind::Precondition => libc::ESTALE,
        ErrorKind::AccessDenied | ErrorKind::Credentials => libc::EACCES,
        ErrorKind::Archived => libc::ENODATA,
        ErrorKind::Quota => libc::EDQUOT,
        ErrorKind::TooLarge => libc::EFBIG,
        ErrorKind::MetadataTooLarge => libc::ENOSPC,
        ErrorKind::NotImplemented => libc::EOPNOTSUPP,
        ErrorKind::Timeout => libc::ETIMEDOUT,
        ErrorKind::NoSuchUpload
        | ErrorKind::Conflict
        | ErrorKind::InvalidRange
        | ErrorKind::Throttled
        | ErrorKind::Server
        | ErrorKind::Unreachable
        | ErrorKind::Broken
        | ErrorKind::Corrupt
        | ErrorKind::Damaged
        | ErrorKind::Invalid => libc::EIO,
    }
}

fn journal_errno(error: &JournalError) -> i32 {
    match error {
        JournalError::Disk(e) => disk_errno(e),
        JournalError::Db(e) => db_errno(e),
        _ => libc::EIO,
    }
}

fn db_errno(error: &DbError) -> i32 {
    if matches!(error, DbError::Full { .. }) { libc::ENOSPC } else { libc::EIO }
}

/// A full disk under the staging directory is the caller's business; anything else of it is an I/O error.
fn disk_errno(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(code @ (libc::ENOSPC | libc::EDQUOT | libc::EFBIG)) => code,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Op;
    use crate::write::TooLarge;

    fn store(kind: ErrorKind) -> i32 {
        FsError::Store(StoreError::new(kind, Op::Get, None, "x")).errno()
    }

    #[test]
    fn the_promised_errnos() {
        assert_eq!(store(ErrorKind::NotFound), libc::ENOENT);
        assert_eq!(store(ErrorKind::AccessDenied), libc::EACCES);
        assert_eq!(store(ErrorKind::Precondition), libc::ESTALE);
        assert_eq!(store(ErrorKind::Archived), libc::ENODATA);
        assert_eq!(store(ErrorKind::Quota), libc::EDQUOT);
        assert_eq!(store(ErrorKind::MetadataTooLarge), libc::ENOSPC);
        assert_eq!(store(ErrorKind::Timeout), libc::ETIMEDOUT);
        assert_eq!(store(ErrorKind::Throttled), libc::EIO);
        assert_eq!(store(ErrorKind::Damaged), libc::EIO);
        assert!(!FsError::Store(StoreError::new(ErrorKind::Damaged, Op::Put, None, "x")).is_permanent());
        assert_eq!(FsError::Name(KeyError::KeyTooLong).errno(), libc::ENAMETOOLONG);
        assert_eq!(FsError::Disk(io::Error::from_raw_os_error(libc::ENOSPC)).errno(), libc::ENOSPC);
        assert_eq!(FsError::Disk(io::Error::from_raw_os_error(libc::EACCES)).errno(), libc::EIO);
        assert_eq!(FsError::ReadOnly.errno(), libc::EROFS);
        assert_eq!(FsError::Commit(CommitError::TooLarge(TooLarge(1))).errno(), libc::EFBIG);
    }

    /// Row by row of the table in SEMANTICS.md.
    #[test]
    fn what_the_store_says_has_the_errno_of_its_row() {
        use ErrorKind::*;
        let rows: [(i32, &[ErrorKind]); 10] = [
            (libc::ENOENT, &[NotFound, NoSuchBucket]),
            (libc::ESTALE, &[Precondition]),
            (libc::EOPNOTSUPP, &[NotImplemented]),
            (libc::EACCES, &[AccessDenied, Credentials]),
            (libc::ENOSPC, &[MetadataTooLarge]),
            (libc::EDQUOT, &[Quota]),
            (libc::EFBIG, &[TooLarge]),
            (libc::ENODATA, &[Archived]),
            (libc::ETIMEDOUT, &[Timeout]),
            (
                libc::EIO,
                &[
                    Unreachable,
                    Broken,
                    Server,
                    Throttled,
                    Conflict,
                    NoSuchUpload,
                    Corrupt,
                    InvalidRange,
                    Damaged,
                    Invalid,
                ],
            ),
        ];
        for (errno, kinds) in rows {
            kinds.iter().for_each(|kind| assert_eq!(store(*kind), errno, "{kind:?}"));
        }
    }

    #[test]
    fn what_fails_here_has_the_errno_of_its_row() {
        let disk = |code| FsError::Disk(io::Error::from_raw_os_error(code));
        let path = || std::path::PathBuf::from("catalogue.db");
        let rows = [
            (libc::ENOENT, FsError::NotFound),
            (libc::ESTALE, FsError::Stale),
            (libc::ESTALE, FsError::Commit(CommitError::BaseLost)),
            (libc::EEXIST, FsError::Exists),
            (libc::ENOTDIR, FsError::NotDir),
            (libc::EISDIR, FsError::IsDir),
            (libc::ENOTEMPTY, FsError::NotEmpty),
            (libc::EROFS, FsError::ReadOnly),
            (libc::EBADF, FsError::BadHandle),
            (libc::EINVAL, FsError::Invalid),
            (libc::EINVAL, FsError::Name(KeyError::NameInvalid)),
            (libc::ENXIO, FsError::PastEnd),
            (libc::EPERM, FsError::Impossible),
            (libc::EPERM, FsError::FixedAttribute),
            (libc::EOPNOTSUPP, FsError::NotSupported),
            (libc::EACCES, FsError::Reserved),
            (libc::EACCES, FsError::Hidden),
            (libc::EINTR, FsError::Interrupted),
            (libc::ENAMETOOLONG, FsError::Name(KeyError::KeyTooLong)),
            (libc::ENAMETOOLONG, FsError::Name(KeyError::NameTooLong)),
            (libc::ENOSPC, FsError::MetadataFull),
            (libc::ENOSPC, FsError::Catalogue(DbError::Full { path: path() })),
            (libc::ENOSPC, FsError::Journal(JournalError::Disk(io::Error::from_raw_os_error(libc::ENOSPC)))),
            (libc::ENOSPC, FsError::Journal(DbError::Full { path: path() }.into())),
            (libc::ENOSPC, FsError::Commit(CommitError::Journal(DbError::Full { path: path() }.into()))),
            (libc::EDQUOT, disk(libc::EDQUOT)),
            (libc::EFBIG, disk(libc::EFBIG)),
            (libc::ENODATA, FsError::NoAttribute),
            (libc::EBUSY, FsError::ConflictUnresolved(Box::new(FsError::NotFound))),
            (libc::EIO, FsError::Catalogue(DbError::Closed(path()))),
            (libc::EIO, FsError::Journal(JournalError::Incomplete)),
            (libc::EIO, disk(libc::ENODEV)),
            (libc::EIO, FsError::Internal("ended early".to_owned())),
        ];
        rows.iter().for_each(|(errno, error)| assert_eq!(error.errno(), *errno, "{error:?}"));
    }
}
