//! Finds out which conditions a server keeps.
//!
//! Owns: the questions, asked on scratch keys of its own below `.objfs/`, and cleaning up after them.
//! Does not own: what follows from the answers (`guard`).

use super::{
    Condition, Conditions, CopyRequest, ErrorKind, ObjectHeaders, ObjectStore, Op, Result, StoreError, Support, Upload,
};
use crate::types::{ETag, Key, WriteId};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Where the scratch keys are, relative to the mount.
const FOLDER: &str = ".objfs/";
/// The body of scratch objects.
const BODY: &[u8] = b"objfs probe";

/// An ETag that no object has.
fn wrong_etag() -> ETag {
    ETag::parse("\"00000000000000000000000000000000\"")
}

/// What a probe has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which conditions the server keeps. Of a copy that the keys may not make it is refused, of a delete ignored.
    pub conditions: Conditions,
    /// The keys may not delete, or not copy. The answer is theirs, and not the server's: with other rights it is another one.
    pub is_denied: bool,
}

/// Asks a server which conditions it keeps. Writes and removes four small objects; about twenty requests, which run even
/// if the caller goes away, so that nothing is left behind. Keys that may not delete leave the objects there.
///
/// # Errors
/// The first answer that says nothing about conditions: no network, no permission to write.
pub async fn probe(store: Arc<dyn ObjectStore>, name: &str) -> Result<Found> {
    let scratch = Scratch::new(store, name)?;
    let run = tokio::spawn(async move {
        let answer = scratch.ask().await;
        scratch.clean().await;
        answer
    });
    let found = run
        .await
        .unwrap_or_else(|e| Err(StoreError::new(ErrorKind::Invalid, Op::Put, None, format!("probe failed: {e}"))));
    found.map_err(|e| match e.kind {
        // Of scratch objects, which somebody else took away or changed: the caller must not take that for an answer about its own.
        ErrorKind::NotFound | ErrorKind::Precondition | ErrorKind::NoSuchUpload => {
            StoreError { kind: ErrorKind::Server, ..e }
        }
        _ => e,
    })
}

/// Takes away what an earlier probe of this name has left.
///
/// # Errors
/// What the server says.
pub async fn clean_left(store: &Arc<dyn ObjectStore>, name: &str) -> Result<()> {
    let scratch = Scratch::new(Arc::clone(store), name)?;
    // Before the uploads, which not everybody may list.
    for key in [&scratch.put, &scratch.complete, &scratch.source, &scratch.copy] {
        store.delete(key, None).await?;
    }
    let uploads = store.list_uploads(&scratch.complete).await?;
    for upload in uploads.into_iter().filter(|upload| upload.key == scratch.complete) {
        store.abort_upload(&upload).await?;
    }
    Ok(())
}

/// What the answer to a condition that must fail says.
fn judge_false<T>(answer: Result<T>) -> Result<Support> {
    match answer {
        Ok(_) => Ok(Support::Ignored),
        Err(e) if e.kind == ErrorKind::Precondition => Ok(Support::Honoured),
        Err(e) => refused(e),
    }
}

/// What the answer to a condition that holds says: a server that refuses that too keeps no condition.
fn judge_true<T>(answer: Result<T>) -> Result<Support> {
    match answer {
        Ok(_) => Ok(Support::Honoured),
        Err(e) if e.kind == ErrorKind::Precondition => Ok(Support::Refused),
        Err(e) => refused(e),
    }
}

/// An error that is about the header means that conditions are refused; any other says nothing about them.
fn refused(error: StoreError) -> Result<Support> {
    match error.kind {
        ErrorKind::NotImplemented | ErrorKind::Invalid => Ok(Support::Refused),
        _ => Err(error),
    }
}

/// The worse of two answers: refused before ignored before honoured.
fn worse(a: Support, b: Support) -> Support {
    match (a, b) {
        (Support::Refused, _) | (_, Support::Refused) => Support::Refused,
        (Support::Ignored, _) | (_, Support::Ignored) => Support::Ignored,
        _ => Support::Honoured,
    }
}

/// The scratch objects of one probe.
struct Scratch {
    store: Arc<dyn ObjectStore>,
    put: Key,
    complete: Key,
    source: Key,
    copy: Key,
    /// A verb was denied.
    is_denied: AtomicBool,
}

impl Scratch {
    fn new(store: Arc<dyn ObjectStore>, id: &str) -> Result<Scratch> {
        let key = |what: &str| {
            Key::parse(&format!("{FOLDER}probe-{id}-{what}"))
                .map_err(|e| StoreError::new(ErrorKind::Invalid, Op::Put, None, e.to_string()))
        };
        let (put, complete, source, copy) = (key("put")?, key("complete")?, key("source")?, key("copy")?);
        Ok(Scratch { store, put, complete, source, copy, is_denied: AtomicBool::new(false) })
    }

    async fn ask(&self) -> Result<Found> {
        let (absent, complete, copy) = futures::join!(self.ask_put(), self.ask_complete(), self.ask_copy());
        let (put_if_absent, put_if_match, delete) = absent?;
        let conditions = Conditions { put_if_absent, put_if_match, complete: complete?, copy: copy?, delete };
        Ok(Found { conditions, is_denied: self.is_denied.load(Relaxed) })
    }

    /// Whether a verb was denied. That keeps nobody from writing: whoever uses the verb later is told by its own answer.
    fn denied<T>(&self, answer: &Result<T>) -> bool {
        let is_denied = answer.as_ref().is_err_and(|e| e.kind == ErrorKind::AccessDenied);
        self.is_denied.fetch_or(is_denied, Relaxed);
        is_denied
    }

    /// What the answer says to a condition that must fail, on a verb that may be denied: then it is `otherwise`.
    fn judge_allowed<T>(&self, answer: Result<T>, otherwise: Support) -> Result<Support> {
        if self.denied(&answer) { Ok(otherwise) } else { judge_false(answer) }
    }

    async fn write(&self, key: &Key, condition: &Condition) -> Result<ETag> {
        let headers = ObjectHeaders::default().with_write_id(&WriteId::random());
        Ok(self.store.put(key, Bytes::from_static(BODY), &headers, condition).await?.etag)
    }

    /// Both conditions of PutObject, then that of DeleteObject, on one key.
    async fn ask_put(&self) -> Result<(Support, Support, Support)> {
        let key = &self.put;
        let created = match self.write(key, &Condition::IfAbsent).await {
            // An earlier probe, which failed or was killed, may have left it: that would pass for a refusal for ever.
            Err(e) if e.kind == ErrorKind::Precondition => {
                let deleted = self.store.delete(key, None).await;
                if self.denied(&deleted) {
                    None
                } else {
                    deleted?;
                    Some(judge_true(self.write(key, &Condition::IfAbsent).await)?)
                }
            }
            created => Some(judge_true(created)?),
        };
        let etag = self.write(key, &Condition::Always).await?;
        let again = self.write(key, &Condition::IfAbsent).await;
        let other = self.write(key, &Condition::IfMatch(wrong_etag())).await;
        // That of the last write: where the server encrypts, equal bodies may have different ETags.
        let etag = [&other, &again].into_iter().flatten().next().unwrap_or(&etag).clone();
        let absent = judge_false(again)?;
        let mismatch = judge_false(other)?;
        let matching = self.write(key, &Condition::IfMatch(etag)).await;
        let says_no_to_all = matching.as_ref().is_err_and(|e| e.kind == ErrorKind::Precondition);
        let matching = judge_true(matching)?;
        let absent = match created {
            Some(created) => worse(created, absent),
            // What could not be taken away was there, and 412 the right answer, unless this server answers so to every condition.
            None if says_no_to_all => Support::Refused,
            None => absent,
        };
        // Whoever is denied may be allowed to delete later: whether it is kept shows then.
        let delete = self.store.delete(key, Some(&wrong_etag())).await;
        let delete = self.judge_allowed(delete, Support::Ignored)?;
        Ok((absent, worse(mismatch, matching), delete))
    }

    async fn ask_complete(&self) -> Result<Support> {
        self.write(&self.complete, &Condition::Always).await?;
        let absent = judge_false(self.complete(&Condition::IfAbsent).await)?;
        let matching = judge_false(self.complete(&Condition::IfMatch(wrong_etag())).await)?;
        Ok(worse(absent, matching))
    }

    async fn complete(&self, condition: &Condition) -> Result<()> {
        let id = WriteId::random();
        let headers = ObjectHeaders::default().with_write_id(&id);
        let upload_id = self.store.create_upload(&self.complete, &headers).await?;
        let upload = Upload { key: self.complete.clone(), id: upload_id, initiated: None };
        let answer = match self.store.upload_part(&upload, 1, Bytes::from_static(BODY)).await {
            Ok(part) => self.store.complete_upload(&upload, &[part], condition, &id).await,
            Err(e) => Err(e),
        };
        if answer.is_err() {
            _ = self.store.abort_upload(&upload).await;
        }
        answer.map(|_| ())
    }

    async fn ask_copy(&self) -> Result<Support> {
        self.write(&self.source, &Condition::Always).await?;
        self.write(&self.copy, &Condition::Always).await?;
        let absent = self.judge_allowed(self.copy_with(Condition::IfAbsent).await, Support::Refused)?;
        let matching = self.copy_with(Condition::IfMatch(wrong_etag())).await;
        let matching = self.judge_allowed(matching, Support::Refused)?;
        Ok(worse(absent, matching))
    }

    async fn copy_with(&self, condition: Condition) -> Result<()> {
        let request = CopyRequest {
            source: self.source.clone(),
            source_if_match: None,
            source_size: BODY.len() as u64,
            destination: self.copy.clone(),
            headers: ObjectHeaders::default().with_write_id(&WriteId::random()),
            condition,
        };
        self.store.copy(&request).await.map(|_| ())
    }

    async fn clean(&self) {
        let delete = |key| async move {
            if let Err(error) = self.store.delete(key, None).await {
                tracing::warn!(%error, "a scratch object of the probe stays behind");
            }
        };
        futures::join!(delete(&self.put), delete(&self.complete), delete(&self.source), delete(&self.copy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Capabilities, FaultStore, MemoryStore, fault};

    #[tokio::test]
    async fn every_answer_is_found_and_nothing_is_left() {
        for support in [Support::Honoured, Support::Ignored, Support::Refused] {
            let expected = Conditions::all(support);
            let store = Arc::new(MemoryStore::with(Capabilities::default(), expected));
            let shared = Arc::clone(&store) as Arc<dyn ObjectStore>;
            let found = probe(Arc::clone(&shared), "name").await.unwrap();
            assert_eq!(found, Found { conditions: expected, is_denied: false });
            assert_eq!(store.count(), 0);
            // One that was killed.
            let scratch = Scratch::new(Arc::clone(&shared), "name").unwrap();
            scratch.write(&scratch.copy, &Condition::Always).await.unwrap();
            store.create_upload(&scratch.complete, &ObjectHeaders::default()).await.unwrap();
            clean_left(&shared, "other").await.unwrap();
            assert_eq!((store.count(), store.list_uploads(&Key::root()).await.unwrap().len()), (1, 1));
            clean_left(&shared, "name").await.unwrap();
            assert_eq!(store.count(), 0);
            assert!(store.list_uploads(&Key::root()).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn what_an_earlier_probe_has_left_is_not_taken_for_an_answer() {
        for support in [Support::Honoured, Support::Ignored, Support::Refused] {
            let expected = Conditions::all(support);
            let store = Arc::new(MemoryStore::with(Capabilities::default(), expected));
            let shared = Arc::clone(&store) as Arc<dyn ObjectStore>;
            let left = Scratch::new(Arc::clone(&shared), "name").unwrap();
            for key in [&left.put, &left.complete, &left.source, &left.copy] {
                left.write(key, &Condition::Always).await.unwrap();
            }
            let found = probe(Arc::clone(&shared), "name").await.unwrap();
            assert_eq!(found, Found { conditions: expected, is_denied: false });
            assert_eq!(store.count(), 0);
        }
    }

    #[tokio::test]
    async fn verbs_that_the_keys_may_not_use_count_as_refused_also_where_objects_were_left_for_that() {
        let all = [Support::Honoured, Support::Ignored, Support::Refused].map(Conditions::all);
        let only_absent = Conditions { put_if_match: Support::Refused, ..all[0] };
        for kept in all.into_iter().chain([only_absent]) {
            let memory = Arc::new(MemoryStore::with(Capabilities::default(), kept));
            let faults = FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default());
            faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 100);
            faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 100);
            let shared = Arc::new(faults) as Arc<dyn ObjectStore>;
            let conditions = Conditions { copy: Support::Refused, delete: Support::Ignored, ..kept };
            for _ in 0..2 {
                let found = probe(Arc::clone(&shared), "name").await.unwrap();
                assert_eq!(found, Found { conditions, is_denied: true });
                assert_eq!(memory.count(), 4);
            }
        }
    }

    #[tokio::test]
    async fn who_may_not_write_is_told() {
        for op in [Op::Put, Op::CreateUpload, Op::UploadPart, Op::CompleteUpload] {
            let faults = FaultStore::new(Arc::new(MemoryStore::new()), fault::Settings::default());
            faults.fail_next(op, ErrorKind::AccessDenied, 100);
            let error = probe(Arc::new(faults), "name").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::AccessDenied, "{op:?}");
        }
    }

    #[tokio::test]
    async fn who_may_not_list_uploads_takes_away_what_a_probe_has_left_all_the_same() {
        let memory = Arc::new(MemoryStore::new());
        let faults = FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default());
        faults.fail_next(Op::ListUploads, ErrorKind::AccessDenied, 1);
        let shared = Arc::new(faults) as Arc<dyn ObjectStore>;
        let left = Scratch::new(Arc::clone(&shared), "name").unwrap();
        left.write(&left.put, &Condition::Always).await.unwrap();
        assert_eq!(clean_left(&shared, "name").await.unwrap_err().kind, ErrorKind::AccessDenied);
        assert_eq!(memory.count(), 0);
    }

    #[test]
    fn errors_that_say_nothing_about_conditions_are_passed_on() {
        let error = |kind| Err::<(), _>(StoreError::new(kind, Op::Put, None, ""));
        assert_eq!(judge_false(error(ErrorKind::NotImplemented)).unwrap(), Support::Refused);
        assert!(judge_false(error(ErrorKind::AccessDenied)).is_err());
        assert!(judge_true(error(ErrorKind::Timeout)).is_err());
    }
}
