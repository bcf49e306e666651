//! A prefix of a bucket as the root of a store.
//!
//! Owns: adding the prefix to every key that goes in, taking it off every key that comes out, errors included.
//! Does not own: what a key means.

use super::{
    Capabilities, Condition, CopyRequest, ErrorKind, GetObject, InvalidKey, ListPage, ListRequest, ListedObject,
    ObjectHeaders, ObjectMeta, ObjectStore, Op, Part, PartSource, Result, StoreError, Upload, Written,
};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A prefix of another store as the root.
#[derive(Debug)]
pub struct PrefixStore {
    inner: Arc<dyn ObjectStore>,
    prefix: Key,
}

impl PrefixStore {
    /// `prefix` is a directory's key: it ends in `/`, or is empty.
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: Key) -> PrefixStore {
        debug_assert!(prefix.is_dir(), "a prefix ends in '/': {prefix}");
        PrefixStore { inner, prefix }
    }

    /// The key in the bucket. Where it would be too long, there is nothing, and nothing can be written.
    fn outer(&self, op: Op, key: &Key) -> Result<Key> {
        let kind = if op == Op::Head { ErrorKind::NotFound } else { ErrorKind::Invalid };
        Key::parse(&format!("{}{key}", self.prefix)).map_err(|e| StoreError::new(kind, op, Some(key), e.to_string()))
    }

    fn outer_upload(&self, op: Op, upload: &Upload) -> Result<Upload> {
        Ok(Upload { key: self.outer(op, &upload.key)?, ..upload.clone() })
    }

    /// The key below the prefix, or `None` if it lies elsewhere.
    fn inner_key(&self, key: &Key) -> Option<Key> {
        Key::parse(key.as_str().strip_prefix(self.prefix.as_str())?).ok()
    }

    /// The same error, with the key as the caller knows it.
    fn strip(&self, mut error: StoreError) -> StoreError {
        error.key = error.key.map(|key| self.inner_key(&key).unwrap_or(key));
        error
    }
}

#[async_trait]
impl ObjectStore for PrefixStore {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn head_bucket(&self) -> Result<()> {
        self.inner.head_bucket().await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let key = self.outer(Op::Head, key)?;
        self.inner.head(&key).await.map_err(|e| self.strip(e))
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        let key = self.outer(Op::Get, key)?;
        self.inner.get(&key, range, if_match).await.map_err(|e| self.strip(e))
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        let key = self.outer(Op::Get, key)?;
        self.inner.presign(&key, valid).await.map_err(|e| self.strip(e))
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let Ok(prefix) = self.outer(Op::List, &request.prefix) else { return Ok(ListPage::default()) };
        let request = ListRequest { prefix, ..request.clone() };
        let page = self.inner.list(&request).await.map_err(|e| self.strip(e))?;
        let object = |o: ListedObject| Some(ListedObject { key: self.inner_key(&o.key)?, ..o });
        let invalid = |key: InvalidKey| {
            let text = key.text.strip_prefix(self.prefix.as_str()).map(str::to_owned);
            let bytes = key.bytes.strip_prefix(self.prefix.as_str().as_bytes()).map(<[u8]>::to_vec);
            InvalidKey { text: text.unwrap_or(key.text), bytes: bytes.unwrap_or(key.bytes), ..key }
        };
        Ok(ListPage {
            objects: page.objects.into_iter().filter_map(object).collect(),
            prefixes: page.prefixes.iter().filter_map(|p| self.inner_key(p)).collect(),
            next: page.next,
            invalid: page.invalid.into_iter().map(invalid).collect(),
        })
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        let key = self.outer(Op::Put, key)?;
        self.inner.put(&key, body, headers, condition).await.map_err(|e| self.strip(e))
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let copy = CopyRequest {
            source: self.outer(Op::Copy, &copy.source)?,
            destination: self.outer(Op::Copy, &copy.destination)?,
            ..copy.clone()
        };
        self.inner.copy(&copy).await.map_err(|e| self.strip(e))
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let key = self.outer(Op::Delete, key)?;
        self.inner.delete(&key, if_match).await.map_err(|e| self.strip(e))
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        let key = self.outer(Op::CreateUpload, key)?;
        self.inner.create_upload(&key, headers).await.map_err(|e| self.strip(e))
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        let upload = self.outer_upload(Op::UploadPart, upload)?;
        self.inner.upload_part(&upload, number, body).await.map_err(|e| self.strip(e))
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        let upload = self.outer_upload(Op::UploadPartCopy, upload)?;
        let source = PartSource { key: self.outer(Op::UploadPartCopy, &source.key)?, ..source.clone() };
        self.inner.upload_part_copy(&upload, number, &source).await.map_err(|e| self.strip(e))
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        write_id: &WriteId,
    ) -> Result<Written> {
        let upload = self.outer_upload(Op::CompleteUpload, upload)?;
        self.inner.complete_upload(&upload, parts, condition, write_id).await.map_err(|e| self.strip(e))
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let upload = self.outer_upload(Op::AbortUpload, upload)?;
        self.inner.abort_upload(&upload).await.map_err(|e| self.strip(e))
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let upload = self.outer_upload(Op::ListParts, upload)?;
        self.inner.list_parts(&upload).await.map_err(|e| self.strip(e))
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        let prefix = self.outer(Op::ListUploads, prefix)?;
        let uploads = self.inner.list_uploads(&prefix).await.map_err(|e| self.strip(e))?;
        let upload = |u: Upload| Some(Upload { key: self.inner_key(&u.key)?, ..u });
        Ok(uploads.into_iter().filter_map(upload).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn where_keys_would_be_too_long_there_is_nothing() {
        let store = PrefixStore::new(Arc::new(MemoryStore::new()), Key::parse("books/").unwrap());
        let key = Key::parse(&"x".repeat(1020)).unwrap();
        assert_eq!(store.head(&key).await.unwrap_err().kind, ErrorKind::NotFound);
        let request = ListRequest { prefix: key.clone(), delimited: false, continuation: None, max_keys: 1 };
        assert_eq!(store.list(&request).await.unwrap(), ListPage::default());
        let put = store.put(&key, Bytes::new(), &ObjectHeaders::default(), &Condition::Always).await;
        assert_eq!(put.unwrap_err().kind, ErrorKind::Invalid);
    }
}
