//! Object storage, spoken in S3's verbs.
//!
//! Owns: the trait [`ObjectStore`], its requests and answers, the error type, the S3 implementation (`s3`), the
//! in-memory reference (`memory`) and the wrappers around any store (`prefix`, `retry`, `look`, `limit`, `observe`, `guard`,
//! `fault`).
//! Does not own: what an object means to a file system, when to retry a whole operation, names of providers outside this
//! folder: stores differ by [`Capabilities`] and by the probed [`Conditions`], which are data.
//!
//! Wrappers, outermost first: `guard` (makes conditions true on servers that ignore them) > `prefix` (keys relative to the
//! mount) > `retry` (jittered backoff; resolves ambiguous answers by the write id) > `look` (HEAD before a write whose
//! condition the server ignores) > `limit` > `observe` > the store.

use crate::types::{ByteRange, ContentSum, ETag, Key, Timestamp, Unmappable, Version, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

mod error;
pub mod fault;
pub mod guard;
pub mod limit;
pub mod look;
pub mod memory;
pub mod observe;
pub mod open;
pub mod prefix;
pub mod probe;
pub mod retry;
pub mod s3;

pub use error::{ErrorKind, Op, StoreError};
pub use fault::FaultStore;
pub use guard::GuardStore;
pub use limit::LimitStore;
pub use look::{KnownConditions, LookStore};
pub use memory::MemoryStore;
pub use observe::Observed;
pub use prefix::PrefixStore;
pub use retry::RetryStore;

/// What every call of a store returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An object store in S3's verbs. Implementations are cheap to call from many tasks at once, and dropping a returned
/// future cancels its request.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Limits of this store.
    fn capabilities(&self) -> &Capabilities;

    /// HeadBucket: whether the bucket exists and answers us.
    async fn head_bucket(&self) -> Result<()>;

    /// HeadObject: version and headers. [`ErrorKind::NotFound`] if there is no such object.
    async fn head(&self, key: &Key) -> Result<ObjectMeta>;

    /// GetObject, whole or one range of it, pinned by `if_match` ([`ErrorKind::Precondition`] if the object has another
    /// ETag by now). A range that reaches past the end is cut there; one that begins past it is [`ErrorKind::InvalidRange`].
    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject>;

    /// A URL by which whoever has it can read the object for so long, at most a week, or until the credentials expire. Nothing is
    /// sent, but for credentials. `None` if there is none: requests are not signed, or have to say what a URL cannot.
    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>>;

    /// ListObjectsV2: one page, in ascending order of UTF-8 bytes.
    async fn list(&self, request: &ListRequest) -> Result<ListPage>;

    /// PutObject. [`ErrorKind::Damaged`] if it was carried out with other bytes: the object is there, and is not what was
    /// sent.
    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written>;

    /// CopyObject.
    async fn copy(&self, copy: &CopyRequest) -> Result<Written>;

    /// DeleteObject. Deleting what does not exist succeeds, unless `if_match` is given: then it is
    /// [`ErrorKind::NotFound`] or [`ErrorKind::Precondition`], as the server says.
    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()>;

    /// CreateMultipartUpload: the upload id.
    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String>;

    /// UploadPart: the part's ETag. [`ErrorKind::Damaged`] if the part has other bytes than were sent.
    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part>;

    /// UploadPartCopy: a range of an object at a known ETag becomes a part.
    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part>;

    /// CompleteMultipartUpload. An error inside a 200 answer is an error. `write_id` is the one in the headers that the
    /// upload was created with; it resolves ambiguous answers.
    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written>;

    /// AbortMultipartUpload. Aborting what no longer exists succeeds.
    async fn abort_upload(&self, upload: &Upload) -> Result<()>;

    /// ListParts of one upload, all pages, in order of part number.
    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>>;

    /// ListMultipartUploads under a prefix, all pages.
    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>>;
}

/// The limits of a store, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Smallest part of a multipart upload but the last, in bytes (S3: 5 MiB).
    pub part_size_min: u64,
    /// Largest part, in bytes (S3: 5 GiB).
    pub part_size_max: u64,
    /// Most parts of one upload (S3: 10,000).
    pub part_count_max: u16,
    /// Whether all parts but the last must be of one size (Cloudflare R2).
    pub parts_equal: bool,
    /// Largest body of one PutObject, in bytes (S3: 5 GiB).
    pub put_size_max: u64,
    /// Largest source of one CopyObject, in bytes (S3: 5 GiB).
    pub copy_size_max: u64,
    /// Largest object, in bytes (S3: 5 TiB at least).
    pub object_size_max: u64,
    /// Most user metadata of one object: bytes of names, without `x-amz-meta-`, and values together (S3: 2 KiB).
    pub user_metadata_max: usize,
}

impl Default for Capabilities {
    /// Amazon S3's own limits ("Amazon S3 multipart upload limits", "Working with object metadata"), which others follow unless a
    /// table says otherwise.
    fn default() -> Capabilities {
        const GIB: u64 = 1 << 30;
        Capabilities {
            part_size_min: 5 << 20,
            part_size_max: 5 * GIB,
            part_count_max: 10_000,
            parts_equal: false,
            put_size_max: 5 * GIB,
            copy_size_max: 5 * GIB,
            object_size_max: 5 * 1024 * GIB,
            user_metadata_max: 2048,
        }
    }
}

/// The condition under which a write may replace what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Replace whatever is there. Only for keys that are ours alone.
    Always,
    /// Only if there is nothing (`If-None-Match: *`).
    IfAbsent,
    /// Only if the object has this ETag (`If-Match`). [`ErrorKind::NotFound`] if it is gone.
    IfMatch(ETag),
}

/// Headers that an object carries beside its bytes. User metadata names are lower case, without `x-amz-meta-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ObjectHeaders {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// x-amz-storage-class.
    pub storage_class: Option<String>,
    /// User metadata.
    pub user: BTreeMap<String, String>,
}

impl ObjectHeaders {
    /// The same headers, marked with the id of the write that will carry them.
    #[must_use]
    pub fn with_write_id(mut self, id: &WriteId) -> ObjectHeaders {
        self.user.insert(WriteId::HEADER.to_owned(), id.as_str().to_owned());
        self
    }

    /// The write id among the headers, if any.
    pub fn write_id(&self) -> Option<WriteId> {
        self.user.get(WriteId::HEADER).map(|id| WriteId::new(id))
    }

    /// Bytes of user metadata, as [`Capabilities::user_metadata_max`] counts them.
    pub fn user_len(&self) -> usize {
        self.user.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The same headers, without the sum of the bytes if they would have more than `max` bytes of user metadata with it: it can be had
    /// by reading.
    #[must_use]
    pub fn fitting(mut self, max: usize) -> ObjectHeaders {
        if self.user_len() > max {
            self.user.remove(ContentSum::HEADER);
        }
        self
    }
}

/// What HEAD tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// ETag, Last-Modified, size.
    pub version: Version,
    /// All other headers that we keep.
    pub headers: ObjectHeaders,
    /// Version id, in a versioned bucket.
    pub version_id: Option<String>,
}

/// The answer of a GET: headers, and the bytes as they arrive.
pub struct GetObject {
    /// What HEAD would have told; `version.size` is the size of the whole object.
    pub meta: ObjectMeta,
    /// The bytes that follow: the range that was asked for, cut at the end of the object. `None` when there are none.
    pub range: Option<ByteRange>,
    /// The bytes. Ends with an error when the connection breaks or delivers fewer bytes than announced.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl Debug for GetObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetObject").field("meta", &self.meta).field("range", &self.range).finish_non_exhaustive()
    }
}

/// A request for one page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: Key,
    /// Whether to fold what follows the next `/` into common prefixes.
    pub delimited: bool,
    /// Where the page before ended: its `next`.
    pub continuation: Option<String>,
    /// Most entries in the page, keys and prefixes together (S3: 1,000 at most).
    pub max_keys: u16,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects, in order.
    pub objects: Vec<ListedObject>,
    /// Common prefixes, in order, each with its trailing `/`.
    pub prefixes: Vec<Key>,
    /// How to ask for the next page, if there is one.
    pub next: Option<String>,
    /// Keys and common prefixes that the server sent and that are no keys, in order.
    pub invalid: Vec<InvalidKey>,
}

/// What a listing shows and no request of ours can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey {
    /// The key; one that is not UTF-8 as the server encoded it.
    pub text: String,
    /// Its bytes, by which servers order keys.
    pub bytes: Vec<u8>,
    /// Why it is no key: [`Unmappable::LongKey`] or [`Unmappable::NotUtf8`].
    pub why: Unmappable,
    /// Size of the object in bytes; 0 for a common prefix.
    pub size: u64,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// Its storage class, where the listing tells.
    pub storage_class: Option<String>,
}

/// A CopyObject request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// What to copy.
    pub source: Key,
    /// Only if the source has this ETag.
    pub source_if_match: Option<ETag>,
    /// Size of the source in bytes, which decides between one copy and a copy in parts.
    pub source_size: u64,
    /// Where to.
    pub destination: Key,
    /// Headers of the destination; they replace the source's (`x-amz-metadata-directive: REPLACE`). Tags are kept.
    pub headers: ObjectHeaders,
    /// Condition on the destination.
    pub condition: Condition,
}

/// A multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The key that it will create.
    pub key: Key,
    /// The upload id.
    pub id: String,
    /// When it was created, where a listing told.
    pub initiated: Option<Timestamp>,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    /// Its ETag.
    pub etag: ETag,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
    /// Its CRC32C in base64, where the upload has checksums: the completion names it again.
    pub crc: Option<String>,
}

/// The source of an UploadPartCopy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSource {
    /// What to copy from.
    pub key: Key,
    /// Only if it has this ETag.
    pub if_match: Option<ETag>,
    /// Which bytes; `None` for all of them.
    pub range: Option<ByteRange>,
}

/// The answer of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The new ETag.
    pub etag: ETag,
    /// The new version id, in a versioned bucket.
    pub version_id: Option<String>,
    /// Last-Modified, where the answer tells (CopyObject does, PutObject does not).
    pub last_modified: Option<Timestamp>,
}

/// Whether a server keeps a condition on one verb, as a probe found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// Answers 412 when the condition fails.
    Honoured,
    /// Answers 200 and writes all the same.
    Ignored,
    /// Answers with an error whether the condition holds or not (B2 is reported to answer 501).
    Refused,
}

/// One answer per verb: which conditions a server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conditions {
    /// PutObject with If-None-Match:*.
    pub put_if_absent: Support,
    /// PutObject with If-Match.
    pub put_if_match: Support,
    /// CompleteMultipartUpload with If-None-Match:* and If-Match (the worse of the two).
    pub complete: Support,
    /// CopyObject with a condition on the destination.
    pub copy: Support,
    /// DeleteObject with If-Match.
    pub delete: Support,
}

impl Conditions {
    /// The same answer for every verb.
    pub fn all(support: Support) -> Conditions {
        Conditions { put_if_absent: support, put_if_match: support, complete: support, copy: support, delete: support }
    }
}
