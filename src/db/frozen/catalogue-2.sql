-- The catalogue as version 2 made it, with an entry of each kind. Never edited.
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
ALTER TABLE inode ADD COLUMN pos INTEGER; -- place in the directory; NULL: the inode number, because nobody had the name before
DROP INDEX inode_parent;
CREATE INDEX inode_pos ON inode(parent, coalesce(pos, ino));
CREATE INDEX inode_dir ON inode(parent, coalesce(pos, ino)) WHERE mode & 0xf000 = 0x4000;
PRAGMA user_version = 2;
INSERT INTO inode(ino, parent, name, mode, uid, gid, rdev, size, atime, mtime, ctime, etag, object_size, last_modified,
    storage_class, symlink, headers, local, checked_at, complete_at, marker, pos) VALUES
(1, NULL, NULL, 16877, 1000, 1000, 0, 0, 1, 2, 3, NULL, NULL, NULL, NULL, NULL, NULL, 0, 5, 5, 1, NULL),
(7, 1, CAST('books' AS BLOB), 16877, 1000, 1000, 0, 0, 1, 2, 3, NULL, NULL, NULL, NULL, NULL, '{}', 0, 5, 5, 0, NULL),
(9, 7, CAST('a.epub' AS BLOB), 33188, 1000, 1000, 0, 42, 1, 2, 3, 'e1', 42, 4, 'STANDARD', NULL, NULL, 0, 5, NULL, 0, 8),
(10, 7, CAST('link' AS BLOB), 41471, 1000, 1000, 0, 6, 1, 2, 3, 'e2', 6, 4, NULL, CAST('a.epub' AS BLOB), '{}', 0, 5, NULL, 0, NULL);
INSERT INTO unmappable VALUES ('a//b', 1, 'empty-component', 3, 5);
INSERT INTO kv VALUES ('conditions', '{}');
