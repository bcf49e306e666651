//! The catalogue's rows as readers of a directory see them.
//!
//! Owns: SQL for the entries of a directory in their order, for its subdirectories, and for what of it was not read or listed.
//! Does not own: rows one by one (`inodes`), what a listing confirms and leaves out (`listings`).
//!
//! `coalesce(pos, ino)` is an entry's place ([`InodeRow::pos`]). Queries write it as the indices of `schema` do, and are
//! answered along these.

use super::inodes::{InodeRow, Known, RowResult, Rows, attr_of, ino_from, pos_from, select_inodes, sql};
use crate::types::{Attr, Ino, Pos, Timestamp};
use rusqlite::params;

/// Subdirectories are counted up to here: to count more would take longer than all else that stat(2) asks for.
const SUBDIRS_MAX: u32 = 1000;

/// Entries of ?1 beyond ?2, ?3 at most.
const CHILDREN: &str =
    select_inodes!("WHERE parent = ?1 AND coalesce(pos, ino) > ?2 ORDER BY coalesce(pos, ino) LIMIT ?3");

/// Entries of ?1 beyond ?2, the first eleven columns as those of [`select_inodes`]. Subdirectories are counted, up to ?3, in
/// directories that are known completely only: for a file that is not even looked at.
const EACH_CHILD: &str = "SELECT ino, parent, name, mode, uid, gid, rdev, size, atime, mtime, ctime,
         checked_at, headers IS NOT NULL, local, coalesce(pos, ino),
         CASE WHEN mode & 0xf000 = 0x4000 AND complete_at IS NOT NULL THEN (SELECT count(*) FROM (
             SELECT 1 FROM inode AS below WHERE below.parent = inode.ino AND below.mode & 0xf000 = 0x4000 LIMIT ?3)) END
     FROM inode WHERE parent = ?1 AND coalesce(pos, ino) > ?2 ORDER BY coalesce(pos, ino)";

/// How many subdirectories ?1 has, ?2 at most.
const SUBDIRS: &str =
    "SELECT count(*) FROM (SELECT 1 FROM inode WHERE parent = ?1 AND mode & 0xf000 = 0x4000 LIMIT ?2)";

/// Subdirectories of ?1 beyond ?2 that were not listed since ?3, ?4 at most.
const UNLISTED_DIRS: &str = "SELECT coalesce(pos, ino), ino FROM inode
     WHERE parent = ?1 AND coalesce(pos, ino) > ?2 AND mode & 0xf000 = 0x4000
         AND (complete_at IS NULL OR complete_at < ?3)
     ORDER BY coalesce(pos, ino) LIMIT ?4";

/// Entries of ?1 beyond ?2 that have an object whose headers were not read, ?3 at most.
const UNREAD: &str = select_inodes!(
    "WHERE parent = ?1 AND coalesce(pos, ino) > ?2 AND headers IS NULL AND local = 0 AND etag IS NOT NULL
     ORDER BY coalesce(pos, ino) LIMIT ?3"
);

/// An entry of a directory, as [`Rows::each_child`] shows it.
#[derive(Debug)]
pub struct Child<'a> {
    /// Its inode number.
    pub ino: Ino,
    /// Its place in the order of the directory.
    pub pos: Pos,
    /// Its name.
    pub name: &'a [u8],
    /// What stat(2) shows.
    pub attr: Attr,
    /// How well it is known.
    pub known: Known,
    /// How many subdirectories it has, as [`Rows::subdirs`] says. `None` also for what is no directory, or one of which not all
    /// names are known.
    pub subdirs: Option<u32>,
}

impl Rows<'_> {
    /// Entries of `parent` beyond `after`, in their order, `limit` at most.
    pub fn children(&self, parent: Ino, after: Pos, limit: usize) -> RowResult<Vec<InodeRow>> {
        self.many(CHILDREN, params![sql(parent.0), sql(after.0), sql(limit as u64)])
    }

    /// Gives `visit` the entries of `parent` beyond `after`, in their order, until it says that it has enough. Only these are read,
    /// and nothing is copied.
    pub fn each_child(&self, parent: Ino, after: Pos, mut visit: impl FnMut(Child<'_>) -> bool) -> RowResult<()> {
        let mut statement = self.0.prepare_cached(EACH_CHILD)?;
        let mut rows = statement.query(params![sql(parent.0), sql(after.0), SUBDIRS_MAX + 1])?;
        while let Some(row) = rows.next()? {
            let known =
                Known { checked_at: Timestamp::from_nanos(row.get(11)?), is_read: row.get(12)?, local: row.get(13)? };
            let child = Child {
                ino: ino_from(row.get(0)?),
                pos: pos_from(row.get(14)?),
                name: row.get_ref(2)?.as_blob()?,
                attr: attr_of(row)?,
                known,
                subdirs: row.get::<_, Option<u32>>(15)?.and_then(if_counted),
            };
            if visit(child) {
                break;
            }
        }
        Ok(())
    }

    /// Whether the directory has more than `limit` entries.
    pub fn has_more_children_than(&self, parent: Ino, limit: usize) -> RowResult<bool> {
        let query = "SELECT 1 FROM inode WHERE parent = ?1 LIMIT 1 OFFSET ?2";
        self.exists(query, params![sql(parent.0), sql(limit as u64)])
    }

    /// Whether the directory has any entry.
    pub fn has_children(&self, parent: Ino) -> RowResult<bool> {
        self.exists("SELECT 1 FROM inode WHERE parent = ?1 LIMIT 1", params![sql(parent.0)])
    }

    /// How many subdirectories of the directory are known. `None` if they are more than 1,000.
    pub fn subdirs(&self, parent: Ino) -> RowResult<Option<u32>> {
        let mut statement = self.0.prepare_cached(SUBDIRS)?;
        statement.query_row(params![sql(parent.0), SUBDIRS_MAX + 1], |r| r.get(0)).map(if_counted)
    }

    /// Subdirectories of `parent` beyond `after` that were not listed since `since`, with their places, in their order, `limit` at
    /// most.
    pub fn unlisted_dirs(&self, parent: Ino, after: Pos, since: Timestamp, limit: usize) -> RowResult<Vec<(Pos, Ino)>> {
        let mut statement = self.0.prepare_cached(UNLISTED_DIRS)?;
        let params = params![sql(parent.0), sql(after.0), since.nanos(), sql(limit as u64)];
        let dirs = statement.query_map(params, |r| Ok((pos_from(r.get(0)?), ino_from(r.get(1)?))))?;
        dirs.collect()
    }

    /// Entries of `parent` beyond `after` that have an object whose headers were not read, in their order, `limit` at most.
    pub fn unread(&self, parent: Ino, after: Pos, limit: usize) -> RowResult<Vec<InodeRow>> {
        self.many(UNREAD, params![sql(parent.0), sql(after.0), sql(limit as u64)])
    }
}

/// A count that did not stop where counting ends.
fn if_counted(count: u32) -> Option<u32> {
    (count <= SUBDIRS_MAX).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Schema;
    use rusqlite::{Connection, params_from_iter};
    use std::path::Path;

    /// An expression that is written otherwise than in the index would be no error, and make each READDIR of a large directory
    /// read all of it.
    #[test]
    fn directories_are_read_along_an_index() {
        let mut conn = Connection::open_in_memory().unwrap();
        Schema::CATALOGUE.migrate(&mut conn, Path::new("catalogue")).unwrap();
        for (query, index) in [
            (CHILDREN, "inode_pos (parent=? AND <expr>>?)"),
            (EACH_CHILD, "inode_pos (parent=? AND <expr>>?)"),
            (UNREAD, "inode_pos (parent=? AND <expr>>?)"),
            (UNLISTED_DIRS, "inode_dir (parent=? AND <expr>>?)"),
            (EACH_CHILD, "inode_dir (parent=?)"),
            (SUBDIRS, "inode_dir (parent=?)"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let values = params_from_iter(std::iter::repeat_n(1, statement.parameter_count()));
            let steps = statement.query_map(values, |r| r.get::<_, String>(3)).unwrap();
            let plan = steps.collect::<Result<Vec<_>, _>>().unwrap().join("; ");
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{query}: {plan}");
        }
    }
}
