//! Moving the write-ahead log into the database, beside the writer.
//!
//! Owns: the thread that does it, and when. SQLite would do it within a commit, and the writer would wait for the disk: half
//! a second after a few hundred thousand rows, in which nobody is answered.
//! Does not own: the writer (`mod`).

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// The log is moved when it is longer than this, in bytes; and cut to it when it starts again from its beginning.
pub(super) const LOG_LEN: u64 = 32 << 20;

/// A log that is longer than this is begun anew although the writer waits for that.
const LOG_LEN_MAX: u64 = 8 * LOG_LEN;
/// As long as no more frames than these, each of a page, are left to be moved: 8 MiB.
const LEFT_MAX: i64 = 1024;

/// Tells the thread that something was committed. Dropped, it ends.
pub(super) struct Checkpointer {
    committed: Option<mpsc::SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread for the database at `path`.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start(path: &Path) -> std::io::Result<Checkpointer> {
        // One word is enough: it means everything that was committed before it is read.
        let (sender, committed) = mpsc::sync_channel(1);
        let path = path.to_owned();
        let thread = thread::Builder::new().name("db-checkpoint".to_owned()).spawn(move || run(&path, &committed))?;
        Ok(Checkpointer { committed: Some(sender), thread: Some(thread) })
    }

    /// A transaction was committed.
    pub(super) fn committed(&self) {
        // Full: it will look in a moment anyway. Gone: the log grows until it is opened again.
        let _ = self.committed.as_ref().map(|sender| sender.try_send(()));
    }
}

impl Drop for Checkpointer {
    /// Waits for the thread: the connection that is closed last takes the log in, and that is to be the writer's.
    fn drop(&mut self) {
        self.committed = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn run(path: &Path, committed: &mpsc::Receiver<()>) {
    let log = log_of(path);
    let mut conn = None;
    while committed.recv().is_ok() {
        let len = || std::fs::metadata(&log).map_or(0, |log| log.len());
        if len() <= LOG_LEN {
            continue;
        }
        if conn.is_none() {
            conn = rusqlite::Connection::open(path).ok();
        }
        let Some(conn) = &conn else { continue };
        // PASSIVE waits for nobody, and nobody for it. Answers frames that the log has, and that were moved.
        let moved =
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| Ok((r.get::<_, i64>(1)?, r.get::<_, i64>(2)?)));
        match moved {
            // Somebody has written each time before all was moved, and the log goes on growing. What is left is little.
            Ok((all, moved)) if len() > LOG_LEN_MAX && all - moved <= LEFT_MAX => restart(conn),
            Ok(_) => {}
            Err(e) => {
                tracing::debug!(path = %path.display(), error = %e, "the log could not be moved into the database");
            }
        }
    }
}

/// The log begins anew, in the room that it has. Whoever writes waits for that.
pub(super) fn restart(conn: &rusqlite::Connection) {
    if let Err(e) = conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        tracing::debug!(path = conn.path(), error = %e, "the log could not be begun anew");
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
