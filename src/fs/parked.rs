//! What people do about files that the bucket does not have (yet).
//!
//! Owns: waiting for what is below a path, trying again, saving elsewhere, dropping changes; uploads that were never completed.
//! Does not own: the queue (`write::queue`), commits (`commit`), how it is asked for (`daemon`).

use super::background::end_of;
use super::{Fs, FsError, Result};
use crate::meta::{Change, InodeRow};
use crate::store::Upload;
use crate::types::{ByteRange, Ino, Name};
use crate::write::{Source, Staged};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are written at once to a file elsewhere.
const EXPORT_SIZE: u64 = 1 << 20;
/// How often a wait looks whether it is over.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// A file that the bucket does not have as it is here, or a directory whose marker is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaved {
    /// The path within the mount. That of a directory ends with `/`, as its marker does.
    pub path: String,
    /// Why it could not be committed, if that was tried.
    pub reason: Option<String>,
    /// Whether it is tried again by itself.
    pub is_retried: bool,
}

/// A multipart upload that was neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The upload.
    pub upload: Upload,
    /// Whether this mount's journal knows it: it is under way, or will be aborted by itself.
    pub is_ours: bool,
}

impl Fs {
    /// The inode at a path that the catalogue knows, given by the names from the root.
    fn at_path(&self, names: &[Name]) -> Result<InodeRow> {
        let mut row = self.row(Ino::ROOT)?;
        for name in names {
            row = self.meta.child(row.ino, name)?.ok_or(FsError::NotFound)?;
        }
        Ok(row)
    }

    /// Inodes at or below `top` of which the bucket lacks something, or whose journal row says so.
    pub(super) fn owed_below(&self, top: Ino) -> Result<Vec<Ino>> {
        self.those_below(top, self.owed())
    }

    /// Directories at or below `top` whose marker this mount is to write. A read-only one writes none.
    fn owed_markers_below(&self, top: Ino) -> Result<Vec<Ino>> {
        if self.settings.read_only {
            return Ok(Vec::new());
        }
        self.those_below(top, self.meta.owed_markers()?.into_iter().map(|row| row.ino))
    }

    /// Those of `inodes` that are at or below `top`.
    fn those_below(&self, top: Ino, inodes: impl IntoIterator<Item = Ino>) -> Result<Vec<Ino>> {
        let mut below = Vec::new();
        for ino in inodes {
            let mut at = self.meta.get(ino)?;
            while let Some(row) = at {
                if row.ino == top {
                    below.push(ino);
                    break;
                }
                at = row.parent.map(|parent| self.meta.get(parent)).transpose()?.flatten();
            }
        }
        Ok(below)
    }

    /// Writes what markers are owed at and below `top`. Why one could not be written is put into `failed`.
    async fn write_markers_below(self: &Arc<Self>, top: Ino, failed: &mut HashMap<Ino, FsError>) -> Result<()> {
        for ino in self.owed_markers_below(top)? {
            if let Err(e) = self.write_owed_marker(ino).await {
                failed.insert(ino, e);
            }
        }
        Ok(())
    }

    /// Waits until the bucket has everything at and below a path, files that are open and owed markers included. Answers what it
    /// does not have when `deadline` has passed, or when only what waits for somebody is left, or was refused.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if there is no such path.
    pub async fn sync_path(self: &Arc<Self>, names: &[Name], deadline: Duration) -> Result<Vec<Unsaved>> {
        let top = self.at_path(names)?;
        let until = end_of(deadline);
        let mut asked = Vec::new();
        for ino in self.owed_below(top.ino)? {
            // What cannot be journaled can be uploaded all the same, and what is uploaded makes room for the journal.
            if let Err(e) = self.journal(ino).await {
                tracing::error!(path = %self.path_of(ino), error = %e, "could not be journaled");
            }
            asked.extend(self.hurry(ino));
        }
        let mut failed = HashMap::new();
        // Those that are not written when the time is over are found below.
        if let Ok(tried) = tokio::time::timeout_at(until, self.write_markers_below(top.ino, &mut failed)).await {
            tried?;
        }
        loop {
            let owed = self.owed_below(top.ino)?;
            let waits_for_somebody = owed.iter().all(|ino| self.queue().is_helpless(*ino));
            let markers = self.owed_markers_below(top.ino)?;
            let are_refused = markers.iter().all(|ino| failed.get(ino).is_some_and(FsError::is_permanent));
            if waits_for_somebody && are_refused || tokio::time::Instant::now() >= until {
                let mut left = self.unsaved(&owed);
                left.extend(markers.into_iter().map(|ino| self.unsaved_marker(ino, failed.get(&ino))));
                return Ok(left);
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    fn unsaved(&self, inodes: &[Ino]) -> Vec<Unsaved> {
        let waiting = self.queue().waiting();
        let unsaved = |ino: &Ino| {
            let entry = waiting.iter().find(|w| w.ino == *ino);
            Unsaved {
                path: self.path_of(*ino),
                reason: entry.and_then(|w| w.reason.clone()),
                is_retried: entry.is_none_or(|w| !w.parked),
            }
        };
        inodes.iter().map(unsaved).collect()
    }

    fn unsaved_marker(&self, ino: Ino, failure: Option<&FsError>) -> Unsaved {
        // The background goes on with it, whatever the failure was.
        Unsaved { path: format!("{}/", self.path_of(ino)), reason: failure.map(FsError::to_string), is_retried: true }
    }

    /// Tries again at once what has failed at or below a path, be it for good. Answers how many files that are.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if there is no such path.
    pub fn retry_path(self: &Arc<Self>, names: &[Name]) -> Result<usize> {
        let below = self.owed_below(self.at_path(names)?.ino)?;
        let failed = self.queue().waiting().into_iter().filter(|w| w.reason.is_some() && below.contains(&w.ino));
        Ok(failed.map(|w| self.queue_commit(w.ino)).count())
    }

    /// Writes a file as it is here to a new file at `to`, which only its owner may read. Answers how many bytes are lost, because they
    /// were to come from a version that is gone: they are zeros there.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if there is no such path, [`FsError::Invalid`] if the bucket has all of it; what the disk says, or the
    /// store.
    pub async fn export_path(self: &Arc<Self>, names: &[Name], to: &Path) -> Result<u64> {
        let row = self.at_path(names)?;
        let staged = self.writer.get(row.ino).filter(|s| s.is_changed()).ok_or(FsError::Invalid)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        file.set_len(staged.size())?;
        let mut lost = 0;
        let mut at = 0;
        while let Some(range) = ByteRange::new(at, staged.size().min(at + EXPORT_SIZE)) {
            lost += self.export_range(&staged, range, &file).await?;
            at = range.end();
            tokio::task::yield_now().await;
        }
        file.sync_all()?;
        Ok(lost)
    }

    /// Writes a part of a file to another one. Answers how many bytes of it are lost.
    async fn export_range(&self, staged: &Staged, range: ByteRange, to: &File) -> Result<u64> {
        let lost = self.export_found(staged, range, to).await?;
        if lost == 0 {
            return Ok(0);
        }
        // A commit of ours may have made another version of it meanwhile, which has them.
        if let Err(e) = self.find_base(staged).await {
            tracing::debug!(error = %e, "whether bytes are lost cannot be asked");
        }
        self.export_found(staged, range, to).await
    }

    async fn export_found(&self, staged: &Staged, range: ByteRange, to: &File) -> Result<u64> {
        let mut lost = 0;
        staged.copy_ended().await;
        let sources = staged.sources(range);
        for (piece, source) in sources.pieces.iter().copied() {
            let bytes = match (source, &sources.base) {
                (Source::File, _) => sources.read_file(piece)?,
                (Source::Base, Some(base)) => match self.reader.read(base, piece, None).await.map_err(super::io::stale)
                {
                    Err(FsError::Stale) => {
                        lost += piece.len();
                        continue;
                    }
                    bytes => bytes?,
                },
                _ => continue,
            };
            to.write_all_at(&bytes, piece.start())?;
        }
        Ok(lost)
    }

    /// Drops what was changed here of a file, and shows what the bucket has.
    ///
    /// # Errors
    /// [`FsError::NotFound`] if there is no such path, [`FsError::Invalid`] if nothing of it was changed,
    /// [`FsError::Disk`] (EBUSY) if somebody has it open, [`FsError::ReadOnly`].
    pub async fn discard_path(self: &Arc<Self>, names: &[Name]) -> Result<()> {
        self.writable()?;
        let row = self.at_path(names)?;
        let (ino, Some(parent), Some(name)) = (row.ino, row.parent, row.name.clone()) else {
            return Err(FsError::Invalid);
        };
        let (row, key, _claim) = self.claim_inode(row.ino).await?;
        if row.parent != Some(parent) || row.name.as_ref() != Some(&name) {
            return Err(FsError::NotFound);
        }
        if self.writer.get(ino).is_none_or(|staged| !staged.is_changed() && !staged.is_journaled()) {
            return Err(FsError::Invalid);
        }
        if self.meta.pins().is_pinned(ino) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY).into());
        }
        tracing::warn!(%key, "what was changed here is dropped, as somebody asked for");
        self.forget_staged(ino).await?;
        self.drop_seen_version(ino);
        if row.version.is_none() {
            self.meta.remove(ino).await?;
            self.announce(vec![Change::Removed { parent, name, ghost: Box::new(row) }]);
        } else {
            self.forget_unacknowledged(row).await?;
            if let Some(kernel) = self.kernel.get() {
                kernel.forget_content(ino);
            }
        }
        self.look_at(&self.place(parent, names.last().ok_or(FsError::Invalid)?)?).await
    }

    /// Uploads in the bucket, below the mount's prefix, that were neither completed nor aborted.
    ///
    /// # Errors
    /// What the store says.
    pub async fn unfinished_uploads(&self) -> Result<Vec<Unfinished>> {
        let uploads = self.writer.uploads().await?;
        Ok(uploads.into_iter().map(|(upload, is_ours)| Unfinished { upload, is_ours }).collect())
    }

    /// Aborts an upload that is not this mount's.
    ///
    /// # Errors
    /// What the store says.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        self.writable()?;
        Ok(self.store.abort_upload(upload).await?)
    }
}
