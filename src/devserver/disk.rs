//! Objects that outlive the server.
//!
//! Owns: the directory (0700, files 0600): `index.sqlite` with one row per record, `bodies/` with one file per body or
//! part; the order of steps that makes a write durable: body to a temporary file, fsync, rename, fsync of the directory,
//! then all rows of one change in one transaction. Files that no row names are removed at the next start.
//! Does not own: what a record means (`index`), when to write (`backend`).

use super::body::{Body, BodyFile, Piece};
use super::index::{Change, Index};
use super::record::{Object, Part, Upload};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Version of the schema, in `user_version`.
const SCHEMA: i64 = 1;
const TABLES: &str = "
    CREATE TABLE bucket (name TEXT PRIMARY KEY, created INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE object (bucket TEXT, key BLOB, record TEXT, PRIMARY KEY (bucket, key)) STRICT, WITHOUT ROWID;
    CREATE TABLE upload (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE part (upload TEXT, number INTEGER, record TEXT NOT NULL, PRIMARY KEY (upload, number))
        STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";
/// How long to wait for a server that is just closing the index.
const LOCK_TIME: Duration = Duration::from_secs(1);
/// Bytes gathered before they are written to a file.
const WRITE_BUFFER: usize = 1 << 20;

/// The directory of bodies.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// Set when the server stops: from then on no body is removed.
    kept: Arc<AtomicBool>,
}

/// The rows.
#[derive(Debug)]
pub(super) struct Rows {
    connection: Connection,
}

/// Opens or creates the directory and reads what it holds.
pub(super) fn open(dir: &Path) -> Result<(Files, Rows, Index), Error> {
    let bodies = dir.join("bodies");
    DirBuilder::new().recursive(true).mode(0o700).create(&bodies)?;
    let database = dir.join("index.sqlite");
    // Created here for its mode, which SQLite gives to the files beside it, too.
    OpenOptions::new().create(true).append(true).mode(0o600).open(&database)?;
    let rows = Rows::open(&database)?;
    let files = Files { dir: bodies, kept: Arc::default() };
    let index = rows.load(&files)?;
    Ok((files, rows, index))
}

impl Files {
    /// From now on no body is removed.
    pub(super) fn keep_all(&self) {
        self.kept.store(true, Ordering::Release);
    }

    fn file(&self, name: &str) -> Arc<BodyFile> {
        Arc::new(BodyFile { path: self.dir.join(name), kept: Arc::clone(&self.kept) })
    }

    /// Begins a new body.
    pub(super) async fn create(self: &Arc<Self>) -> io::Result<BodyWriter> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let temporary = self.dir.join(format!("{name}.tmp"));
        let file = tokio::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary).await?;
        let path = Temporary(Some(temporary));
        Ok(BodyWriter { files: Arc::clone(self), name, path, file, pending: Vec::new(), len: 0 })
    }

    /// Removes all files but these.
    fn remove_others(&self, used: &HashMap<String, Arc<BodyFile>>) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !used.contains_key(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file that is removed unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A body being written.
pub(super) struct BodyWriter {
    files: Arc<Files>,
    name: String,
    path: Temporary,
    file: tokio::fs::File,
    pending: Vec<u8>,
    len: u64,
}

impl BodyWriter {
    pub(super) async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.pending.len() >= WRITE_BUFFER {
            self.file.write_all(&self.pending).await?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Makes the body durable under its final name.
    pub(super) async fn finish(mut self) -> io::Result<Body> {
        self.file.write_all(&self.pending).await?;
        self.file.flush().await?;
        self.file.sync_all().await?;
        let (files, name, len) = (self.files, self.name, self.len);
        let Some(temporary) = self.path.0.take() else { return Err(io::Error::other("no temporary file")) };
        let renamed = tokio::task::spawn_blocking(move || {
            let file = files.file(&name);
            std::fs::rename(&temporary, &file.path)?;
            File::open(&files.dir)?.sync_all()?;
            Ok(Body::from(Piece::File { name, offset: 0, len, file: Some(file) }))
        });
        renamed.await?
    }
}

impl Rows {
    fn open(database: &Path) -> Result<Rows, Error> {
        let connection = Connection::open(database)?;
        connection.busy_timeout(LOCK_TIME)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).optional()?;
        match version {
            Some(0) => connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?,
            Some(SCHEMA) => connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")?,
            other => return Err(format!("the index has version {other:?}, and this program knows {SCHEMA}").into()),
        }
        Ok(Rows { connection })
    }

    /// All records, with their files. Removes files that no record names.
    fn load(&self, files: &Files) -> Result<Index, Error> {
        let mut index = Index::default();
        let mut used = HashMap::new();
        self.each("SELECT name, created FROM bucket", |row| {
            index.apply(Change::Bucket { name: row.get(0)?, created: row.get(1)? });
            Ok(())
        })?;
        self.each("SELECT bucket, key, record FROM object", |row| {
            let (bucket, key) = (row.get(0)?, String::from_utf8(row.get(1)?)?);
            let object = match row.get::<_, Option<String>>(2)? {
                Some(record) => {
                    let mut object: Object = serde_json::from_str(&record)?;
                    attach(&mut object.body, files, &mut used);
                    Some(Arc::new(object))
                }
                None => None,
            };
            index.apply(Change::Object { bucket, key, object });
            Ok(())
        })?;
        self.each("SELECT record FROM upload", |row| {
            index.apply(Change::Upload(Box::new(serde_json::from_str::<Upload>(&row.get::<_, String>(0)?)?)));
            Ok(())
        })?;
        self.each("SELECT upload, number, record FROM part", |row| {
            let mut part: Part = serde_json::from_str(&row.get::<_, String>(2)?)?;
            attach(&mut part.body, files, &mut used);
            index.apply(Change::Part { upload: row.get(0)?, number: row.get(1)?, part });
            Ok(())
        })?;
        files.remove_others(&used)?;
        Ok(index)
    }

    fn each(&self, query: &str, mut act: impl FnMut(&rusqlite::Row<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut statement = self.connection.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            act(row)?;
        }
        Ok(())
    }

    /// Writes down all changes or none.
    pub(super) fn save(&mut self, changes: &[Change]) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        for change in changes {
            save(&transaction, change)?;
        }
        Ok(transaction.commit()?)
    }
}

fn save(rows: &Transaction<'_>, change: &Change) -> Result<(), Error> {
    let execute = |sql: &str, params: &[&dyn rusqlite::ToSql]| rows.prepare_cached(sql)?.execute(params);
    match change {
        Change::Bucket { name, created } => execute("INSERT INTO bucket VALUES (?, ?)", params![name, created]),
        Change::NoBucket { name } => {
            execute("DELETE FROM object WHERE bucket = ?", params![name])?;
            execute("DELETE FROM bucket WHERE name = ?", params![name])
        }
        Change::Object { bucket, key, object } => {
            let record = object.as_ref().map(|o| serde_json::to_string(&**o)).transpose()?;
            execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?)", params![bucket, key.as_bytes(), record])
        }
        Change::NoObject { bucket, key } => {
            execute("DELETE FROM object WHERE bucket = ? AND key = ?", params![bucket, key.as_bytes()])
        }
        Change::Upload(upload) => {
            execute("INSERT INTO upload VALUES (?, ?)", params![upload.id, serde_json::to_string(upload)?])
        }
        Change::NoUpload { id } => {
            execute("DELETE FROM part WHERE upload = ?", params![id])?;
            execute("DELETE FROM upload WHERE id = ?", params![id])
        }
        Change::Part { upload, number, part } => execute(
            "INSERT OR REPLACE INTO part VALUES (?, ?, ?)",
            params![upload, number, serde_json::to_string(part)?],
        ),
    }?;
    Ok(())
}

/// Gives a loaded body its files; copies of an object share one.
fn attach(body: &mut Body, files: &Files, used: &mut HashMap<String, Arc<BodyFile>>) {
    for piece in &mut body.pieces {
        if let Piece::File { name, file, .. } = piece {
            *file = Some(Arc::clone(used.entry(name.clone()).or_insert_with(|| files.file(name))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn bodies_survive_and_orphans_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let (files, mut rows, index) = open(&home).unwrap();
        assert!(index.buckets.is_empty());
        let files = Arc::new(files);
        let mut writer = files.create().await.unwrap();
        writer.write(&Bytes::from_static(b"abc")).await.unwrap();
        let body = writer.finish().await.unwrap();
        let object = Object {
            etag: "e".to_owned(),
            modified: 1,
            size: 3,
            headers: Default::default(),
            checksum: None,
            body: body.clone(),
        };
        let (bucket, key) = ("b".to_owned(), "k\0é".to_owned());
        rows.save(&[
            Change::Bucket { name: bucket.clone(), created: 5 },
            Change::Object { bucket: bucket.clone(), key: key.clone(), object: Some(Arc::new(object)) },
        ])
        .unwrap();
        assert!(open(&home).is_err(), "one server at a time");
        std::fs::write(home.join("bodies/orphan"), b"x").unwrap();
        for (path, mode) in [("", 0o700), ("bodies", 0o700), ("index.sqlite", 0o600), ("index.sqlite-wal", 0o600)] {
            let found = std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
        files.keep_all();
        drop((rows, body));
        let (_files, _rows, index) = open(&home).unwrap();
        let found = index.bucket("b").unwrap().object(&key).unwrap();
        assert_eq!(found.body.md5().unwrap(), <[u8; 16]>::from(<md5::Md5 as md5::Digest>::digest("abc")));
        assert_eq!(std::fs::read_dir(home.join("bodies")).unwrap().count(), 1);
    }
}
