//! Tries failed requests again, and finds out whether a write whose answer was lost has happened.
//!
//! Owns: jittered exponential backoff up to a deadline; the resolution of ambiguous answers by the write id
//! (`x-amz-meta-objfs-write`): a HEAD that finds our id is the success that got lost. Where the server keeps no conditions,
//! the look before a write lies below (`look`), so that both are repeated together. What the server has stored damaged is no
//! success, although it has our id: whoever asked writes it anew, with another id and over the damaged version.
//! Does not own: retries of whole operations (`write::queue`), bodies that break after their headers came (`read`).
//!
//! A CreateMultipartUpload whose answer was lost is simply sent again: the first upload is then an orphan, which
//! `list_uploads` finds and the write path aborts when it recovers.

use super::{
    Capabilities, Condition, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders, ObjectMeta,
    ObjectStore, Op, Part, PartSource, Result, StoreError, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

mod pace;

pub use pace::Settings;
use pace::{Verdict, classify_unsent, classify_write};

/// A store whose failures are tried again.
#[derive(Debug)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    settings: Settings,
}

/// The attempts of one request so far.
struct Attempts<'a> {
    settings: &'a Settings,
    start: Instant,
    count: u32,
    /// The request sends a body.
    is_body: bool,
}

impl Attempts<'_> {
    /// Waits for the next attempt; gives the failure back when enough was tried.
    async fn pause(&mut self, error: StoreError) -> Result<()> {
        self.count += 1;
        // A body that got no answer is sent once more, however long that took: the connection, or the machine behind it, is gone
        // more often than the server, and somebody's close waits.
        let elapsed = if self.is_body && self.count == 1 { Duration::ZERO } else { self.start.elapsed() };
        match self.settings.next_delay(self.count, elapsed, fastrand::u64(..)) {
            None => Err(error),
            Some(delay) => {
                tracing::debug!(%error, attempt = self.count, ?delay, "trying again");
                tokio::time::sleep(delay).await;
                Ok(())
            }
        }
    }
}

impl RetryStore {
    /// Tries again as `settings` say.
    pub fn new(inner: Arc<dyn ObjectStore>, settings: Settings) -> RetryStore {
        RetryStore { inner, settings }
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts { settings: &self.settings, start: Instant::now(), count: 0, is_body: false }
    }

    /// A request that may be carried out twice without harm.
    async fn idempotent<T, F: Future<Output = Result<T>>>(&self, request: impl FnMut() -> F) -> Result<T> {
        self.repeat(self.attempts(), request).await
    }

    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        mut attempts: Attempts<'_>,
        mut request: impl FnMut() -> F,
    ) -> Result<T> {
        loop {
            match request().await {
                Err(error) if error.kind.is_retryable() => attempts.pause(error).await?,
                answer => return answer,
            }
        }
    }

    /// A write that must happen once: where an answer leaves open whether it did, the object tells by its write id.
    async fn once<F: Future<Output = Result<Written>>>(
        &self,
        key: &Key,
        id: Option<&WriteId>,
        mut request: impl FnMut() -> F,
    ) -> Result<Written> {
        let mut attempts = Attempts { is_body: true, ..self.attempts() };
        let mut maybe_written = false;
        loop {
            let error = match request().await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            let verdict =
                if is_sent(&error) { classify_write(error.kind, maybe_written) } else { classify_unsent(error.kind) };
            maybe_written |= is_sent(&error) && error.kind.is_ambiguous();
            if matches!(verdict, Verdict::LookThenRetry | Verdict::LookThenFail)
                && let Some(written) = self.find(key, id).await
            {
                tracing::info!(%key, %error, "the answer was lost, the write was not");
                return Ok(written);
            }
            match verdict {
                Verdict::Fail | Verdict::LookThenFail => return Err(error),
                Verdict::Retry | Verdict::LookThenRetry => attempts.pause(error).await?,
            }
        }
    }

    /// Our write, if the object is the one that carries our id. A HEAD that fails says nothing: then the next attempt
    /// meets our own write, is refused, and looks again.
    async fn find(&self, key: &Key, id: Option<&WriteId>) -> Option<Written> {
        let id = id?;
        let meta = self.head(key).await.ok()?;
        (meta.headers.write_id().as_ref() == Some(id)).then_some(Written {
            etag: meta.version.etag,
            version_id: meta.version_id,
            last_modified: meta.version.last_modified,
        })
    }
}

/// Whether the write itself has failed, and not the look before it.
fn is_sent(error: &StoreError) -> bool {
    error.op != Op::Head
}

#[async_trait]
impl ObjectStore for RetryStore {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        self.idempotent(|| self.inner.head_bucket()).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.idempotent(|| self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        self.idempotent(|| self.inner.get(key, range, if_match)).await
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.idempotent(|| self.inner.presign(key, valid)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.idempotent(|| self.inner.list(request)).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        let id = headers.write_id();
        self.once(key, id.as_ref(), || self.inner.put(key, body.clone(), headers, condition)).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let id = copy.headers.write_id();
        self.once(&copy.destination, id.as_ref(), || self.inner.copy(copy)).await
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let mut attempts = self.attempts();
        let mut maybe_deleted = false;
        loop {
            let error = match self.inner.delete(key, if_match).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.kind {
                ErrorKind::NotFound if maybe_deleted => return Ok(()),
                kind if kind.is_retryable() => {
                    maybe_deleted |= is_sent(&error) && kind.is_ambiguous();
                    attempts.pause(error).await?;
                }
                _ => return Err(error),
            }
        }
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.idempotent(|| self.inner.create_upload(key, headers)).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        let attempts = Attempts { is_body: true, ..self.attempts() };
        self.repeat(attempts, || self.inner.upload_part(upload, number, body.clone())).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        self.idempotent(|| self.inner.upload_part_copy(upload, number, source)).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        let request = || self.inner.complete_upload(upload, parts, condition, write_id);
        self.once(&upload.key, Some(write_id), request).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.idempotent(|| self.inner.abort_upload(upload)).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.idempotent(|| self.inner.list_parts(upload)).await
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        self.idempotent(|| self.inner.list_uploads(prefix)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FaultStore, MemoryStore, fault};
    use futures::TryStreamExt;

    const RIGHT: &[u8] = b"what was meant";

    fn patient() -> (RetryStore, Arc<FaultStore>) {
        let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), fault::Settings::default()));
        let quick = Settings { base: Duration::from_millis(1), ..Settings::default() };
        (RetryStore::new(Arc::<FaultStore>::clone(&faults), quick), faults)
    }

    async fn content(store: &RetryStore, key: &Key) -> Vec<u8> {
        let got = store.get(key, None, None).await.unwrap();
        got.body.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    #[tokio::test]
    async fn an_object_of_other_bytes_is_no_success_although_it_has_our_id() {
        let (store, faults) = patient();
        for (name, fails_before) in [("a", 0), ("b", 1)] {
            let (key, id) = (Key::parse(name).unwrap(), WriteId::new(name));
            let headers = ObjectHeaders::default().with_write_id(&id);
            faults.fail_next(Op::Put, ErrorKind::Server, fails_before);
            faults.damage_next(Op::Put, 1);
            let error = store.put(&key, Bytes::from_static(RIGHT), &headers, &Condition::IfAbsent).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Damaged, "{name}");
            let damaged = store.head(&key).await.unwrap();
            assert_eq!(damaged.headers.write_id(), Some(id), "{name}");
            assert_ne!(content(&store, &key).await, RIGHT, "{name}");
            // What the next commit does.
            let headers = ObjectHeaders::default().with_write_id(&WriteId::new("another"));
            let condition = Condition::IfMatch(damaged.version.etag);
            store.put(&key, Bytes::from_static(RIGHT), &headers, &condition).await.unwrap();
            assert_eq!(content(&store, &key).await, RIGHT, "{name}");
        }
    }

    #[tokio::test]
    async fn a_body_without_an_answer_is_sent_once_more_however_long_that_took() {
        let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), fault::Settings::default()));
        let late = Settings { base: Duration::ZERO, deadline: Duration::ZERO, ..Settings::default() };
        let store = RetryStore::new(Arc::<FaultStore>::clone(&faults), late);
        let put = async |name: &str, failures: usize| {
            faults.fail_next(Op::Put, ErrorKind::Timeout, failures);
            let (key, body) = (Key::parse(name).unwrap(), Bytes::from_static(RIGHT));
            store.put(&key, body, &ObjectHeaders::default(), &Condition::IfAbsent).await
        };
        put("a", 1).await.unwrap();
        assert_eq!(put("b", 2).await.unwrap_err().kind, ErrorKind::Timeout);
        faults.fail_next(Op::Head, ErrorKind::Timeout, 1);
        let unanswered = store.head(&Key::parse("a").unwrap()).await.unwrap_err();
        assert_eq!(unanswered.kind, ErrorKind::Timeout, "a request without one is not");
    }

    #[tokio::test]
    async fn a_part_of_other_bytes_is_sent_again() {
        let (store, faults) = patient();
        let (key, id) = (Key::parse("k").unwrap(), WriteId::new("an-id"));
        let headers = ObjectHeaders::default().with_write_id(&id);
        let upload_id = store.create_upload(&key, &headers).await.unwrap();
        let upload = Upload { key: key.clone(), id: upload_id, initiated: None };
        faults.damage_next(Op::UploadPart, 2);
        let parts = [store.upload_part(&upload, 1, Bytes::from_static(RIGHT)).await.unwrap()];
        store.complete_upload(&upload, &parts, &Condition::IfAbsent, &id).await.unwrap();
        assert_eq!(content(&store, &key).await, RIGHT);
    }
}
