//! Looks before it writes, where the server does not keep the condition of a write.
//!
//! Owns: HEAD-then-write, verb by verb; says once that it leaves a race window. Lies below `retry`, so that each attempt
//! looks anew: what somebody else wrote in the pause between two attempts is seen.
//! Does not own: finding out what the server keeps (`guard`), repeating (`retry`), copies in parts (`guard`).

use super::{
    Capabilities, Condition, Conditions, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders,
    ObjectMeta, ObjectStore, Op, Part, PartSource, Result, StoreError, Support, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Which conditions a server keeps, once that is known. Clones know the same: `guard` finds it out, `look` goes by it.
#[derive(Debug, Clone)]
pub struct KnownConditions(Arc<OnceCell<Conditions>>);

impl KnownConditions {
    /// What an earlier probe has found, if there was one.
    pub fn new(found: Option<Conditions>) -> KnownConditions {
        KnownConditions(Arc::new(OnceCell::new_with(found)))
    }

    /// What is known by now.
    pub fn get(&self) -> Option<Conditions> {
        self.0.get().copied()
    }

    pub(super) fn cell(&self) -> &OnceCell<Conditions> {
        &self.0
    }
}

/// Whether PutObject keeps this condition.
pub(super) fn put_support(known: &Conditions, condition: &Condition) -> Support {
    match condition {
        Condition::IfMatch(_) => known.put_if_match,
        _ => known.put_if_absent,
    }
}

/// A store that looks before each write whose condition the server is known not to keep. While nothing is known, which is
/// when the server is probed, it answers for itself.
#[derive(Debug)]
pub struct LookStore {
    inner: Arc<dyn ObjectStore>,
    known: KnownConditions,
    warned: AtomicBool,
}

impl LookStore {
    /// Looks before writes to `inner` as `known` says.
    pub fn new(inner: Arc<dyn ObjectStore>, known: KnownConditions) -> LookStore {
        LookStore { inner, known, warned: AtomicBool::new(false) }
    }

    /// Whether the server does not keep the condition of a write: we look first, and then write without it.
    fn must_look(&self, condition: &Condition, support: impl FnOnce(&Conditions) -> Support) -> bool {
        *condition != Condition::Always && self.known.get().is_some_and(|known| support(&known) != Support::Honoured)
    }

    /// Checks a condition by a HEAD. `Some` if the object is already what this write makes, which then happened. A HEAD that
    /// fails is an error of [`Op::Head`]: the write was not sent.
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
}

#[async_trait]
impl ObjectStore for LookStore {
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
        if !self.must_look(condition, |known| put_support(known, condition)) {
            return self.inner.put(key, body, headers, condition).await;
        }
        match self.look(Op::Put, key, condition, headers.write_id().as_ref()).await? {
            Some(written) => Ok(written),
            None => self.inner.put(key, body, headers, &Condition::Always).await,
        }
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        if !self.must_look(&copy.condition, |known| known.copy) {
            return self.inner.copy(copy).await;
        }
        let id = copy.headers.write_id();
        match self.look(Op::Copy, &copy.destination, &copy.condition, id.as_ref()).await? {
            Some(written) => Ok(written),
            None => self.inner.copy(&CopyRequest { condition: Condition::Always, ..copy.clone() }).await,
        }
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let condition = if_match.map_or(Condition::Always, |etag| Condition::IfMatch(etag.clone()));
        if !self.must_look(&condition, |known| known.delete) {
            return self.inner.delete(key, if_match).await;
        }
        self.look(Op::Delete, key, &condition, None).await?;
        if self.known.get().is_some_and(|known| known.delete == Support::Refused) {
            return self.inner.delete(key, None).await;
        }
        // Who ignores it takes no harm from it. And where the keys could not delete when the server was asked, it may keep it.
        match self.inner.delete(key, if_match).await {
            Err(e) if matches!(e.kind, ErrorKind::NotImplemented | ErrorKind::Invalid) => {
                self.inner.delete(key, None).await
            }
            deleted => deleted,
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
        if !self.must_look(condition, |known| known.complete) {
            return self.inner.complete_upload(upload, parts, condition, write_id).await;
        }
        match self.look(Op::CompleteUpload, &upload.key, condition, Some(write_id)).await? {
            Some(written) => Ok(written),
            None => self.inner.complete_upload(upload, parts, &Condition::Always, write_id).await,
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
    use crate::store::observe::Counters;
    use crate::store::open::{StackSettings, wrap};
    use crate::store::{FaultStore, MemoryStore, fault, retry};
    use futures::TryStreamExt;

    /// All wrappers, as a mount has them.
    struct Stack {
        store: Arc<dyn ObjectStore>,
        counters: Arc<Counters>,
        /// Holds what comes of `faults`.
        pauses: Arc<FaultStore>,
        faults: Arc<FaultStore>,
        memory: Arc<MemoryStore>,
    }

    fn stack(support: Support) -> Stack {
        stack_of(support, support)
    }

    /// A server that a probe `found` to be so, and that `keeps` conditions otherwise by now.
    fn stack_of(found: Support, keeps: Support) -> Stack {
        let conditions = Conditions::all(found);
        let memory = Arc::new(MemoryStore::with(Capabilities::default(), Conditions::all(keeps)));
        let faults = Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default()));
        let pauses = Arc::new(FaultStore::new(Arc::<FaultStore>::clone(&faults), fault::Settings::default()));
        let quick = retry::Settings { base: Duration::from_millis(1), ..retry::Settings::default() };
        let settings = StackSettings { retry: quick, ..StackSettings::default() };
        let opened = wrap(Arc::<FaultStore>::clone(&pauses), &settings, Some(conditions), Box::new(|_| {})).unwrap();
        Stack { store: opened.store, counters: opened.counters, pauses, faults, memory }
    }

    impl Stack {
        async fn ours(&self, key: &Key, id: &str) -> Result<Written> {
            let headers = ObjectHeaders::default().with_write_id(&WriteId::new(id));
            self.store.put(key, Bytes::from_static(b"ours"), &headers, &Condition::IfAbsent).await
        }

        /// Somebody else writes while the answer to the next request of a verb is on its way.
        fn theirs_before_the_answer(&self, op: Op, key: &Key) -> impl Future<Output = ()> {
            let answer = self.pauses.hold_next_answer(op);
            async move {
                answer.reached().await;
                let (theirs, headers) = (Bytes::from_static(b"theirs"), ObjectHeaders::default());
                self.memory.put(key, theirs, &headers, &Condition::Always).await.unwrap();
                answer.release();
            }
        }

        async fn content(&self, key: &Key) -> Vec<u8> {
            let got = self.memory.get(key, None, None).await.unwrap();
            got.body.try_collect::<Vec<_>>().await.unwrap().concat()
        }

        fn count(&self, op: Op) -> u64 {
            self.counters.of(op).requests
        }
    }

    fn key(key: &str) -> Key {
        Key::parse(key).unwrap()
    }

    #[tokio::test]
    async fn without_failures_it_is_one_head_and_one_write() {
        for (support, heads) in [(Support::Ignored, 1), (Support::Refused, 1), (Support::Honoured, 0)] {
            let (s, k) = (stack(support), key("k"));
            let written = s.ours(&k, "1").await.unwrap();
            assert_eq!((s.count(Op::Head), s.count(Op::Put)), (heads, 1), "{support:?}");
            s.store.delete(&k, Some(&written.etag)).await.unwrap();
            assert_eq!((s.count(Op::Head), s.count(Op::Delete)), (2 * heads, 1), "{support:?}");
        }
    }

    #[tokio::test]
    async fn what_came_after_a_delete_whose_answer_was_lost_stays() {
        for support in [Support::Ignored, Support::Honoured] {
            let (s, k) = (stack(support), key("k"));
            let written = s.ours(&k, "1").await.unwrap();
            s.faults.lose_next(Op::Delete, ErrorKind::Broken, 1);
            let meddling = s.theirs_before_the_answer(Op::Delete, &k);
            let ((), deleted) = tokio::join!(meddling, s.store.delete(&k, Some(&written.etag)));
            assert_eq!(deleted.unwrap_err().kind, ErrorKind::Precondition, "{support:?}");
            assert_eq!(s.content(&k).await, b"theirs", "{support:?}");
        }
    }

    /// The keys could not delete when the server was asked whether it keeps the condition.
    #[tokio::test]
    async fn what_came_between_look_and_delete_stays_where_the_server_keeps_the_condition_after_all() {
        for keeps in [Support::Honoured, Support::Refused] {
            let (s, k) = (stack_of(Support::Ignored, keeps), key("k"));
            let written = s.ours(&k, "1").await.unwrap();
            let meddling = s.theirs_before_the_answer(Op::Head, &k);
            let ((), deleted) = tokio::join!(meddling, s.store.delete(&k, Some(&written.etag)));
            if keeps == Support::Honoured {
                assert_eq!(deleted.unwrap_err().kind, ErrorKind::Precondition);
                assert_eq!(s.content(&k).await, b"theirs");
            } else {
                deleted.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_delete_whose_answer_was_lost_and_that_finds_nothing_has_happened() {
        let (s, k) = (stack(Support::Ignored), key("k"));
        let written = s.ours(&k, "1").await.unwrap();
        s.faults.lose_next(Op::Delete, ErrorKind::Broken, 1);
        s.store.delete(&k, Some(&written.etag)).await.unwrap();
        assert_eq!(s.count(Op::Delete), 1);
        // One that was not sent has not: the HEAD before it got no answer, and then there was nothing.
        s.faults.fail_next(Op::Head, ErrorKind::Timeout, 1);
        let error = s.store.delete(&k, Some(&written.etag)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn what_came_before_a_write_is_sent_again_stays() {
        for op in [Op::Put, Op::Copy, Op::CompleteUpload] {
            let (s, k, id) = (stack(Support::Ignored), key("k"), WriteId::new("an-id"));
            s.ours(&key("source"), "1").await.unwrap();
            let headers = ObjectHeaders::default().with_write_id(&id);
            let upload_id = s.store.create_upload(&k, &headers).await.unwrap();
            let upload = Upload { key: k.clone(), id: upload_id, initiated: None };
            let parts = [s.store.upload_part(&upload, 1, Bytes::from_static(b"ours")).await.unwrap()];
            let copy = CopyRequest {
                source: key("source"),
                source_if_match: None,
                source_size: 4,
                destination: k.clone(),
                headers,
                condition: Condition::IfAbsent,
            };
            s.faults.fail_next(op, ErrorKind::Throttled, 1);
            let write = async {
                match op {
                    Op::Put => s.ours(&k, "2").await,
                    Op::Copy => s.store.copy(&copy).await,
                    _ => s.store.complete_upload(&upload, &parts, &Condition::IfAbsent, &id).await,
                }
            };
            let meddling = s.theirs_before_the_answer(op, &k);
            let ((), written) = tokio::join!(meddling, write);
            assert_eq!(written.unwrap_err().kind, ErrorKind::Precondition, "{op:?}");
            assert_eq!(s.content(&k).await, b"theirs", "{op:?}");
        }
    }

    #[tokio::test]
    async fn a_put_whose_answer_was_lost_is_found_and_not_sent_again() {
        let (s, k) = (stack(Support::Ignored), key("k"));
        s.faults.lose_next(Op::Put, ErrorKind::Timeout, 1);
        let written = s.ours(&k, "1").await.unwrap();
        assert_eq!(s.memory.head(&k).await.unwrap().version.etag, written.etag);
        assert_eq!((s.count(Op::Put), s.count(Op::Head)), (1, 2), "one look before it, and one for its id");
        // The look before the write fails for a moment: both are sent then.
        s.faults.fail_next(Op::Head, ErrorKind::Timeout, 1);
        s.ours(&key("other"), "2").await.unwrap();
        assert_eq!((s.count(Op::Put), s.count(Op::Head)), (2, 4));
    }
}
