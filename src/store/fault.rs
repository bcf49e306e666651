//! A store that fails on purpose, for tests.
//!
//! Owns: latency, errors at a rate or for the next requests, lost replies (the request is carried out, its answer is not
//! delivered), bodies that are stored with other bytes, requests that are held until somebody lets them go; chance is drawn
//! from one seed. Does not own: stalls and resets on the wire (the development server).

use super::{
    Capabilities, Condition, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders, ObjectMeta,
    ObjectStore, Op, Part, PartSource, Result, StoreError, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// What goes wrong, and how often.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Seed of all that is random.
    pub seed: u64,
    /// Longest delay before a request; the actual one is anywhere between nothing and this.
    pub latency_max: Duration,
    /// Share of the requests that fail before they are carried out, 0.0 to 1.0.
    pub error_rate: f64,
    /// How they fail: one of these. Nothing fails while it is empty.
    pub errors: Vec<ErrorKind>,
    /// Share of the requests that are carried out and whose answer is lost, 0.0 to 1.0.
    pub lost_rate: f64,
}

/// What happens to one request.
#[derive(Debug, Clone)]
enum Fate {
    Answered,
    Fails(ErrorKind),
    Lost(ErrorKind),
    /// Is carried out with other bytes, which is noticed.
    Damaged,
    /// Waits before it is carried out.
    Waits(Arc<Hold>),
    /// Is carried out, and its answer waits.
    Held(Arc<Hold>),
}

/// A request that is held.
#[derive(Debug, Default)]
pub struct Hold {
    reached: Notify,
    released: Notify,
}

impl Hold {
    /// Returns once the request is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it go.
    pub fn release(&self) {
        self.released.notify_one();
    }

    async fn pass(&self) {
        self.reached.notify_one();
        self.released.notified().await;
    }
}

#[derive(Debug)]
struct State {
    settings: Settings,
    random: fastrand::Rng,
    /// Fates of the next requests of a verb, before chance decides.
    planned: Vec<(Op, Fate)>,
}

/// A store that fails on purpose.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

impl FaultStore {
    /// Faults as `settings` say.
    pub fn new(inner: Arc<dyn ObjectStore>, settings: Settings) -> FaultStore {
        let random = fastrand::Rng::with_seed(settings.seed);
        FaultStore { inner, state: Mutex::new(State { settings, random, planned: Vec::new() }) }
    }

    /// Other faults from now on; the seed is kept.
    pub fn set(&self, settings: Settings) {
        self.lock().settings = settings;
    }

    /// The next `count` requests of a verb fail, and are not carried out.
    pub fn fail_next(&self, op: Op, kind: ErrorKind, count: usize) {
        self.lock().planned.extend(std::iter::repeat_n((op, Fate::Fails(kind)), count));
    }

    /// The next `count` requests of a verb are carried out, and seem to fail.
    pub fn lose_next(&self, op: Op, kind: ErrorKind, count: usize) {
        self.lock().planned.extend(std::iter::repeat_n((op, Fate::Lost(kind)), count));
    }

    /// The bodies of the next `count` requests of a verb, PutObject or UploadPart, are stored with other bytes, as the
    /// answers tell.
    pub fn damage_next(&self, op: Op, count: usize) {
        self.lock().planned.extend(std::iter::repeat_n((op, Fate::Damaged), count));
    }

    /// The next request of a verb waits before it is carried out.
    pub fn hold_next(&self, op: Op) -> Arc<Hold> {
        let hold = Arc::new(Hold::default());
        self.lock().planned.push((op, Fate::Waits(Arc::clone(&hold))));
        hold
    }

    /// The next request of a verb is carried out, and its answer waits.
    pub fn hold_next_answer(&self, op: Op) -> Arc<Hold> {
        let hold = Arc::new(Hold::default());
        self.lock().planned.push((op, Fate::Held(Arc::clone(&hold))));
        hold
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn suffer<T>(&self, op: Op, key: Option<&Key>, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.suffer_with(op, key, |_| request).await
    }

    /// The same of a request with a body, which is told whether that is to be damaged.
    async fn suffer_with<T, F: Future<Output = Result<T>>>(
        &self,
        op: Op,
        key: Option<&Key>,
        request: impl FnOnce(bool) -> F,
    ) -> Result<T> {
        let (delay, fate) = self.lock().draw(op);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let fault = |kind| StoreError::new(kind, op, key, "injected fault");
        let request = request(matches!(fate, Fate::Damaged));
        match fate {
            Fate::Answered => request.await,
            Fate::Fails(kind) => Err(fault(kind)),
            Fate::Lost(kind) => {
                // Also a refusal is lost: whoever gets no answer does not know which one it was.
                _ = request.await;
                Err(fault(kind))
            }
            Fate::Damaged => {
                request.await?;
                Err(fault(ErrorKind::Damaged))
            }
            Fate::Waits(hold) => {
                hold.pass().await;
                request.await
            }
            Fate::Held(hold) => {
                let answer = request.await;
                hold.pass().await;
                answer
            }
        }
    }
}

impl State {
    fn draw(&mut self, op: Op) -> (Duration, Fate) {
        let delay = self.settings.latency_max.mul_f64(self.random.f64());
        if let Some(at) = self.planned.iter().position(|(planned, _)| *planned == op) {
            return (delay, self.planned.remove(at).1);
        }
        if self.random.f64() < self.settings.error_rate
            && let Some(kind) = self.random.choice(&self.settings.errors)
        {
            return (delay, Fate::Fails(*kind));
        }
        let lost = self.random.f64() < self.settings.lost_rate;
        (delay, if lost { Fate::Lost(ErrorKind::Broken) } else { Fate::Answered })
    }
}

/// The body as it is stored: if it is damaged, of the same length, and text is still text.
fn stored(body: Bytes, damaged: bool) -> Bytes {
    if damaged { body.iter().map(|byte| byte ^ 1).collect() } else { body }
}

#[async_trait]
impl ObjectStore for FaultStore {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        self.suffer(Op::HeadBucket, None, self.inner.head_bucket()).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.suffer(Op::Head, Some(key), self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        self.suffer(Op::Get, Some(key), self.inner.get(key, range, if_match)).await
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.inner.presign(key, valid).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.suffer(Op::List, Some(&request.prefix), self.inner.list(request)).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        let request = |damaged| self.inner.put(key, stored(body, damaged), headers, condition);
        self.suffer_with(Op::Put, Some(key), request).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        self.suffer(Op::Copy, Some(&copy.destination), self.inner.copy(copy)).await
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        self.suffer(Op::Delete, Some(key), self.inner.delete(key, if_match)).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.suffer(Op::CreateUpload, Some(key), self.inner.create_upload(key, headers)).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        let request = |damaged| self.inner.upload_part(upload, number, stored(body, damaged));
        self.suffer_with(Op::UploadPart, Some(&upload.key), request).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        let request = self.inner.upload_part_copy(upload, number, source);
        self.suffer(Op::UploadPartCopy, Some(&upload.key), request).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        let request = self.inner.complete_upload(upload, parts, condition, write_id);
        self.suffer(Op::CompleteUpload, Some(&upload.key), request).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.suffer(Op::AbortUpload, Some(&upload.key), self.inner.abort_upload(upload)).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.suffer(Op::ListParts, Some(&upload.key), self.inner.list_parts(upload)).await
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        self.suffer(Op::ListUploads, Some(prefix), self.inner.list_uploads(prefix)).await
    }
}
