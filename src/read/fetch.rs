//! One block, fetched once however many readers ask.
//!
//! Owns: the ranged GET with If-Match, the check that it delivered what was asked, single flight.
//! Does not own: retries of a request (`store::retry`), which blocks to fetch.

use crate::store::{ErrorKind, ObjectStore, Op, StoreError};
use crate::types::{ByteRange, ETag, Key, ObjectRef};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::sync::Arc;

/// Times that a block is asked for when its body breaks off: the request itself was answered, so no layer below retries.
const BODY_ATTEMPTS: u32 = 3;

/// A block of one version of one object. Last-Modified is left out: it may become known later.
pub(super) type BlockKey = (Key, ETag, u64);

pub(super) async fn block(
    store: &Arc<dyn ObjectStore>,
    blocks: &moka::future::Cache<BlockKey, Bytes>,
    object: &ObjectRef,
    index: u64,
    range: ByteRange,
) -> Result<Bytes, StoreError> {
    let key = (object.key.clone(), object.version.etag.clone(), index);
    let fetched = blocks.try_get_with(key, whole(store, object, range)).await;
    fetched.map_err(|e| StoreError::clone(&e))
}

/// All bytes of `range`, or an error.
pub(super) async fn whole(
    store: &Arc<dyn ObjectStore>,
    object: &ObjectRef,
    range: ByteRange,
) -> Result<Bytes, StoreError> {
    let mut attempt = 1;
    loop {
        match once(store, object, range).await {
            Err(e) if attempt < BODY_ATTEMPTS && e.kind.is_retryable() => attempt += 1,
            result => return result,
        }
    }
}

async fn once(store: &Arc<dyn ObjectStore>, object: &ObjectRef, range: ByteRange) -> Result<Bytes, StoreError> {
    let mut got = store.get(&object.key, Some(range), Some(&object.version.etag)).await?;
    let wanted = usize::try_from(range.len()).unwrap_or(usize::MAX);
    let corrupt = |what: String| StoreError::new(ErrorKind::Corrupt, Op::Get, Some(&object.key), what);
    if got.range != Some(range) {
        return Err(corrupt(format!("asked for {range:?} and was sent {:?}", got.range)));
    }
    let mut bytes = BytesMut::with_capacity(wanted);
    while let Some(frame) = got.body.next().await {
        let frame = frame?;
        if bytes.len() + frame.len() > wanted {
            return Err(corrupt(format!("was sent more than the {wanted} bytes of {range:?}")));
        }
        bytes.extend_from_slice(&frame);
    }
    if bytes.len() != wanted {
        return Err(corrupt(format!("was sent {} of the {wanted} bytes of {range:?}", bytes.len())));
    }
    Ok(bytes.freeze())
}
