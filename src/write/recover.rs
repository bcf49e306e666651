//! What an earlier daemon left in the journal and among the staging files.
//!
//! Owns: taking both over, and giving a file to another inode. Does not own: which inode and name a file gets (`fs`), rows (`db`).

use super::attributes::is_of_attributes;
use super::content::Content;
use super::disk::DiskFile;
use super::place::StagingFile;
use super::row::Kind;
use super::small::read_from;
use super::staging::Staged;
use super::{JournalError, Writer, new_name};
use crate::db::{Journal, StagedRow};
use crate::store::ObjectHeaders;
use crate::types::{ByteRange, Ino, Key, Timestamp, WriteId};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

/// A staged file that an earlier daemon left, with what its commit needs.
#[derive(Debug)]
pub struct Recovered {
    /// The inode that it had.
    pub ino: Ino,
    /// The key that it had.
    pub key: Key,
    /// Headers for the object.
    pub headers: ObjectHeaders,
    /// When its row was written.
    pub recorded: Timestamp,
    /// The file.
    pub staged: Arc<Staged>,
}

impl Writer {
    /// Takes over what an earlier daemon journaled, and removes staging files that nobody was promised. With `to_read` nothing on the
    /// disk changes, and what is taken over can only be read.
    ///
    /// # Errors
    /// [`JournalError`]. A row whose staging file is gone is an error of its own in the log, and stays.
    pub fn recover(&self, to_read: bool) -> Result<Vec<Recovered>, JournalError> {
        let names: HashSet<String> = self.disk.names()?.into_iter().collect();
        if !to_read {
            self.remove_unnamed(&names)?;
        }
        let mut recovered = Vec::new();
        // One by one: all bodies together may be more than there is memory for.
        for ino in self.journal.inodes()? {
            let Some(row) = self.journal.row(ino)? else { continue };
            if row.body.is_none() && !names.contains(&row.file) {
                tracing::error!(key = %row.key, file = %row.file, "the staging file of a journaled write is missing");
                continue;
            }
            recovered.push(self.take_over(row, to_read)?);
        }
        Ok(recovered)
    }

    /// Nobody has synced the file of a row that has the bytes itself: it may hold anything, and goes as well.
    fn remove_unnamed(&self, names: &HashSet<String>) -> Result<(), JournalError> {
        let (with_bytes, without): (Vec<_>, Vec<_>) =
            self.journal.files()?.into_iter().partition(|(_, has_body)| *has_body);
        let with_bytes: HashSet<String> = with_bytes.into_iter().map(|(file, _)| file).collect();
        let needed: HashSet<String> = without.into_iter().map(|(file, _)| file).collect();
        for name in names.iter().filter(|name| !needed.contains(*name)) {
            if !with_bytes.contains(name) {
                tracing::info!(file = %name, "removed a staging file that no close or fsync had acknowledged");
            }
            self.disk.remove(name)?;
        }
        Ok(())
    }

    fn take_over(&self, row: StagedRow, to_read: bool) -> Result<Recovered, JournalError> {
        let has_only_attributes = is_of_attributes(&row);
        let content = Content::restore(row.size, row.base, row.base_len, row.dirty, row.local);
        // The row names none if it has nothing but attributes.
        let name = if row.file.is_empty() { new_name() } else { row.file };
        let file: Arc<dyn DiskFile> = match &row.body {
            Some(_) if to_read => Arc::new(RowBytes { journal: Arc::clone(&self.journal), ino: row.ino }),
            None if to_read => self.disk.open(&name)?,
            Some(body) => {
                let file = self.disk.create(&name)?;
                file.write_at(body, 0)?;
                file
            }
            None => {
                let file = self.disk.open(&name)?;
                // What is beyond was written later, and so was what it has between the ranges of the row.
                file.set_len(row.size)?;
                let all = ByteRange::new(0, row.size);
                all.iter().flat_map(|all| content.journaled().gaps(*all)).try_for_each(|gap| file.punch(gap))?;
                file
            }
        };
        let mut attempts: Vec<_> = row.attempts.iter().map(|id| WriteId::new(id)).collect();
        let left_attempts = if has_only_attributes { std::mem::take(&mut attempts) } else { Vec::new() };
        let place = StagingFile::new(Arc::clone(&self.disk), name, file);
        let staged = Arc::new(Staged::new(row.ino, place, Arc::clone(&self.room), content, attempts));
        if has_only_attributes {
            staged.set_attributes_recovered(left_attempts);
        } else {
            staged.set_recovered(if row.body.is_some() { Kind::Body } else { Kind::File });
        }
        self.lock().insert(row.ino, Arc::clone(&staged));
        let headers = serde_json::from_str(&row.headers)?;
        Ok(Recovered { ino: row.ino, key: row.key, headers, recorded: row.recorded, staged })
    }

    /// A recovered file belongs to another inode now, because the catalogue was rebuilt. Its row moves along.
    ///
    /// # Errors
    /// [`JournalError`]; the old row stays then.
    pub async fn adopt(&self, recovered: &Recovered, ino: Ino, now: Timestamp) -> Result<Arc<Staged>, JournalError> {
        let old = &recovered.staged;
        let new = self.show_as(recovered, ino)?;
        if old.has_only_attributes() {
            new.set_attributes_recovered(old.left_attempts());
        }
        // At once: of two rows that name one staging file, the next recovery would drop one, and the file with it.
        let described = (recovered.key.clone(), recovered.headers.clone());
        self.record(&new, Some(old), now, || Ok::<_, JournalError>(Some(described))).await?;
        Ok(new)
    }

    /// The same as long as this daemon lives. The row stays as it is.
    ///
    /// # Errors
    /// [`JournalError::Taken`].
    pub fn show_as(&self, recovered: &Recovered, ino: Ino) -> Result<Arc<Staged>, JournalError> {
        let new = Arc::new(recovered.staged.with_ino(ino));
        let mut staged = self.lock();
        if staged.contains_key(&ino) {
            return Err(JournalError::Taken(ino));
        }
        staged.remove(&recovered.ino);
        staged.insert(ino, Arc::clone(&new));
        Ok(new)
    }

    /// A recovered file is not shown by this daemon. Row and bytes stay.
    pub fn hide(&self, recovered: &Recovered) {
        self.lock().remove(&recovered.ino);
    }
}

/// The bytes of a journal's row, which stay there.
#[derive(Debug)]
struct RowBytes {
    journal: Arc<Journal>,
    ino: Ino,
}

fn read_only() -> io::Error {
    io::Error::from_raw_os_error(libc::EROFS)
}

impl DiskFile for RowBytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let row = self.journal.row(self.ino).map_err(io::Error::other)?;
        let bytes = row.and_then(|row| row.body).ok_or(io::ErrorKind::NotFound)?;
        read_from(&bytes, buffer, offset);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn punch(&self, _: ByteRange) -> io::Result<()> {
        Err(read_only())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(read_only())
    }
}
