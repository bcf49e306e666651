//! Damaged databases: finding out, remembering it, and setting one aside.
//!
//! Owns: the check at open, the mark that an earlier process leaves, new names for files that are set aside.
//! Does not own: what is rebuilt in their place (`meta` for the catalogue; the journal is never set aside).

use super::DbError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Databases up to this many bytes are read whole at open: some ten milliseconds. Damage in larger ones is found when
/// somebody reads there.
const CHECKED_LEN_MAX: u64 = 8 << 20;

/// Whether the database at `path` is whole, as far as can be told in no time.
///
/// # Errors
/// [`DbError::Damaged`].
pub(super) fn check(path: &Path) -> Result<(), DbError> {
    let damaged = |message: String| Err(DbError::Damaged { path: path.to_owned(), message });
    if let Ok(message) = std::fs::read_to_string(mark(path)) {
        return damaged(message);
    }
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    let len = file.metadata().map_or(0, |meta| meta.len());
    let mut header = [0; 100];
    if len == 0 || file.read_exact(&mut header).is_err() {
        // Nothing yet; or so little that SQLite says what it is.
        return Ok(());
    }
    // With a log beside it the file may lag behind; SQLite knows.
    let has = |suffix| std::fs::metadata(beside(path, suffix)).is_ok_and(|log| log.len() > 0);
    let has_log = has("-wal") || has("-journal");
    if let Some(wanted) = stated_len(&header).filter(|wanted| *wanted > len && !has_log) {
        return damaged(format!("it has {len} bytes of {wanted}"));
    }
    if len > CHECKED_LEN_MAX {
        return Ok(());
    }
    let read = || -> rusqlite::Result<String> {
        let conn = rusqlite::Connection::open(path)?;
        conn.pragma_query_value(None, "quick_check", |row| row.get(0))
    };
    match read() {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(answer) => damaged(answer),
        Err(e) => Err(super::sqlite_error(path, &e)),
    }
}

/// The length that a database's header states: page size times pages (SQLite's file format, 1.3: offsets 16 and 28).
fn stated_len(header: &[u8; 100]) -> Option<u64> {
    let magic = header.starts_with(b"SQLite format 3\0");
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    magic.then(|| page * u64::from(pages))
}

/// The next open is to know of it, however it ends with this process.
pub(super) fn note(path: &Path, message: &str) {
    if mark(path).exists() || !path.exists() {
        return;
    }
    tracing::error!(path = %path.display(), %message, "a database is damaged: unmount, and mount again");
    if let Err(e) = std::fs::write(mark(path), message) {
        tracing::warn!(error = %e, "that could not be noted for the next mount");
    }
}

/// Gives the database and what belongs to it other names, so that a new one can be made. Answers the new name.
///
/// # Errors
/// A rename that failed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let aside = beside(path, &format!(".damaged-{}", now.as_secs()));
    // Some of it may have been set aside already, by somebody who was killed then.
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    match std::fs::remove_file(mark(path)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(aside),
    }
}

fn mark(path: &Path) -> PathBuf {
    beside(path, ".is-damaged")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_half_way_is_set_aside_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.db");
        for file in [beside(&path, "-wal"), mark(&path)] {
            std::fs::write(file, "x").unwrap();
        }
        let aside = set_aside(&path).unwrap();
        assert!(beside(&aside, "-wal").exists() && !mark(&path).exists());
    }
}
