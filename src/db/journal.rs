//! The journal's rows: staged files whose bytes are owed to the bucket, uploads and renames of directories that are under way.
//!
//! Owns: SQL over the journal and the mapping between columns and types. Does not own: when a row is due (`write`).

use super::{Db, DbError, Durability, Schema};
use crate::types::{ByteRange, ETag, Ino, Key, ObjectRef, RangeSet, Timestamp, Version};
use rusqlite::{OptionalExtension, Row, params};
use std::path::Path;

/// All that a new daemon needs to commit a staged file that an old one left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRow {
    /// The inode.
    pub ino: Ino,
    /// The key that it had when the row was written.
    pub key: Key,
    /// Name of its staging file. Empty if nothing but attributes is owed.
    pub file: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// The version that it changes. `None` for a new file.
    pub base: Option<ObjectRef>,
    /// How many leading bytes of the base are still a part of the file.
    pub base_len: u64,
    /// What was written.
    pub dirty: RangeSet,
    /// What of the base the staging file already has.
    pub local: RangeSet,
    /// Headers for the object, as JSON.
    pub headers: String,
    /// Write ids of commits whose outcome is not known.
    pub attempts: Vec<String>,
    /// When the row was written.
    pub recorded: Timestamp,
    /// All bytes of a small file. `None`: they are in the staging file, which was synced before.
    pub body: Option<Vec<u8>>,
}

/// A rename of a directory that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenameRow {
    /// The write id of the copies.
    pub id: String,
    /// The directory's key before.
    pub source: Key,
    /// The directory's key afterwards.
    pub target: Key,
    /// Keys, ETags and times of the last change (in s since the epoch) of what is below the source.
    pub objects: Vec<(String, String, Option<i64>)>,
    /// How far it has come.
    pub phase: RenamePhase,
}

/// How far a rename of a directory has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenamePhase {
    /// Objects are copied.
    Copying,
    /// It has failed: the copies are to go.
    Undone,
    /// All are copied: the old keys are to go.
    Deleting,
}

impl RenamePhase {
    fn to_sql(self) -> i64 {
        match self {
            RenamePhase::Copying => 0,
            RenamePhase::Undone => 1,
            RenamePhase::Deleting => 2,
        }
    }

    fn from_sql(number: i64) -> RenamePhase {
        match number {
            1 => RenamePhase::Undone,
            2 => RenamePhase::Deleting,
            _ => RenamePhase::Copying,
        }
    }
}

/// `journal.db`.
#[derive(Debug)]
pub struct Journal(Db);

impl Journal {
    /// Opens or creates the journal at `path`.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open(path: &Path) -> Result<Journal, DbError> {
        Db::open(path, &Schema::JOURNAL, Durability::PowerLoss).map(Journal)
    }

    /// Writes a row, and answers once it is durable. In the same moment the row of `replaced` goes.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn record(&self, row: StagedRow, replaced: Option<Ino>) -> Result<(), DbError> {
        self.0
            .write(move |conn| {
                replaced.map_or(Ok(()), |ino| delete(conn, ino))?;
                insert(conn, &row)
            })
            .await
    }

    /// The row of an inode gets these headers. Answers once that is durable, and whether there is a row.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn set_headers(&self, ino: Ino, headers: String) -> Result<bool, DbError> {
        let ino = i64::try_from(ino.0).unwrap_or(i64::MAX);
        let sql = "UPDATE staged SET headers = ?2 WHERE ino = ?1";
        self.0.write(move |conn| conn.prepare_cached(sql)?.execute(params![ino, headers]).map(|rows| rows > 0)).await
    }

    /// Adds write ids of commits whose outcome is not known to the row of an inode, if there is one. Answers once that is durable.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn add_attempts(&self, ino: Ino, attempts: Vec<String>) -> Result<(), DbError> {
        let ino = i64::try_from(ino.0).unwrap_or(i64::MAX);
        self.0
            .write(move |conn| {
                let sql = "SELECT attempts FROM staged WHERE ino = ?1";
                let known: Option<String> = conn.prepare_cached(sql)?.query_row([ino], |r| r.get(0)).optional()?;
                let Some(known) = known else { return Ok(()) };
                let mut all: Vec<&str> = known.split_whitespace().collect();
                all.extend(
                    attempts.iter().map(String::as_str).filter(|id| !known.split_whitespace().any(|k| k == *id)),
                );
                let sql = "UPDATE staged SET attempts = ?2 WHERE ino = ?1";
                conn.prepare_cached(sql)?.execute(params![ino, all.join(" ")]).map(|_| ())
            })
            .await
    }

    /// Takes the row of an inode away, because the bucket has its bytes.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn clear(&self, ino: Ino) -> Result<(), DbError> {
        self.0.write(move |conn| delete(conn, ino)).await
    }

    /// The same of a row that says nothing any more, and that nobody is waiting to see gone: a close that comes in a moment shares its
    /// sync.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn clear_patiently(&self, ino: Ino) -> Result<(), DbError> {
        self.0.write_patiently(move |conn| delete(conn, ino)).await
    }

    /// Inodes that have a row, those whose row is oldest first.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn inodes(&self) -> Result<Vec<Ino>, DbError> {
        let ino = |r: &Row<'_>| r.get(0).map(|ino: i64| Ino(u64::try_from(ino).unwrap_or(0)));
        let sql = "SELECT ino FROM staged ORDER BY recorded, ino";
        self.0.read(|conn| conn.prepare_cached(sql)?.query_map([], ino)?.collect())
    }

    /// The staging file of each row, and whether the row has all bytes itself.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn files(&self) -> Result<Vec<(String, bool)>, DbError> {
        let file = |r: &Row<'_>| Ok((r.get(0)?, r.get(1)?));
        let sql = "SELECT file, body IS NOT NULL FROM staged";
        self.0.read(|conn| conn.prepare_cached(sql)?.query_map([], file)?.collect())
    }

    /// The row of an inode, if it has one.
    ///
    /// # Errors
    /// What SQLite says, or a row that makes no sense.
    pub fn row(&self, ino: Ino) -> Result<Option<StagedRow>, DbError> {
        let ino = i64::try_from(ino.0).unwrap_or(i64::MAX);
        let sql =
            "SELECT ino, key, file, size, base_key, base_etag, base_mtime, base_size, base_len, dirty, local, headers,
                     attempts, recorded, body FROM staged WHERE ino = ?1";
        self.0.read(|conn| conn.prepare_cached(sql)?.query_row([ino], staged_row).optional())
    }

    /// Every row, oldest first.
    #[cfg(test)]
    pub fn rows(&self) -> Result<Vec<StagedRow>, DbError> {
        self.inodes()?.into_iter().filter_map(|ino| self.row(ino).transpose()).collect()
    }

    /// Remembers an upload that has begun, and answers once that is durable.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn record_upload(&self, key: &Key, id: &str, ino: Ino) -> Result<(), DbError> {
        let (key, id, ino) = (key.as_str().to_owned(), id.to_owned(), i64::try_from(ino.0).unwrap_or(i64::MAX));
        let sql = "INSERT OR REPLACE INTO upload(id, key, ino) VALUES (?1, ?2, ?3)";
        self.0.write(move |conn| conn.prepare_cached(sql)?.execute(params![id, key, ino]).map(|_| ())).await
    }

    /// An upload is complete or aborted.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn forget_upload(&self, id: &str) -> Result<(), DbError> {
        let id = id.to_owned();
        let sql = "DELETE FROM upload WHERE id = ?1";
        self.0.write(move |conn| conn.prepare_cached(sql)?.execute([id]).map(|_| ())).await
    }

    /// Key and id of every upload that has begun, and was neither completed nor aborted as far as is known.
    ///
    /// # Errors
    /// What SQLite says, or a row that makes no sense.
    pub fn uploads(&self) -> Result<Vec<(Key, String)>, DbError> {
        let row = |r: &Row<'_>| {
            let key: String = r.get(0)?;
            Ok((Key::parse(&key).map_err(|e| malformed(0, e))?, r.get(1)?))
        };
        self.0.read(|conn| conn.prepare_cached("SELECT key, id FROM upload")?.query_map([], row)?.collect())
    }

    /// Remembers a rename, and answers once that is durable.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn record_rename(&self, row: RenameRow) -> Result<(), DbError> {
        let sql = "INSERT OR REPLACE INTO rename(id, source, target, objects, phase) VALUES (?1, ?2, ?3, ?4, ?5)";
        // Serialising strings cannot fail.
        let objects = serde_json::to_string(&row.objects).unwrap_or_default();
        self.0
            .write(move |conn| {
                let values = params![row.id, row.source.as_str(), row.target.as_str(), objects, row.phase.to_sql()];
                conn.prepare_cached(sql)?.execute(values).map(|_| ())
            })
            .await
    }

    /// A rename has come farther.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn advance_rename(&self, id: &str, phase: RenamePhase) -> Result<(), DbError> {
        let id = id.to_owned();
        let sql = "UPDATE rename SET phase = ?2 WHERE id = ?1";
        self.0.write(move |conn| conn.prepare_cached(sql)?.execute(params![id, phase.to_sql()]).map(|_| ())).await
    }

    /// A rename has ended.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn forget_rename(&self, id: &str) -> Result<(), DbError> {
        let id = id.to_owned();
        let sql = "DELETE FROM rename WHERE id = ?1";
        self.0.write(move |conn| conn.prepare_cached(sql)?.execute([id]).map(|_| ())).await
    }

    /// Every rename that has begun and not ended.
    ///
    /// # Errors
    /// What SQLite says, or a row that makes no sense.
    pub fn renames(&self) -> Result<Vec<RenameRow>, DbError> {
        let key = |text: String, i: usize| Key::parse(&text).map_err(|e| malformed(i, e));
        let row = move |r: &Row<'_>| {
            let objects: String = r.get(3)?;
            Ok(RenameRow {
                id: r.get(0)?,
                source: key(r.get(1)?, 1)?,
                target: key(r.get(2)?, 2)?,
                objects: serde_json::from_str(&objects).map_err(|e| malformed(3, e))?,
                phase: RenamePhase::from_sql(r.get(4)?),
            })
        };
        let sql = "SELECT id, source, target, objects, phase FROM rename";
        self.0.read(|conn| conn.prepare_cached(sql)?.query_map([], row)?.collect())
    }

    /// Closes the file.
    pub fn close(&self) {
        self.0.close();
    }
}

fn delete(conn: &rusqlite::Connection, ino: Ino) -> rusqlite::Result<()> {
    let ino = i64::try_from(ino.0).unwrap_or(i64::MAX);
    conn.prepare_cached("DELETE FROM staged WHERE ino = ?1")?.execute([ino]).map(|_| ())
}

fn insert(conn: &rusqlite::Connection, row: &StagedRow) -> rusqlite::Result<()> {
    let int = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
    let base = row.base.as_ref();
    conn.prepare_cached(
        "INSERT OR REPLACE INTO staged(ino, key, file, size, base_key, base_etag, base_mtime, base_size, base_len, dirty,
             local, headers, attempts, recorded, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        int(row.ino.0),
        row.key.as_str(),
        row.file,
        int(row.size),
        base.map(|b| b.key.as_str()),
        base.map(|b| b.version.etag.as_str()),
        base.and_then(|b| b.version.last_modified).map(Timestamp::nanos),
        base.map(|b| int(b.version.size)),
        int(row.base_len),
        ranges_to_text(&row.dirty),
        ranges_to_text(&row.local),
        row.headers,
        row.attempts.join(" "),
        row.recorded.nanos(),
        row.body,
    ])?;
    Ok(())
}

fn staged_row(r: &Row<'_>) -> rusqlite::Result<StagedRow> {
    let int = |i: usize| r.get::<_, i64>(i).map(|v| u64::try_from(v).unwrap_or(0));
    let key = |i: usize| -> rusqlite::Result<Option<Key>> {
        let text: Option<String> = r.get(i)?;
        text.map(|k| Key::parse(&k).map_err(|e| malformed(i, e))).transpose()
    };
    let ranges = |i: usize| r.get::<_, String>(i).and_then(|t| text_to_ranges(&t).map_err(|e| malformed(i, e)));
    let etag: Option<String> = r.get(5)?;
    let base = match (key(4)?, etag) {
        (Some(key), Some(etag)) => {
            let last_modified = r.get::<_, Option<i64>>(6)?.map(Timestamp::from_nanos);
            let version = Version { etag: ETag::parse(&etag), last_modified, size: int(7)? };
            Some(ObjectRef { key, version })
        }
        _ => None,
    };
    Ok(StagedRow {
        ino: Ino(int(0)?),
        key: key(1)?.unwrap_or_else(Key::root),
        file: r.get(2)?,
        size: int(3)?,
        base,
        base_len: int(8)?,
        dirty: ranges(9)?,
        local: ranges(10)?,
        headers: r.get(11)?,
        attempts: r.get::<_, String>(12)?.split_whitespace().map(str::to_owned).collect(),
        recorded: Timestamp::from_nanos(r.get(13)?),
        body: r.get(14)?,
    })
}

fn malformed(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// `start-end,start-end`, ends exclusive.
fn ranges_to_text(ranges: &RangeSet) -> String {
    let each: Vec<String> = ranges.iter().map(|r| format!("{}-{}", r.start(), r.end())).collect();
    each.join(",")
}

fn text_to_ranges(text: &str) -> Result<RangeSet, std::num::ParseIntError> {
    let mut ranges = RangeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (start, end) = part.split_once('-').unwrap_or((part, ""));
        if let Some(range) = ByteRange::new(start.parse()?, end.parse()?) {
            ranges.insert(range);
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("j.db")).unwrap();
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 7 };
        let row = StagedRow {
            ino: Ino(5),
            key: Key::parse("a/b").unwrap(),
            file: "5".into(),
            size: 10,
            base: Some(ObjectRef { key: Key::parse("a/b").unwrap(), version }),
            base_len: 7,
            dirty: [ByteRange::new(0, 3).unwrap(), ByteRange::new(5, 10).unwrap()].into_iter().collect(),
            local: RangeSet::new(),
            headers: "{}".into(),
            attempts: vec!["x".into(), "y".into()],
            recorded: Timestamp::from_nanos(9),
            body: Some(b"0123456789".to_vec()),
        };
        journal.record(StagedRow { ino: Ino(4), ..row.clone() }, None).await.unwrap();
        journal.record(row.clone(), Some(Ino(4))).await.unwrap();
        drop(journal);
        let journal = Journal::open(&dir.path().join("j.db")).unwrap();
        assert_eq!(journal.rows().unwrap(), vec![row.clone()]);
        assert!(journal.set_headers(Ino(5), "{\"user\":{}}".into()).await.unwrap());
        assert!(!journal.set_headers(Ino(6), "{}".into()).await.unwrap());
        journal.add_attempts(Ino(5), vec!["z".to_owned(), "x".to_owned()]).await.unwrap();
        journal.add_attempts(Ino(6), vec!["z".to_owned()]).await.unwrap();
        let (headers, attempts) = ("{\"user\":{}}".into(), vec!["x".into(), "y".into(), "z".into()]);
        assert_eq!(journal.rows().unwrap(), vec![StagedRow { headers, attempts, ..row }]);
        journal.clear(Ino(5)).await.unwrap();
        let upload = (Key::parse("a/c").unwrap(), "id".to_owned());
        journal.record_upload(&upload.0, &upload.1, Ino(6)).await.unwrap();
        assert_eq!(journal.uploads().unwrap(), [upload]);
        journal.forget_upload("id").await.unwrap();
        let rename = RenameRow {
            id: "w".to_owned(),
            source: Key::parse("a/").unwrap(),
            target: Key::parse("b/").unwrap(),
            objects: vec![("a/x".to_owned(), "e".to_owned(), Some(5))],
            phase: RenamePhase::Copying,
        };
        journal.record_rename(rename.clone()).await.unwrap();
        journal.advance_rename("w", RenamePhase::Deleting).await.unwrap();
        assert_eq!(journal.renames().unwrap(), [RenameRow { phase: RenamePhase::Deleting, ..rename }]);
        journal.forget_rename("w").await.unwrap();
        assert_eq!(journal.renames().unwrap(), []);
        assert_eq!(journal.uploads().unwrap(), []);
        assert!(journal.rows().unwrap().is_empty());
    }
}
