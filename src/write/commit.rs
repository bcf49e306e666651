//! Commits a staged file: makes it the object's new version.
//!
//! Owns: fetching what the file lacks of its base, the PUT or the multipart upload, aborting what failed.
//! Does not own: what a failed condition means (`fs::commit`), retries of a request (`store::retry`).

use super::content::Source;
use super::plan::{self, Plan, TooLarge};
use super::{Staged, Writer};
use crate::store::{Condition, ErrorKind, ObjectHeaders, Part, StoreError, Upload, Written};
use crate::types::{ByteRange, Key, ObjectRef, Timestamp, Version, WriteId};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::io;
use std::sync::Arc;

/// Bytes of the base that are fetched at once to complete a file.
const FILL_SIZE: u64 = 8 << 20;
/// Parts of one file that are under way at once; [`Writer`]'s memory permits bound all files together.
const PARTS_IN_FLIGHT: usize = 4;

/// Why a commit failed. The file stays staged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Someone else wrote the object meanwhile: the condition did not hold.
    #[error("the object was changed elsewhere")]
    Conflict,
    /// Someone else deleted the object meanwhile.
    #[error("the object was deleted elsewhere")]
    BaseDeleted,
    /// Someone else replaced or deleted the object, and bytes of the version that was changed here are gone with it.
    #[error("the version that was changed here is gone, and bytes of it are missing")]
    BaseLost,
    /// The file is larger than the store takes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be written.
    #[error("journal: {0}")]
    Journal(String),
    /// The staging disk failed.
    #[error("staging: {0}")]
    Disk(#[from] io::Error),
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new version.
    pub object: ObjectRef,
    /// Headers as the object has them now.
    pub headers: ObjectHeaders,
}

impl Writer {
    /// Makes `staged` the new version of `key`, if `condition` holds. The caller holds the claim on the key.
    ///
    /// # Errors
    /// [`CommitError`]; the file then is as dirty as before.
    pub async fn commit(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: ObjectHeaders,
        condition: Condition,
        now: Timestamp,
    ) -> Result<Committed, CommitError> {
        self.fill(staged).await?;
        let id = WriteId::new(&uuid::Uuid::new_v4().to_string());
        let headers = headers.with_write_id(&id);
        staged.note_attempt(&id);
        if staged.is_journaled() {
            // If the answer is lost together with this process, the next one must know that the object is ours.
            self.record(staged, key, &headers, now).await.map_err(|e| CommitError::Journal(e.to_string()))?;
        }
        let size = {
            let mut content = staged.lock();
            content.on_commit_began();
            content.size()
        };
        // Dropped half way (the caller was interrupted), the file must not look committed.
        let guard = CommitGuard { staged, armed: true };
        let written = self.upload(staged, key, size, &headers, &condition, &id).await?;
        guard.disarm();
        staged.forget_attempts();
        let version = Version { etag: written.etag, last_modified: written.last_modified, size };
        let object = ObjectRef { key: key.clone(), version };
        staged.lock().on_committed(object.clone());
        Ok(Committed { object, headers })
    }

    /// Fetches the bytes of the base that the staging file lacks: from then on it does not need the base.
    ///
    /// # Errors
    /// [`CommitError::BaseLost`] if somebody else replaced or deleted it.
    pub async fn fill(&self, staged: &Staged) -> Result<(), CommitError> {
        let content = staged.content();
        let Some(base) = content.base().cloned() else { return Ok(()) };
        let pieces = content.missing().into_iter().flat_map(|gap| split(gap, FILL_SIZE));
        futures::stream::iter(pieces.map(Ok))
            .try_for_each_concurrent(PARTS_IN_FLIGHT, |piece| {
                let base = &base;
                async move {
                    let bytes = self.reader.read(base, piece, None).await.map_err(base_lost)?;
                    staged.fill(piece, &bytes).map_err(CommitError::Disk)
                }
            })
            .await
    }

    async fn upload(
        &self,
        staged: &Staged,
        key: &Key,
        size: u64,
        headers: &ObjectHeaders,
        condition: &Condition,
        id: &WriteId,
    ) -> Result<Written, CommitError> {
        let written = match plan::plan_upload(size, self.store.capabilities())? {
            Plan::Put => {
                let _memory = self.memory_for(size).await;
                let body = read_whole(staged, ByteRange::new(0, size))?;
                self.store.put(key, body, headers, condition).await
            }
            Plan::Multipart(parts) => self.upload_parts(staged, key, parts, headers, condition, id).await?,
        };
        written.map_err(|e| failed_condition(e, condition))
    }

    async fn upload_parts(
        &self,
        staged: &Staged,
        key: &Key,
        ranges: Vec<ByteRange>,
        headers: &ObjectHeaders,
        condition: &Condition,
        id: &WriteId,
    ) -> Result<Result<Written, StoreError>, CommitError> {
        let upload_id = self.store.create_upload(key, headers).await?;
        let upload = Upload { key: key.clone(), id: upload_id, initiated: None };
        let abort = AbortGuard { writer: self, upload: Some(upload.clone()) };
        let parts: Vec<Part> = futures::stream::iter((1u16..).zip(ranges))
            .map(|(number, range)| self.upload_part(staged, &upload, number, range))
            .buffered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        let written = self.store.complete_upload(&upload, &parts, condition, id).await;
        if written.is_ok() {
            abort.disarm();
        }
        Ok(written)
    }

    async fn upload_part(
        &self,
        staged: &Staged,
        upload: &Upload,
        number: u16,
        range: ByteRange,
    ) -> Result<Part, CommitError> {
        let _memory = self.memory_for(range.len()).await;
        let body = read_whole(staged, Some(range))?;
        Ok(self.store.upload_part(upload, number, body).await?)
    }
}

/// Reads a part once into memory. Nothing is missing, so all of it is in the file or zero; what is past the end, because
/// the file was cut meanwhile, is zero and belongs to a version that the next commit replaces.
fn read_whole(staged: &Staged, range: Option<ByteRange>) -> io::Result<Bytes> {
    let Some(range) = range else { return Ok(Bytes::new()) };
    debug_assert!(!staged.sources(range).0.iter().any(|(_, source)| *source == Source::Base));
    staged.read_file(range)
}

fn split(range: ByteRange, size: u64) -> impl Iterator<Item = ByteRange> {
    (range.start()..range.end())
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .filter_map(move |start| ByteRange::new(start, range.end().min(start + size)))
}

fn base_lost(error: StoreError) -> CommitError {
    match error.kind {
        ErrorKind::Precondition | ErrorKind::NotFound => CommitError::BaseLost,
        _ => CommitError::Store(error),
    }
}

fn failed_condition(error: StoreError, condition: &Condition) -> CommitError {
    match (error.kind, condition) {
        (ErrorKind::Precondition, _) => CommitError::Conflict,
        (ErrorKind::NotFound, Condition::IfMatch(_)) => CommitError::BaseDeleted,
        _ => CommitError::Store(error),
    }
}

struct CommitGuard<'a> {
    staged: &'a Staged,
    armed: bool,
}

impl CommitGuard<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for CommitGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.staged.lock().on_commit_failed();
        }
    }
}

/// Aborts an upload that was not completed. After an ambiguous answer the upload may be complete: aborting it then fails
/// harmlessly, and an upload left open costs money.
struct AbortGuard<'a> {
    writer: &'a Writer,
    upload: Option<Upload>,
}

impl AbortGuard<'_> {
    fn disarm(mut self) {
        self.upload = None;
    }
}

impl Drop for AbortGuard<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let store = Arc::clone(&self.writer.store);
            tokio::spawn(async move {
                if let Err(e) = store.abort_upload(&upload).await {
                    tracing::warn!(error = %e, "an abandoned upload could not be aborted");
                }
            });
        }
    }
}
