//! One range, fetched by as few requests as it takes.
//!
//! Owns: the ranged GET with If-Match, the check that it delivers what was asked, going on at the byte reached when a body
//! breaks off, a second request for an answer that is late. Does not own: retries of a request that was not answered (`store::retry`), what is fetched (`mod`).

use super::fill::Fill;
use super::hedge::Hedge;
use crate::store::{ErrorKind, GetObject, ObjectStore, Op, StoreError};
use crate::types::{ByteRange, ObjectRef};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Times in a row that a body may break off before its first byte. The request itself was answered, so no layer below retries.
const ATTEMPTS: u32 = 3;

/// Where bytes come from.
#[derive(Debug)]
pub(super) struct Source {
    store: Arc<dyn ObjectStore>,
    hedge: Hedge,
}

impl Source {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Source {
        Source { store, hedge: Hedge::default() }
    }

    /// A ranged GET of this version; a second one if its answer is later than nearly all were lately. The first to be answered
    /// counts, and the other is dropped.
    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<GetObject, StoreError> {
        let began = Instant::now();
        let ask = || self.store.get(&object.key, Some(range), Some(&object.version.etag));
        let mut first = ask();
        let in_time = match self.hedge.late() {
            Some(late) => tokio::time::timeout(late, &mut first).await.ok(),
            None => Some((&mut first).await),
        };
        let got = match in_time {
            Some(got) => got,
            None if self.hedge.take() => {
                tracing::debug!(key = %object.key, ?range, "an answer is late: asking a second time");
                // A failure of one leaves the other.
                match futures::future::select_ok([first, ask()]).await {
                    Ok((got, _)) => Ok(got),
                    Err(e) => Err(e),
                }
            }
            None => first.await,
        };
        if got.is_ok() {
            self.hedge.on_answer(began.elapsed());
        }
        got
    }
}

/// Fails what has not arrived when it is dropped: the request has ended.
pub(super) struct Ends(pub(super) Weak<Fill>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(fill) = self.0.upgrade() {
            fill.fail(StoreError::new(ErrorKind::Broken, Op::Get, None, "the request ended without an answer"));
        }
    }
}

/// Fetches all of `fill`, or fails it, or stops when nobody wants it any more. `keep` is given what has arrived of it, in segments.
pub(super) async fn fill(
    source: &Source,
    object: &ObjectRef,
    fill: &Weak<Fill>,
    range: ByteRange,
    keep: impl Fn(ByteRange, &Bytes),
) {
    let (mut at, mut attempt) = (range.start(), 1);
    while let Some(left) = ByteRange::new(at, range.end()) {
        let before = at;
        let Err(error) = stream(source, object, fill, left, &mut at, &keep).await else { return };
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

/// One GET. Moves `at` on with each byte that arrives. Ends when all have, or when nobody wants them any more.
async fn stream(
    source: &Source,
    object: &ObjectRef,
    fill: &Weak<Fill>,
    range: ByteRange,
    at: &mut u64,
    keep: &impl Fn(ByteRange, &Bytes),
) -> Result<(), StoreError> {
    let mut got = source.get(object, range).await.map_err(|e| match e.kind {
        // The range lies within this version: another one is there, which is shorter.
        ErrorKind::InvalidRange => StoreError { kind: ErrorKind::Precondition, ..e },
        _ => e,
    })?;
    let corrupt = |what: String| StoreError::new(ErrorKind::Corrupt, Op::Get, Some(&object.key), what);
    // Not every server and proxy keeps the condition of a GET. What is kept of it would pass for this version for ever. Before the
    // range: of a shorter version it is another one.
    let sent = &got.meta.version;
    if !sent.etag.is(&object.version.etag) || sent.size != object.version.size {
        let what = format!("asked for {:?} and was sent {:?}", object.version.etag, sent.etag);
        return Err(StoreError::new(ErrorKind::Precondition, Op::Get, Some(&object.key), what));
    }
    if got.range != Some(range) {
        return Err(corrupt(format!("asked for {range:?} and was sent {:?}", got.range)));
    }
    while let Some(frame) = got.body.next().await {
        let frame = frame?;
        let Some(fill) = fill.upgrade() else { return Ok(()) };
        let whole = fill.extend(&frame);
        drop(fill);
        let whole = whole.map_err(|_| corrupt(format!("was sent more than the bytes of {range:?}")))?;
        *at += frame.len() as u64;
        for (segment, bytes) in &whole {
            keep(*segment, bytes);
        }
        if *at == range.end() {
            return Ok(());
        }
    }
    let missing = range.end() - *at;
    Err(StoreError::new(
        ErrorKind::Broken,
        Op::Get,
        Some(&object.key),
        format!("{missing} bytes of {range:?} are missing"),
    ))
}
