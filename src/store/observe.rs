//! Counts what a store is asked and how it answers.
//!
//! Owns: per verb the requests, failures, bytes and time; one debug line per request. Does not own: how the numbers are
//! shown (`daemon::control`).

use super::{
    Capabilities, Condition, CopyRequest, GetObject, ListPage, ListRequest, ObjectHeaders, ObjectMeta, ObjectStore, Op,
    Part, PartSource, Result, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters of all verbs, shared between the wrapper and whoever shows them.
#[derive(Debug, Default)]
pub struct Counters {
    verbs: [Verb; Op::ALL.len()],
    /// When the first of the requests was sent that were not answered, if the last one was not.
    silent_since: Mutex<Option<Instant>>,
}

/// Counters of one verb.
#[derive(Debug, Default)]
struct Verb {
    requests: AtomicU64,
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    micros: AtomicU64,
}

/// What was counted for one verb since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpCount {
    /// The verb.
    pub op: Op,
    /// Requests that were answered or failed; each attempt counts.
    pub requests: u64,
    /// Requests that failed, an expected 404 or 412 included.
    pub errors: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
    /// Sum of the times until the answer's headers.
    pub latency: Duration,
}

impl Counters {
    fn verb(&self, op: Op) -> &Verb {
        // `Op::ALL` is in the order of the enum, which a test checks.
        &self.verbs[op as usize]
    }

    /// All verbs, in the order of [`Op::ALL`].
    pub fn snapshot(&self) -> Vec<OpCount> {
        let count = |op: Op| {
            let verb = self.verb(op);
            OpCount {
                op,
                requests: verb.requests.load(Relaxed),
                errors: verb.errors.load(Relaxed),
                bytes_in: verb.bytes_in.load(Relaxed),
                bytes_out: verb.bytes_out.load(Relaxed),
                latency: Duration::from_micros(verb.micros.load(Relaxed)),
            }
        };
        Op::ALL.into_iter().map(count).collect()
    }

    /// What was counted for one verb.
    pub fn of(&self, op: Op) -> OpCount {
        self.snapshot()[op as usize]
    }

    /// How long the server has not answered, if it did not answer the last request.
    pub fn silent_for(&self) -> Option<Duration> {
        let since = *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|at| at.elapsed())
    }

    fn note_answer(&self, is_silence: bool, sent_at: Instant) {
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if is_silence { Some(since.unwrap_or(sent_at)) } else { None };
    }

    async fn watch<T>(&self, op: Op, sent: usize, request: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let answer = request.await;
        let took = start.elapsed();
        self.note_answer(answer.as_ref().is_err_and(|e| e.kind.is_silence()), start);
        let verb = self.verb(op);
        verb.requests.fetch_add(1, Relaxed);
        verb.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        match &answer {
            Ok(_) => {
                verb.bytes_out.fetch_add(sent as u64, Relaxed);
                tracing::trace!(op = op.as_str(), ?took, "request");
            }
            Err(error) => {
                verb.errors.fetch_add(1, Relaxed);
                tracing::debug!(op = op.as_str(), ?took, kind = ?error.kind, %error, "request failed");
            }
        }
        answer
    }
}

/// A store whose requests are counted.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
}

impl Observed {
    /// Counts the requests to `inner` from now on.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Observed {
        Observed { inner, counters: Arc::default() }
    }

    /// The counters, which outlive the wrapper.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// All verbs, in the order of [`Op::ALL`].
    pub fn snapshot(&self) -> Vec<OpCount> {
        self.counters.snapshot()
    }
}

#[async_trait]
impl ObjectStore for Observed {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        self.counters.watch(Op::HeadBucket, 0, self.inner.head_bucket()).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.counters.watch(Op::Head, 0, self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        let mut answer = self.counters.watch(Op::Get, 0, self.inner.get(key, range, if_match)).await?;
        let counters = Arc::clone(&self.counters);
        let count = move |item: &Result<Bytes>| match item {
            Ok(bytes) => _ = counters.verb(Op::Get).bytes_in.fetch_add(bytes.len() as u64, Relaxed),
            Err(_) => _ = counters.verb(Op::Get).errors.fetch_add(1, Relaxed),
        };
        answer.body = answer.body.inspect(count).boxed();
        Ok(answer)
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.inner.presign(key, valid).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.counters.watch(Op::List, 0, self.inner.list(request)).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        self.counters.watch(Op::Put, body.len(), self.inner.put(key, body, headers, condition)).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        self.counters.watch(Op::Copy, 0, self.inner.copy(copy)).await
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        self.counters.watch(Op::Delete, 0, self.inner.delete(key, if_match)).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.counters.watch(Op::CreateUpload, 0, self.inner.create_upload(key, headers)).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        self.counters.watch(Op::UploadPart, body.len(), self.inner.upload_part(upload, number, body)).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        self.counters.watch(Op::UploadPartCopy, 0, self.inner.upload_part_copy(upload, number, source)).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        let request = self.inner.complete_upload(upload, parts, condition, write_id);
        self.counters.watch(Op::CompleteUpload, 0, request).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.counters.watch(Op::AbortUpload, 0, self.inner.abort_upload(upload)).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.counters.watch(Op::ListParts, 0, self.inner.list_parts(upload)).await
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        self.counters.watch(Op::ListUploads, 0, self.inner.list_uploads(prefix)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn ops_are_in_the_order_of_the_enum() {
        assert!(Op::ALL.iter().enumerate().all(|(i, op)| *op as usize == i));
    }

    #[tokio::test]
    async fn requests_and_bytes_are_counted() {
        let store = Observed::new(Arc::new(MemoryStore::new()));
        let key = Key::parse("k").unwrap();
        let body = Bytes::from_static(b"12345");
        store.put(&key, body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
        let answer = store.get(&key, ByteRange::new(1, 3), None).await.unwrap();
        answer.body.for_each(|_| async {}).await;
        store.head(&Key::parse("none").unwrap()).await.unwrap_err();
        let counters = store.counters();
        assert_eq!(counters.of(Op::Put).bytes_out, 5);
        assert_eq!(counters.of(Op::Get).bytes_in, 2);
        assert_eq!((counters.of(Op::Head).requests, counters.of(Op::Head).errors), (1, 1));
    }
}
