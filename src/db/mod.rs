//! SQLite: one writer thread with group commit, a pool of read-only connections, WAL, schema migrations.
//!
//! Owns: connections, transactions, the two schemas (`catalogue`, `journal`) and the rows of their tables. The only
//! importer of `rusqlite`.
//! Does not own: what rows mean (`meta` for the catalogue, `write` for the journal).
//!
//! Invariants: all writes of a database go through its one writing connection, in the order in which they were sent; a write is
//! answered after its transaction is committed, so whoever awaited it reads it back. The connection belongs to the writer
//! thread, but for small writes that come while nothing is sent: those are carried out at once by whoever has them.

use checkpoint::{Checkpointer, LOG_LEN};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

mod checkpoint;
mod children;
mod damage;
mod inodes;
mod journal;
mod listings;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod updates;

pub use children::Child;
pub use damage::set_aside;
pub use inodes::{Catalogue, InodeRow, Known, Marker, RowResult, Rows};
pub use journal::{Journal, RenamePhase, RenameRow, StagedRow};
pub use listings::FileVersion;
pub use schema::Schema;

/// Writes that one transaction takes at most: bounds how long a reader of the answer waits for others.
const GROUP_COMMIT_MAX: usize = 500;
/// How long a write that nobody is waiting for waits for others.
const PATIENCE: Duration = Duration::from_millis(4);
/// How often the checkpointer looks at most.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);
/// Idle read connections that are kept. More are opened when more readers come at once, and closed afterwards.
const IDLE_READERS_MAX: usize = 8;

/// Why a database could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// SQLite refused: a constraint that did not hold, an I/O error.
    #[error("{path}: {message}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// SQLite's own words.
        message: String,
    },
    /// There is no room on the disk.
    #[error("{path}: the disk is full")]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The file is no database, or not a whole one.
    #[error("{path} is damaged: {message}")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The file was written by a newer objfs.
    #[error("{path} has schema version {found}, and this objfs knows versions up to {known}: use a newer objfs")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that we know.
        known: u32,
    },
    /// The writer thread has ended, because the database is closed or an earlier commit failed.
    #[error("{0} is closed")]
    Closed(PathBuf),
}

/// How much a committed transaction survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process, but perhaps not a power cut (`synchronous=NORMAL`): what can be had from the bucket again.
    Crash,
    /// A power cut as well (`synchronous=FULL`): what is owed to the bucket.
    PowerLoss,
}

type Answer = Box<dyn FnOnce(Result<(), DbError>) + Send>;
type Job = Box<dyn FnOnce(&rusqlite::Connection) -> Answer + Send>;

/// A job on its way to the writer thread.
struct Sent {
    job: Job,
    /// Nobody is waiting who would notice.
    may_wait: bool,
}

/// The writing connection, and what is known of its log.
struct Writing {
    /// Ends before the connection, which is to be the last.
    checkpointer: Checkpointer,
    conn: rusqlite::Connection,
    /// When the checkpointer was told last: waking it for each transaction takes longer than a small one.
    told_at: Instant,
    /// Something was committed since.
    owes: bool,
}

impl Writing {
    /// A transaction was committed.
    fn on_committed(&mut self) {
        self.owes = true;
        if self.told_at.elapsed() >= CHECKPOINT_PAUSE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.checkpointer.committed();
        (self.told_at, self.owes) = (Instant::now(), false);
    }
}

/// What writers share with the writer thread.
struct Shared {
    /// `None` once the database is closed.
    writing: Mutex<Option<Writing>>,
    /// Jobs that were sent and are not answered yet.
    sent: AtomicUsize,
}

/// An open database.
pub struct Db {
    path: PathBuf,
    durability: Durability,
    shared: Arc<Shared>,
    writer: Mutex<Option<mpsc::Sender<Sent>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    readers: Mutex<Vec<rusqlite::Connection>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens or creates the database at `path`, brings its schema up to date, and starts its writer thread.
    ///
    /// # Errors
    /// [`DbError::Newer`] if a newer objfs wrote it, [`DbError::Damaged`] if it is not whole or was found damaged by an
    /// earlier process, else what SQLite says. The file is left as it is.
    pub fn open(path: &Path, schema: &Schema, durability: Durability) -> Result<Db, DbError> {
        let fail = |e: rusqlite::Error| sqlite_error(path, &e);
        damage::check(path)?;
        let mut conn = rusqlite::Connection::open(path).map_err(fail)?;
        configure(&conn, durability).map_err(fail)?;
        schema.migrate(&mut conn, path)?;
        let no_thread =
            |e: std::io::Error| DbError::Sqlite { path: path.to_owned(), message: format!("no thread: {e}") };
        let checkpointer = Checkpointer::start(path).map_err(no_thread)?;
        let (sender, jobs) = mpsc::channel::<Sent>();
        let writing = Writing { conn, checkpointer, told_at: Instant::now(), owes: false };
        let shared = Arc::new(Shared { writing: Mutex::new(Some(writing)), sent: AtomicUsize::new(0) });
        let (owned, its) = (path.to_owned(), Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name(format!("db-{}", schema.name))
            .spawn(move || run_writer(&its, &owned, &jobs))
            .map_err(no_thread)?;
        Ok(Db {
            path: path.to_owned(),
            durability,
            shared,
            writer: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// Runs `job` in the next transaction of the writer thread, and answers once that is committed. A job that fails is
    /// rolled back alone.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DbError> {
        self.write_within(job, false).await
    }

    /// The same for a job that nobody is waiting for. For a moment it waits for others, so that one commit serves all of them.
    pub(crate) async fn write_patiently<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DbError> {
        self.write_within(job, true).await
    }

    async fn write_within<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
        may_wait: bool,
    ) -> Result<T, DbError> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.send(job, move |result| drop(tx.send(result)), may_wait)?;
        rx.await.map_err(|_| DbError::Closed(self.path.clone()))?
    }

    /// The same for a job of a few rows. If nothing else is being written, it is carried out at once, on the calling thread: that
    /// takes less time than to wake the writer's. Not where a commit waits for the disk.
    pub(crate) async fn write_small<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DbError> {
        let job = match self.write_now(job) {
            Ok(result) => return result,
            Err(job) => job,
        };
        self.write(job).await
    }

    /// Carries out a job at once, or gives it back.
    fn write_now<T, J: FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>>(
        &self,
        job: J,
    ) -> Result<Result<T, DbError>, J> {
        if self.durability == Durability::PowerLoss || self.shared.sent.load(Ordering::SeqCst) > 0 {
            return Err(job);
        }
        let Ok(mut writing) = self.shared.writing.try_lock() else { return Err(job) };
        let Some(writing) = writing.as_mut() else { return Err(job) };
        let conn = &writing.conn;
        let done = conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).and_then(|_| {
            let result = job(conn).and_then(|value| conn.prepare_cached("COMMIT")?.execute([]).map(|_| value));
            if result.is_err() && conn.execute_batch("ROLLBACK").is_err() {
                tracing::debug!("nothing to roll back");
            }
            result
        });
        writing.on_committed();
        Ok(done.map_err(|e| sqlite_error(&self.path, &e)))
    }

    fn send<T: Send + 'static>(
        &self,
        job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
        done: impl FnOnce(Result<T, DbError>) + Send + 'static,
        may_wait: bool,
    ) -> Result<(), DbError> {
        let path = self.path.clone();
        let job: Job = Box::new(move |conn| {
            let result = in_savepoint(conn, job).map_err(|e| sqlite_error(&path, &e));
            Box::new(move |commit| done(commit.and(result)))
        });
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || DbError::Closed(self.path.clone());
        let writer = writer.as_ref().ok_or_else(closed)?;
        // Before it is sent: what is written at once from now on would come before it.
        self.shared.sent.fetch_add(1, Ordering::SeqCst);
        writer.send(Sent { job, may_wait }).map_err(|_| closed())
    }

    /// Runs `query` on a read-only connection, on the calling thread: microseconds, as measured.
    pub(crate) fn read<T>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => open_reader(&self.path).map_err(|e| sqlite_error(&self.path, &e))?,
        };
        let result = query(&conn).map_err(|e| sqlite_error(&self.path, &e));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(conn);
        }
        result
    }

    /// Commits what was sent, ends the writer thread and closes all connections. Later calls answer [`DbError::Closed`].
    pub fn close(&self) {
        // Readers first: the last connection takes the WAL into the database, and a read-only one cannot.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the database's writer thread panicked");
        }
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.close();
    }
}

/// Settings of the writing connection. Measured: 8 KiB pages and WAL carry 689k inserts/s; mmap stays off and the cache
/// small, because memory must not grow with the bucket.
fn configure(conn: &rusqlite::Connection, durability: Durability) -> rusqlite::Result<()> {
    let synchronous = match durability {
        Durability::Crash => "NORMAL",
        Durability::PowerLoss => "FULL",
    };
    conn.execute_batch(&format!(
        "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA temp_store=MEMORY;
         PRAGMA cache_size=-16384; PRAGMA mmap_size=0; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit={LOG_LEN}; PRAGMA busy_timeout=10000;"
    ))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn open_reader(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    use rusqlite::OpenFlags;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = rusqlite::Connection::open_with_flags(path, flags)?;
    conn.execute_batch("PRAGMA cache_size=-2048; PRAGMA mmap_size=0; PRAGMA busy_timeout=10000;")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

fn in_savepoint<T>(
    conn: &rusqlite::Connection,
    job: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    conn.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = job(conn);
    if result.is_err() {
        conn.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    conn.prepare_cached("RELEASE job")?.execute([])?;
    result
}

/// The writer thread: takes what has been sent, up to [`GROUP_COMMIT_MAX`] jobs, into one transaction, and answers them
/// all after the commit.
fn run_writer(shared: &Shared, path: &Path, jobs: &mpsc::Receiver<Sent>) {
    // Whoever panicked with the connection has left a transaction open: nothing more is written.
    let writing = || shared.writing.lock().ok();
    let mut owes = false;
    loop {
        let next = if owes { jobs.recv_timeout(CHECKPOINT_PAUSE) } else { jobs.recv().map_err(Into::into) };
        let next = next.map(|first| gather(first, jobs));
        let Some(mut writing) = writing() else { return };
        let Some(open) = writing.as_mut() else { return };
        match next {
            Ok(group) => {
                let (answers, committed) = write_group(&open.conn, path, group, jobs);
                open.on_committed();
                owes = open.owes;
                // Whoever is answered may write at once.
                drop(writing);
                shared.sent.fetch_sub(answers.len(), Ordering::SeqCst);
                answers.into_iter().for_each(|answer| answer(committed.clone()));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                open.tell();
                owes = false;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                *writing = None;
                return;
            }
        }
    }
}

/// A job, and those that come before one that does not wait; not for longer than [`PATIENCE`].
fn gather(first: Sent, jobs: &mpsc::Receiver<Sent>) -> Vec<Job> {
    let until = Instant::now() + PATIENCE;
    let (mut may_wait, mut group) = (first.may_wait, vec![first.job]);
    while may_wait
        && group.len() < GROUP_COMMIT_MAX
        && let Ok(next) = jobs.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        may_wait = next.may_wait;
        group.push(next.job);
    }
    group
}

/// One transaction of the writer thread. Answers who waits for it, and how it ended.
fn write_group(
    conn: &rusqlite::Connection,
    path: &Path,
    group: Vec<Job>,
    jobs: &mpsc::Receiver<Sent>,
) -> (Vec<Answer>, Result<(), DbError>) {
    let begun = conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
    let (is_begun, mut is_rolled_back) = (begun.is_ok(), false);
    let mut carry_out = |job: Job| {
        let answer = job(conn);
        // A statement that finds the disk full may take back the whole transaction, and what others have written in it. Those that
        // follow write nothing either.
        if is_begun && conn.is_autocommit() {
            is_rolled_back = true;
            if let Err(error) = conn.execute_batch("BEGIN IMMEDIATE") {
                tracing::debug!(%error, "after a transaction that was taken back");
            }
        }
        answer
    };
    let mut answers: Vec<Answer> = group.into_iter().map(&mut carry_out).collect();
    if let Err(e) = begun {
        return (answers, Err(sqlite_error(path, &e)));
    }
    while answers.len() < GROUP_COMMIT_MAX
        && let Ok(next) = jobs.try_recv()
    {
        answers.push(carry_out(next.job));
    }
    let commit = if is_rolled_back {
        Err(DbError::Full { path: path.to_owned() })
    } else {
        let commit = conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        commit.map(drop).map_err(|e| sqlite_error(path, &e))
    };
    if let Err(e) = &commit {
        tracing::error!(error = %e, "a transaction could not be committed");
        if conn.execute_batch("ROLLBACK").is_err() {
            tracing::debug!("nothing to roll back");
        }
        if matches!(e, DbError::Full { .. }) {
            // So what is cleared can be written: it takes the place of what the log has.
            checkpoint::restart(conn);
        }
    }
    (answers, commit)
}

fn sqlite_error(path: &Path, error: &rusqlite::Error) -> DbError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    let (path, message) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(DiskFull) => DbError::Full { path },
        Some(DatabaseCorrupt | NotADatabase) => {
            damage::note(&path, &message);
            DbError::Damaged { path, message }
        }
        _ => DbError::Sqlite { path, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(conn: &rusqlite::Connection) -> rusqlite::Result<i64> {
        conn.query_row("SELECT count(*) FROM kv", [], |r| r.get(0))
    }

    #[tokio::test]
    async fn a_failed_job_is_rolled_back_alone() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("c.db"), &Schema::CATALOGUE, Durability::Crash).unwrap();
        let insert = |key: &'static str| {
            move |c: &rusqlite::Connection| c.execute("INSERT INTO kv VALUES(?1, 'v')", [key]).map(|_| ())
        };
        let bad = db.write(move |c| {
            insert("b")(c)?;
            c.execute("INSERT INTO no_such_table VALUES(1)", []).map(|_| ())
        });
        let (a, b, c) = tokio::join!(db.write(insert("a")), bad, db.write(insert("c")));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        assert_eq!(db.read(rows).unwrap(), 2);
    }

    /// As SQLite itself does it when a statement finds the disk full while it spills its cache.
    #[tokio::test]
    async fn who_shares_a_transaction_that_was_taken_back_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("c.db"), &Schema::CATALOGUE, Durability::Crash).unwrap();
        let insert = |c: &rusqlite::Connection| c.execute("INSERT INTO kv VALUES('a', 'v')", []).map(drop);
        let take_back = |c: &rusqlite::Connection| c.execute_batch("ROLLBACK; INSERT INTO no_such_table VALUES(1)");
        let (shares, breaks) = tokio::join!(db.write_patiently(insert), db.write(take_back));
        assert!(shares.is_err() && breaks.is_err());
        assert_eq!(db.read(rows).unwrap(), 0);
        db.write(insert).await.unwrap();
        assert_eq!(db.read(rows).unwrap(), 1);
    }

    #[test]
    fn who_may_wait_is_committed_with_the_next_one_who_may_not() {
        let (sender, jobs) = mpsc::channel();
        let send = |may_wait: bool| {
            let job: Job = Box::new(|_| Box::new(drop));
            sender.send(Sent { job, may_wait }).unwrap();
        };
        [true, true, false, false, true].into_iter().for_each(send);
        let next = || gather(jobs.recv().unwrap(), &jobs).len();
        assert_eq!((next(), next()), (3, 1));
        let since = Instant::now();
        assert_eq!(next(), 1, "nobody else has come");
        assert!(since.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn who_waits_for_others_is_written_when_the_database_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.db");
        let open = || Db::open(&path, &Schema::CATALOGUE, Durability::PowerLoss).unwrap();
        let db = open();
        let insert = |c: &rusqlite::Connection| c.execute("INSERT INTO kv VALUES('k', 'v')", []).map(drop);
        let mut waits = Box::pin(db.write_patiently(insert));
        assert!(futures::poll!(&mut waits).is_pending());
        db.close();
        waits.await.unwrap();
        assert_eq!(open().read(rows).unwrap(), 1);
    }

    #[tokio::test]
    async fn small_writes_keep_their_place_among_those_that_were_sent() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("c.db"), &Schema::CATALOGUE, Durability::Crash).unwrap();
        let set = |value: usize| {
            move |c: &rusqlite::Connection| {
                let before: Option<String> = c.query_row("SELECT max(value) FROM kv", [], |r| r.get(0))?;
                c.execute("INSERT OR REPLACE INTO kv VALUES('k', ?1)", [format!("{value:04}")])?;
                Ok(before)
            }
        };
        for value in (0..600).step_by(3) {
            let before = if value == 0 { None } else { Some(format!("{:04}", value - 1)) };
            assert_eq!(db.write_small(set(value)).await.unwrap(), before, "at once");
            let mut sent = Box::pin(db.write(set(value + 1)));
            // Sent, and nobody waits for it yet.
            let _ = futures::poll!(&mut sent);
            assert_eq!(db.write_small(set(value + 2)).await.unwrap(), Some(format!("{:04}", value + 1)));
        }
        assert!(db.write_small(|c| c.execute("INSERT INTO no_such_table VALUES(1)", []).map(|_| ())).await.is_err());
        assert_eq!(db.write_small(set(1000)).await.unwrap(), Some("0599".to_owned()), "the failed one is rolled back");
        db.close();
        assert!(matches!(db.write_small(set(1001)).await, Err(DbError::Closed(_))));
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.db");
        drop(Db::open(&path, &Schema::CATALOGUE, Durability::Crash).unwrap());
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
        let err = Db::open(&path, &Schema::CATALOGUE, Durability::Crash).unwrap_err();
        assert!(matches!(err, DbError::Newer { found: 999, .. }), "{err}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.db");
        let junk = "not a database, but somebody's notes, long enough to be read as a header ".repeat(40);
        std::fs::write(&path, &junk).unwrap();
        assert!(Db::open(&path, &Schema::CATALOGUE, Durability::Crash).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), junk);
    }
}
