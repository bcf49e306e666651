-- The journal as version 2 made it, with an entry of each table. Never edited.
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
PRAGMA user_version = 2;
INSERT INTO staged VALUES (9, 'books/a.epub', '9-1', 42, NULL, NULL, NULL, NULL, 0, '0-42', '', '{}', '', 5, zeroblob(42));
INSERT INTO upload VALUES ('an-id', 'books/b.epub', 10);
INSERT INTO rename VALUES ('another-id', 'old/', 'new/', '[["old/a","e",5]]', 0);
