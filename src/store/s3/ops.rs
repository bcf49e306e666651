//! One method per verb: building the request and handing the answer on.
//!
//! Owns: which field of a request becomes which header. Does not own: what answers and errors mean (`convert`, `error`),
//! headers that follow from the mount's options (`storage`).

use super::super::{
    Capabilities, Condition, CopyRequest, ErrorKind, GetObject, ListPage, ListRequest, ObjectHeaders, ObjectMeta,
    ObjectStore, Op, Part, PartSource, Result, StoreError, Upload, Written,
};
use super::encoding::{copy_source, header_value};
use super::{S3Store, convert, error, sign};
use crate::types::{ByteRange, ETag, Key, WriteId};
use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, EncodingType, MetadataDirective, StorageClass,
};
use bytes::Bytes;
use std::time::Duration;

/// Fields that PutObject, CopyObject and CreateMultipartUpload have in common, without a common type.
macro_rules! with_headers {
    ($request:expr, $headers:expr) => {{
        let h: &ObjectHeaders = $headers;
        let user = h.user.iter().map(|(name, value)| (name.clone(), header_value(value))).collect();
        $request
            .set_content_type(h.content_type.clone())
            .set_cache_control(h.cache_control.clone())
            .set_content_disposition(h.content_disposition.clone())
            .set_content_encoding(h.content_encoding.clone())
            .set_content_language(h.content_language.clone())
            .set_storage_class(h.storage_class.as_deref().map(StorageClass::from))
            .set_metadata(Some(user))
    }};
}

/// The condition of PutObject, CopyObject and CompleteMultipartUpload.
macro_rules! with_condition {
    ($request:expr, $condition:expr) => {
        match $condition {
            Condition::Always => $request,
            Condition::IfAbsent => $request.if_none_match("*"),
            Condition::IfMatch(etag) => $request.if_match(etag.as_str()),
        }
    };
}

impl S3Store {
    async fn head_bucket_once(&self) -> Result<()> {
        let request = self.client.head_bucket().bucket(&self.bucket);
        self.answer(Op::HeadBucket, None, request.send()).await.map(|_| ())
    }

    async fn put_once(
        &self,
        key: &Key,
        body: &Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        if let Some(written) = self.put_direct(key, body, headers, condition).await? {
            return Ok(written);
        }
        let sums = self.checksums.of(body).await;
        let body = ByteStream::from(body.clone());
        let request = self.client.put_object().bucket(&self.bucket).key(key.as_str()).body(body);
        let request = request.set_checksum_crc32_c(sums.crc.clone()).set_content_md5(sums.md5.clone());
        let request = with_condition!(with_headers!(request, headers), condition).customize();
        let request = if self.unsigned_bodies { request.disable_payload_signing() } else { request };
        let answer = request.send().await.map_err(|e| error::from_sdk(Op::Put, Some(key), e))?;
        let etag = convert::etag(Op::Put, key, answer.e_tag())?;
        self.checksums.check(Op::Put, key, &sums, answer.checksum_crc32_c(), &etag)?;
        Ok(Written { etag, version_id: answer.version_id().map(str::to_owned), last_modified: None })
    }

    async fn create_upload_once(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let asks = self.checksums.takes_crc();
        let request = with_headers!(request, headers).set_checksum_algorithm(asks.then_some(ChecksumAlgorithm::Crc32C));
        let answer = self.answer(Op::CreateUpload, Some(key), request.send()).await?;
        if asks {
            self.checksums.heard(answer.checksum_algorithm() == Some(&ChecksumAlgorithm::Crc32C));
        }
        let missing = || StoreError::new(ErrorKind::Corrupt, Op::CreateUpload, Some(key), "the answer has no id");
        answer.upload_id().map(str::to_owned).ok_or_else(missing)
    }

    async fn upload_part_once(&self, upload: &Upload, number: u16, body: &Bytes) -> Result<Part> {
        let key = &upload.key;
        let size = Some(body.len() as u64);
        let sums = self.checksums.of(body).await;
        let request = self.client.upload_part().bucket(&self.bucket).key(key.as_str()).upload_id(&upload.id);
        let request = request.part_number(i32::from(number)).body(ByteStream::from(body.clone()));
        let request = request.set_checksum_crc32_c(sums.crc.clone()).set_content_md5(sums.md5.clone()).customize();
        let request = if self.unsigned_bodies { request.disable_payload_signing() } else { request };
        let answer = request.send().await.map_err(|e| error::from_sdk(Op::UploadPart, Some(key), e))?;
        let etag = convert::etag(Op::UploadPart, key, answer.e_tag())?;
        self.checksums.check(Op::UploadPart, key, &sums, answer.checksum_crc32_c(), &etag)?;
        let crc = answer.checksum_crc32_c().map(str::to_owned);
        Ok(Part { number, etag, size, crc })
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn head_bucket(&self) -> Result<()> {
        match self.head_bucket_once().await {
            // A HEAD has no body to say why, and some policies allow only the listing: ask again by that.
            Err(e) if matches!(e.kind, ErrorKind::AccessDenied | ErrorKind::Invalid) && e.code.is_none() => {
                let request = ListRequest { prefix: Key::root(), delimited: true, continuation: None, max_keys: 1 };
                let answer = self.list(&request).await;
                answer.map(|_| ()).map_err(|reason| StoreError { op: Op::HeadBucket, key: None, ..reason })
            }
            answer => answer,
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        if let Some(meta) = self.head_direct(key).await? {
            return Ok(meta);
        }
        let request = self.client.head_object().bucket(&self.bucket).key(key.as_str());
        convert::head(key, &self.answer(Op::Head, Some(key), request.send()).await?)
    }

    async fn get(&self, key: &Key, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetObject> {
        if let Some(got) = self.get_direct(key, range, if_match).await? {
            return Ok(got);
        }
        let request = self.client.get_object().bucket(&self.bucket).key(key.as_str());
        let request = request.set_range(range.map(ByteRange::to_http));
        let request = request.set_if_match(if_match.map(|etag| etag.as_str().to_owned()));
        let answer = self.answer(Op::Get, Some(key), request.send()).await?;
        let (meta, following) = convert::get(key, range, &answer)?;
        Ok(GetObject { meta, range: following, body: convert::body(key, answer.body.into_inner(), following) })
    }

    async fn presign(&self, key: &Key, valid: Duration) -> Result<Option<String>> {
        // Whoever has only a URL sends no headers that the mount's options ask for: a customer's key, or who pays.
        if self.settings.anonymous || !self.settings.storage.headers(Op::Get).is_empty() {
            return Ok(None);
        }
        sign::presign(&self.client, &self.bucket, key, valid).await.map(Some)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let prefix = &request.prefix;
        let sent = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .set_prefix((!prefix.is_root()).then(|| prefix.as_str().to_owned()))
            .set_delimiter(request.delimited.then(|| "/".to_owned()))
            .set_continuation_token(request.continuation.clone())
            .max_keys(i32::from(request.max_keys))
            .encoding_type(EncodingType::Url);
        convert::page(prefix, &self.answer(Op::List, Some(prefix), sent.send()).await?)
    }

    async fn put(&self, key: &Key, body: Bytes, headers: &ObjectHeaders, condition: &Condition) -> Result<Written> {
        self.checksums.send(|| self.put_once(key, &body, headers, condition)).await
    }

    async fn copy(&self, copy: &CopyRequest) -> Result<Written> {
        let key = &copy.destination;
        let request = self
            .client
            .copy_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .copy_source(copy_source(&self.bucket, copy.source.as_str()))
            .set_copy_source_if_match(copy.source_if_match.as_ref().map(|etag| etag.as_str().to_owned()))
            .metadata_directive(MetadataDirective::Replace);
        let request = with_condition!(with_headers!(request, &copy.headers), &copy.condition);
        let request = request.customize().config_override(self.patient());
        let answer = self.within(self.settings.timeouts.server_side, Op::Copy, Some(key), request.send()).await?;
        let result = answer.copy_object_result();
        Ok(Written {
            etag: convert::etag(Op::Copy, key, result.and_then(|r| r.e_tag()))?,
            version_id: answer.version_id().map(str::to_owned),
            last_modified: result.and_then(|r| r.last_modified()).map(convert::timestamp),
        })
    }

    async fn delete(&self, key: &Key, if_match: Option<&ETag>) -> Result<()> {
        let answer = match self.delete_direct(key, if_match).await {
            Ok(false) => {
                let request = self.client.delete_object().bucket(&self.bucket).key(key.as_str());
                let request = request.set_if_match(if_match.map(|etag| etag.as_str().to_owned()));
                self.answer(Op::Delete, Some(key), request.send()).await.map(|_| ())
            }
            direct => direct.map(|_| ()),
        };
        match answer {
            // Some servers answer 404 where S3 answers 204.
            Err(e) if e.kind == ErrorKind::NotFound && if_match.is_none() => Ok(()),
            answer => answer,
        }
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<String> {
        self.checksums.send(|| self.create_upload_once(key, headers)).await
    }

    async fn upload_part(&self, upload: &Upload, number: u16, body: Bytes) -> Result<Part> {
        self.checksums.send(|| self.upload_part_once(upload, number, &body)).await
    }

    async fn upload_part_copy(&self, upload: &Upload, number: u16, source: &PartSource) -> Result<Part> {
        let (op, key) = (Op::UploadPartCopy, &upload.key);
        let request = self
            .client
            .upload_part_copy()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(&upload.id)
            .part_number(i32::from(number))
            .copy_source(copy_source(&self.bucket, source.key.as_str()))
            .set_copy_source_if_match(source.if_match.as_ref().map(|etag| etag.as_str().to_owned()))
            .set_copy_source_range(source.range.map(ByteRange::to_http));
        let request = request.customize().config_override(self.patient());
        let answer = self.within(self.settings.timeouts.server_side, op, Some(key), request.send()).await?;
        let result = answer.copy_part_result();
        let crc = result.and_then(|r| r.checksum_crc32_c()).map(str::to_owned);
        let etag = convert::etag(op, key, result.and_then(|r| r.e_tag()))?;
        Ok(Part { number, etag, size: source.range.map(ByteRange::len), crc })
    }

    async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        condition: &Condition,
        _write_id: &WriteId,
    ) -> Result<Written> {
        let (op, key) = (Op::CompleteUpload, &upload.key);
        let part = |part: &Part| {
            let named = CompletedPart::builder().part_number(i32::from(part.number)).e_tag(part.etag.as_str());
            named.set_checksum_crc32_c(part.crc.clone()).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let request = with_condition!(request.upload_id(&upload.id).multipart_upload(parts), condition);
        let request = request.customize().config_override(self.patient());
        let answer = self.within(self.settings.timeouts.server_side, op, Some(key), request.send()).await?;
        Ok(Written {
            etag: convert::etag(op, key, answer.e_tag())?,
            version_id: answer.version_id().map(str::to_owned),
            last_modified: None,
        })
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let key = &upload.key;
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key.as_str());
        match self.answer(Op::AbortUpload, Some(key), request.upload_id(&upload.id).send()).await {
            Err(e) if matches!(e.kind, ErrorKind::NoSuchUpload | ErrorKind::NotFound) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let (op, key) = (Op::ListParts, &upload.key);
        let mut parts = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let request = self.client.list_parts().bucket(&self.bucket).key(key.as_str()).upload_id(&upload.id);
            let answer = self.answer(op, Some(key), request.set_part_number_marker(after.clone()).send()).await?;
            for part in answer.parts() {
                let number = part.part_number().and_then(|n| u16::try_from(n).ok());
                let number = number.ok_or_else(|| StoreError::new(ErrorKind::Corrupt, op, Some(key), "no number"))?;
                let size = part.size().and_then(|size| u64::try_from(size).ok());
                let crc = part.checksum_crc32_c().map(str::to_owned);
                parts.push(Part { number, etag: convert::etag(op, key, part.e_tag())?, size, crc });
            }
            let next = answer.next_part_number_marker().map(str::to_owned);
            if answer.is_truncated() != Some(true) || next.is_none() || next == after {
                parts.sort_by_key(|part: &Part| part.number);
                return Ok(parts);
            }
            after = next;
        }
    }

    async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        let mut uploads = Vec::new();
        let mut after: (Option<String>, Option<String>) = (None, None);
        loop {
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .set_prefix((!prefix.is_root()).then(|| prefix.as_str().to_owned()))
                .set_key_marker(after.0.clone())
                .set_upload_id_marker(after.1.clone())
                .encoding_type(EncodingType::Url);
            let answer = self.answer(Op::ListUploads, Some(prefix), request.send()).await?;
            let encoded = convert::is_encoded(answer.encoding_type());
            let found = answer.uploads().iter().filter_map(|upload| {
                Some(Upload {
                    key: convert::listed_key(upload.key()?, encoded).ok()?,
                    id: upload.upload_id()?.to_owned(),
                    initiated: upload.initiated().map(convert::timestamp),
                })
            });
            uploads.extend(found);
            let key = answer.next_key_marker().and_then(|key| convert::listed_key(key, encoded).ok());
            let next = (key.map(|key| key.to_string()), answer.next_upload_id_marker().map(str::to_owned));
            if answer.is_truncated() != Some(true) || next == after || next.0.is_none() {
                return Ok(uploads);
            }
            after = next;
        }
    }
}
