//! One range, fetched by as few requests as it takes.
//!
//! Owns: the ranged GET with If-Match, the check that it delivers what was asked, going on at the byte reached when a body
//! breaks off. Does not own: retries of a request that was not answered (`store::retry`), what is fetched (`mod`).

use super::fill::Fill;
use crate::store::{ErrorKind, ObjectStore, Op, StoreError};
use crate::types::{ByteRange, ObjectRef};
use futures::StreamExt;
use std::sync::{Arc, Weak};

/// Times in a row that a body may break off before its first byte. The request itself was answered, so no layer below retries.
const ATTEMPTS: u32 = 3;

/// Fetches all of `fill`, or fails it. Ends when nobody wants it any more.
pub(super) async fn fill(store: &Arc<dyn ObjectStore>, object: &ObjectRef, fill: &Weak<Fill>, range: ByteRange) {
    let (mut at, mut attempt) = (range.start(), 1);
    while let Some(left) = ByteRange::new(at, range.end()) {
        let before = at;
        let Err(error) = stream(store, object, fill, left, &mut at).await else { return };
        attempt = if at > before { 1 } else { attempt + 1 };
        if attempt > ATTEMPTS || !error.kind.is_retryable() {
            if let Some(fill) = fill.upgrade() {
                fill.fail(error);
            }
            return;
        }
        tracing::debug!(key = %object.key, at, error = %error, "a body broke off: going on at the byte reached");
    }
}

/// One GET. Moves `at` on with each byte that arrives.
async fn stream(
    store: &Arc<dyn ObjectStore>,
    object: &ObjectRef,
    fill: &Weak<Fill>,
    range: ByteRange,
    at: &mut u64,
) -> Result<(), StoreError> {
    let mut got = store.get(&object.key, Some(range), Some(&object.version.etag)).await?;
    let corrupt = |what: String| StoreError::new(ErrorKind::Corrupt, Op::Get, Some(&object.key), what);
    if got.range != Some(range) {
        return Err(corrupt(format!("asked for {range:?} and was sent {:?}", got.range)));
    }
    while let Some(frame) = got.body.next().await {
        let frame = frame?;
        let Some(fill) = fill.upgrade() else { return Ok(()) };
        if !fill.extend(&frame) {
            return Err(corrupt(format!("was sent more than the bytes of {range:?}")));
        }
        *at += frame.len() as u64;
    }
    if *at == range.end() {
        return Ok(());
    }
    let missing = range.end() - *at;
    Err(StoreError::new(
        ErrorKind::Broken,
        Op::Get,
        Some(&object.key),
        format!("{missing} bytes of {range:?} are missing"),
    ))
}
