//! The catalogue's rows as listings see them.
//!
//! Owns: SQL for what a listing confirms, leaves out and moves, for what was listed when, and for keys that no path can
//! express. Does not own: rows one by one (`inodes`), what absence means (`meta`).

use super::inodes::{RowResult, Rows, ino_from, sql, unsql, with_tree};
use crate::types::{Ino, Timestamp};
use rusqlite::{Row, params};

/// Entries of ?1 that the bucket last confirmed before ?2, that hold no changes of ours and owe no marker.
const UNCONFIRMED: &str = "FROM inode WHERE parent = ?1 AND checked_at < ?2 AND local = 0 AND marker <> 2";

/// What two files with the same content have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    /// The inode.
    pub ino: Ino,
    /// ETag of its object.
    pub etag: String,
    /// Size of its object in bytes.
    pub size: u64,
}

impl Rows<'_> {
    /// Entries of `parent` that the bucket last confirmed before `before`, that hold no changes of ours and owe no marker.
    pub fn unconfirmed(&self, parent: Ino, before: Timestamp) -> RowResult<Vec<Ino>> {
        let mut statement = self.0.prepare_cached(&format!("SELECT ino {UNCONFIRMED}"))?;
        let inos = statement.query_map(params![sql(parent.0), before.nanos()], |r| r.get(0).map(ino_from))?;
        inos.collect()
    }

    /// Whether any key is known that no path can express.
    pub fn has_unmappable(&self) -> RowResult<bool> {
        self.exists("SELECT 1 FROM unmappable LIMIT 1", [])
    }

    /// Whether it has any.
    pub fn has_unconfirmed(&self, parent: Ino, before: Timestamp) -> RowResult<bool> {
        self.exists(&format!("SELECT 1 {UNCONFIRMED} LIMIT 1"), params![sql(parent.0), before.nanos()])
    }

    /// The directory was listed completely by a listing that began at `at`.
    pub fn completed(&self, dir: Ino, at: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached(
                // A marker would have been shown: without one there are no headers to be read.
                "UPDATE inode SET complete_at = ?2, headers = coalesce(headers, iif(marker = 1, NULL, '{}')) WHERE ino = ?1",
            )?
            .execute(params![sql(dir.0), at.nanos()])?;
        Ok(())
    }

    /// Directories below `ino` are as somebody saw them at `at`.
    pub fn confirm_dirs_below(&self, ino: Ino, at: Timestamp) -> RowResult<()> {
        // 0x4000 of 0xf000: S_IFDIR of S_IFMT (inode(7)).
        self.0
            .prepare_cached(with_tree!(below "UPDATE inode SET checked_at = ?2
                                  WHERE ino IN (SELECT ino FROM tree) AND mode & 0xf000 = 0x4000"))?
            .execute(params![sql(ino.0), at.nanos()])?;
        Ok(())
    }

    /// The highest inode number that was given out.
    pub fn last_ino(&self) -> RowResult<Ino> {
        let last = self
            .0
            .prepare_cached("SELECT max(seq) FROM sqlite_sequence WHERE name = 'inode'")?
            .query_row([], |r| r.get::<_, Option<i64>>(0))?;
        Ok(ino_from(last.unwrap_or(0)))
    }

    /// Files with inode numbers above `since` that a listing which began at `at` has shown.
    pub fn new_files(&self, since: Ino, at: Timestamp, limit: usize) -> RowResult<Vec<FileVersion>> {
        self.versions(
            "SELECT ino, etag, object_size FROM inode
             WHERE ino > ?1 AND checked_at = ?2 AND local = 0 AND parent IS NOT NULL AND etag IS NOT NULL LIMIT ?3",
            params![sql(since.0), at.nanos(), sql(limit as u64)],
        )
    }

    /// The file `ino`, or the files below the directory `ino`.
    pub fn file_versions(&self, ino: Ino, limit: usize) -> RowResult<Vec<FileVersion>> {
        self.versions(
            with_tree!(
                at "SELECT i.ino, i.etag, i.object_size FROM tree t CROSS JOIN inode i ON i.ino = t.ino
                    WHERE i.local = 0 AND i.etag IS NOT NULL LIMIT ?2"
            ),
            params![sql(ino.0), sql(limit as u64)],
        )
    }

    /// What was learned after `now`, by a clock that has been set back since, counts as learned long ago.
    pub fn forget_future(&self, now: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached("UPDATE inode SET checked_at = 0 WHERE checked_at > ?1")?
            .execute(params![now.nanos()])?;
        self.0
            .prepare_cached("UPDATE inode SET complete_at = 0 WHERE complete_at > ?1")?
            .execute(params![now.nanos()])?;
        Ok(())
    }

    /// Remembers a key that no path can express, found in the listing of `parent`.
    pub fn put_unmappable(&self, parent: Ino, key: &str, why: &str, size: u64, seen_at: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO unmappable(key, parent, why, size, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![key, sql(parent.0), why, sql(size), seen_at.nanos()])?;
        Ok(())
    }

    /// Forgets the keys of `parent` that a listing which began at `before` has not seen again.
    pub fn forget_unmappable(&self, parent: Ino, before: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached("DELETE FROM unmappable WHERE parent = ?1 AND seen_at < ?2")?
            .execute(params![sql(parent.0), before.nanos()])?;
        Ok(())
    }

    /// How many keys are known that no path can express.
    pub fn count_unmappable(&self) -> RowResult<u64> {
        self.0.prepare_cached("SELECT count(*) FROM unmappable")?.query_row([], |r| r.get(0).map(unsql))
    }

    /// Those keys after `after`, in order: key, reason, size in bytes.
    pub fn unmappable(&self, after: &str, limit: usize) -> RowResult<Vec<(String, String, u64)>> {
        let query = format!("SELECT key, why, size FROM unmappable WHERE key > ?1 ORDER BY key LIMIT {limit}");
        let mut statement = self.0.prepare_cached(&query)?;
        let rows = statement.query_map(params![after], |r| Ok((r.get(0)?, r.get(1)?, unsql(r.get(2)?))))?;
        rows.collect()
    }

    fn versions(&self, query: &str, params: impl rusqlite::Params) -> RowResult<Vec<FileVersion>> {
        let mut statement = self.0.prepare_cached(query)?;
        let each = |r: &Row<'_>| Ok(FileVersion { ino: ino_from(r.get(0)?), etag: r.get(1)?, size: unsql(r.get(2)?) });
        let versions = statement.query_map(params, each)?;
        versions.collect()
    }
}
