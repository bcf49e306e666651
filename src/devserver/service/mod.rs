//! The S3 operations.
//!
//! Owns: which operations there are; the steps that several of them share (conditions of a write, headers to keep, times).
//! Does not own: the operations: `objects`, `uploads`, `lists`.

mod lists;
mod objects;
mod uploads;

use super::backend::{Backend, Target};
use super::conditions::Conditions;
use super::gate::Exchange;
use super::record::{Headers, Object};
use http::Extensions;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use std::sync::Arc;
use time::OffsetDateTime;

/// The operations on a backend.
pub(super) struct Service {
    pub(super) backend: Arc<Backend>,
}

/// Runs an operation and puts the request id into its error.
macro_rules! run {
    ($self:ident, $request:ident, $operation:path) => {{
        let exchange = Exchange::of(&$request.extensions);
        match $operation(&$self.backend, $request).await {
            Ok(output) => Ok(S3Response::new(output)),
            Err(mut error) => {
                error.set_request_id(exchange.id.clone());
                Err(error)
            }
        }
    }};
}

/// One method per operation, each handing its request to the function of that name.
macro_rules! operations {
    ($($name:ident: $input:ident => $output:ident in $place:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                run!(self, request, $place)
            })*
        }
    };
}

operations! {
    create_bucket: CreateBucketInput => CreateBucketOutput in lists::create_bucket;
    delete_bucket: DeleteBucketInput => DeleteBucketOutput in lists::delete_bucket;
    head_bucket: HeadBucketInput => HeadBucketOutput in lists::head_bucket;
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput in lists::location;
    get_bucket_versioning: GetBucketVersioningInput => GetBucketVersioningOutput in lists::versioning;
    list_buckets: ListBucketsInput => ListBucketsOutput in lists::list_buckets;
    list_objects: ListObjectsInput => ListObjectsOutput in lists::list_objects;
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output in lists::list_objects_v2;
    put_object: PutObjectInput => PutObjectOutput in objects::put;
    get_object: GetObjectInput => GetObjectOutput in objects::get;
    head_object: HeadObjectInput => HeadObjectOutput in objects::head;
    copy_object: CopyObjectInput => CopyObjectOutput in objects::copy;
    delete_object: DeleteObjectInput => DeleteObjectOutput in objects::delete;
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput in objects::delete_many;
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput in uploads::create;
    upload_part: UploadPartInput => UploadPartOutput in uploads::part;
    upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput in uploads::part_copy;
    list_parts: ListPartsInput => ListPartsOutput in uploads::list_parts;
    list_multipart_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput in uploads::list_uploads;
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput in uploads::complete;
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput in uploads::abort;
}

/// The headers that an operation stores, from its input: the fields have the same names everywhere.
macro_rules! stored_headers {
    ($input:expr) => {
        crate::devserver::record::Headers {
            content_type: $input.content_type.clone(),
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: crate::devserver::service::stored_encoding($input.content_encoding.as_deref()),
            content_language: $input.content_language.clone(),
            expires: crate::devserver::conditions::seconds($input.expires.clone()),
            storage_class: $input.storage_class.as_ref().map(|class| class.as_str().to_owned()),
            metadata: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
        }
    };
}
use stored_headers;

/// Content-Encoding without `aws-chunked`, which is only about the transfer.
fn stored_encoding(header: Option<&str>) -> Option<String> {
    let kept: Vec<_> = header?.split(',').map(str::trim).filter(|e| !e.is_empty() && *e != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Bytes of names and values of user metadata that S3 takes ("Working with object metadata").
const METADATA_MAX: usize = 2048;

/// Refuses more user metadata than S3 takes.
fn check_metadata(headers: &Headers) -> S3Result<()> {
    let len: usize = headers.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if len > METADATA_MAX {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    Ok(())
}

/// Where a write goes, with the conditions that count.
fn target(
    extensions: &Extensions,
    bucket: String,
    key: String,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Target> {
    if key.is_empty() {
        return Err(s3_error!(InvalidRequest, "A key is at least one byte long"));
    }
    let conditions = Conditions { if_match, if_none_match, ..Conditions::default() };
    let exchange = Exchange::of(extensions);
    Ok(Target { bucket, key, conditions: exchange.write_conditions(conditions)?, exchange })
}

/// The bucket and key that a copy reads from.
fn source(copy_source: &CopySource) -> S3Result<(String, String)> {
    match copy_source {
        CopySource::Bucket { bucket, key, version_id } => {
            check_version(version_id.as_deref())?;
            Ok((bucket.to_string(), key.to_string()))
        }
        _ => Err(s3_error!(NotImplemented, "This server has no access points")),
    }
}

/// Buckets are unversioned: the only version is `null`.
fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

fn strong(etag: impl Into<String>) -> Option<ETag> {
    Some(ETag::Strong(etag.into()))
}

/// Seconds since the epoch as s3s writes times.
fn timestamp(seconds: i64) -> Option<Timestamp> {
    OffsetDateTime::from_unix_timestamp(seconds).ok().map(Timestamp::from)
}

/// Sizes as s3s writes them.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The storage class that an answer names: none for the default one.
fn shown_class(headers: &Headers) -> Option<StorageClass> {
    headers.storage_class.clone().filter(|class| class != StorageClass::STANDARD).map(StorageClass::from)
}

/// The storage class in listings, which always name one.
fn listed_class(object: &Object) -> String {
    object.headers.storage_class.clone().unwrap_or_else(|| StorageClass::STANDARD.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_chunked_is_not_stored() {
        assert_eq!(stored_encoding(Some("aws-chunked")), None);
        assert_eq!(stored_encoding(Some("gzip, aws-chunked")).as_deref(), Some("gzip"));
        assert_eq!(stored_encoding(None), None);
    }
}
