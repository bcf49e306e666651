//! Bounds the requests in flight.
//!
//! Owns: one semaphore; a GET holds its permit until its body has ended or is dropped. Does not own: memory budgets.

use super::{
    Capabilities, Condition, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders, ObjectMeta,
    ObjectStore, Op, Part, PartSource, Result, StoreError, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A store with at most so many requests in flight. Who waits for a permit waits in order of arrival.
#[derive(Debug)]
pub struct LimitStore {
    inner: Arc<dyn ObjectStore>,
    permits: Arc<Semaphore>,
    max: usize,
}

impl LimitStore {
    /// At most `max` requests at once, at least one.
    pub fn new(inner: Arc<dyn ObjectStore>, max: usize) -> LimitStore {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        LimitStore { inner, permits: Arc::new(Semaphore::new(max)), max }
    }

    /// How many requests are in flight now.
    pub fn in_flight(&self) -> usize {
        self.max - self.permits.available_permits()
    }

    async fn permit(&self, op: Op) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| StoreError::new(ErrorKind::Unreachable, op, None, "the store is closed"))
    }
}

#[async_trait]
impl ObjectStore for LimitStore {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        let _permit = self.permit(Op::HeadBucket).await?;
        self.inner.head_bucket().await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let _permit = self.permit(Op::Head).await?;
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        let permit = self.permit(Op::Get).await?;
        let mut answer = self.inner.get(key, range, if_match).await?;
        let state = (answer.body, Some(permit));
        // At the end of the body the permit goes at once, even if the stream itself is kept.
        let body = futures::stream::unfold(state, |(mut body, permit)| async move {
            permit.as_ref()?;
            let item = body.next().await?;
            let permit = if item.is_err() { None } else { permit };
            Some((item, (body, permit)))
        });
        answer.body = body.boxed();
        Ok(answer)
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        self.inner.presign(key, valid).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let _permit = self.permit(Op::List).await?;
        self.inner.list(request).await
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        let _permit = self.permit(Op::Put).await?;
        self.inner.put(key, body, headers, condition).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let _permit = self.permit(Op::Copy).await?;
        self.inner.copy(copy).await
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let _permit = self.permit(Op::Delete).await?;
        self.inner.delete(key, if_match).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        let _permit = self.permit(Op::CreateUpload).await?;
        self.inner.create_upload(key, headers).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        let _permit = self.permit(Op::UploadPart).await?;
        self.inner.upload_part(upload, number, body).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        let _permit = self.permit(Op::UploadPartCopy).await?;
        self.inner.upload_part_copy(upload, number, source).await
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        let _permit = self.permit(Op::CompleteUpload).await?;
        self.inner.complete_upload(upload, parts, condition, write_id).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let _permit = self.permit(Op::AbortUpload).await?;
        self.inner.abort_upload(upload).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let _permit = self.permit(Op::ListParts).await?;
        self.inner.list_parts(upload).await
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        let _permit = self.permit(Op::ListUploads).await?;
        self.inner.list_uploads(prefix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_get_holds_its_permit_until_its_body_ends() {
        let store = LimitStore::new(Arc::new(MemoryStore::new()), 2);
        let key = Key::parse("k").unwrap();
        let body = Bytes::from_static(b"12345");
        store.put(&key, body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
        let mut first = store.get(&key, None, None).await.unwrap();
        let second = store.get(&key, None, None).await.unwrap();
        assert_eq!(store.in_flight(), 2);
        let third = tokio::time::timeout(std::time::Duration::from_millis(20), store.get(&key, None, None)).await;
        assert!(third.is_err(), "it waits for one of them");
        while first.body.next().await.is_some() {}
        assert_eq!(store.in_flight(), 1);
        drop(second);
        assert_eq!(store.in_flight(), 0);
    }
}
