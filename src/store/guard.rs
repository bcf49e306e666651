//! Makes conditions true on servers that ignore or refuse them, and copies what one CopyObject cannot.
//!
//! Owns: the probe before the first conditional write, the choice between one CopyObject and a copy in parts with a
//! conditional completion. Does not own: HEAD-then-write where the server keeps no condition (`look`, which goes by what is
//! found here), what to do when a condition does not hold (`write::conflict`).

use super::look::{KnownConditions, put_support};
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
use std::time::Duration;
use tokio::sync::Mutex;

/// What is called with the answers of the probe, so that they can be kept. Not with answers that follow from the rights of
/// the keys.
pub type OnProbed = Box<dyn Fn(&Conditions) + Send + Sync>;

/// Size of the parts of a copy in parts: small enough that the server copies one within a request's time limit.
const PART_COPY_SIZE: u64 = 1 << 30;
/// How many parts of one copy are copied at once.
const PARTS_AT_ONCE: usize = 4;

/// A store on which every condition holds, if there is a [`LookStore`](super::LookStore) below that knows the same.
pub struct GuardStore {
    inner: Arc<dyn ObjectStore>,
    asking: Arc<Asking>,
}

/// The probe, which an upload has going on beside it.
struct Asking {
    inner: Arc<dyn ObjectStore>,
    known: KnownConditions,
    on_probed: OnProbed,
    scratch: String,
    /// Whoever makes or takes away objects of that name.
    turn: Mutex<()>,
}

impl Asking {
    async fn probed(&self) -> Result<Conditions> {
        let ask = || async {
            let _turn = self.turn.lock().await;
            let found = probe(Arc::clone(&self.inner), &self.scratch).await?;
            tracing::info!(?found, "probed which conditions the server keeps");
            if found.is_denied {
                // Good for this mount only: the next one may have the right, and has to ask again.
                tracing::warn!("the keys may not delete or not copy: these verbs count as if conditions were refused");
            } else {
                (self.on_probed)(&found.conditions);
            }
            Ok(found.conditions)
        };
        self.known.cell().get_or_try_init(ask).await.copied()
    }
}

/// How a copy is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyPlan {
    /// One CopyObject.
    Whole,
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
        _ if *condition == Condition::Always => CopyPlan::Whole,
        Some(known) if honoured(known.copy) => CopyPlan::Whole,
        Some(known) if size == 0 && honoured(put_support(known, condition)) => CopyPlan::Empty,
        Some(known) if size > 0 && honoured(known.complete) => CopyPlan::Parts,
        _ => CopyPlan::Whole,
    }
}

impl GuardStore {
    /// Guards `inner`, whose conditions may be known from an earlier probe. Otherwise they are probed before the first
    /// conditional write, and given to `on_probed`. The [`LookStore`](super::LookStore) below has a clone of `known`.
    pub fn new(inner: Arc<dyn ObjectStore>, known: KnownConditions, on_probed: OnProbed) -> GuardStore {
        GuardStore::with_scratch(inner, known, on_probed, uuid::Uuid::new_v4().to_string())
    }

    /// The same, with this name for scratch objects.
    pub fn with_scratch(
        inner: Arc<dyn ObjectStore>,
        known: KnownConditions,
        on_probed: OnProbed,
        scratch: String,
    ) -> GuardStore {
        let asking = Asking { inner: Arc::clone(&inner), known, on_probed, scratch, turn: Mutex::new(()) };
        GuardStore { inner, asking: Arc::new(asking) }
    }

    /// Takes away what a probe with the same scratch name has left, which was killed. Nothing if conditions are known: then none was.
    ///
    /// # Errors
    /// What the server says.
    pub async fn clean_left_probe(&self) -> Result<()> {
        // A probe of this mount must not find its objects gone.
        let _turn = self.asking.turn.lock().await;
        if self.conditions().is_some() {
            return Ok(());
        }
        clean_left(&self.inner, &self.asking.scratch).await
    }

    /// Which conditions the server keeps, if that is known already.
    pub fn conditions(&self) -> Option<Conditions> {
        self.asking.known.get()
    }

    /// Which conditions the server keeps; asks it if that is not known yet.
    ///
    /// # Errors
    /// What kept the probe from being answered.
    pub async fn probed(&self) -> Result<Conditions> {
        self.asking.probed().await
    }

    /// An upload, whose completion has a condition, takes a while: the server is asked meanwhile.
    fn ask_beside(&self) {
        if self.conditions().is_some() {
            return;
        }
        let asking = Arc::clone(&self.asking);
        tokio::spawn(async move {
            if let Err(error) = asking.probed().await {
                tracing::debug!(%error, "the completion asks again which conditions the server keeps");
            }
        });
    }

    /// Whoever writes under a condition has to know first whether the server keeps it.
    async fn ask_before(&self, condition: &Condition) -> Result<()> {
        if *condition != Condition::Always {
            self.probed().await?;
        }
        Ok(())
    }

    /// Copies by UploadPartCopy and a completion under the condition. Tags of the source are not copied.
    async fn copy_in_parts(&self, copy: &CopyRequest) -> Result<Written> {
        let id = copy.headers.write_id().unwrap_or_else(WriteId::random);
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
            .field("known", &self.asking.known)
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

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.inner.presign(key, valid).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.inner.list(request).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        self.ask_before(condition).await?;
        self.inner.put(key, body, headers, condition).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let known = if copy.condition == Condition::Always { None } else { Some(self.probed().await?) };
        let size_max = self.capabilities().copy_size_max;
        match plan_copy(&copy.condition, copy.source_size, size_max, known.as_ref()) {
            CopyPlan::Whole => self.inner.copy(copy).await,
            CopyPlan::Parts => match self.copy_in_parts(copy).await {
                // Some servers refuse part copies of small sources, or all of them.
                Err(e)
                    if matches!(e.kind, ErrorKind::Invalid | ErrorKind::NotImplemented)
                        && e.op == Op::UploadPartCopy
                        && copy.source_size <= size_max =>
                {
                    self.inner.copy(copy).await
                }
                answer => answer,
            },
            CopyPlan::Empty => self.copy_nothing(copy).await,
        }
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let condition = if_match.map_or(Condition::Always, |etag| Condition::IfMatch(etag.clone()));
        self.ask_before(&condition).await?;
        self.inner.delete(key, if_match).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.ask_beside();
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
        self.ask_before(condition).await?;
        self.inner.complete_upload(upload, parts, condition, write_id).await
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
    use crate::store::{FaultStore, MemoryStore, Observed, fault};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn copies_keep_their_condition_by_the_best_means() {
        let known = |complete, copy| Conditions { complete, copy, ..Conditions::all(Support::Honoured) };
        let plan = |condition: &Condition, size, known: Conditions| plan_copy(condition, size, 100, Some(&known));
        use Support::*;
        assert_eq!(plan_copy(&Condition::Always, 5, 100, None), CopyPlan::Whole);
        assert_eq!(plan_copy(&Condition::Always, 101, 100, None), CopyPlan::Parts);
        assert_eq!(plan(&Condition::IfAbsent, 5, known(Ignored, Honoured)), CopyPlan::Whole);
        assert_eq!(plan(&Condition::IfAbsent, 5, known(Honoured, Ignored)), CopyPlan::Parts);
        assert_eq!(plan(&Condition::IfAbsent, 0, known(Honoured, Refused)), CopyPlan::Empty);
        assert_eq!(plan(&Condition::IfAbsent, 5, Conditions::all(Ignored)), CopyPlan::Whole);
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
        let memory = Arc::new(MemoryStore::with(limits, conditions));
        let guard = GuardStore::new(memory, KnownConditions::new(None), Box::new(|_| {}));
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

    fn faulty() -> (Arc<FaultStore>, GuardStore) {
        let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), fault::Settings::default()));
        let store = Arc::clone(&faults) as Arc<dyn ObjectStore>;
        let guard = GuardStore::with_scratch(store, KnownConditions::new(None), Box::new(|_| {}), "same".to_owned());
        (faults, guard)
    }

    /// The mount before was killed, perhaps in the midst of a probe, and this one is written to at once.
    #[tokio::test]
    async fn taking_away_what_a_probe_has_left_does_not_disturb_another_one() {
        let (faults, guard) = faulty();
        let (cleans, copies) = (faults.hold_next(Op::Delete), faults.hold_next(Op::Copy));
        let guard = Arc::new(guard);
        let other = Arc::clone(&guard);
        let cleaning = tokio::spawn(async move { other.clean_left_probe().await });
        cleans.reached().await;
        let other = Arc::clone(&guard);
        let key = Key::parse("a").unwrap();
        let writing = tokio::spawn(async move {
            other.put(&key, Bytes::new(), &ObjectHeaders::default(), &Condition::IfAbsent).await
        });
        _ = tokio::time::timeout(Duration::from_millis(50), copies.reached()).await;
        cleans.release();
        cleaning.await.unwrap().unwrap();
        copies.release();
        writing.await.unwrap().unwrap();
    }

    /// A guard as a mount has it, and how often it gave away what it has found.
    fn guard_of(store: Arc<dyn ObjectStore>) -> (GuardStore, Arc<AtomicUsize>) {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let on_probed = Box::new(move |_: &Conditions| _ = count.fetch_add(1, Relaxed));
        (GuardStore::with_scratch(store, KnownConditions::new(None), on_probed, "same".to_owned()), told)
    }

    async fn create(guard: &GuardStore, name: &str) {
        let (key, headers) = (Key::parse(name).unwrap(), ObjectHeaders::default());
        guard.put(&key, Bytes::from_static(b"new"), &headers, &Condition::IfAbsent).await.unwrap();
    }

    #[tokio::test]
    async fn who_may_not_delete_writes_all_the_same_and_a_mount_that_may_asks_again() {
        let memory = Arc::new(MemoryStore::new());
        let faults = Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default()));
        faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 100);
        let honoured = Conditions::all(Support::Honoured);
        for mount in ["first", "second"] {
            let observed = Observed::new(Arc::<FaultStore>::clone(&faults));
            let counters = observed.counters();
            let (guard, told) = guard_of(Arc::new(observed));
            create(&guard, &format!("{mount} a")).await;
            let probed = counters.of(Op::Put).requests;
            create(&guard, &format!("{mount} b")).await;
            assert_eq!(counters.of(Op::Put).requests, probed + 1, "{mount}: probed once");
            let found = Conditions { delete: Support::Ignored, ..honoured };
            assert_eq!((guard.conditions(), told.load(Relaxed)), (Some(found), 0), "{mount}");
            let etag = memory.head(&Key::parse("first a").unwrap()).await.unwrap().version.etag;
            let denied = guard.delete(&Key::parse("first a").unwrap(), Some(&etag)).await.unwrap_err();
            assert_eq!(denied.kind, ErrorKind::AccessDenied, "{mount}");
        }
        let (guard, told) = guard_of(Arc::<MemoryStore>::clone(&memory));
        create(&guard, "third").await;
        assert_eq!((guard.conditions(), told.load(Relaxed)), (Some(honoured), 1));
        assert_eq!(memory.count(), 5, "the scratch objects of all three are gone");
    }

    #[tokio::test]
    async fn what_a_probe_misses_is_not_taken_for_the_object_that_is_written() {
        let (faults, guard) = faulty();
        let condition = Condition::IfMatch(ETag::parse("e"));
        let key = Key::parse("a").unwrap();
        for kind in [ErrorKind::NotFound, ErrorKind::NoSuchUpload] {
            faults.fail_next(Op::Copy, kind, 1);
            let refused = guard.put(&key, Bytes::new(), &ObjectHeaders::default(), &condition).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Server);
        }
    }
}
