//! Makes conditions true on servers that ignore or refuse them, and copies what one CopyObject cannot.
//!
//! Owns: the probe before the first conditional write, the choice between the server's own condition, a copy in parts with
//! a conditional completion, and HEAD-then-write; says once that the last one leaves a race window.
//! Does not own: what to do when a condition does not hold (`write::conflict`).

use super::probe::{clean_left, probe};
use super::{
    Capabilities, Condition, Conditions, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders,
    ObjectMeta, ObjectStore, Op, Part, PartSource, Result, StoreError, Support, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::OnceCell;

/// What is called with the answers of the probe, so that they can be kept.
pub type OnProbed = Box<dyn Fn(&Conditions) + Send + Sync>;

/// Size of the parts of a copy in parts: small enough that the server copies one within a request's time limit.
const PART_COPY_SIZE: u64 = 1 << 30;
/// How many parts of one copy are copied at once.
const PARTS_AT_ONCE: usize = 4;

/// A store on which every condition holds.
pub struct GuardStore {
    inner: Arc<dyn ObjectStore>,
    conditions: OnceCell<Conditions>,
    on_probed: OnProbed,
    warned: AtomicBool,
    scratch: String,
}

/// How a write's condition is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The server keeps it, or there is none.
    Server,
    /// We look first, and then write without a condition.
    Look,
}

/// How a copy is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyPlan {
    /// One CopyObject.
    Whole(Keep),
    /// UploadPartCopy, then a completion under the condition.
    Parts,
    /// The source has no bytes, and an upload needs a part: PutObject of nothing under the condition.
    Empty,
}

/// Decides how a copy is carried out; `conditions` are needed only if there is one.
fn plan_copy(condition: &Condition, size: u64, copy_size_max: u64, conditions: Option<&Conditions>) -> CopyPlan {
    let honoured = |support| support == Support::Honoured;
    if size > copy_size_max {
        return CopyPlan::Parts;
    }
    match conditions {
        _ if *condition == Condition::Always => CopyPlan::Whole(Keep::Server),
        Some(known) if honoured(known.copy) => CopyPlan::Whole(Keep::Server),
        Some(known) if size == 0 && honoured(put_support(known, condition)) => CopyPlan::Empty,
        Some(known) if size > 0 && honoured(known.complete) => CopyPlan::Parts,
        _ => CopyPlan::Whole(Keep::Look),
    }
}

fn put_support(known: &Conditions, condition: &Condition) -> Support {
    match condition {
        Condition::IfMatch(_) => known.put_if_match,
        _ => known.put_if_absent,
    }
}

impl GuardStore {
    /// Guards `inner`, whose conditions may be known from an earlier probe. Otherwise they are probed before the first
    /// conditional write, and given to `on_probed`.
    pub fn new(inner: Arc<dyn ObjectStore>, known: Option<Conditions>, on_probed: OnProbed) -> GuardStore {
        let conditions = OnceCell::new_with(known);
        let scratch = uuid::Uuid::new_v4().to_string();
        GuardStore { inner, conditions, on_probed, warned: AtomicBool::new(false), scratch }
    }

    /// The same, with this name for scratch objects.
    #[must_use]
    pub fn with_scratch(mut self, scratch: String) -> GuardStore {
        self.scratch = scratch;
        self
    }

    /// Takes away what a probe with the same scratch name has left, which was killed. Nothing if conditions are known: then none was.
    ///
    /// # Errors
    /// What the server says.
    pub async fn clean_left_probe(&self) -> Result<()> {
        if self.conditions().is_some() {
            return Ok(());
        }
        clean_left(&self.inner, &self.scratch).await
    }

    /// Which conditions the server keeps, if that is known already.
    pub fn conditions(&self) -> Option<Conditions> {
        self.conditions.get().copied()
    }

    /// Which conditions the server keeps; asks it if that is not known yet.
    ///
    /// # Errors
    /// What kept the probe from being answered.
    pub async fn probed(&self) -> Result<Conditions> {
        let ask = || async {
            let found = probe(Arc::clone(&self.inner), &self.scratch).await?;
            tracing::info!(?found, "probed which conditions the server keeps");
            (self.on_probed)(&found);
            Ok(found)
        };
        self.conditions.get_or_try_init(ask).await.copied()
    }

    async fn keep(&self, condition: &Condition, support: impl Fn(&Conditions) -> Support) -> Result<Keep> {
        if *condition == Condition::Always {
            return Ok(Keep::Server);
        }
        Ok(if support(&self.probed().await?) == Support::Honoured { Keep::Server } else { Keep::Look })
    }

    /// Checks a condition by a HEAD. `Some` if the object is already what this write makes, which then happened.
    async fn look(&self, op: Op, key: &Key, condition: &Condition, id: Option<&WriteId>) -> Result<Option<Written>> {
        if !self.warned.swap(true, Relaxed) {
            tracing::warn!(
                op = op.as_str(),
                "the server does not keep conditions on writes: objfs looks before it writes, \
                 but a change made elsewhere within the same moment can be overwritten"
            );
        }
        let found = match self.inner.head(key).await {
            Ok(meta) => Some(meta),
            Err(e) if e.kind == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let fail = |kind, message| Err(StoreError::new(kind, op, Some(key), message));
        match (condition, found) {
            (_, Some(meta)) if id.is_some() && meta.headers.write_id().as_ref() == id => Ok(Some(Written {
                etag: meta.version.etag,
                version_id: meta.version_id,
                last_modified: meta.version.last_modified,
            })),
            (Condition::Always, _) | (Condition::IfAbsent, None) => Ok(None),
            (Condition::IfMatch(want), Some(meta)) if *want == meta.version.etag => Ok(None),
            (Condition::IfMatch(_), None) => fail(ErrorKind::NotFound, "the object to be replaced does not exist"),
            (_, Some(meta)) => {
                let message = format!("the object is there with ETag {}", meta.version.etag.as_str());
                fail(ErrorKind::Precondition, message.as_str())
            }
        }
    }

    async fn look_and_copy(&self, copy: &CopyRequest) -> Result<Written> {
        let id = copy.headers.write_id();
        match self.look(Op::Copy, &copy.destination, &copy.condition, id.as_ref()).await? {
            Some(written) => Ok(written),
            None => self.inner.copy(&CopyRequest { condition: Condition::Always, ..copy.clone() }).await,
        }
    }

    /// Copies by UploadPartCopy and a completion under the condition. Tags of the source are not copied.
    async fn copy_in_parts(&self, copy: &CopyRequest) -> Result<Written> {
        let id = copy.headers.write_id().unwrap_or_else(|| WriteId::new(&uuid::Uuid::new_v4().to_string()));
        let headers = copy.headers.clone().with_write_id(&id);
        let upload_id = self.inner.create_upload(&copy.destination, &headers).await?;
        let upload = Upload { key: copy.destination.clone(), id: upload_id, initiated: None };
        let answer = match self.copy_parts(copy, &upload).await {
            Ok(parts) => self.complete_upload(&upload, &parts, &copy.condition, &id).await,
            Err(e) => Err(e),
        };
        if answer.is_err()
            && let Err(error) = self.inner.abort_upload(&upload).await
        {
            tracing::warn!(%error, "an upload stays behind");
        }
        answer
    }

    async fn copy_parts(&self, copy: &CopyRequest, upload: &Upload) -> Result<Vec<Part>> {
        let ranges = part_ranges(copy.source_size, self.capabilities());
        let part = |(number, range)| async move {
            let source = PartSource { key: copy.source.clone(), if_match: copy.source_if_match.clone(), range };
            self.inner.upload_part_copy(upload, number, &source).await
        };
        futures::stream::iter((1..).zip(ranges)).map(part).buffered(PARTS_AT_ONCE).try_collect().await
    }

    async fn copy_nothing(&self, copy: &CopyRequest) -> Result<Written> {
        let source = self.inner.head(&copy.source).await?;
        let matches = copy.source_if_match.as_ref().is_none_or(|want| *want == source.version.etag);
        if !matches || source.version.size != 0 {
            let message = "the source is another version by now";
            return Err(StoreError::new(ErrorKind::Precondition, Op::Copy, Some(&copy.source), message));
        }
        self.put(&copy.destination, Bytes::new(), &copy.headers, &copy.condition).await
    }
}

/// The ranges of a copy in parts. One part is asked for without a range, which S3 refuses for small sources.
fn part_ranges(size: u64, limits: &Capabilities) -> Vec<Option<ByteRange>> {
    // Parts of one size, except the last, suit every server.
    let len = PART_COPY_SIZE.max(size.div_ceil(u64::from(limits.part_count_max))).min(limits.part_size_max);
    if size <= len {
        return vec![None];
    }
    (0..size.div_ceil(len)).map(|i| ByteRange::new(i * len, size.min((i + 1) * len))).collect()
}

impl fmt::Debug for GuardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardStore")
            .field("inner", &self.inner)
            .field("conditions", &self.conditions)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for GuardStore {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        self.inner.head_bucket().await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        self.inner.get(key, range, if_match).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.inner.list(request).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        match self.keep(condition, |known| put_support(known, condition)).await? {
            Keep::Server => self.inner.put(key, body, headers, condition).await,
            Keep::Look => match self.look(Op::Put, key, condition, headers.write_id().as_ref()).await? {
                Some(written) => Ok(written),
                None => self.inner.put(key, body, headers, &Condition::Always).await,
            },
        }
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let known = if copy.condition == Condition::Always { None } else { Some(self.probed().await?) };
        let size_max = self.capabilities().copy_size_max;
        match plan_copy(&copy.condition, copy.source_size, size_max, known.as_ref()) {
            CopyPlan::Whole(Keep::Server) => self.inner.copy(copy).await,
            CopyPlan::Parts => match self.copy_in_parts(copy).await {
                // Some servers refuse part copies of small sources, or all of them.
                Err(e)
                    if matches!(e.kind, ErrorKind::Invalid | ErrorKind::NotImplemented)
                        && e.op == Op::UploadPartCopy
                        && copy.source_size <= size_max =>
                {
                    self.look_and_copy(copy).await
                }
                answer => answer,
            },
            CopyPlan::Empty => self.copy_nothing(copy).await,
            CopyPlan::Whole(Keep::Look) => self.look_and_copy(copy).await,
        }
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let condition = if_match.map_or(Condition::Always, |etag| Condition::IfMatch(etag.clone()));
        match self.keep(&condition, |known| known.delete).await? {
            Keep::Server => self.inner.delete(key, if_match).await,
            Keep::Look => {
                self.look(Op::Delete, key, &condition, None).await?;
                self.inner.delete(key, None).await
            }
        }
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.inner.create_upload(key, headers).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        self.inner.upload_part(upload, number, body).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        self.inner.upload_part_copy(upload, number, source).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        match self.keep(condition, |known| known.complete).await? {
            Keep::Server => self.inner.complete_upload(upload, parts, condition, write_id).await,
            Keep::Look => match self.look(Op::CompleteUpload, &upload.key, condition, Some(write_id)).await? {
                Some(written) => Ok(written),
                None => self.inner.complete_upload(upload, parts, &Condition::Always, write_id).await,
            },
        }
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.inner.abort_upload(upload).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.inner.list_parts(upload).await
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        self.inner.list_uploads(prefix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_their_condition_by_the_best_means() {
        let known = |complete, copy| Conditions { complete, copy, ..Conditions::all(Support::Honoured) };
        let plan = |condition: &Condition, size, known: Conditions| plan_copy(condition, size, 100, Some(&known));
        use Support::*;
        assert_eq!(plan_copy(&Condition::Always, 5, 100, None), CopyPlan::Whole(Keep::Server));
        assert_eq!(plan_copy(&Condition::Always, 101, 100, None), CopyPlan::Parts);
        assert_eq!(plan(&Condition::IfAbsent, 5, known(Ignored, Honoured)), CopyPlan::Whole(Keep::Server));
        assert_eq!(plan(&Condition::IfAbsent, 5, known(Honoured, Ignored)), CopyPlan::Parts);
        assert_eq!(plan(&Condition::IfAbsent, 0, known(Honoured, Refused)), CopyPlan::Empty);
        assert_eq!(plan(&Condition::IfAbsent, 5, Conditions::all(Ignored)), CopyPlan::Whole(Keep::Look));
    }

    #[test]
    fn parts_of_a_copy_are_equal_and_cover_it() {
        let gib = 1u64 << 30;
        let limits = Capabilities::default();
        assert_eq!(part_ranges(7, &limits), vec![None]);
        let ranges = part_ranges(12 * gib + 5, &limits);
        assert_eq!(ranges.len(), 13);
        assert_eq!(ranges[12], ByteRange::new(12 * gib, 12 * gib + 5));
        let few = Capabilities { part_count_max: 4, ..limits };
        assert!(part_ranges(12 * gib + 5, &few).len() <= 4);
    }

    #[tokio::test]
    async fn what_is_too_large_for_one_copy_is_copied_in_parts() {
        use crate::store::MemoryStore;
        let limits = Capabilities { part_size_min: 1, part_size_max: 1000, copy_size_max: 2000, ..Default::default() };
        let conditions = Conditions::all(Support::Honoured);
        let guard = GuardStore::new(Arc::new(MemoryStore::with(limits, conditions)), None, Box::new(|_| {}));
        let (source, destination) = (Key::parse("a").unwrap(), Key::parse("b").unwrap());
        let body = Bytes::from_iter((0..4500u32).map(|i| i as u8));
        let written = guard.put(&source, body.clone(), &ObjectHeaders::default(), &Condition::Always).await.unwrap();
        let copy = CopyRequest {
            source,
            source_if_match: Some(written.etag),
            source_size: 4500,
            destination: destination.clone(),
            headers: ObjectHeaders::default(),
            condition: Condition::IfAbsent,
        };
        let copied = guard.copy(&copy).await.unwrap();
        assert!(copied.etag.bare().ends_with("-5"));
        let answer = guard.get(&destination, None, None).await.unwrap();
        assert_eq!(answer.body.try_collect::<Vec<_>>().await.unwrap().concat(), body);
        assert_eq!(guard.copy(&copy).await.unwrap_err().kind, ErrorKind::Precondition);
    }
}
