//! Operations on buckets, listings among them.
//!
//! Owns: ListObjects, ListObjectsV2, ListBuckets, CreateBucket, DeleteBucket, HeadBucket, GetBucketLocation,
//! GetBucketVersioning. Does not own: what is on a page (`listing`).

use super::{length, listed_class, strong, timestamp};
use crate::devserver::backend::Backend;
use crate::devserver::listing::{Entry, Page, Query, from_marker, from_token, url_encode};
use crate::devserver::record::Object as StoredObject;
use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use std::ops::Bound;
use std::sync::Arc;

/// Most entries of one page.
const PAGE_MAX: i32 = 1000;
/// Where this server claims to be.
const REGION: &str = "us-east-1";

pub(super) async fn list_objects_v2(
    backend: &Arc<Backend>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<ListObjectsV2Output> {
    let input = request.input;
    let encode = encoder(input.encoding_type.as_ref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let max = page_size(input.max_keys)?;
    let from = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => from_token(token)
            .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?,
        (None, Some(after)) => from_marker(after, &prefix, input.delimiter.as_deref()),
        (None, None) => Bound::Unbounded,
    };
    let query = Query { prefix: &prefix, delimiter: input.delimiter.as_deref(), from, max: max as usize };
    let page = backend.list(&input.bucket, &query)?;
    let (token, truncated) = (page.token(), page.truncated);
    let count = i32::try_from(page.entries.len()).unwrap_or(i32::MAX);
    let (contents, prefixes) = rendered(page, encode);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encode(&prefix)),
        max_keys: Some(max),
        key_count: Some(count),
        continuation_token: input.continuation_token,
        is_truncated: Some(truncated),
        next_continuation_token: token,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.as_deref().map(encode),
        encoding_type: input.encoding_type,
        start_after: input.start_after.as_deref().map(encode),
        ..Default::default()
    })
}

pub(super) async fn list_objects(
    backend: &Arc<Backend>,
    request: S3Request<ListObjectsInput>,
) -> S3Result<ListObjectsOutput> {
    let input = request.input;
    let encode = encoder(input.encoding_type.as_ref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let marker = input.marker.clone().unwrap_or_default();
    let max = page_size(input.max_keys)?;
    let delimiter = input.delimiter.as_deref().filter(|d| !d.is_empty());
    let from = from_marker(&marker, &prefix, delimiter);
    let page = backend.list(&input.bucket, &Query { prefix: &prefix, delimiter, from, max: max as usize })?;
    let truncated = page.truncated;
    // AWS gives a next marker only to listings with a delimiter; others continue after the last key.
    let next_marker = page.last().filter(|_| truncated && delimiter.is_some()).map(encode);
    let (contents, prefixes) = rendered(page, encode);
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encode(&prefix)),
        marker: Some(encode(&marker)),
        max_keys: Some(max),
        is_truncated: Some(truncated),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.as_deref().map(encode),
        next_marker,
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

fn encoder(encoding: Option<&EncodingType>) -> fn(&str) -> String {
    match encoding {
        Some(_) => url_encode,
        None => str::to_owned,
    }
}

fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(PAGE_MAX) {
        n if n < 0 => Err(s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647")),
        n => Ok(n.min(PAGE_MAX)),
    }
}

fn rendered(page: Page<Arc<StoredObject>>, encode: fn(&str) -> String) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut objects, mut prefixes) = (Vec::with_capacity(page.entries.len()), Vec::new());
    for entry in page.entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encode(&prefix)) }),
            Entry::Key(key, object) => objects.push(Object {
                e_tag: strong(object.etag.clone()),
                key: Some(encode(&key)),
                last_modified: timestamp(object.modified),
                size: Some(length(object.size)),
                storage_class: Some(ObjectStorageClass::from(listed_class(&object))),
                ..Default::default()
            }),
        }
    }
    (objects, prefixes)
}

pub(super) async fn list_buckets(
    backend: &Arc<Backend>,
    _request: S3Request<ListBucketsInput>,
) -> S3Result<ListBucketsOutput> {
    let index = backend.index();
    let buckets = index.buckets.iter().map(|(name, bucket)| Bucket {
        creation_date: timestamp(bucket.created),
        name: Some(name.clone()),
        ..Default::default()
    });
    let owner = Owner { display_name: Some("objfs".to_owned()), id: Some("objfs".to_owned()) };
    Ok(ListBucketsOutput { buckets: Some(buckets.collect()), owner: Some(owner), ..Default::default() })
}

pub(super) async fn create_bucket(
    backend: &Arc<Backend>,
    request: S3Request<CreateBucketInput>,
) -> S3Result<CreateBucketOutput> {
    let bucket = request.input.bucket;
    let location = Some(format!("/{bucket}"));
    backend.write(move |b| b.create_bucket(&bucket)).await?;
    Ok(CreateBucketOutput { location })
}

pub(super) async fn delete_bucket(
    backend: &Arc<Backend>,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<DeleteBucketOutput> {
    backend.write(move |b| b.delete_bucket(&request.input.bucket)).await?;
    Ok(DeleteBucketOutput::default())
}

pub(super) async fn head_bucket(
    backend: &Arc<Backend>,
    request: S3Request<HeadBucketInput>,
) -> S3Result<HeadBucketOutput> {
    backend.index().bucket(&request.input.bucket)?;
    Ok(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..Default::default() })
}

pub(super) async fn location(
    backend: &Arc<Backend>,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<GetBucketLocationOutput> {
    backend.index().bucket(&request.input.bucket)?;
    // No constraint is how us-east-1 is spelled.
    Ok(GetBucketLocationOutput::default())
}

pub(super) async fn versioning(
    backend: &Arc<Backend>,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<GetBucketVersioningOutput> {
    backend.index().bucket(&request.input.bucket)?;
    Ok(GetBucketVersioningOutput::default())
}
