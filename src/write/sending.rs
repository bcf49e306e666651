//! A multipart upload of one staged file: while the file is still being written, at its commit, and again after one that failed.
//!
//! Owns: beginning an upload, sending its parts (each once for the same bytes), giving it up; sending ahead of the commit.
//! Does not own: which parts there are (`plan`), what is known of them (`parts`), when the object is complete (`commit`).

use super::commit::{CommitError, lost_upload};
use super::origin::Origin;
use super::parts::{Look, Parts};
use super::plan::{Layout, PartPlan};
use super::{Staged, Writer};
use crate::store::{ErrorKind, ObjectHeaders, Part, PartSource, StoreError, Upload};
use crate::types::{ByteRange, ContentSum, Key, RangeSet, WriteId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// A file that is written from its beginning is sent while it grows, from this size on. Smaller ones are sent at close, in a
/// moment, with all their headers.
pub(super) const AHEAD_FROM: u64 = 64 << 20;

/// Parts of one file that are sent at once; [`Writer`]'s memory permits bound all files together.
const PARTS_IN_FLIGHT: usize = 8;
/// Parts that are prepared at once: those that are sent, and two that are read meanwhile and take the place of the next one
/// that has arrived.
pub(super) const PARTS_PREPARED: usize = PARTS_IN_FLIGHT + 2;

/// An upload under way.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) upload: Upload,
    /// The id of the write, which is among the headers.
    pub(super) id: WriteId,
    /// What the upload was created with.
    pub(super) headers: ObjectHeaders,
    parts: Mutex<Parts>,
    /// One permit for each part that may be on its way.
    lanes: Semaphore,
    /// A part was sent, or was not.
    changed: Notify,
    /// A commit has taken over: nothing more is sent ahead of it.
    is_committing: AtomicBool,
    /// Somebody sends ahead.
    is_driven: AtomicBool,
    /// The file has grown by a part.
    grown: Notify,
    /// A completion was sent whose answer was lost.
    is_perhaps_complete: AtomicBool,
    /// And the file has changed since.
    is_spoiled: AtomicBool,
}

impl Sending {
    pub(super) fn layout(&self) -> Layout {
        self.parts().layout()
    }

    /// Bytes of the file have changed.
    pub(super) fn on_changed(&self, range: ByteRange) {
        self.note_changed();
        self.parts().on_changed(range);
    }

    fn note_changed(&self) {
        if self.is_perhaps_complete.load(Ordering::SeqCst) {
            self.is_spoiled.store(true, Ordering::SeqCst);
        }
    }

    pub(super) fn set_perhaps_complete(&self) {
        self.is_perhaps_complete.store(true, Ordering::SeqCst);
    }

    /// Whether an object with this write's id may be there, and have other bytes than the file has by now.
    pub(super) fn is_spoiled(&self) -> bool {
        self.is_spoiled.load(Ordering::SeqCst)
    }

    /// The file was cut to `size`.
    pub(super) fn on_cut(&self, size: u64) {
        self.note_changed();
        self.parts().on_cut(size);
    }

    /// All that has changed while a commit, which failed, was under way.
    pub(super) fn on_changed_meanwhile(&self, written: &RangeSet, shrunk_to: u64) {
        if !written.is_empty() || shrunk_to != u64::MAX {
            self.note_changed();
        }
        let mut parts = self.parts();
        written.iter().for_each(|range| parts.on_changed(range));
        parts.on_cut(shrunk_to);
    }

    pub(super) fn set_committing(&self, committing: bool) {
        self.is_committing.store(committing, Ordering::SeqCst);
        self.grown.notify_one();
    }

    fn is_committing(&self) -> bool {
        self.is_committing.load(Ordering::SeqCst)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, number: u16, token: u64, part: Option<&Part>) {
        match part {
            Some(part) => self.parts().on_sent(number, token, part),
            None => self.parts().on_failed(number, token),
        }
        self.changed.notify_waiters();
    }
}

/// A part that was begun. Dropped before it was sent, because of an error or since nobody waits any more, it is to be sent again.
struct Begun<'a> {
    sending: &'a Sending,
    number: u16,
    token: u64,
    sent: Option<Part>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.sending.settle(self.number, self.token, self.sent.as_ref());
    }
}

impl Writer {
    /// Begins an upload. The journal knows of it before its first part, so that a mount that is killed leaves none behind.
    pub(super) async fn begin_upload(
        &self,
        staged: &Staged,
        key: &Key,
        mut headers: ObjectHeaders,
        layout: Layout,
    ) -> Result<Arc<Sending>, CommitError> {
        // It is that of the version before, and there is none of parts.
        headers.user.remove(ContentSum::HEADER);
        let id = headers.write_id().unwrap_or_else(WriteId::random);
        let headers = headers.with_write_id(&id);
        let upload = Upload { key: key.clone(), id: self.store.create_upload(key, &headers).await?, initiated: None };
        let sending = Arc::new(Sending {
            upload,
            id,
            headers,
            parts: Mutex::new(Parts::new(layout)),
            lanes: Semaphore::new(PARTS_IN_FLIGHT),
            changed: Notify::new(),
            is_committing: AtomicBool::new(false),
            is_driven: AtomicBool::new(false),
            grown: Notify::new(),
            is_perhaps_complete: AtomicBool::new(false),
            is_spoiled: AtomicBool::new(false),
        });
        if let Err(e) = self.journal.record_upload(&sending.upload.key, &sending.upload.id, staged.ino()).await {
            // Not to send it would help nobody, least of all a disk that is full: after a kill it stays in the bucket, at worst.
            tracing::warn!(key = %sending.upload.key, error = %e, "is uploaded although the journal cannot say that it was begun");
        }
        Ok(sending)
    }

    /// Aborts an upload, in the background. One that cannot be aborted now is, by the journal, at the next start.
    pub(super) fn give_up(&self, sending: &Sending) {
        let (store, journal) = (Arc::clone(&self.store), Arc::clone(&self.journal));
        let upload = sending.upload.clone();
        sending.set_committing(true);
        tokio::spawn(async move { abort(&*store, &journal, &upload).await });
    }

    /// Sends parts of a file that is still being written as they fill, until none is full. Answers when that is so; a second call
    /// meanwhile only wakes the first. `headers` is asked for once, when the upload begins.
    ///
    /// # Errors
    /// [`CommitError`], which concerns nobody but the log: the commit sends what is missing.
    pub async fn send_ahead(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: impl Future<Output = Option<ObjectHeaders>>,
    ) -> Result<(), CommitError> {
        let sending = {
            // A commit under way begins its own.
            let Some(_turn) = staged.try_upload_turn() else { return Ok(()) };
            match staged.sending() {
                Some(known) if known.upload.key == *key => known,
                other => {
                    if let Some(before) = other {
                        // The file has another name by now: nothing of that upload would be used.
                        staged.set_sending(None);
                        self.give_up(&before);
                    }
                    let Some(mut headers) = headers.await else { return Ok(()) };
                    // That of the version before: whoever looks for this write would find it made, and this one never was.
                    headers.user.remove(WriteId::HEADER);
                    let layout = Layout::growing(self.store.capabilities());
                    let sending = self.begin_upload(staged, key, headers, layout).await?;
                    staged.set_sending(Some(Arc::clone(&sending)));
                    sending
                }
            }
        };
        sending.grown.notify_one();
        if sending.is_driven.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let result = self.drive(staged, &sending).await;
        sending.is_driven.store(false, Ordering::SeqCst);
        match &result {
            Ok(()) => set_next_ahead(staged, &sending),
            // No part of it would be taken: the commit begins anew.
            Err(CommitError::Store(e)) if lost_upload(e) => {
                let turn = staged.try_upload_turn();
                staged.set_next_ahead(u64::MAX);
                if turn.is_some() && staged.sending().is_some_and(|now| Arc::ptr_eq(&now, &sending)) {
                    staged.set_sending(None);
                    self.give_up(&sending);
                }
            }
            Err(_) => {}
        }
        result
    }

    async fn drive(&self, staged: &Arc<Staged>, sending: &Arc<Sending>) -> Result<(), CommitError> {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < PARTS_PREPARED
                && let Some((part, token, origin)) = next_full(staged, sending)
            {
                let begun = Begun { sending, number: part.number, token, sent: None };
                under_way.push(self.send(origin, sending, part, begun));
            }
            set_next_ahead(staged, sending);
            if under_way.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(sent) = under_way.next() => drop(sent?),
                () = sending.grown.notified() => {}
            }
        }
    }

    /// Makes a part of an upload, unless the bucket has it already.
    pub(super) async fn make_part(
        &self,
        origin: &Arc<Origin>,
        sending: &Sending,
        part: PartPlan,
    ) -> Result<Part, CommitError> {
        loop {
            let changed = sending.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let look = sending.parts().look(part.number, part.range);
            match look {
                Look::Sent(sent) => return Ok(sent),
                Look::Wait => changed.await,
                Look::Begin(token) => {
                    let begun = Begun { sending, number: part.number, token, sent: None };
                    return self.send(Arc::clone(origin), sending, part, begun).await;
                }
            }
        }
    }

    async fn send(
        &self,
        origin: Arc<Origin>,
        sending: &Sending,
        part: PartPlan,
        mut begun: Begun<'_>,
    ) -> Result<Part, CommitError> {
        let copied = if part.is_copy { self.copy_part(&origin, sending, part).await? } else { None };
        let sent = match copied {
            Some(sent) => sent,
            None => {
                let _memory = self.memory_for(part.range.len()).await;
                let body = self.read_of(&origin, Some(part.range)).await?;
                // It is never closed.
                let _lane = sending.lanes.acquire().await.ok();
                self.store.upload_part(&sending.upload, part.number, body).await?
            }
        };
        begun.sent = Some(sent.clone());
        Ok(sent)
    }

    /// Has the bucket copy a part from the base. `None` if it did not.
    async fn copy_part(&self, origin: &Origin, sending: &Sending, part: PartPlan) -> Result<Option<Part>, CommitError> {
        let base = origin.base()?.clone();
        let source = PartSource { key: base.key, if_match: Some(base.version.etag), range: Some(part.range) };
        let copied = {
            // It is never closed. What is fetched in the place of a copy holds none.
            let _lane = sending.lanes.acquire().await.ok();
            self.store.upload_part_copy(&sending.upload, part.number, &source).await
        };
        match copied {
            Ok(sent) => Ok(Some(sent)),
            // No answer to this one is none to others.
            Err(e) if e.kind.is_retryable() && !matches!(e.kind, ErrorKind::Corrupt | ErrorKind::Damaged) => {
                Err(e.into())
            }
            Err(e) if e.kind == ErrorKind::NoSuchUpload => Err(e.into()),
            Err(e) => {
                // It copies no parts, or none of this size; or the version is gone, but its bytes may be in the cache.
                tracing::debug!(error = %e, "a part is sent that the bucket was to copy");
                Ok(None)
            }
        }
    }

    /// The uploads that the journal names: before the first one of this mount, those that an earlier one left.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub fn left_uploads(&self) -> Result<Vec<Upload>, crate::db::DbError> {
        let left = self.journal.uploads()?.into_iter();
        Ok(left.map(|(key, id)| Upload { key, id, initiated: None }).collect())
    }

    /// Aborts an upload that an earlier mount left.
    pub async fn abort_left(&self, upload: &Upload) {
        tracing::info!(key = %upload.key, "aborts an upload that an earlier mount left unfinished");
        abort(&*self.store, &self.journal, upload).await;
    }
}

/// A write says again when the next part is full, unless another upload has taken the place of this one.
fn set_next_ahead(staged: &Staged, sending: &Arc<Sending>) {
    if staged.sending().is_none_or(|now| Arc::ptr_eq(&now, sending)) {
        staged.set_next_ahead(sending.parts().next_end());
    }
}

/// Begins the next part that is full, unless a commit has taken over. Answers where it is read from as well.
fn next_full(staged: &Staged, sending: &Sending) -> Option<(PartPlan, u64, Arc<Origin>)> {
    let content = staged.lock();
    if sending.is_committing() {
        return None;
    }
    let (number, range, token) = sending.parts().next_full(&content)?;
    Some((PartPlan { number, range, is_copy: false }, token, Arc::new(Origin::whole(staged.file.file()))))
}

async fn abort(store: &dyn crate::store::ObjectStore, journal: &super::Journal, upload: &Upload) {
    let aborted = match store.abort_upload(upload).await {
        Err(StoreError { kind: ErrorKind::NotFound | ErrorKind::NoSuchUpload, .. }) => Ok(()),
        aborted => aborted,
    };
    match aborted {
        Ok(()) => {
            if let Err(e) = journal.forget_upload(&upload.id).await {
                tracing::debug!(error = %e, "an aborted upload stays in the journal, and is aborted again");
            }
        }
        Err(e) => tracing::warn!(error = %e, "an unfinished upload could not be aborted; the next mount tries again"),
    }
}
