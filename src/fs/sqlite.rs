//! SQLite databases on the mount.
//!
//! Owns: recognising a database and the files that belong to it, and whether it is in the midst of something. Does not own: SQLite's
//! locks, which are the kernel's; the upload (`databases`), the queue (`write::queue`).
//!
//! A program that commits a transaction syncs the database, its journal, and the database again. Each of these syncs is kept in
//! our journal; what the bucket gets is the state between two transactions. The formats are described at
//! <https://www.sqlite.org/fileformat2.html> (sections 1.2 and 3), the locks in SQLite's src/os.h and src/os_unix.c.

use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::types::{ByteRange, FileKind, Ino, Name};
use crate::write::{Source, Staged};
use std::sync::atomic::Ordering;

/// How a database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How a rollback journal begins that has to be played back. At the end of a transaction it is deleted, cut or overwritten.
const HOT: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// How it begins before it is synced for the first time, and how an overwritten one does.
const COLD: [u8; 8] = [0; 8];
/// How a log begins: the last bit is the byte order of its sums.
const LOGS: [[u8; 4]; 2] = [[0x37, 0x7f, 0x06, 0x82], [0x37, 0x7f, 0x06, 0x83]];
const JOURNAL: &str = "-journal";
const WAL: &str = "-wal";
const SHM: &str = "-shm";

/// What a file has to do with a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    #[default]
    None,
    /// It is one.
    Database,
    /// It is the journal, the log or the log's index of one, as far as name and beginnings tell.
    Companion,
}

/// How databases are treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Databases {
    /// Syncs are kept in the journal, and consistent states uploaded.
    #[default]
    Consistent,
    /// As any other file.
    Through,
}

/// A database with the files that belong to it, as far as they are there.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) database: InodeRow,
    pub(super) journal: Option<InodeRow>,
    pub(super) wal: Option<InodeRow>,
    pub(super) shm: Option<InodeRow>,
}

impl Fs {
    /// The mount's device, as /proc/locks names it.
    pub fn set_device(&self, major: u64, minor: u64) {
        self.device.store(major << 32 | minor, Ordering::Relaxed);
    }

    /// What a staged file has to do with a database.
    pub(super) fn role_of(&self, staged: &Staged, row: &InodeRow) -> Result<Role> {
        if self.settings.writes.databases == Databases::Through {
            return Ok(Role::None);
        }
        let (Some(parent), Some(name)) = (row.parent, &row.name) else { return Ok(Role::None) };
        if let Some(stem) = stem_of(name) {
            let owner = self.meta.child(parent, &stem)?.filter(|owner| owner.attr.kind == FileKind::File);
            let Some(owner) = owner else { return Ok(Role::None) };
            // Notes may have a journal as well.
            let belongs = self.is_database(&owner)?.unwrap_or_else(|| may_be_companion(staged, name));
            return Ok(if belongs { Role::Companion } else { Role::None });
        }
        let is_one = match self.is_database(row)? {
            Some(begins) => begins,
            None => self.has_companion(parent, name)?,
        };
        Ok(if is_one { Role::Database } else { Role::None })
    }

    /// Whether a file begins as a database does. `None` if its beginning is not here, or it is empty, as a new one is until its first
    /// transaction is in the journal.
    fn is_database(&self, row: &InodeRow) -> Result<Option<bool>> {
        if let Some(staged) = self.writer.get(row.ino) {
            if staged.size() == 0 {
                return Ok(None);
            }
            if let Some(begins) = begins_with(&staged, MAGIC) {
                return Ok(Some(begins));
            }
        }
        let (Some(object), Some(range)) = (self.object(row)?, ByteRange::new(0, MAGIC.len() as u64)) else {
            return Ok(None);
        };
        Ok(self.reader.kept(&object, range).map(|bytes| bytes == MAGIC.as_slice()))
    }

    /// Whether a staged file is a database, or belongs to one.
    pub(super) fn belongs_to_database(&self, ino: Ino) -> bool {
        let (Ok(Some(row)), Some(staged)) = (self.meta.get(ino), self.writer.get(ino)) else { return false };
        self.role_of(&staged, &row).is_ok_and(|role| role != Role::None)
    }

    /// Whether a file that has this `role` by its name really is a database, or belongs to one that is known here to be one.
    pub(super) fn is_of_database(&self, staged: &Staged, row: &InodeRow, role: Role) -> Result<bool> {
        let (Some(parent), Some(name)) = (row.parent, &row.name) else { return Ok(false) };
        match role {
            Role::None => Ok(false),
            Role::Database => Ok(begins_with(staged, MAGIC) == Some(true)),
            Role::Companion => {
                let owner = stem_of(name).map(|stem| self.meta.child(parent, &stem)).transpose()?.flatten();
                let owner = owner.and_then(|owner| self.writer.get(owner.ino));
                Ok(owner.is_some_and(|owner| begins_with(&owner, MAGIC) == Some(true)))
            }
        }
    }

    fn has_companion(&self, parent: Ino, name: &Name) -> Result<bool> {
        for suffix in [JOURNAL, WAL] {
            if self.companion(parent, name, suffix)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn companion(&self, parent: Ino, name: &Name, suffix: &str) -> Result<Option<InodeRow>> {
        match Name::parse([name.as_bytes(), suffix.as_bytes()].concat()) {
            Ok(name) => Ok(self.meta.child(parent, &name)?),
            Err(_) => Ok(None),
        }
    }

    /// The database that a file is or belongs to by its name.
    pub(super) fn group_of(&self, row: &InodeRow) -> Result<Option<Group>> {
        let (Some(parent), Some(name)) = (row.parent, &row.name) else { return Ok(None) };
        let (database, name) = match stem_of(name) {
            Some(stem) => match self.meta.child(parent, &stem)? {
                Some(database) => (database, stem),
                None => return Ok(None),
            },
            None => (row.clone(), name.clone()),
        };
        let companion = |suffix| self.companion(parent, &name, suffix);
        Ok(Some(Group { journal: companion(JOURNAL)?, wal: companion(WAL)?, shm: companion(SHM)?, database }))
    }

    /// Whether the database that a file belongs to is in the midst of a transaction.
    pub(super) fn is_in_transaction(&self, row: &InodeRow) -> Result<bool> {
        let Some(group) = self.group_of(row)? else { return Ok(false) };
        let journal = group.journal.as_ref().and_then(|journal| self.writer.get(journal.ino));
        if journal.is_some_and(|journal| begins_with(&journal, &HOT) == Some(true)) {
            return Ok(true);
        }
        let files =
            [Some(&group.database), group.shm.as_ref()].into_iter().flatten().map(|row| row.ino).collect::<Vec<_>>();
        // Where there is no such file, there is nothing to be seen in it.
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        Ok(is_write_locked(&locks, self.device.load(Ordering::Relaxed), &files))
    }
}

/// The name of the database that a file with this name would belong to.
fn stem_of(name: &Name) -> Option<Name> {
    let name = name.as_bytes();
    let stem = [JOURNAL, WAL, SHM].iter().find_map(|suffix| name.strip_suffix(suffix.as_bytes()))?;
    Name::parse(stem).ok()
}

/// Whether a file that a database might have beside it can be what its name says. If it cannot be seen, it counts as that: to wait with
/// its upload does less harm than to upload the middle of a transaction.
fn may_be_companion(staged: &Staged, name: &Name) -> bool {
    let begins = |magic: &[u8]| begins_with(staged, magic) != Some(false);
    staged.size() == 0
        || name.as_bytes().ends_with(SHM.as_bytes())
        || begins(&HOT)
        || begins(&COLD)
        || LOGS.iter().any(|log| begins(log.as_slice()))
}

/// Whether the file begins so. `None` if its beginning is not here.
fn begins_with(staged: &Staged, magic: &[u8]) -> Option<bool> {
    let range = ByteRange::new(0, magic.len() as u64)?;
    let sources = staged.sources(range);
    match sources.pieces[..] {
        [] => Some(false),
        [(piece, Source::File)] if piece == range => Some(sources.read_file(piece).is_ok_and(|bytes| bytes == magic)),
        _ if sources.pieces.iter().any(|(_, source)| *source == Source::Base) => None,
        _ => Some(false),
    }
}

/// Whether a process holds a lock for writing on one of the files, as /proc/locks says (proc_locks(5)). Pure.
fn is_write_locked(locks: &str, device: u64, files: &[Ino]) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `1: POSIX  ADVISORY  WRITE 708 08:01:13 0 EOF`; one that is waited for has an arrow behind its number.
        let [_, _, _, "WRITE", _, place, ..] = words[..] else { return false };
        let mut place = place.split(':');
        let mut number = |radix| place.next().and_then(|text| u64::from_str_radix(text, radix).ok());
        let (Some(major), Some(minor), Some(ino)) = (number(16), number(16), number(10)) else { return false };
        (device == 0 || device == (major << 32 | minor)) && files.contains(&Ino(ino))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_for_writing_are_found() {
        let locks = "\
1: POSIX  ADVISORY  READ 708 00:2f:13 1073741826 1073742335
2: POSIX  ADVISORY  WRITE 709 00:2f:14 1073741825 1073741825
2: -> POSIX  ADVISORY  WRITE 710 00:2f:15 1073741825 1073741825
3: FLOCK  ADVISORY  WRITE 1 08:01:13 0 EOF
";
        let device = 0x2f;
        assert!(!is_write_locked(locks, device, &[Ino(13)]), "a reader, and another device");
        assert!(is_write_locked(locks, device, &[Ino(13), Ino(14)]));
        assert!(!is_write_locked(locks, device, &[Ino(15)]), "only waited for");
        assert!(is_write_locked(locks, 0, &[Ino(13)]), "the device is not known");
        assert!(!is_write_locked("nonsense\n", device, &[Ino(13)]));
    }

    #[test]
    fn companions_are_known_by_their_names() {
        let stem = |name: &str| stem_of(&Name::parse(name).unwrap()).map(|stem| stem.to_string());
        assert_eq!(stem("metadata.db-journal").as_deref(), Some("metadata.db"));
        assert_eq!(stem("a-wal").as_deref(), Some("a"));
        assert_eq!((stem("metadata.db"), stem("-shm")), (None, None));
    }
}
