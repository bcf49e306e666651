//! An object store in memory: the reference that every other store is compared with.
//!
//! Owns: objects with their versions and headers, conditions decided atomically with the write, multipart uploads with
//! S3's checks, paged listings. Can also play a server that ignores or refuses conditions.
//! Does not own: faults and latency (`fault`), older versions of an object (a bucket without versioning).

use super::{
    Capabilities, Condition, Conditions, CopyRequest, ErrorKind, GetObject, InvalidKey, ListPage, ListRequest,
    ObjectHeaders, ObjectMeta, ObjectStore, Op, Part, PartSource, Result, StoreError, Support, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, Timestamp, Version, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

mod list;
mod multipart;

/// Length of the pieces in which a body is delivered, so that readers meet more than one.
const FRAME_LEN: usize = 256 << 10;

/// An object store in memory.
pub struct MemoryStore {
    capabilities: Capabilities,
    conditions: Conditions,
    lax_reads: bool,
    lax_part_copies: bool,
    invalid: Vec<InvalidKey>,
    state: Mutex<State>,
}

/// Everything that a bucket holds.
#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    uploads: BTreeMap<String, multipart::Pending>,
}

/// One object.
#[derive(Clone)]
struct Object {
    body: Bytes,
    etag: ETag,
    last_modified: Timestamp,
    headers: ObjectHeaders,
}

impl Object {
    fn new(body: Bytes, etag: ETag, headers: ObjectHeaders) -> Object {
        Object { body, etag, last_modified: now(), headers }
    }

    fn meta(&self) -> ObjectMeta {
        ObjectMeta { version: self.version(), headers: self.headers.clone(), version_id: None }
    }

    fn version(&self) -> Version {
        Version { etag: self.etag.clone(), last_modified: Some(self.last_modified), size: self.body.len() as u64 }
    }

    fn written(&self) -> Written {
        Written { etag: self.etag.clone(), version_id: None, last_modified: None }
    }
}

/// The time as S3 keeps it: whole seconds.
fn now() -> Timestamp {
    Timestamp::from_parts(Timestamp::from_system(SystemTime::now()).secs(), 0)
}

/// The ETag of a body that was sent in one PUT: its MD5.
fn etag_of(body: &[u8]) -> ETag {
    ETag::parse(&hex(&Md5::digest(body)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a condition holds of what is there now.
fn check(condition: &Condition, current: Option<&ETag>) -> Result<(), ErrorKind> {
    match (condition, current) {
        (Condition::Always, _) | (Condition::IfAbsent, None) => Ok(()),
        (Condition::IfAbsent, Some(_)) => Err(ErrorKind::Precondition),
        (Condition::IfMatch(_), None) => Err(ErrorKind::NotFound),
        (Condition::IfMatch(want), Some(have)) if want == have => Ok(()),
        (Condition::IfMatch(_), Some(_)) => Err(ErrorKind::Precondition),
    }
}

/// An error as a server would put it.
fn refuse(kind: ErrorKind, op: Op, key: Option<&Key>) -> StoreError {
    let (code, message) = match kind {
        ErrorKind::NotFound => ("NoSuchKey", "the object does not exist"),
        ErrorKind::NoSuchUpload => ("NoSuchUpload", "the upload does not exist"),
        ErrorKind::Precondition => ("PreconditionFailed", "a condition did not hold"),
        ErrorKind::InvalidRange => ("InvalidRange", "the range begins past the end of the object"),
        ErrorKind::TooLarge => ("EntityTooLarge", "the body exceeds the maximum allowed size"),
        ErrorKind::MetadataTooLarge => ("MetadataTooLarge", "the metadata headers exceed the maximum allowed size"),
        ErrorKind::NotImplemented => ("NotImplemented", "a header implies functionality that is not implemented"),
        _ => ("InvalidRequest", "the request is invalid"),
    };
    StoreError { code: Some(code.to_owned()), ..StoreError::new(kind, op, key, message) }
}

impl MemoryStore {
    /// An empty bucket with S3's own limits, which honours every condition.
    pub fn new() -> MemoryStore {
        MemoryStore::with(Capabilities::default(), Conditions::all(Support::Honoured))
    }

    /// An empty bucket with the given limits, which honours, ignores or refuses conditions per verb.
    pub fn with(capabilities: Capabilities, conditions: Conditions) -> MemoryStore {
        let (lax_reads, lax_part_copies, invalid, state) = (false, false, Vec::new(), Mutex::default());
        MemoryStore { capabilities, conditions, lax_reads, lax_part_copies, invalid, state }
    }

    /// The same, as behind a proxy that ignores the condition of a GET.
    pub fn with_lax_reads(self) -> MemoryStore {
        MemoryStore { lax_reads: true, ..self }
    }

    /// The same, as a server that ignores the condition on the source of an UploadPartCopy.
    pub fn with_lax_part_copies(self) -> MemoryStore {
        MemoryStore { lax_part_copies: true, ..self }
    }

    /// The same, as a server that lets in keys which no request of ours can name: its listings show them last.
    pub fn with_keys_that_are_none(self, invalid: Vec<InvalidKey>) -> MemoryStore {
        MemoryStore { invalid, ..self }
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.lock().objects.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides a condition as this server does.
    fn decide(
        &self,
        support: Support,
        condition: &Condition,
        current: Option<&Object>,
        op: Op,
        key: &Key,
    ) -> Result<()> {
        match support {
            _ if *condition == Condition::Always => Ok(()),
            Support::Ignored => Ok(()),
            Support::Refused => Err(refuse(ErrorKind::NotImplemented, op, Some(key))),
            Support::Honoured => check(condition, current.map(|o| &o.etag)).map_err(|kind| refuse(kind, op, Some(key))),
        }
    }

    fn check_metadata(&self, headers: &ObjectHeaders, op: Op, key: &Key) -> Result<()> {
        if headers.user_len() > self.capabilities.user_metadata_max {
            return Err(refuse(ErrorKind::MetadataTooLarge, op, Some(key)));
        }
        Ok(())
    }

    fn put_support(&self, condition: &Condition) -> Support {
        match condition {
            Condition::IfMatch(_) => self.conditions.put_if_match,
            _ => self.conditions.put_if_absent,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn head_bucket(&self) -> Result<()> {
        Ok(())
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let state = self.lock();
        state.objects.get(key).map(Object::meta).ok_or_else(|| refuse(ErrorKind::NotFound, Op::Head, Some(key)))
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        let fail = |kind| refuse(kind, Op::Get, Some(key));
        let object = self.lock().objects.get(key).cloned().ok_or_else(|| fail(ErrorKind::NotFound))?;
        if !self.lax_reads && if_match.is_some_and(|want| *want != object.etag) {
            return Err(fail(ErrorKind::Precondition));
        }
        let whole = ByteRange::new(0, object.body.len() as u64);
        let range = match range {
            None => whole,
            Some(asked) => Some(whole.and_then(|w| w.intersect(asked)).ok_or_else(|| fail(ErrorKind::InvalidRange))?),
        };
        let body = range.map(|r| object.body.slice(r.start() as usize..r.end() as usize)).unwrap_or_default();
        Ok(GetObject { meta: object.meta(), range, body: frames(body).boxed() })
    }

    async fn presign(&self, _key: &Key, _valid: Duration) -> Result<Option<String>> {
        Ok(None)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let mut page = list::page(&self.lock().objects, request);
        if page.next.is_none() {
            let is_shown = |key: &&InvalidKey| {
                let rest = key.text.strip_prefix(request.prefix.as_str());
                // Those that are deeper are below a common prefix.
                rest.is_some_and(|rest| !request.delimited || !rest.contains('/'))
            };
            page.invalid.extend(self.invalid.iter().filter(is_shown).cloned());
        }
        Ok(page)
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        if body.len() as u64 > self.capabilities.put_size_max {
            return Err(refuse(ErrorKind::TooLarge, Op::Put, Some(key)));
        }
        self.check_metadata(headers, Op::Put, key)?;
        let etag = etag_of(&body);
        let mut state = self.lock();
        self.decide(self.put_support(condition), condition, state.objects.get(key), Op::Put, key)?;
        let object = Object::new(body, etag, headers.clone());
        let written = object.written();
        state.objects.insert(key.clone(), object);
        Ok(written)
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        self.check_metadata(&copy.headers, Op::Copy, &copy.destination)?;
        let mut state = self.lock();
        let fail = |kind, key| refuse(kind, Op::Copy, Some(key));
        let source = state.objects.get(&copy.source).ok_or_else(|| fail(ErrorKind::NotFound, &copy.source))?;
        if copy.source_if_match.as_ref().is_some_and(|want| *want != source.etag) {
            return Err(fail(ErrorKind::Precondition, &copy.source));
        }
        if source.body.len() as u64 > self.capabilities.copy_size_max {
            return Err(fail(ErrorKind::TooLarge, &copy.source));
        }
        let body = source.body.clone();
        let current = state.objects.get(&copy.destination);
        self.decide(self.conditions.copy, &copy.condition, current, Op::Copy, &copy.destination)?;
        // A copy is a new single-part object: its ETag is the MD5 even if the source was uploaded in parts.
        let object = Object::new(body.clone(), etag_of(&body), copy.headers.clone());
        let written = Written { last_modified: Some(object.last_modified), ..object.written() };
        state.objects.insert(copy.destination.clone(), object);
        Ok(written)
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let mut state = self.lock();
        let condition = if_match.map_or(Condition::Always, |etag| Condition::IfMatch(etag.clone()));
        self.decide(self.conditions.delete, &condition, state.objects.get(key), Op::Delete, key)?;
        state.objects.remove(key);
        Ok(())
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.check_metadata(headers, Op::CreateUpload, key)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.lock().uploads.insert(id.clone(), multipart::Pending::new(key, headers));
        Ok(id)
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        let mut state = self.lock();
        let pending = multipart::find(&mut state.uploads, upload, Op::UploadPart)?;
        pending.add(&self.capabilities, number, body).map_err(|e| e.at(Op::UploadPart, &upload.key))
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        let mut state = self.lock();
        let fail = |kind| refuse(kind, Op::UploadPartCopy, Some(&source.key));
        let object = state.objects.get(&source.key).ok_or_else(|| fail(ErrorKind::NotFound))?;
        if !self.lax_part_copies && source.if_match.as_ref().is_some_and(|want| *want != object.etag) {
            return Err(fail(ErrorKind::Precondition));
        }
        let size = object.body.len() as u64;
        let body = match source.range {
            None => object.body.clone(),
            Some(r) if r.end() <= size => object.body.slice(r.start() as usize..r.end() as usize),
            Some(_) => return Err(fail(ErrorKind::InvalidRange)),
        };
        let pending = multipart::find(&mut state.uploads, upload, Op::UploadPartCopy)?;
        pending.add(&self.capabilities, number, body).map_err(|e| e.at(Op::UploadPartCopy, &upload.key))
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        _write_id: &WriteId,
    ) -> Result<Written> {
        let op = Op::CompleteUpload;
        let mut state = self.lock();
        let pending = multipart::find(&mut state.uploads, upload, op)?;
        let object = pending.assemble(&self.capabilities, parts).map_err(|e| e.at(op, &upload.key))?;
        self.decide(self.conditions.complete, condition, state.objects.get(&upload.key), op, &upload.key)?;
        let written = object.written();
        state.objects.insert(upload.key.clone(), object);
        state.uploads.remove(&upload.id);
        Ok(written)
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.lock().uploads.remove(&upload.id);
        Ok(())
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        Ok(multipart::find(&mut self.lock().uploads, upload, Op::ListParts)?.parts())
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        Ok(multipart::list(&self.lock().uploads, prefix))
    }
}

/// The body in pieces, as a network would deliver it.
fn frames(mut body: Bytes) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    futures::stream::iter(std::iter::from_fn(move || {
        (!body.is_empty()).then(|| Ok(body.split_to(body.len().min(FRAME_LEN))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_decided_as_rfc_9110_says() {
        let (a, b) = (ETag::parse("a"), ETag::parse("b"));
        assert_eq!(check(&Condition::Always, Some(&a)), Ok(()));
        assert_eq!(check(&Condition::IfAbsent, None), Ok(()));
        assert_eq!(check(&Condition::IfAbsent, Some(&a)), Err(ErrorKind::Precondition));
        assert_eq!(check(&Condition::IfMatch(a.clone()), Some(&a)), Ok(()));
        assert_eq!(check(&Condition::IfMatch(a.clone()), Some(&b)), Err(ErrorKind::Precondition));
        assert_eq!(check(&Condition::IfMatch(a), None), Err(ErrorKind::NotFound));
    }

    #[test]
    fn etags_are_md5() {
        assert_eq!(etag_of(b"").bare(), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
