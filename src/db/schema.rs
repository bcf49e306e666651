//! The schemas of the two databases, as lists of migrations.
//!
//! Owns: DDL. A migration is appended, never edited: each database remembers in `user_version` how many it has had.
//! Does not own: rows.

use super::DbError;
use std::path::Path;

/// A schema: its name, and the migrations that lead to it.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Short name, for threads and messages.
    pub name: &'static str,
    migrations: &'static [&'static str],
}

/// Version 1 of the catalogue. There are no hard links, so an inode has one name at most, and one table holds both; the
/// rowid order within `inode_parent` gives readdir its stable cookies. AUTOINCREMENT: an inode number is never used twice.
const CATALOGUE_1: &str = "
CREATE TABLE inode(
    ino           INTEGER PRIMARY KEY AUTOINCREMENT,
    parent        INTEGER,               -- NULL: no name any more, or the root
    name          BLOB,
    mode          INTEGER NOT NULL,      -- st_mode, S_IFMT included
    uid           INTEGER NOT NULL,
    gid           INTEGER NOT NULL,
    rdev          INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    atime         INTEGER NOT NULL,      -- ns since the epoch, as all times
    mtime         INTEGER NOT NULL,
    ctime         INTEGER NOT NULL,
    etag          TEXT,                  -- NULL: not in the bucket (yet), or a directory
    object_size   INTEGER,
    last_modified INTEGER,
    version_id    TEXT,
    storage_class TEXT,
    symlink       BLOB,
    xattrs        BLOB,
    headers       TEXT,                  -- JSON; NULL: not read for this version
    key           TEXT,                  -- only while the bucket's key differs from the path's
    local         INTEGER NOT NULL,      -- 1: holds changes that the bucket does not have
    checked_at    INTEGER NOT NULL,      -- when the bucket last confirmed it, or we wrote it
    complete_at   INTEGER,               -- directories: when the listing began that saw all children
    marker        INTEGER NOT NULL       -- directories: 0 implied by keys, 1 has a marker object, 2 a marker is owed
) STRICT;
CREATE UNIQUE INDEX inode_name ON inode(parent, name);
CREATE INDEX inode_parent ON inode(parent);
CREATE INDEX inode_local ON inode(local) WHERE local <> 0;
CREATE INDEX inode_marker ON inode(marker) WHERE marker = 2;
CREATE TABLE unmappable(
    key     TEXT PRIMARY KEY,
    parent  INTEGER NOT NULL,
    why     TEXT NOT NULL,
    size    INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unmappable_parent ON unmappable(parent);
CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Version 2: a name keeps its place in the order of readdir when another inode gets it. SQLite takes an index on an expression
/// for queries that have the same expression, word for word (`children`). The second index counts subdirectories, for st_nlink,
/// and finds those that were not listed; 0x4000 of 0xf000 is S_IFDIR of S_IFMT (inode(7)).
const CATALOGUE_2: &str = "
ALTER TABLE inode ADD COLUMN pos INTEGER; -- place in the directory; NULL: the inode number, because nobody had the name before
DROP INDEX inode_parent;
CREATE INDEX inode_pos ON inode(parent, coalesce(pos, ino));
CREATE INDEX inode_dir ON inode(parent, coalesce(pos, ino)) WHERE mode & 0xf000 = 0x4000;
";

/// Version 1 of the journal: one row for each staged file whose bytes the bucket does not have and that was acknowledged or
/// refused, so that a new daemon can go on with it.
const JOURNAL_1: &str = "
CREATE TABLE staged(
    ino        INTEGER PRIMARY KEY,
    key        TEXT NOT NULL,
    file       TEXT NOT NULL,            -- name of the staging file
    size       INTEGER NOT NULL,
    base_key   TEXT,
    base_etag  TEXT,
    base_mtime INTEGER,
    base_size  INTEGER,
    base_len   INTEGER NOT NULL,         -- leading bytes of the base that are still part of the file
    dirty      TEXT NOT NULL,            -- start-end,start-end
    local      TEXT NOT NULL,            -- bytes of the base that the staging file already has
    headers    TEXT NOT NULL,            -- JSON
    attempts   TEXT NOT NULL,            -- write ids of commits whose outcome is not known, with spaces between
    recorded   INTEGER NOT NULL
) STRICT;
";

/// Version 2: small files lie in the row itself, so that one sync makes them durable; uploads that are under way are known, so
/// that the next mount aborts those that this one leaves; so are renames of directories, so that it ends them.
const JOURNAL_2: &str = "
ALTER TABLE staged ADD COLUMN body BLOB; -- all bytes of the file; NULL: they are in the staging file
CREATE TABLE upload(
    id  TEXT NOT NULL,
    key TEXT NOT NULL,
    ino INTEGER NOT NULL,
    PRIMARY KEY (key, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE rename(
    id      TEXT PRIMARY KEY,            -- the write id of the copies
    source  TEXT NOT NULL,               -- a directory's key
    target  TEXT NOT NULL,
    objects TEXT NOT NULL,               -- JSON: [[key, ETag, last modified in s], ...] of what is below the source
    phase   INTEGER NOT NULL             -- 0: copying; 1: failed, the copies are to go; 2: done, the old keys are to go
) STRICT, WITHOUT ROWID;
";

impl Schema {
    /// `catalogue.db`: what we believe of the bucket. Can be rebuilt from it.
    pub const CATALOGUE: Schema = Schema { name: "catalogue", migrations: &[CATALOGUE_1, CATALOGUE_2] };
    /// `journal.db`: what is owed to the bucket.
    pub const JOURNAL: Schema = Schema { name: "journal", migrations: &[JOURNAL_1, JOURNAL_2] };

    /// Applies the migrations that the database has not had, each in a transaction of its own. A large one is sorted on the disk for its
    /// new indexes, and `conn` sorts in memory from then on.
    pub(super) fn migrate(&self, conn: &mut rusqlite::Connection, path: &Path) -> Result<(), DbError> {
        let fail = |e: rusqlite::Error| super::sqlite_error(path, &e);
        let known = u32::try_from(self.migrations.len()).unwrap_or(u32::MAX);
        let found: u32 = conn.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(fail)?;
        if found > known {
            return Err(DbError::Newer { path: path.to_owned(), found, known });
        }
        if found == 0 || found == known {
            // There is nothing to sort.
            return self.migrate_from(found, conn, path);
        }
        sort_beside(conn, path).map_err(fail)?;
        let migrated = self.migrate_from(found, conn, path);
        let restored = conn.execute_batch("PRAGMA temp_store_directory=''; PRAGMA temp_store=MEMORY;").map_err(fail);
        migrated.and(restored)
    }

    fn migrate_from(&self, found: u32, conn: &mut rusqlite::Connection, path: &Path) -> Result<(), DbError> {
        let fail = |e: rusqlite::Error| super::sqlite_error(path, &e);
        for (done, ddl) in (found..).zip(&self.migrations[found as usize..]) {
            let tx = conn.transaction().map_err(fail)?;
            tx.execute_batch(ddl).map_err(fail)?;
            tx.pragma_update(None, "user_version", done + 1).map_err(fail)?;
            tx.commit().map_err(fail)?;
        }
        Ok(())
    }
}

/// What `conn` sorts goes into files in the folder of the database, which has room for more than memory, and /tmp, may have.
fn sort_beside(conn: &rusqlite::Connection, path: &Path) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA temp_store=FILE;")?;
    match path.parent().and_then(Path::to_str).filter(|folder| !folder.is_empty()) {
        Some(folder) => conn.pragma_update(None, "temp_store_directory", folder),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Catalogue, Journal};
    use crate::types::{Ino, Name, Pos};
    use rusqlite::Connection;

    /// Databases as each version made them, oldest first.
    const CATALOGUES: [&str; 2] = [include_str!("frozen/catalogue-1.sql"), include_str!("frozen/catalogue-2.sql")];
    const JOURNALS: [&str; 2] = [include_str!("frozen/journal-1.sql"), include_str!("frozen/journal-2.sql")];

    fn shape(conn: &Connection) -> Vec<(String, String)> {
        let mut all = conn.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let rows = all.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_version_becomes_the_newest() {
        for (schema, frozen) in [(Schema::CATALOGUE, &CATALOGUES[..]), (Schema::JOURNAL, &JOURNALS[..])] {
            assert_eq!(schema.migrations.len(), frozen.len(), "a copy of each version is kept in frozen/");
            let path = Path::new(schema.name);
            let mut new = Connection::open_in_memory().unwrap();
            schema.migrate(&mut new, path).unwrap();
            for old in frozen {
                let mut conn = Connection::open_in_memory().unwrap();
                conn.execute_batch(old).unwrap();
                schema.migrate(&mut conn, path).unwrap();
                assert_eq!(shape(&conn), shape(&new));
            }
        }
    }

    #[test]
    fn what_a_migration_sorts_is_not_kept_in_memory() {
        const MADE: &str = "CREATE TABLE t(a);";
        const SEEN: &str = "CREATE TABLE seen AS SELECT temp_store FROM pragma_temp_store;";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it's.db");
        let mut conn = Connection::open(&path).unwrap();
        Schema { name: "test", migrations: &[MADE] }.migrate(&mut conn, &path).unwrap();
        Schema { name: "test", migrations: &[MADE, SEEN] }.migrate(&mut conn, &path).unwrap();
        let seen: i64 = conn.query_row("SELECT temp_store FROM seen", [], |r| r.get(0)).unwrap();
        let now: i64 = conn.pragma_query_value(None, "temp_store", |r| r.get(0)).unwrap();
        // FILE and MEMORY (sqlite.org/pragma.html).
        assert_eq!((seen, now), (1, 2));
        Schema { name: "test", migrations: &[MADE, SEEN, "nonsense"] }.migrate(&mut conn, &path).unwrap_err();
        let now: i64 = conn.pragma_query_value(None, "temp_store", |r| r.get(0)).unwrap();
        assert_eq!(now, 2);
    }

    #[test]
    fn rows_of_every_version_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (version, journal) in JOURNALS.iter().enumerate() {
            let path = dir.path().join(format!("journal-{version}.db"));
            Connection::open(&path).unwrap().execute_batch(journal).unwrap();
            let rows = Journal::open(&path).unwrap().rows().unwrap();
            assert_eq!((rows.len(), rows[0].ino, rows[0].size), (1, Ino(9), 42));
        }
        for (version, catalogue) in CATALOGUES.iter().enumerate() {
            let path = |name: &str| dir.path().join(format!("{name}-{version}.db"));
            Connection::open(path("catalogue")).unwrap().execute_batch(catalogue).unwrap();
            let catalogue = Catalogue::open(&path("catalogue")).unwrap();
            let rows = catalogue.read(|rows| rows.children(Ino(7), Pos::START, 9)).unwrap();
            let names: Vec<_> = rows.iter().map(|r| (r.ino.0, r.name.as_ref().map(Name::as_bytes))).collect();
            assert_eq!(names, [(9, Some(&b"a.epub"[..])), (10, Some(&b"link"[..]))]);
            assert_eq!((rows[0].attr.size, rows[1].symlink.as_deref()), (42, Some(&b"a.epub"[..])));
        }
    }
}
