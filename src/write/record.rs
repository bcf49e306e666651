//! Rows of the journal: what is owed of a staged file.
//!
//! Owns: when a row is written and cleared, and what it says of bytes, names and versions. Does not own: rows of attributes only
//! (`attributes`), what a row is made of at one moment (`snapshot`), SQL (`db`), reading them again (`recover`).

use super::content::Content;
use super::snapshot::Snapshot;
use super::unattended::is_unattended;
use super::{JournalError, Staged, Writer};
use crate::db::{DbError, StagedRow};
use crate::store::ObjectHeaders;
use crate::types::{Key, Timestamp, WriteId};
use std::io;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;

/// Files up to this size are kept in the journal's row itself: one sync makes both durable.
const BODY_SIZE_MAX: u64 = 128 << 10;

/// Whether a row of the journal holds the bytes itself.
fn has_body(content: &Content) -> bool {
    content.size() <= BODY_SIZE_MAX && content.missing().is_empty()
}

fn texts(ids: &[WriteId]) -> Vec<String> {
    ids.iter().map(|id| id.as_str().to_owned()).collect()
}

/// The turns of a file, and of the one whose name it has taken, in the journal. `None` if nothing is owed of the file.
pub(super) async fn turns<'a>(
    staged: &'a Staged,
    replaced: Option<&'a Staged>,
) -> Option<[Option<SemaphorePermit<'a>>; 2]> {
    let turn = staged.journal_turn().await;
    if !staged.is_changed() {
        // Committed while we waited.
        return None;
    }
    let its_turn = match replaced {
        Some(replaced) => replaced.journal_turn().await,
        None => None,
    };
    Some([turn, its_turn])
}

/// Carries out `work` on the row of a file in its turn, unless nothing is owed of the file.
async fn in_turn<E>(
    staged: &Staged,
    replaced: Option<&Staged>,
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let Some(_turns) = turns(staged, replaced).await else { return Ok(()) };
    let done = work.await;
    if done.is_err() {
        // What there is may name another key or version: it is not taken for the file as it is.
        staged.note_change();
    }
    done
}

impl Writer {
    /// Makes the staged file durable and records what is owed, so that it outlives this daemon. `describe` tells its key and
    /// headers, if it has a name, once nobody else writes the row: whoever renames the file first changes its name and then
    /// looks whether it is journaled, so one of the two writes the new name. The row of `replaced`, a file whose name it has
    /// taken, goes in the same moment.
    ///
    /// # Errors
    /// Those of `describe`, and [`JournalError`]: then nothing may be acknowledged.
    pub async fn record<E: From<JournalError>>(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        in_turn(staged, replaced, self.record_in_turn(staged, replaced, now, describe)).await
    }

    async fn record_in_turn<E: From<JournalError>>(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        let was_journaled = staged.announce_row();
        let recorded = match describe() {
            Ok(Some((key, headers))) => {
                let recorded = self.record_as(staged, replaced, (key, headers), now).await;
                // What SQLite could not write may be there all the same.
                if matches!(recorded, Ok(()) | Err(JournalError::Db(_))) {
                    return Ok(recorded?);
                }
                recorded.map_err(E::from)
            }
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if !was_journaled {
            staged.set_row(None);
            // A commit that ended meanwhile has left them to the row.
            staged.keep_no_bytes();
        }
        recorded
    }

    async fn record_as(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        described: (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        staged.copy_ended().await;
        let (key, headers) = &described;
        if staged.has_only_attributes() && staged.content().base().is_some_and(|base| base.key == *key) {
            // There is nothing else to say.
            return self.record_headers(staged, replaced, (key.clone(), headers), now).await;
        }
        // What is written after this moment is not a part of what is acknowledged.
        let snapshot = staged.snapshot(has_body)?;
        self.record_snapshot(staged, replaced, snapshot, described, now).await
    }

    async fn record_snapshot(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        mut snapshot: Snapshot,
        (key, headers): (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (mut content, body) = (snapshot.content.clone(), snapshot.body.take());
        if content.copied().is_some() {
            if !content.missing().is_empty() {
                return Err(JournalError::Incomplete);
            }
            // The row says whose bytes are replaced, and that none is taken from there.
            content.on_rebased(content.base().cloned());
        }
        if body.is_none() {
            let file = Arc::clone(&snapshot.file.1);
            tokio::task::spawn_blocking(move || file.sync_data()).await.map_err(io::Error::other)??;
            staged.file.note_synced();
        }
        let row = StagedRow {
            ino: staged.ino(),
            key: key.clone(),
            file: snapshot.file.0.clone(),
            size: content.size(),
            base: content.base().cloned(),
            base_len: content.base_len(),
            dirty: content.dirty().clone(),
            local: content.local().clone(),
            headers: serde_json::to_string(&headers)?,
            attempts: texts(&snapshot.attempts),
            recorded: now,
            body,
        };
        self.journal.record(row, replaced.map(|replaced| replaced.ino())).await?;
        staged.set_recorded(&snapshot, key);
        if let Some(replaced) = replaced {
            replaced.set_replaced_by(staged);
        }
        Ok(())
    }

    /// What the journal has of a file is of another name or version: from now on its row tells of those that it has. Nothing is
    /// acknowledged by that: what was written since stays out of it, and of bytes that the bucket has by now nothing but the attributes
    /// is owed. `replaced` and `describe` as in [`Writer::record`].
    ///
    /// # Errors
    /// As [`Writer::record`].
    pub async fn record_anew<E: From<JournalError>>(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        let work = async {
            let Some((key, headers)) = describe()? else { return Ok(()) };
            if staged.is_acknowledged() {
                self.record_moved(staged, replaced, (key, headers), now).await?;
            } else {
                self.record_headers(staged, replaced, (key, &headers), now).await?;
            }
            Ok(())
        };
        in_turn(staged, replaced, work).await
    }

    async fn record_moved(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        (key, headers): (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        if staged.has_recorded_bytes() {
            // What was fetched since it was acknowledged is a part of that, and need not be looked for again.
            let snapshot = staged.snapshot(has_body)?;
            // It may have been written to in this moment.
            if Some(snapshot.bytes) == staged.recorded_bytes() {
                return self.record_snapshot(staged, replaced, snapshot, (key, headers), now).await;
            }
        }
        // In this order: a commit that ends meanwhile first has a new base, and then forgets what it has tried.
        let attempts = staged.attempts_for_row();
        let Some(before) = self.journal.row(staged.ino())? else {
            return self.record_headers(staged, replaced, (key, &headers), now).await;
        };
        let (mut dirty, mut local) = (before.dirty.clone(), before.local.clone());
        let lacks = !Content::restore(before.size, before.base.clone(), before.base_len, dirty.clone(), local.clone())
            .missing()
            .is_empty();
        // Of a file that is kept apart, or that replaces what somebody else has made, the base is lost, and no other one has the bytes that
        // the row lacks.
        let is_apart = before.base.as_ref().is_some_and(|base| base.key != before.key);
        let is_lost = lacks && (is_apart || staged.is_base_lost());
        let base = if is_lost { before.base.clone() } else { staged.content().base().cloned() };
        if base != before.base {
            // What the staging file has of the version before need not be what this one has there.
            std::mem::take(&mut local).iter().for_each(|range| dirty.insert(range));
        }
        let headers = serde_json::to_string(&headers)?;
        let ids = texts(&attempts);
        let row = StagedRow { key: key.clone(), base, dirty, local, headers, attempts: ids, recorded: now, ..before };
        self.journal.record(row, replaced.map(|replaced| replaced.ino())).await?;
        staged.set_row_named(key, attempts);
        if let Some(replaced) = replaced {
            replaced.set_replaced_by(staged);
        }
        Ok(())
    }

    /// Takes the journal's row of a file away if the bucket has all of it. `false` if it has not, and there is a row.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn clear(&self, staged: &Staged) -> Result<bool, DbError> {
        let _turn = staged.journal_turn().await;
        if staged.is_changed() {
            return Ok(!staged.is_journaled());
        }
        if staged.is_journaled() && is_unattended() {
            self.journal.clear_patiently(staged.ino()).await?;
            staged.set_not_recorded();
        }
        self.clear_row(staged).await.map(|()| true)
    }

    /// Takes the journal's row of a file away whatever the bucket has: it was deleted.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn disown(&self, staged: &Staged) -> Result<(), DbError> {
        self.give_up_sending(staged);
        let _turn = staged.journal_turn().await;
        self.clear_row(staged).await
    }

    /// What was changed of a file is dropped, and what the journal has of it, which names bytes that are gone then. `false`, and nothing
    /// has changed, if somebody has it open: `is_open` is asked under the lock that every writer passes after he has opened the file, so
    /// that who opens it later stages it anew.
    ///
    /// # Errors
    /// What SQLite says; the bytes are dropped all the same.
    pub async fn drop_changes(&self, staged: &Arc<Staged>, is_open: impl FnOnce() -> bool) -> Result<bool, DbError> {
        // A row that is being written is there first.
        let _turn = staged.journal_turn().await;
        {
            let mut all = self.lock();
            if is_open() {
                return Ok(false);
            }
            if all.get(&staged.ino()).is_some_and(|known| Arc::ptr_eq(known, staged)) {
                all.remove(&staged.ino());
            }
        }
        self.give_up_sending(staged);
        let cleared = self.clear_row(staged).await;
        staged.remove_files();
        cleared.map(|()| true)
    }

    pub(super) async fn clear_row(&self, staged: &Staged) -> Result<(), DbError> {
        if staged.is_journaled() {
            self.journal.clear(staged.ino()).await?;
            staged.set_not_recorded();
        }
        Ok(())
    }
}
