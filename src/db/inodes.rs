//! The catalogue's rows: inodes with their names, and a small key-value table.
//!
//! Owns: SQL over the catalogue and the mapping between columns and types. Does not own: directories as they are read
//! (`children`) and listed (`listings`), rows that are changed (`updates`), what the rows mean (`meta`).

use super::{Db, DbError, Durability, Schema};
use crate::types::{Attr, ETag, FileKind, Ino, Name, Pos, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;

/// What a query inside a transaction returns.
pub type RowResult<T> = rusqlite::Result<T>;

/// How a directory exists in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Implied by keys below it.
    Implied,
    /// By an object `dir/`.
    Present,
    /// Not at all: it was emptied through the mount, and its marker is owed.
    Owed,
}

/// An inode with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InodeRow {
    /// Its number.
    pub ino: Ino,
    /// The directory that it is in. `None` for the root, and for an inode that has lost its name but is still open.
    pub parent: Option<Ino>,
    /// Its name there.
    pub name: Option<Name>,
    /// What stat(2) shows.
    pub attr: Attr,
    /// The version of the object that it shows. `None` for implied directories and files not yet in the bucket.
    pub version: Option<Version>,
    /// Storage class, where known.
    pub storage_class: Option<String>,
    /// Target of a symbolic link, once read.
    pub symlink: Option<Vec<u8>>,
    /// All headers of the object as JSON. `None` until they are read for this version.
    pub headers: Option<String>,
    /// Extended attributes, as an object's metadata has them; empty if there are none. `None` until the headers are read.
    pub xattrs: Option<String>,
    /// Holds changes that the bucket does not have.
    pub local: bool,
    /// When the bucket last confirmed it, or we wrote it.
    pub checked_at: Timestamp,
    /// Directories: when the listing began that saw all children.
    pub complete_at: Option<Timestamp>,
    /// Directories: how it exists in the bucket.
    pub marker: Marker,
    /// The place in the directory that came with the name. `None`: its number, because nobody had the name before.
    pub place: Option<Pos>,
}

impl InodeRow {
    /// Its place in the order of its directory.
    pub fn pos(&self) -> Pos {
        self.place.unwrap_or(Pos(self.ino.0))
    }
}

/// How well an inode is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// When the bucket last confirmed it, or we wrote it.
    pub checked_at: Timestamp,
    /// Whether its headers were read for this version, or there are none.
    pub is_read: bool,
    /// Whether it holds changes that the bucket does not have.
    pub local: bool,
}

impl From<&InodeRow> for Known {
    fn from(row: &InodeRow) -> Known {
        Known { checked_at: row.checked_at, is_read: row.headers.is_some(), local: row.local }
    }
}

/// `catalogue.db`.
#[derive(Debug)]
pub struct Catalogue(Db);

/// One transaction or one read of the catalogue.
#[derive(Clone, Copy)]
pub struct Rows<'a>(pub(super) &'a Connection);

/// A query for whole rows, as [`inode_row`] reads them. Text that is made once: it is the key of the statement cache.
macro_rules! select_inodes {
    ($rest:literal) => {
        concat!(
            "SELECT ino, parent, name, mode, uid, gid, rdev, size, atime, mtime, ctime, etag, object_size, last_modified, ",
            "storage_class, symlink, headers, local, checked_at, complete_at, marker, pos, xattrs FROM inode ",
            $rest
        )
    };
}

/// A query that finds in the table `tree` the inode numbers of all that is below ?1; with `at`, its own as well. Text that is made
/// once, as that of [`select_inodes`].
macro_rules! with_tree {
    (at $rest:literal) => {
        with_tree!("SELECT ?1", $rest)
    };
    (below $rest:literal) => {
        with_tree!("SELECT ino FROM inode WHERE parent = ?1", $rest)
    };
    ($first:literal, $rest:literal) => {
        concat!(
            "WITH RECURSIVE tree(ino) AS (",
            $first,
            " UNION ALL SELECT i.ino FROM tree t CROSS JOIN inode i ON i.parent = t.ino) ",
            $rest
        )
    };
}

pub(super) use with_tree;

impl Catalogue {
    /// Opens or creates the catalogue at `path`.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open(path: &Path) -> Result<Catalogue, DbError> {
        Db::open(path, &Schema::CATALOGUE, Durability::Crash).map(Catalogue)
    }

    /// Runs `job` in the next transaction, and answers once that is committed.
    ///
    /// # Errors
    /// What SQLite says; the job is then rolled back.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(Rows<'_>) -> RowResult<T> + Send + 'static,
    ) -> Result<T, DbError> {
        self.0.write(move |conn| job(Rows(conn))).await
    }

    /// The same for a job of a few rows, which is carried out at once if nothing else is being written.
    ///
    /// # Errors
    /// As [`Catalogue::write`].
    pub async fn write_small<T: Send + 'static>(
        &self,
        job: impl FnOnce(Rows<'_>) -> RowResult<T> + Send + 'static,
    ) -> Result<T, DbError> {
        self.0.write_small(move |conn| job(Rows(conn))).await
    }

    /// Runs `query` on a read-only connection.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn read<T>(&self, query: impl FnOnce(Rows<'_>) -> RowResult<T>) -> Result<T, DbError> {
        self.0.read(|conn| query(Rows(conn)))
    }

    /// Commits what was sent and closes the file.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Rows<'_> {
    /// The inode `ino`.
    pub fn get(&self, ino: Ino) -> RowResult<Option<InodeRow>> {
        self.one(select_inodes!("WHERE ino = ?1"), params![sql(ino.0)])
    }

    /// The entry `name` of the directory `parent`.
    pub fn child(&self, parent: Ino, name: &Name) -> RowResult<Option<InodeRow>> {
        self.one(select_inodes!("WHERE parent = ?1 AND name = ?2"), params![sql(parent.0), name.as_bytes()])
    }

    /// Whether `ino` or anything below it holds changes of ours or owes a marker.
    pub fn local_below(&self, ino: Ino) -> RowResult<bool> {
        self.is_newer_below(ino, Timestamp::from_nanos(i64::MAX))
    }

    /// Whether `ino` or anything below it holds changes of ours, owes a marker, or was learned after `began`.
    pub fn is_newer_below(&self, ino: Ino, began: Timestamp) -> RowResult<bool> {
        self.exists(
            with_tree!(
                at "SELECT 1 FROM tree t CROSS JOIN inode i ON i.ino = t.ino
                    WHERE i.local <> 0 OR i.marker = 2 OR i.checked_at > ?2 LIMIT 1"
            ),
            params![sql(ino.0), began.nanos()],
        )
    }

    /// Whether anything below `ino`, without itself, holds changes of ours or owes a marker.
    pub fn holds_local(&self, ino: Ino) -> RowResult<bool> {
        if !self.has_children(ino)? {
            return Ok(false);
        }
        // Upwards from what is owed, which is less than what may be below.
        self.exists(
            "WITH RECURSIVE up(ino) AS (SELECT parent FROM inode WHERE local <> 0
                 UNION SELECT parent FROM inode WHERE marker = 2
                 UNION SELECT i.parent FROM up u CROSS JOIN inode i ON i.ino = u.ino)
             SELECT 1 FROM up WHERE ino = ?1 LIMIT 1",
            params![sql(ino.0)],
        )
    }

    /// Every inode number below `ino`, without itself.
    pub fn descendants(&self, ino: Ino) -> RowResult<Vec<Ino>> {
        let mut statement = self.0.prepare_cached(with_tree!(below "SELECT ino FROM tree"))?;
        let rows = statement.query_map(params![sql(ino.0)], |r| r.get(0).map(ino_from))?;
        rows.collect()
    }

    /// The names from the root down to `ino`. `None` if it, or a directory above it, has no name any more.
    pub fn path(&self, ino: Ino) -> RowResult<Option<Vec<Name>>> {
        let mut names = Vec::new();
        let mut at = ino;
        let mut statement = self.0.prepare_cached("SELECT parent, name FROM inode WHERE ino = ?1")?;
        while at != Ino::ROOT {
            let row = statement
                .query_row(params![sql(at.0)], |r| Ok((r.get::<_, Option<i64>>(0)?, r.get::<_, Option<Vec<u8>>>(1)?)))
                .optional()?;
            let Some((Some(parent), Some(name))) = row else { return Ok(None) };
            let Ok(name) = Name::parse(name) else { return Ok(None) };
            names.push(name);
            at = ino_from(parent);
        }
        names.reverse();
        Ok(Some(names))
    }

    /// Makes the root if it is not there.
    pub fn ensure_root(&self, attr: &Attr) -> RowResult<()> {
        self.0
            .prepare_cached(
                "INSERT OR IGNORE INTO inode(ino, mode, uid, gid, rdev, size, atime, mtime, ctime, local, checked_at, marker)
                 VALUES (1, ?1, ?2, ?3, 0, 0, ?4, ?5, ?6, 0, 0, 1)",
            )?
            .execute(params![
                attr.mode(),
                attr.uid,
                attr.gid,
                attr.atime.nanos(),
                attr.mtime.nanos(),
                attr.ctime.nanos()
            ])?;
        // Made by an earlier mount with other options, and never changed by anybody since.
        self.0
            .prepare_cached("UPDATE inode SET mode = ?1, uid = ?2, gid = ?3 WHERE ino = 1 AND headers IS NULL")?
            .execute(params![attr.mode(), attr.uid, attr.gid])?;
        Ok(())
    }

    /// Numbers up to `ino` are not given out any more.
    pub fn reserve(&self, ino: Ino) -> RowResult<()> {
        self.0
            .prepare_cached("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'inode'")?
            .execute(params![sql(ino.0)])?;
        Ok(())
    }

    /// A place behind all others, which no entry has or gets otherwise: an inode number that is given to nobody.
    pub fn new_pos(&self) -> RowResult<Pos> {
        let number = Ino(self.last_ino()?.0 + 1);
        self.reserve(number)?;
        Ok(Pos(number.0))
    }

    /// Makes an inode of every column of `row` but its number, and gives it one. `None` if the name is taken.
    pub fn insert(&self, row: &InodeRow) -> RowResult<Option<Ino>> {
        let mut statement = self.0.prepare_cached(
            "INSERT OR IGNORE INTO inode(ino, parent, name, mode, uid, gid, rdev, size, atime, mtime, ctime, etag, object_size,
                 last_modified, storage_class, symlink, headers, local, checked_at, complete_at, marker, pos, xattrs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
        )?;
        let made = execute(&mut statement, None, row)?;
        Ok((made > 0).then(|| ino_from(self.0.last_insert_rowid())))
    }

    /// The bucket confirmed the row as it is.
    pub fn confirmed(&self, ino: Ino, at: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached("UPDATE inode SET checked_at = ?2 WHERE ino = ?1")?
            .execute(params![sql(ino.0), at.nanos()])?;
        Ok(())
    }

    /// The inode was read. An atime that is later stays.
    pub fn accessed(&self, ino: Ino, at: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached("UPDATE inode SET atime = ?2 WHERE ino = ?1 AND atime < ?2")?
            .execute(params![sql(ino.0), at.nanos()])?;
        Ok(())
    }

    /// A name in the directory came or went. No index has its times, so that nothing but its row is written.
    pub fn touched(&self, dir: Ino, at: Timestamp) -> RowResult<()> {
        self.0
            .prepare_cached("UPDATE inode SET mtime = ?2, ctime = ?2 WHERE ino = ?1")?
            .execute(params![sql(dir.0), at.nanos()])?;
        Ok(())
    }

    /// Headers of objects count as not read, but for those of which we have changes. What is set of the root is in no object.
    pub fn forget_headers(&self) -> RowResult<()> {
        self.0
            .prepare_cached(
                "UPDATE inode SET headers = NULL, xattrs = NULL WHERE etag IS NOT NULL AND local = 0 AND ino <> 1",
            )?
            .execute([])?;
        Ok(())
    }

    /// Takes the row away.
    pub fn delete(&self, ino: Ino) -> RowResult<()> {
        self.0.prepare_cached("DELETE FROM inode WHERE ino = ?1")?.execute(params![sql(ino.0)])?;
        Ok(())
    }

    /// Takes away every row that has lost its name: nothing holds them after a start.
    pub fn delete_nameless(&self) -> RowResult<usize> {
        // What lay below one was given to nobody or has lost its name as well, so the index on `parent` finds them all.
        self.0.prepare_cached("DELETE FROM inode WHERE parent IS NULL AND ino <> 1")?.execute([])
    }

    /// Directories that owe a marker.
    pub fn owed_markers(&self) -> RowResult<Vec<InodeRow>> {
        self.many(select_inodes!("WHERE marker = 2"), [])
    }

    /// Inodes that hold changes of ours.
    pub fn local(&self) -> RowResult<Vec<InodeRow>> {
        self.many(select_inodes!("WHERE local <> 0"), [])
    }

    /// How many inodes there are, and the sum of their sizes in bytes.
    pub fn totals(&self) -> RowResult<(u64, u64)> {
        self.0
            .prepare_cached("SELECT count(*), coalesce(sum(size), 0) FROM inode")?
            .query_row([], |r| Ok((unsql(r.get(0)?), unsql(r.get(1)?))))
    }

    /// The value stored under `key`.
    pub fn kv(&self, key: &str) -> RowResult<Option<String>> {
        self.0.prepare_cached("SELECT value FROM kv WHERE key = ?1")?.query_row(params![key], |r| r.get(0)).optional()
    }

    /// Stores `value` under `key`.
    pub fn set_kv(&self, key: &str, value: &str) -> RowResult<()> {
        self.0.prepare_cached("INSERT OR REPLACE INTO kv(key, value) VALUES (?1, ?2)")?.execute(params![key, value])?;
        Ok(())
    }

    fn one(&self, query: &str, params: impl rusqlite::Params) -> RowResult<Option<InodeRow>> {
        self.0.prepare_cached(query)?.query_row(params, inode_row).optional()
    }

    pub(super) fn many(&self, query: &str, params: impl rusqlite::Params) -> RowResult<Vec<InodeRow>> {
        self.0.prepare_cached(query)?.query_map(params, inode_row)?.collect()
    }

    pub(super) fn exists(&self, query: &str, params: impl rusqlite::Params) -> RowResult<bool> {
        self.0.prepare_cached(query)?.exists(params)
    }
}

/// SQLite's integers are signed; sizes and inode numbers stay below 2^63.
pub(super) fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn ino_from(value: i64) -> Ino {
    Ino(unsql(value))
}

pub(super) fn pos_from(value: i64) -> Pos {
    Pos(unsql(value))
}

pub(super) use select_inodes;

/// Runs a statement whose parameters are the columns of a row, in the order of [`select_inodes`].
pub(super) fn execute(
    statement: &mut rusqlite::CachedStatement<'_>,
    ino: Option<Ino>,
    row: &InodeRow,
) -> RowResult<usize> {
    let version = row.version.as_ref();
    statement.execute(params![
        ino.map(|ino| sql(ino.0)),
        row.parent.map(|p| sql(p.0)),
        row.name.as_ref().map(Name::as_bytes),
        row.attr.mode(),
        row.attr.uid,
        row.attr.gid,
        row.attr.rdev,
        sql(row.attr.size),
        row.attr.atime.nanos(),
        row.attr.mtime.nanos(),
        row.attr.ctime.nanos(),
        version.map(|v| v.etag.as_str()),
        version.map(|v| sql(v.size)),
        version.and_then(|v| v.last_modified).map(Timestamp::nanos),
        row.storage_class,
        row.symlink,
        row.headers,
        row.local,
        row.checked_at.nanos(),
        row.complete_at.map(Timestamp::nanos),
        match row.marker {
            Marker::Implied => 0,
            Marker::Present => 1,
            Marker::Owed => 2,
        },
        row.place.map(|pos| sql(pos.0)),
        // The column takes bytes only.
        row.xattrs.as_deref().map(str::as_bytes),
    ])
}

/// The attributes of a row whose columns begin as those of [`select_inodes`].
pub(super) fn attr_of(r: &Row<'_>) -> RowResult<Attr> {
    let mode: u32 = r.get(3)?;
    let time = |i: usize| r.get(i).map(Timestamp::from_nanos);
    Ok(Attr {
        kind: FileKind::from_mode(mode).unwrap_or(FileKind::File),
        perm: (mode & 0o7777) as u16,
        uid: r.get(4)?,
        gid: r.get(5)?,
        rdev: r.get(6)?,
        size: unsql(r.get(7)?),
        atime: time(8)?,
        mtime: time(9)?,
        ctime: time(10)?,
    })
}

fn inode_row(r: &Row<'_>) -> RowResult<InodeRow> {
    let etag: Option<String> = r.get(11)?;
    let object_size = unsql(r.get::<_, Option<i64>>(12)?.unwrap_or(0));
    let last_modified = r.get::<_, Option<i64>>(13)?.map(Timestamp::from_nanos);
    Ok(InodeRow {
        ino: ino_from(r.get(0)?),
        parent: r.get::<_, Option<i64>>(1)?.map(ino_from),
        name: r.get::<_, Option<Vec<u8>>>(2)?.and_then(|n| Name::parse(n).ok()),
        attr: attr_of(r)?,
        version: etag.map(|e| Version { etag: ETag::parse(&e), last_modified, size: object_size }),
        storage_class: r.get(14)?,
        symlink: r.get(15)?,
        headers: r.get(16)?,
        local: r.get(17)?,
        checked_at: r.get(18).map(Timestamp::from_nanos)?,
        complete_at: r.get::<_, Option<i64>>(19)?.map(Timestamp::from_nanos),
        marker: match r.get::<_, i64>(20)? {
            1 => Marker::Present,
            2 => Marker::Owed,
            _ => Marker::Implied,
        },
        place: r.get::<_, Option<i64>>(21)?.map(pos_from),
        xattrs: r.get::<_, Option<Vec<u8>>>(22)?.and_then(|text| String::from_utf8(text).ok()),
    })
}
