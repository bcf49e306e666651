//! The catalogue's rows as they are changed.
//!
//! Owns: SQL that writes a row that is there, and which indexes that touches. Does not own: rows as they are made, read and
//! deleted, and single columns of them (`inodes`), what changes mean (`meta`).

use super::inodes::{InodeRow, RowResult, Rows, execute};

/// A statement that writes columns of the row ?1, with the parameters of [`execute`]: `all`; `state`, which leaves out name and
/// place; or `unindexed`, which leaves out as well what partial indexes look at. SQLite does not compare values: it writes an index
/// anew if a column of it, or of its WHERE, is named at all. Each column stands here once. Text that is made once: it is the key of
/// the statement cache.
macro_rules! update_inode {
    (all) => {
        update_inode!(state "parent = ?2, name = ?3, pos = ?22, ")
    };
    (state $($more:literal)*) => {
        update_inode!(unindexed $($more)* "mode = ?4, local = ?18, marker = ?21, ")
    };
    (unindexed $($more:literal)*) => {
        concat!(
            "UPDATE inode SET ",
            $($more,)*
            "uid = ?5, gid = ?6, rdev = ?7, size = ?8, atime = ?9, mtime = ?10, ctime = ?11, etag = ?12, object_size = ?13, ",
            "last_modified = ?14, storage_class = ?15, symlink = ?16, headers = ?17, checked_at = ?19, complete_at = ?20, ",
            "xattrs = ?23 WHERE ino = ?1"
        )
    };
}

/// Every column.
const ALL: &str = update_inode!(all);
/// The same without those by which an entry is found in its directory: of the rest, only partial indexes have any, which few rows
/// are in.
const STATE: &str = update_inode!(state);
/// Those that no index has.
const UNINDEXED: &str = update_inode!(unindexed);

impl Rows<'_> {
    /// Writes every column of the row with this number.
    pub fn update(&self, row: &InodeRow) -> RowResult<()> {
        self.write_columns(ALL, row)
    }

    /// The same of a row that is `old` in the catalogue, as this transaction has read it. Indexes are written only if something
    /// that they have changed, and nothing is if nothing did.
    pub fn update_from(&self, old: &InodeRow, new: &InodeRow) -> RowResult<()> {
        if old == new {
            return Ok(());
        }
        let has_moved = (old.parent, &old.name, old.place) != (new.parent, &new.name, new.place);
        let has_other_state = (old.attr.mode(), old.local, old.marker) != (new.attr.mode(), new.local, new.marker);
        let columns = if has_moved {
            ALL
        } else if has_other_state {
            STATE
        } else {
            UNINDEXED
        };
        self.write_columns(columns, new)
    }

    fn write_columns(&self, columns: &str, row: &InodeRow) -> RowResult<()> {
        execute(&mut self.0.prepare_cached(columns)?, Some(row.ino), row).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Marker, Schema};
    use crate::types::{Attr, ETag, FileKind, Ino, Name, Pos, Timestamp, Version};
    use rusqlite::{Connection, params_from_iter};
    use std::path::Path;

    fn catalogue() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        Schema::CATALOGUE.migrate(&mut conn, Path::new("catalogue")).unwrap();
        conn
    }

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// Two rows of the same inode that have nothing else in common.
    fn two_rows() -> (InodeRow, InodeRow) {
        let one = InodeRow {
            ino: Ino(1),
            parent: None,
            name: None,
            attr: Attr {
                kind: FileKind::File,
                perm: 0o644,
                uid: 1,
                gid: 2,
                rdev: 3,
                size: 4,
                atime: at(5),
                mtime: at(6),
                ctime: at(7),
            },
            version: Some(Version { etag: ETag::parse("a"), last_modified: None, size: 8 }),
            storage_class: None,
            symlink: None,
            headers: None,
            xattrs: None,
            local: false,
            checked_at: at(9),
            complete_at: None,
            marker: Marker::Implied,
            place: None,
        };
        let other = InodeRow {
            ino: Ino(1),
            parent: Some(Ino(11)),
            name: Some(Name::parse("name").unwrap()),
            attr: Attr {
                kind: FileKind::Dir,
                perm: 0o755,
                uid: 12,
                gid: 13,
                rdev: 14,
                size: 15,
                atime: at(16),
                mtime: at(17),
                ctime: at(18),
            },
            version: Some(Version { etag: ETag::parse("b"), last_modified: Some(at(19)), size: 20 }),
            storage_class: Some("class".to_owned()),
            symlink: Some(b"target".to_vec()),
            headers: Some("{}".to_owned()),
            xattrs: Some("xattrs".to_owned()),
            local: true,
            checked_at: at(21),
            complete_at: Some(at(22)),
            marker: Marker::Owed,
            place: Some(Pos(23)),
        };
        (one, other)
    }

    fn version(row: &mut InodeRow) -> &mut Version {
        row.version.as_mut().unwrap()
    }

    /// Each takes one field of another row, but for one, which takes the version away.
    const TAKEN: [fn(&mut InodeRow, InodeRow); 25] = [
        |row, other| row.parent = other.parent,
        |row, other| row.name = other.name,
        |row, other| row.place = other.place,
        |row, other| row.attr.kind = other.attr.kind,
        |row, other| row.attr.perm = other.attr.perm,
        |row, other| row.attr.uid = other.attr.uid,
        |row, other| row.attr.gid = other.attr.gid,
        |row, other| row.attr.rdev = other.attr.rdev,
        |row, other| row.attr.size = other.attr.size,
        |row, other| row.attr.atime = other.attr.atime,
        |row, other| row.attr.mtime = other.attr.mtime,
        |row, other| row.attr.ctime = other.attr.ctime,
        |row, _| row.version = None,
        |row, other| row.version = other.version,
        |row, mut other| version(row).etag = version(&mut other).etag.clone(),
        |row, mut other| version(row).size = version(&mut other).size,
        |row, mut other| version(row).last_modified = version(&mut other).last_modified,
        |row, other| row.storage_class = other.storage_class,
        |row, other| row.symlink = other.symlink,
        |row, other| row.headers = other.headers,
        |row, other| row.xattrs = other.xattrs,
        |row, other| row.local = other.local,
        |row, other| row.checked_at = other.checked_at,
        |row, other| row.complete_at = other.complete_at,
        |row, other| row.marker = other.marker,
    ];

    #[test]
    fn each_field_that_changes_alone_is_written_and_what_stays_is_not() {
        let conn = catalogue();
        let rows = Rows(&conn);
        let (one, other) = two_rows();
        assert_eq!(rows.insert(&one).unwrap(), Some(one.ino));
        let mut taken = one.clone();
        for take in TAKEN {
            let mut changed = one.clone();
            take(&mut changed, other.clone());
            assert_ne!(changed, one);
            for (from, to) in [(&one, &changed), (&changed, &one)] {
                rows.update_from(from, to).unwrap();
                assert_eq!(rows.get(one.ino).unwrap().as_ref(), Some(to));
            }
            take(&mut taken, other.clone());
        }
        assert_eq!(taken, other, "every field is among those that were taken");
        let before = conn.total_changes();
        rows.update_from(&one, &one).unwrap();
        assert_eq!(conn.total_changes(), before);
    }

    /// The indexes that a statement writes, by name.
    fn written(conn: &Connection, text: &str) -> Vec<String> {
        let mut indexes =
            conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND rootpage = ?1").unwrap();
        let mut statement = conn.prepare(&format!("EXPLAIN {text}")).unwrap();
        let values = params_from_iter(std::iter::repeat_n(1, statement.parameter_count()));
        let steps = statement.query_map(values, |r| Ok((r.get::<_, String>(1)?, r.get(2)?, r.get(3)?))).unwrap();
        let steps: Vec<(String, i64, i64)> = steps.collect::<Result<_, _>>().unwrap();
        // Opcodes name a cursor, and the one that opens it names the root page (sqlite.org/opcode.html).
        let cursors = steps.iter().filter(|(opcode, ..)| matches!(opcode.as_str(), "IdxInsert" | "IdxDelete"));
        let root_of = |cursor: i64| {
            let is_its = |(opcode, opened, _): &&(String, i64, i64)| opcode == "OpenWrite" && *opened == cursor;
            steps.iter().find(is_its).unwrap().2
        };
        let name = |root: i64| indexes.query_row([root], |r| r.get(0)).unwrap();
        let mut names: Vec<String> = cursors.map(|(_, cursor, _)| root_of(*cursor)).map(name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn only_the_indexes_that_have_what_changed_are_written() {
        let conn = catalogue();
        let every = ["inode_dir", "inode_local", "inode_marker", "inode_name", "inode_pos"];
        let partial = ["inode_dir", "inode_local", "inode_marker"];
        assert_eq!(written(&conn, ALL), every);
        assert_eq!(written(&conn, STATE), partial);
        assert!(written(&conn, UNINDEXED).is_empty());
    }
}
