//! What was asked of each object and what it did, request by request: for tests that judge a client by it.
//!
//! Owns: the entries, and the order in which requests took effect, taken under the locks that order them.
//! Does not own: counters (`counters`), conditions (`conditions`).
//!
//! Entries are kept only after [`Log::start`], and until they are taken. A DeleteObjects does not tell its keys.

use super::body::{Body, Piece};
use super::record::Object;
use s3s::access::S3AccessContext;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// One request.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The S3 operation.
    pub op: String,
    /// The region that the client signed for; the server takes any, so it tells clients apart.
    pub region: String,
    /// The key, or nothing for requests that are not about one object.
    pub key: String,
    /// If-Match as it was sent (of a copy: on its destination), without quotes.
    pub if_match: Option<String>,
    /// If-None-Match as it was sent, without quotes.
    pub if_none_match: Option<String>,
    /// The multipart upload that the request belongs to.
    pub upload: Option<String>,
    /// The number of the part that it sends.
    pub part: Option<u32>,
    /// When the request had come, without its body.
    pub came: Instant,
    /// When it looked at the object or changed it.
    pub looked: Option<Instant>,
    /// Its place among all requests that looked at objects (HeadObject) or changed them, counted from 0 without a gap.
    /// Requests that were refused have none.
    pub place: Option<u64>,
    /// ETag of the object that was there at that moment.
    pub before: Option<String>,
    /// ETag of the object that the request made.
    pub after: Option<String>,
    /// Whether it made, replaced or removed the object.
    pub changed: bool,
    /// The status of the answer; none if the connection was closed instead, by either side.
    pub status: Option<u16>,
    body: Option<Kept>,
}

/// Bytes that are there and not shown: an entry is to fit into a message.
#[derive(Clone)]
struct Kept(Body);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl LogEntry {
    fn of(cx: &S3AccessContext<'_>) -> LogEntry {
        let header = |name: &str| cx.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = |name: &str| header(name).map(|value| value.trim_matches('"').to_owned());
        let query = cx.uri().query().unwrap_or_default();
        let argument = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned())
        };
        let credential = header("authorization")
            .and_then(|value| value.split_once("Credential="))
            .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
            .or_else(|| argument("X-Amz-Credential"))
            .unwrap_or_default();
        LogEntry {
            op: cx.s3_op().name().to_owned(),
            region: region_of(&credential),
            key: cx.s3_path().get_object_key().unwrap_or_default().to_owned(),
            if_match: etag("if-match"),
            if_none_match: etag("if-none-match"),
            upload: argument("uploadId"),
            part: argument("partNumber").and_then(|number| number.parse().ok()),
            came: Instant::now(),
            looked: None,
            place: None,
            before: None,
            after: None,
            changed: false,
            status: None,
            body: None,
        }
    }

    /// The bytes of the object that the request made. `None` if it made none, or one that is not kept in memory.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let Kept(body) = self.body.as_ref()?;
        let mut all = Vec::with_capacity(usize::try_from(body.len()).ok()?);
        for piece in &body.pieces {
            let Piece::Memory(bytes) = piece else { return None };
            all.extend_from_slice(bytes);
        }
        Some(all)
    }
}

/// The region in `KEY/DATE/REGION/s3/aws4_request`, as a header or a query has it.
fn region_of(credential: &str) -> String {
    let plain = credential.replace("%2F", "/").replace("%2f", "/");
    plain.split('/').nth(2).unwrap_or_default().to_owned()
}

/// The entries of a running server.
#[derive(Debug, Default)]
pub struct Log {
    on: AtomicBool,
    places: AtomicU64,
    entries: Mutex<Vec<LogEntry>>,
}

impl Log {
    /// Keeps entries from now on.
    pub fn start(&self) {
        self.on.store(true, Ordering::SeqCst);
    }

    /// Takes the entries of all requests that have ended since, in the order of their ends.
    pub fn take(&self) -> Vec<LogEntry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The entry of a request that has not ended. Its end puts the entry into the log, also if the client just went away.
#[derive(Debug, Default)]
pub(super) struct Draft {
    log: Option<Arc<Log>>,
    entry: Mutex<Option<LogEntry>>,
}

impl Draft {
    pub(super) fn new(log: &Arc<Log>) -> Draft {
        Draft { log: Some(Arc::clone(log)), entry: Mutex::default() }
    }

    /// The request has become an operation.
    pub(super) fn begin(&self, cx: &S3AccessContext<'_>) {
        if self.log.as_ref().is_some_and(|log| log.on.load(Ordering::SeqCst)) {
            *self.entry.lock().unwrap_or_else(PoisonError::into_inner) = Some(LogEntry::of(cx));
        }
    }

    /// It looked at an object, under a lock that keeps writers out.
    pub(super) fn saw(&self, object: Option<&Object>) {
        self.at_its_place(|entry| entry.before = object.map(|object| object.etag.clone()));
    }

    /// It replaces an object by another, or by none, under a lock that keeps everybody out.
    pub(super) fn replaces(&self, before: Option<&Object>, after: Option<&Object>) {
        self.at_its_place(|entry| {
            entry.before = before.map(|object| object.etag.clone());
            entry.after = after.map(|object| object.etag.clone());
            entry.body = after.map(|object| Kept(object.body.clone()));
            entry.changed = true;
        });
    }

    /// It is answered.
    pub(super) fn answered(&self, status: u16) {
        if let Some(entry) = self.entry.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            entry.status = Some(status);
        }
    }

    fn at_its_place(&self, note: impl FnOnce(&mut LogEntry)) {
        let Some(log) = &self.log else { return };
        if let Some(entry) = self.entry.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            entry.place = Some(log.places.fetch_add(1, Ordering::SeqCst));
            entry.looked = Some(Instant::now());
            note(entry);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let entry = self.entry.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(log), Some(entry)) = (&self.log, entry) {
            log.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_tell_clients_apart() {
        assert_eq!(region_of("objfs/20261120/us-east-1/s3/aws4_request"), "us-east-1");
        assert_eq!(region_of("objfs%2F20261120%2Feu-west-1%2Fs3%2Faws4_request"), "eu-west-1");
        assert_eq!(region_of(""), "");
    }
}
