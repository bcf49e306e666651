//! What can go wrong with a request to a store.
//!
//! Owns: the kinds of failure that a caller can act on, which of them may be tried again, which leave open whether the
//! request was carried out. Does not own: errnos (`fs::error`), parsing of SDK errors (`s3::error`).

use crate::types::Key;
use std::fmt;
use std::sync::Arc;

/// The verb that failed; also the label of request counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the S3 operation of its name")]
pub enum Op {
    HeadBucket,
    Head,
    Get,
    List,
    Put,
    Copy,
    Delete,
    CreateUpload,
    UploadPart,
    UploadPartCopy,
    CompleteUpload,
    AbortUpload,
    ListParts,
    ListUploads,
}

impl Op {
    /// Every verb, in the order of the counters.
    pub const ALL: [Op; 14] = [
        Op::HeadBucket,
        Op::Head,
        Op::Get,
        Op::List,
        Op::Put,
        Op::Copy,
        Op::Delete,
        Op::CreateUpload,
        Op::UploadPart,
        Op::UploadPartCopy,
        Op::CompleteUpload,
        Op::AbortUpload,
        Op::ListParts,
        Op::ListUploads,
    ];

    /// The S3 name of the operation.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::HeadBucket => "HeadBucket",
            Op::Head => "HeadObject",
            Op::Get => "GetObject",
            Op::List => "ListObjectsV2",
            Op::Put => "PutObject",
            Op::Copy => "CopyObject",
            Op::Delete => "DeleteObject",
            Op::CreateUpload => "CreateMultipartUpload",
            Op::UploadPart => "UploadPart",
            Op::UploadPartCopy => "UploadPartCopy",
            Op::CompleteUpload => "CompleteMultipartUpload",
            Op::AbortUpload => "AbortMultipartUpload",
            Op::ListParts => "ListParts",
            Op::ListUploads => "ListMultipartUploads",
        }
    }
}

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object.
    NotFound,
    /// No such bucket.
    NoSuchBucket,
    /// No such multipart upload: completed, aborted or expired.
    NoSuchUpload,
    /// A condition did not hold (412).
    Precondition,
    /// Another conditional write was under way (409 ConditionalRequestConflict).
    Conflict,
    /// The credentials are good, but not for this (403 AccessDenied).
    AccessDenied,
    /// The credentials are not good: unknown key, wrong secret, expired token, none found.
    Credentials,
    /// The object is archived and must be restored first (403 InvalidObjectState).
    Archived,
    /// The account or bucket is full.
    Quota,
    /// The body or the object is larger than the store takes.
    TooLarge,
    /// The object's user metadata is more than the store takes (400 MetadataTooLarge).
    MetadataTooLarge,
    /// The range begins past the end of the object.
    InvalidRange,
    /// The store asks to slow down (503 SlowDown, 429).
    Throttled,
    /// The store failed (other 5xx).
    Server,
    /// No answer within the deadline.
    Timeout,
    /// No connection: name not found, refused, TLS failed. The request was not sent.
    Unreachable,
    /// The connection broke after the request was sent.
    Broken,
    /// The store does not implement this (501), or refuses a header of it.
    NotImplemented,
    /// The answer contradicts itself or the protocol.
    Corrupt,
    /// The store has taken other bytes than were sent, as the checksum in its answer tells. What it made of them carries our
    /// write id all the same.
    Damaged,
    /// The request is wrong, and will be however often it is sent (other 4xx, wrong region, bad settings).
    Invalid,
}

impl ErrorKind {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_retryable(self) -> bool {
        use ErrorKind::*;
        matches!(self, Conflict | Throttled | Server | Timeout | Unreachable | Broken | Corrupt | Damaged)
    }

    /// Whether the server was not heard at all.
    pub fn is_silence(self) -> bool {
        use ErrorKind::*;
        matches!(self, Timeout | Unreachable | Broken)
    }

    /// Whether a write that failed so may have been carried out all the same.
    pub fn is_ambiguous(self) -> bool {
        use ErrorKind::*;
        matches!(self, Conflict | NoSuchUpload | Server | Timeout | Broken | Corrupt | Damaged)
    }
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// What a caller can act on.
    pub kind: ErrorKind,
    /// The verb.
    pub op: Op,
    /// The key, where the verb has one.
    pub key: Option<Key>,
    /// The code that the server sent (`SlowDown`), if any.
    pub code: Option<String>,
    /// The id that the server gave the request, if any.
    pub request_id: Option<String>,
    /// What the server or the client says about it, without secrets.
    pub message: String,
    /// The cause.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error with no answer of a server behind it.
    pub fn new(kind: ErrorKind, op: Op, key: Option<&Key>, message: impl Into<String>) -> StoreError {
        StoreError { kind, op, key: key.cloned(), code: None, request_id: None, message: message.into(), source: None }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op.as_str())?;
        if let Some(key) = &self.key {
            write!(f, " of {key:?}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(code) = &self.code {
            write!(f, " [{code}]")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}
