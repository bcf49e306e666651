//! Multipart uploads.
//!
//! Owns: CreateMultipartUpload, UploadPart, UploadPartCopy, ListParts, ListMultipartUploads, CompleteMultipartUpload,
//! AbortMultipartUpload. Does not own: which parts make an object (`backend`).

use super::{check_metadata, length, source, stored_headers, strong, target, timestamp};
use crate::devserver::backend::Backend;
use crate::devserver::conditions::{Conditions, seconds};
use crate::devserver::listing::{url_encode, xml_can_carry};
use crate::devserver::receive::{PUT_MAX, receive};
use crate::devserver::record::{Checksum, Part as StoredPart, Upload, now};
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Result, s3_error};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The greatest part number.
const PART_NUMBER_MAX: i32 = 10_000;
/// Most entries of one page.
const PAGE_MAX: usize = 1000;

pub(super) async fn create(
    backend: &Arc<Backend>,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<CreateMultipartUploadOutput> {
    let input = request.input;
    let headers = stored_headers!(input);
    check_metadata(&headers)?;
    let (bucket, key) = (input.bucket.clone(), input.key.clone());
    let id = backend.write(move |b| b.create_upload(&bucket, &key, headers)).await?;
    Ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key).filter(|key| xml_can_carry(key)),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        ..Default::default()
    })
}

fn check_number(number: i32) -> S3Result<()> {
    match number {
        1..=PART_NUMBER_MAX => Ok(()),
        _ => {
            Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"))
        }
    }
}

pub(super) async fn part(backend: &Arc<Backend>, request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let UploadPartInput { bucket, key, upload_id, part_number, body, .. } = input;
    check_number(part_number)?;
    backend.index().upload(&bucket, &key, &upload_id)?;
    let received = receive(backend.files.as_ref(), body, &headers, trailing_headers).await?;
    let part = StoredPart { md5: received.md5, modified: now(), size: received.size, body: received.body };
    let mut output = UploadPartOutput { e_tag: strong(part.etag()), ..Default::default() };
    match received.checksum {
        Some(Checksum::Crc32(sum)) => output.checksum_crc32 = Some(sum),
        Some(Checksum::Crc32c(sum)) => output.checksum_crc32c = Some(sum),
        Some(Checksum::Crc64Nvme(sum)) => output.checksum_crc64nvme = Some(sum),
        Some(Checksum::Sha1(sum)) => output.checksum_sha1 = Some(sum),
        Some(Checksum::Sha256(sum)) => output.checksum_sha256 = Some(sum),
        None => {}
    }
    backend.write(move |b| b.put_part((&bucket, &key, &upload_id), part_number, part)).await?;
    Ok(output)
}

pub(super) async fn part_copy(
    backend: &Arc<Backend>,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<UploadPartCopyOutput> {
    let input = request.input;
    check_number(input.part_number)?;
    let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
    backend.index().upload(&bucket, &key, &id)?;
    let from = source(&input.copy_source)?;
    let object = backend.object(&from.0, &from.1)?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: seconds(input.copy_source_if_modified_since),
        if_unmodified_since: seconds(input.copy_source_if_unmodified_since),
    };
    conditions.check_source(&object)?;
    let body = match input.copy_source_range.as_deref() {
        None => object.body.clone(),
        Some(range) => object.body.slice(source_range(range, object.size)?),
    };
    if body.len() > PUT_MAX {
        return Err(s3_error!(InvalidRequest, "The specified copy source is larger than the maximum allowable size"));
    }
    let hashed = body.clone();
    let md5 = tokio::task::spawn_blocking(move || hashed.md5()).await.map_err(S3Error::internal_error)?;
    let md5 = md5.map_err(S3Error::internal_error)?;
    let part = StoredPart { md5, modified: now(), size: body.len(), body };
    let result =
        CopyPartResult { e_tag: strong(part.etag()), last_modified: timestamp(part.modified), ..Default::default() };
    backend.write(move |b| b.put_part((&bucket, &key, &id), input.part_number, part)).await?;
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
}

/// The bytes that `x-amz-copy-source-range` names: both ends given, and both in the source.
fn source_range(header: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    match Range::parse(header) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidRange, "The range specified is not valid for source object of size {size}"))
        }
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")),
    }
}

pub(super) async fn list_parts(
    backend: &Arc<Backend>,
    request: S3Request<ListPartsInput>,
) -> S3Result<ListPartsOutput> {
    let input = request.input;
    let after = input.part_number_marker.unwrap_or(0);
    let max = page_size(input.max_parts)?;
    let index = backend.index();
    let upload = index.upload(&input.bucket, &input.key, &input.upload_id)?;
    let mut left = upload.parts.range(after.saturating_add(1)..);
    let parts = left.by_ref().take(max).map(|(number, part)| Part {
        e_tag: strong(part.etag()),
        last_modified: timestamp(part.modified),
        part_number: Some(*number),
        size: Some(length(part.size)),
        ..Default::default()
    });
    let parts = parts.collect::<Vec<_>>();
    Ok(ListPartsOutput {
        is_truncated: Some(left.next().is_some()),
        next_part_number_marker: parts.last().and_then(|part| part.part_number),
        bucket: Some(input.bucket),
        key: Some(input.key).filter(|key| xml_can_carry(key)),
        max_parts: Some(i32::try_from(max).unwrap_or(i32::MAX)),
        part_number_marker: Some(after),
        parts: Some(parts),
        storage_class: upload.headers.storage_class.clone().map(StorageClass::from),
        upload_id: Some(input.upload_id),
        ..Default::default()
    })
}

fn page_size(asked: Option<i32>) -> S3Result<usize> {
    match asked {
        None => Ok(PAGE_MAX),
        Some(n) => {
            let n = usize::try_from(n).map_err(|_| s3_error!(InvalidArgument, "The page size must not be negative"))?;
            Ok(n.min(PAGE_MAX))
        }
    }
}

/// What one entry of a page of uploads is made of.
enum Entry<'a> {
    Upload(&'a Upload),
    Prefix(&'a str),
}

/// Uploads and common prefixes in order, after the markers.
fn entries<'a>(uploads: &[&'a Upload], input: &ListMultipartUploadsInput) -> Vec<Entry<'a>> {
    let prefix = input.prefix.as_deref().unwrap_or("");
    let key_marker = input.key_marker.as_deref().unwrap_or("");
    let id_marker = input.upload_id_marker.as_deref();
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for upload in uploads {
        let key = upload.key.as_str();
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        let common = input
            .delimiter
            .as_deref()
            .filter(|d| !d.is_empty())
            .and_then(|d| rest.find(d).map(|at| &key[..prefix.len() + at + d.len()]));
        match common {
            Some(common) if common <= key_marker || !seen.insert(common) => {}
            Some(common) => entries.push(Entry::Prefix(common)),
            None if key < key_marker => {}
            None if key == key_marker && !key.is_empty() && id_marker.is_none_or(|id| upload.id.as_str() <= id) => {}
            None => entries.push(Entry::Upload(upload)),
        }
    }
    entries
}

pub(super) async fn list_uploads(
    backend: &Arc<Backend>,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<ListMultipartUploadsOutput> {
    let input = request.input;
    let max = page_size(input.max_uploads)?;
    let index = backend.index();
    index.bucket(&input.bucket)?;
    let mut uploads: Vec<&Upload> = index.uploads.values().map(|u| &**u).filter(|u| u.bucket == input.bucket).collect();
    uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
    let mut entries = entries(&uploads, &input);
    let truncated = max > 0 && entries.len() > max;
    entries.truncate(max);
    let encode = |text: &str| if input.encoding_type.is_some() { url_encode(text) } else { text.to_owned() };
    let (next_key, next_id) = match entries.last().filter(|_| truncated) {
        Some(Entry::Upload(upload)) => (Some(encode(&upload.key)), Some(upload.id.clone())),
        Some(Entry::Prefix(prefix)) => (Some(encode(prefix)), None),
        None => (None, None),
    };
    let prefixes = entries.iter().filter_map(|entry| match entry {
        Entry::Prefix(prefix) => Some(CommonPrefix { prefix: Some(encode(prefix)) }),
        Entry::Upload(_) => None,
    });
    let listed = entries.iter().filter_map(|entry| match entry {
        Entry::Upload(upload) => Some(MultipartUpload {
            initiated: timestamp(upload.initiated),
            key: Some(encode(&upload.key)),
            storage_class: upload.headers.storage_class.clone().map(StorageClass::from),
            upload_id: Some(upload.id.clone()),
            ..Default::default()
        }),
        Entry::Prefix(_) => None,
    });
    Ok(ListMultipartUploadsOutput {
        common_prefixes: Some(prefixes.collect()),
        uploads: Some(listed.collect()),
        is_truncated: Some(truncated),
        next_key_marker: next_key,
        next_upload_id_marker: next_id,
        max_uploads: Some(i32::try_from(max).unwrap_or(i32::MAX)),
        delimiter: input.delimiter.as_deref().map(encode),
        key_marker: input.key_marker.as_deref().map(encode),
        prefix: input.prefix.as_deref().map(encode),
        upload_id_marker: input.upload_id_marker.clone(),
        encoding_type: input.encoding_type.clone(),
        bucket: Some(input.bucket.clone()),
        ..Default::default()
    })
}

pub(super) async fn complete(
    backend: &Arc<Backend>,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<CompleteMultipartUploadOutput> {
    let S3Request { input, extensions, .. } = request;
    let (bucket, key) = (input.bucket.clone(), input.key.clone());
    let to = target(&extensions, input.bucket, input.key, input.if_match, input.if_none_match)?;
    let mut wanted = Vec::new();
    for part in input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default() {
        match (part.part_number, part.e_tag) {
            (Some(number), Some(etag)) => wanted.push((number, etag.into_value())),
            _ => return Err(s3_error!(MalformedXML, "Each part needs its number and its ETag")),
        }
    }
    let etag = backend.write(move |b| b.complete(&to, &input.upload_id, &wanted)).await?;
    Ok(CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{}", url_encode(&key))),
        bucket: Some(bucket),
        key: Some(key).filter(|key| xml_can_carry(key)),
        e_tag: strong(etag),
        ..Default::default()
    })
}

pub(super) async fn abort(
    backend: &Arc<Backend>,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<AbortMultipartUploadOutput> {
    let AbortMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
    backend.write(move |b| b.abort((&bucket, &key, &upload_id))).await?;
    Ok(AbortMultipartUploadOutput::default())
}
