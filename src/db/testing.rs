//! Databases that refuse to be written to, for tests.
//!
//! Owns: refusing one kind of change, as if the disk were full. Does not own: which, and what follows (`fs::tests`).

use std::path::Path;

/// As long as it lives, or until the database is opened without it.
#[derive(Debug)]
pub(crate) struct Refusal(rusqlite::Connection);

impl Refusal {
    /// The database at `path` refuses `event`, such as `DELETE ON staged`.
    pub(crate) fn begin(path: &Path, event: &str) -> rusqlite::Result<Refusal> {
        let conn = rusqlite::Connection::open(path)?;
        let trigger = format!("CREATE TRIGGER refusal BEFORE {event} BEGIN SELECT RAISE(ABORT, 'refused'); END");
        conn.execute_batch(&trigger)?;
        Ok(Refusal(conn))
    }

    pub(crate) fn end(self) -> rusqlite::Result<()> {
        self.0.execute_batch("DROP TRIGGER refusal")
    }
}
