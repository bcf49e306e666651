//! Commits a staged file: makes it the object's new version.
//!
//! Owns: fetching what the file lacks of its base and the bucket cannot copy, the PUT, the copy or the completion of the upload,
//! what becomes of an upload that failed.
//! Does not own: what a failed condition means (`fs::commit`), retries of a request (`store::retry`).

use super::content::Content;
use super::moments::Moment;
use super::origin::Origin;
use super::plan::{self, PartPlan, Send, TooLarge};
use super::sending::{PARTS_PREPARED, Sending};
use super::sum::with_sum;
use super::{JournalError, Staged, Writer};
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectHeaders, Op, Part, StoreError, Written};
use crate::types::{ByteRange, ContentSum, Key, ObjectRef, Timestamp, Version};
use futures::{StreamExt, TryStreamExt};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the base that are fetched at once to complete a file.
pub(super) const FILL_SIZE: u64 = 8 << 20;
/// Pieces of the base that are under way at once.
pub(super) const FILLS_IN_FLIGHT: usize = 4;

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
    /// The bucket did not copy another object that the file is a copy of.
    #[error("the object that was copied is gone, or something else is in its place")]
    NotCopied,
    /// An upload whose completion may have been carried out has other bytes than the file by now.
    #[error("the upload has other bytes than the file")]
    Spoiled,
    /// A database was written to while it was read for its upload, or since it was decided that it is uploaded; or nobody waits for
    /// the upload of a file, and somebody has begun to write to it.
    #[error("it was written to while it was uploaded")]
    Disturbed,
    /// The file is larger than the store takes.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be written.
    #[error("journal: {0}")]
    Journal(#[source] JournalError),
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
    /// Makes `staged` the new version of `key`, if `condition` holds. The caller holds the claim on the key. What an upload that
    /// began earlier has sent already is not sent again; the object then has that one's headers.
    ///
    /// # Errors
    /// [`CommitError`]; the file then is as dirty as before, and after a conflict it has all bytes of its base.
    pub async fn commit(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: ObjectHeaders,
        condition: Condition,
        now: Timestamp,
    ) -> Result<Committed, CommitError> {
        let _turn = staged.upload_turn().await;
        let order = Order { staged, key, headers: &headers, condition: &condition, now };
        match self.commit_once(order).await {
            // An upload that began earlier was aborted meanwhile, by a rule of the bucket or by hand.
            Err(CommitError::Store(e)) if lost_upload(&e) => self.commit_once(order).await,
            Err(CommitError::Spoiled) => self.commit_once(order).await,
            // The source of a copy is gone, or the condition does not hold: with all bytes here it shows which.
            Err(CommitError::NotCopied) => {
                self.fill(staged).await?;
                staged.become_file();
                self.commit_once(order).await
            }
            result => result,
        }
    }

    async fn commit_once(&self, order: Order<'_>) -> Result<Committed, CommitError> {
        let Order { staged, key, .. } = order;
        staged.copy_ended().await;
        if let Some(known) = staged.sending().filter(|known| known.is_spoiled()) {
            staged.set_sending(None);
            self.give_up(&known);
        }
        self.prepare(staged, key).await?;
        let known = staged.sending().filter(|known| known.upload.key == *key);
        let id = staged.begin_attempt(known.map(|known| known.id.clone()));
        let user_metadata_max = self.store.capabilities().user_metadata_max;
        let headers = order.headers.clone().with_write_id(&id).fitting(user_metadata_max);
        // A row that is being written need not know of this attempt; one that is begun from here on does.
        drop(staged.journal_turn().await);
        if staged.is_recorded_with(key, &id) {
            tracing::trace!(%key, "the journal knows that it may have been tried");
        } else if staged.is_acknowledged() {
            if staged.content().copied().is_some() {
                self.fill(staged).await?;
            }
            // If the answer is lost together with this process, the next one must know that the object is ours.
            let described = (key.clone(), headers.clone());
            let describe = || Ok::<_, JournalError>(Some(described));
            let recorded = if staged.is_to_be_as_recorded() {
                // Somebody may have begun to write to it in this moment.
                self.record_anew(staged, None, order.now, describe).await
            } else {
                self.record(staged, None, order.now, describe).await
            };
            match recorded {
                // Not to send it would help nobody, least of all a disk that is full: a lost answer is a conflict then, at worst.
                Err(e @ (JournalError::Db(_) | JournalError::Disk(_))) => {
                    tracing::warn!(%key, error = %e, "is uploaded although the journal cannot say that it was tried");
                }
                recorded => recorded.map_err(CommitError::Journal)?,
            }
        } else if let Err(e) = self.record_attempts(staged).await {
            tracing::warn!(%key, error = %e, "is uploaded although the journal cannot say that it was tried");
        }
        // Dropped half way (the caller was interrupted), the file must not look committed.
        let mut begun = self.begin(staged, key).await?;
        let (size, carried) = (begun.size, begun.last_change);
        let written = match self.upload(&mut begun, order, headers).await {
            Ok(written) => written,
            Err(e) => {
                let needs_all = matches!(e, CommitError::Conflict | CommitError::BaseDeleted);
                // What it lets go of may be being copied just now.
                staged.copy_ended().await;
                begun.fail(&e);
                if needs_all {
                    // Whoever deals with that needs all bytes here. Those that the bucket was to copy may be gone.
                    self.fill(staged).await?;
                }
                return Err(e);
            }
        };
        let (written, headers) = written;
        // Somebody may have written to it meanwhile.
        staged.copy_ended().await;
        begun.succeed();
        let version = Version { etag: written.etag, last_modified: written.last_modified, size };
        let object = ObjectRef { key: key.clone(), version };
        staged.on_committed(object.clone(), carried);
        // In this order: the journal must not say that nothing was tried on the base before.
        staged.forget_attempts();
        Ok(Committed { object, headers })
    }

    /// Fetches what the bucket cannot copy.
    async fn prepare(&self, staged: &Staged, key: &Key) -> Result<(), CommitError> {
        loop {
            let (_, needed) = self.plan(staged, &staged.lock(), key)?;
            if !needed.is_empty() {
                self.fetch(staged, needed).await?;
            } else if staged.is_past_bound() || staged.is_too_early(&staged.lock()) {
                // Before an attempt is noted that is none.
                return Err(CommitError::Disturbed);
            } else {
                return Ok(());
            }
        }
    }

    /// What is to be sent, and what of the base has to be here before that.
    fn plan(&self, staged: &Staged, content: &Content, key: &Key) -> Result<(Send, Vec<ByteRange>), TooLarge> {
        let known = staged.sending().filter(|known| known.upload.key == *key).map(|known| known.layout());
        let send = plan::plan_commit(content, key, known, self.store.capabilities())?;
        let needed = plan::needed(&send, &content.missing());
        Ok((send, needed))
    }

    /// Begins the commit of what is there at this moment. What is written from now on belongs to the next one.
    async fn begin<'a>(&'a self, staged: &'a Staged, key: &Key) -> Result<Begun<'a>, CommitError> {
        loop {
            let needed = {
                let mut content = staged.lock();
                let (send, needed) = self.plan(staged, &content, key)?;
                if staged.sending().is_some_and(|known| known.is_spoiled()) {
                    return Err(CommitError::Spoiled);
                }
                if staged.is_past_bound() || staged.is_too_early(&content) {
                    return Err(CommitError::Disturbed);
                }
                if needed.is_empty() {
                    let file = staged.begin_commit(&mut content, &send);
                    let known = staged.set_sending(None);
                    let begun = Begun {
                        writer: self,
                        staged,
                        send,
                        origin: Arc::new(Origin::new(file, &content)),
                        is_in_place: staged.file.is_in_place(),
                        is_of_other: content.copied().is_some(),
                        bound: staged.bound(),
                        size: content.size(),
                        last_change: staged.last_change(),
                        sending: None,
                        is_over: false,
                    };
                    return Ok(begun.going_on(known, key));
                }
                needed
            };
            // Written since the file was prepared.
            self.fetch(staged, needed).await?;
        }
    }

    /// Fetches the bytes of the base that the staging file lacks: from then on it does not need the base.
    ///
    /// # Errors
    /// [`CommitError::BaseLost`] if somebody else replaced or deleted it.
    pub async fn fill(&self, staged: &Staged) -> Result<(), CommitError> {
        loop {
            let missing = staged.content().missing();
            if missing.is_empty() {
                return Ok(());
            }
            // Where the bytes come from may change meanwhile: then what has arrived is not taken, and they are found there.
            let source = staged.content().source().cloned();
            match self.fetch(staged, missing).await {
                Err(CommitError::BaseLost) if staged.content().source() != source.as_ref() => {}
                fetched => fetched?,
            }
        }
    }

    async fn fetch(&self, staged: &Staged, gaps: Vec<ByteRange>) -> Result<(), CommitError> {
        if gaps.is_empty() {
            return Ok(());
        }
        let base = staged.content().source().cloned().ok_or(CommitError::BaseLost)?;
        let pieces = gaps.into_iter().flat_map(|gap| split(gap, FILL_SIZE));
        futures::stream::iter(pieces.map(Ok))
            .try_for_each_concurrent(FILLS_IN_FLIGHT, |piece| {
                let base = &base;
                async move {
                    let bytes = self.reader.read(base, piece, None).await.map_err(base_lost)?;
                    staged.copy_ended().await;
                    staged.fill(base, piece, &bytes).map_err(CommitError::Disk)
                }
            })
            .await
    }

    /// Sends what was planned. Answers what the bucket has, and the headers that it has it with.
    async fn upload(
        &self,
        begun: &mut Begun<'_>,
        order: Order<'_>,
        mut headers: ObjectHeaders,
    ) -> Result<(Written, ObjectHeaders), CommitError> {
        let Order { staged, key, condition, .. } = order;
        let written = match begun.send.clone() {
            Send::Put => {
                let _memory = self.memory_for(begun.size).await;
                let body = self.read_of(&begun.origin, ByteRange::new(0, begun.size)).await?;
                if begun.is_disturbed() {
                    return Err(CommitError::Disturbed);
                }
                headers = with_sum(headers, &body, self.store.capabilities().user_metadata_max).await;
                self.store.put(key, body, &headers, condition).await
            }
            Send::Copy(whole) => {
                if begun.is_of_other {
                    // That of the version before, if there is one, is of other bytes.
                    headers.user.remove(ContentSum::HEADER);
                }
                let copy = CopyRequest {
                    source: whole.key,
                    source_if_match: Some(whole.version.etag),
                    source_size: whole.version.size,
                    destination: key.clone(),
                    headers: headers.clone(),
                    condition: condition.clone(),
                };
                let copied = self.store.copy(&copy).await;
                // Not every store copies what it lets be read and written.
                if begun.is_of_other && copied.as_ref().is_err_and(|e| !e.kind.is_retryable()) {
                    return Err(CommitError::NotCopied);
                }
                copied
            }
            Send::Parts(layout, parts) => {
                let sending = match &begun.sending {
                    Some(known) => Arc::clone(known),
                    None => {
                        let new = self.begin_upload(staged, key, headers, layout).await?;
                        new.set_committing(true);
                        Arc::clone(begun.sending.insert(new))
                    }
                };
                let parts = self.make_parts(&begun.origin, &sending, parts).await?;
                if begun.is_disturbed() {
                    return Err(CommitError::Disturbed);
                }
                // Whatever is answered, if anything is.
                sending.set_perhaps_complete();
                let completed = self.store.complete_upload(&sending.upload, &parts, condition, &sending.id).await;
                let written = completed.map_err(|e| failed_condition(e, condition))?;
                return Ok((written, sending.headers.clone()));
            }
        };
        written.map(|written| (written, headers)).map_err(|e| failed_condition(e, condition))
    }
}

impl Writer {
    /// Makes all parts. If one fails of what may pass, no other is begun, and those that are under way come to their end: the next
    /// attempt need not send them again.
    async fn make_parts(
        &self,
        origin: &Arc<Origin>,
        sending: &Arc<Sending>,
        parts: Vec<PartPlan>,
    ) -> Result<Vec<Part>, CommitError> {
        let has_failed = &AtomicBool::new(false);
        let each = |part| async move {
            if has_failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.make_part(origin, sending, part).await.map(Some)
        };
        // One that takes long keeps no others from beginning.
        let mut making = std::pin::pin!(futures::stream::iter(parts).map(each).buffer_unordered(PARTS_PREPARED));
        let (mut made, mut failed) = (Vec::new(), None);
        while let Some(part) = making.next().await {
            match part {
                Ok(part) => made.extend(part),
                Err(CommitError::Store(e)) if e.kind.is_retryable() => {
                    has_failed.store(true, Ordering::Relaxed);
                    failed.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        made.sort_by_key(|part| part.number);
        failed.map_or(Ok(made), |e| Err(e.into()))
    }
}

/// What is to be committed.
#[derive(Clone, Copy)]
struct Order<'a> {
    staged: &'a Arc<Staged>,
    key: &'a Key,
    headers: &'a ObjectHeaders,
    condition: &'a Condition,
    now: Timestamp,
}

/// A commit under way. Dropped before it has ended, it has failed.
struct Begun<'a> {
    writer: &'a Writer,
    staged: &'a Staged,
    send: Send,
    /// What is sent is read from there.
    origin: Arc<Origin>,
    /// What the journal has of the file is overwritten.
    is_in_place: bool,
    /// The file is a copy of another object.
    is_of_other: bool,
    /// The moment that it has to be of.
    bound: Option<Moment>,
    size: u64,
    /// The last change of the file that it carries.
    last_change: u64,
    sending: Option<Arc<Sending>>,
    is_over: bool,
}

impl Begun<'_> {
    /// With the upload that began earlier, if it is one of what is sent now.
    fn going_on(mut self, known: Option<Arc<Sending>>, key: &Key) -> Self {
        let Some(known) = known else { return self };
        known.set_committing(true);
        match &self.send {
            Send::Parts(layout, _) if known.upload.key == *key && known.layout() == *layout => {
                self.sending = Some(known)
            }
            _ => self.writer.give_up(&known),
        }
        self
    }

    /// Whether what was read is neither the one state nor the other: a database was written to since, or, of a commit that is bound to a
    /// moment, that is over.
    fn is_disturbed(&self) -> bool {
        if let Some(moment) = self.bound {
            // Whoever writes to it just now ends first.
            let _content = self.staged.lock();
            return !self.staged.is_of(moment);
        }
        // Of others, which may be being copied just now, nobody waits for the lock.
        (self.is_in_place || self.staged.file.is_in_place()) && self.staged.lock().is_disturbed()
    }

    fn succeed(mut self) {
        self.is_over = true;
        if let Some(sending) = self.sending.take() {
            let journal = Arc::clone(&self.writer.journal);
            // Nobody waits for that: an upload that is complete cannot be aborted any more.
            tokio::spawn(async move {
                if let Err(e) = journal.forget_upload(&sending.upload.id).await {
                    tracing::debug!(error = %e, "a complete upload stays in the journal");
                }
            });
        }
    }

    /// What was sent so far serves the next attempt, unless there is none that could use it.
    fn fail(mut self, error: &CommitError) {
        let has_copies = matches!(&self.send, Send::Parts(_, parts) if parts.iter().any(|part| part.is_copy));
        let goes_on = match error {
            CommitError::Store(e) => e.kind.is_retryable(),
            // The bucket may have copied from the version that somebody else made: not every server keeps that condition.
            CommitError::Conflict | CommitError::BaseDeleted => !has_copies,
            CommitError::Disturbed => true,
            _ => false,
        };
        if !goes_on && let Some(sending) = self.sending.take() {
            self.writer.give_up(&sending);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut content = self.staged.lock();
        let (written, shrunk_to) = content.on_commit_failed();
        self.staged.commit_ended();
        if let Some(sending) = self.sending.take() {
            sending.on_changed_meanwhile(&written, shrunk_to);
            sending.set_committing(false);
            self.staged.set_sending(Some(sending));
        }
    }
}

pub(super) fn lost_upload(error: &StoreError) -> bool {
    match error.op {
        Op::UploadPart | Op::UploadPartCopy => matches!(error.kind, ErrorKind::NoSuchUpload | ErrorKind::NotFound),
        // A part is not the one that was named (InvalidPart): an earlier one of its number has arrived late.
        Op::CompleteUpload => matches!(error.kind, ErrorKind::NoSuchUpload | ErrorKind::Invalid),
        Op::Copy => false,
        _ => error.kind == ErrorKind::NoSuchUpload,
    }
}

pub(super) fn split(range: ByteRange, size: u64) -> impl Iterator<Item = ByteRange> {
    (range.start()..range.end())
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .filter_map(move |start| ByteRange::new(start, range.end().min(start + size)))
}

pub(super) fn base_lost(error: StoreError) -> CommitError {
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
