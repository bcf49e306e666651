//! Operations on objects.
//!
//! Owns: PutObject, GetObject, HeadObject, CopyObject, DeleteObject, DeleteObjects.
//! Does not own: which of two writes wins (`backend`), bytes (`body`, `receive`).

use super::{check_metadata, check_version, length, shown_class, source, stored_headers, strong, target, timestamp};
use crate::devserver::backend::Backend;
use crate::devserver::conditions::{Conditions, ReadVerdict, precondition_failed, seconds};
use crate::devserver::gate::Exchange;
use crate::devserver::listing::xml_can_carry;
use crate::devserver::receive::{PUT_MAX, receive};
use crate::devserver::record::{Checksum, Object, hex, now};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use std::sync::Arc;

/// Most keys of one DeleteObjects.
const DELETE_MAX: usize = 1000;

pub(super) async fn put(backend: &Arc<Backend>, request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
    let S3Request { input, extensions, headers, trailing_headers, .. } = request;
    let kept = stored_headers!(input);
    check_metadata(&kept)?;
    let to = target(&extensions, input.bucket, input.key, input.if_match, input.if_none_match)?;
    backend.index().bucket(&to.bucket)?;
    let received = receive(backend.files.as_ref(), input.body, &headers, trailing_headers).await?;
    let etag = hex(&received.md5);
    let mut output = PutObjectOutput { e_tag: strong(etag.clone()), ..Default::default() };
    let (size, checksum, body) = (received.size, received.checksum, received.body);
    match checksum.clone() {
        Some(Checksum::Crc32(sum)) => output.checksum_crc32 = Some(sum),
        Some(Checksum::Crc32c(sum)) => output.checksum_crc32c = Some(sum),
        Some(Checksum::Crc64Nvme(sum)) => output.checksum_crc64nvme = Some(sum),
        Some(Checksum::Sha1(sum)) => output.checksum_sha1 = Some(sum),
        Some(Checksum::Sha256(sum)) => output.checksum_sha256 = Some(sum),
        None => {}
    }
    let object = Object { etag, modified: now(), size, headers: kept, checksum, body };
    backend.write(move |b| b.put(&to, object)).await?;
    Ok(output)
}

/// What GET and HEAD tell alike; the fields have the same names in both outputs.
macro_rules! described {
    ($output:ident, $object:expr, $show_checksum:expr) => {{
        let object: &Object = $object;
        let kept = &object.headers;
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: kept.cache_control.clone(),
            content_disposition: kept.content_disposition.clone(),
            content_encoding: kept.content_encoding.clone(),
            content_language: kept.content_language.clone(),
            content_length: Some(length(object.size)),
            content_type: Some(kept.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())),
            e_tag: strong(object.etag.clone()),
            expires: kept.expires.and_then(timestamp),
            last_modified: timestamp(object.modified),
            metadata: Some(kept.metadata.clone().into_iter().collect()),
            storage_class: shown_class(kept),
            ..Default::default()
        };
        if let Some(checksum) = object.checksum.clone().filter(|_| $show_checksum) {
            output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
            match checksum {
                Checksum::Crc32(sum) => output.checksum_crc32 = Some(sum),
                Checksum::Crc32c(sum) => output.checksum_crc32c = Some(sum),
                Checksum::Crc64Nvme(sum) => output.checksum_crc64nvme = Some(sum),
                Checksum::Sha1(sum) => output.checksum_sha1 = Some(sum),
                Checksum::Sha256(sum) => output.checksum_sha256 = Some(sum),
            }
        }
        output
    }};
}

pub(super) async fn get(backend: &Arc<Backend>, request: S3Request<GetObjectInput>) -> S3Result<GetObjectOutput> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    check_part_number(input.part_number)?;
    let object = backend.object(&input.bucket, &input.key)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: seconds(input.if_modified_since),
        if_unmodified_since: seconds(input.if_unmodified_since),
    };
    check_read(&conditions, &object)?;
    let show_checksum = input.range.is_none() && wants_checksum(input.checksum_mode.as_ref());
    let mut output = described!(GetObjectOutput, &object, show_checksum);
    let body = match input.range {
        None => object.body.clone(),
        Some(range) => {
            let range = range.check(object.size).map_err(|_| invalid_range(object.size))?;
            output.content_length = Some(length(range.end - range.start));
            output.content_range = Some(format!("bytes {}-{}/{}", range.start, range.end - 1, object.size));
            object.body.slice(range)
        }
    };
    output.body = Some(StreamingBlob::new(body.into_stream()));
    Ok(output)
}

pub(super) async fn head(backend: &Arc<Backend>, request: S3Request<HeadObjectInput>) -> S3Result<HeadObjectOutput> {
    let S3Request { input, extensions, .. } = request;
    check_version(input.version_id.as_deref())?;
    check_part_number(input.part_number)?;
    let object = backend.look(&Exchange::of(&extensions), &input.bucket, &input.key)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: seconds(input.if_modified_since),
        if_unmodified_since: seconds(input.if_unmodified_since),
    };
    check_read(&conditions, &object)?;
    Ok(described!(HeadObjectOutput, &object, wants_checksum(input.checksum_mode.as_ref())))
}

fn wants_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

fn check_part_number(number: Option<i32>) -> S3Result<()> {
    match number {
        None => Ok(()),
        Some(_) => Err(s3_error!(NotImplemented, "Reading by part number is not implemented")),
    }
}

fn check_read(conditions: &Conditions, object: &Object) -> S3Result<()> {
    match conditions.verdict(object) {
        ReadVerdict::Go => Ok(()),
        ReadVerdict::Failed => Err(precondition_failed()),
        ReadVerdict::NotModified => {
            let mut error = S3Error::new(S3ErrorCode::NotModified);
            if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
                error.set_headers(HeaderMap::from_iter([(ETAG, etag)]));
            }
            Err(error)
        }
    }
}

fn invalid_range(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    if let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}")) {
        let xml = HeaderValue::from_static("application/xml");
        error.set_headers(HeaderMap::from_iter([(CONTENT_RANGE, range), (CONTENT_TYPE, xml)]));
    }
    error
}

pub(super) async fn copy(backend: &Arc<Backend>, request: S3Request<CopyObjectInput>) -> S3Result<CopyObjectOutput> {
    let S3Request { input, extensions, headers, .. } = request;
    let given = stored_headers!(input);
    let (bucket, key) = source(&input.copy_source)?;
    let if_match = condition(&headers, "if-match")?;
    let if_none_match = condition(&headers, "if-none-match")?;
    let to = target(&extensions, input.bucket, input.key, if_match, if_none_match)?;
    let replace = input.metadata_directive.is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
    if replace {
        check_metadata(&given)?;
    }
    if !replace && given.storage_class.is_none() && (&bucket, &key) == (&to.bucket, &to.key) {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let on_source = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: seconds(input.copy_source_if_modified_since),
        if_unmodified_since: seconds(input.copy_source_if_unmodified_since),
    };
    loop {
        let from = backend.object(&bucket, &key)?;
        on_source.check_source(&from)?;
        if from.size > PUT_MAX {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size"
            ));
        }
        let mut object = (*from).clone();
        object.etag = copied_etag(&from).await?;
        object.modified = now();
        if replace {
            object.headers = given.clone();
        } else {
            object.headers.storage_class = given.storage_class.clone();
        }
        let (etag, modified) = (object.etag.clone(), object.modified);
        let (at, to) = ((bucket.clone(), key.clone()), to.clone());
        let refused = backend.write(move |b| b.copy((&at.0, &at.1), &from, &to, object)).await?;
        if refused.is_none() {
            let result =
                CopyObjectResult { e_tag: strong(etag), last_modified: timestamp(modified), ..Default::default() };
            return Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() });
        }
    }
}

/// A condition on the destination of a copy, which s3s 0.14.1 does not read.
fn condition(headers: &HeaderMap, name: &'static str) -> S3Result<Option<ETagCondition>> {
    let parse = |value: &HeaderValue| ETagCondition::parse_http_header(value.as_bytes());
    headers.get(name).map(parse).transpose().map_err(|e| s3_error!(e, InvalidArgument, "invalid header: {name}"))
}

/// The ETag of a copy: a copy is one part, whatever its source was.
async fn copied_etag(from: &Object) -> S3Result<String> {
    if !from.etag.contains('-') {
        return Ok(from.etag.clone());
    }
    let body = from.body.clone();
    let md5 = tokio::task::spawn_blocking(move || body.md5()).await.map_err(S3Error::internal_error)?;
    Ok(hex(&md5.map_err(S3Error::internal_error)?))
}

pub(super) async fn delete(
    backend: &Arc<Backend>,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<DeleteObjectOutput> {
    let S3Request { input, extensions, .. } = request;
    check_version(input.version_id.as_deref())?;
    let to = target(&extensions, input.bucket, input.key, input.if_match, None)?;
    let outcomes =
        backend.write(move |b| b.delete(Some(&to.exchange), &to.bucket, vec![(to.key, to.conditions)])).await?;
    outcomes.into_iter().collect::<S3Result<()>>()?;
    Ok(DeleteObjectOutput::default())
}

pub(super) async fn delete_many(
    backend: &Arc<Backend>,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<DeleteObjectsOutput> {
    let S3Request { input, extensions, .. } = request;
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > DELETE_MAX {
        return Err(s3_error!(MalformedXML, "One request deletes 1 to {DELETE_MAX} objects"));
    }
    let mut wanted = Vec::with_capacity(objects.len());
    for object in objects {
        check_version(object.version_id.as_deref())?;
        let if_match = object.e_tag.map(ETagCondition::ETag);
        let to = target(&extensions, input.bucket.clone(), object.key, if_match, None)?;
        wanted.push((to.key, to.conditions));
    }
    let keys: Vec<_> = wanted.iter().map(|(key, _)| key.clone()).collect();
    let outcomes = backend.write(move |b| b.delete(None, &input.bucket, wanted)).await?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (key, outcome) in keys.into_iter().zip(outcomes) {
        // A key that XML cannot carry would make the answer unreadable.
        let key = Some(key).filter(|key| xml_can_carry(key));
        match outcome {
            Ok(()) if input.delete.quiet != Some(true) => deleted.push(DeletedObject { key, ..Default::default() }),
            Ok(()) => {}
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key,
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..Default::default() })
}
