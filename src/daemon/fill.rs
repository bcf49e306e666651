//! Filling a bucket with a few objects before it is mounted.
//!
//! Owns: putting what is missing. Does not own: what (`demo`).

use super::config::MountConfig;
use super::failure::MountFailure;
use crate::store::open::{self, StackSettings};
use crate::store::{Condition, ErrorKind, ObjectHeaders, StoreError};
use crate::types::Key;
use bytes::Bytes;

/// Puts each of these keys, content types and bodies into the bucket unless the key is there.
///
/// # Errors
/// The first one that failed.
pub async fn put_missing(
    config: &MountConfig,
    objects: impl Iterator<Item = (String, &'static str, Vec<u8>)>,
) -> Result<(), MountFailure> {
    let refused = |e: StoreError| MountFailure::from_store(&e, &config.s3.bucket, config.s3.endpoint.as_deref());
    let stack = StackSettings { prefix: config.prefix.clone(), ..StackSettings::default() };
    let opened = open::open(&config.s3, &stack, None, Box::new(|_| {})).await.map_err(refused)?;
    for (key, content_type, body) in objects {
        let key = Key::parse(&key).map_err(|e| MountFailure::new(super::FailureKind::Other, e.to_string()))?;
        let headers = ObjectHeaders { content_type: Some(content_type.to_owned()), ..ObjectHeaders::default() };
        match opened.store.put(&key, Bytes::from(body), &headers, &Condition::IfAbsent).await {
            Err(e) if e.kind == ErrorKind::Precondition => {}
            result => drop(result.map_err(refused)?),
        }
    }
    Ok(())
}
