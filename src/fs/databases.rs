//! The order in which the files of a SQLite database get into the bucket.
//!
//! Owns: which of a database and its log goes first, and that both are of moments that fit together.
//! Does not own: recognising them, and their transactions (`sqlite`); the commits (`commit`), when they are due (`background`).
//!
//! Whoever opens a database takes all that its log has up to the last commit, whatever the database has
//! (<https://www.sqlite.org/fileformat2.html>, section 4). So a log must not be older than its database. SQLite only appends to it, and
//! begins it anew, with another header, once the database has all of it: such a log must not be newer than its database. A database
//! without a log is whole, be it that it is of an earlier moment.

use super::sqlite::{Group, Role};
use super::{Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::types::{Ino, Name};
use crate::write::{CommitError, Moment, Span, Staged};
use std::sync::Arc;
use std::time::Duration;

/// How long the removal of a log or journal waits for the database that needs it no more.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// After so many milliseconds it is looked whether a transaction has ended, one pause after the other.
const TRANSACTION_PAUSES_MS: [u64; 6] = [5, 10, 25, 50, 100, 200];

/// What is known of a database and its log when they are to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The bucket lacks something of the database.
    database: bool,
    /// It lacks something of the log.
    log: bool,
    /// It has a log.
    is_log_there: bool,
    /// The log was begun anew since.
    is_anew: bool,
}

/// A step on the way into the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The log that is in the bucket goes.
    TakeOut,
    /// The database is committed.
    Database,
    /// The log is.
    Log,
}

/// A file, and the moment that its commit has to be of.
#[derive(Debug)]
struct File {
    moment: Moment,
    staged: Arc<Staged>,
}

impl File {
    fn ino(&self) -> Ino {
        self.staged.ino()
    }

    fn is_owed(&self) -> bool {
        self.staged.is_owed()
    }

    /// Whether the bucket has a version of it, be it one whose answer was lost.
    fn is_perhaps_there(&self) -> bool {
        self.staged.content().base().is_some() || self.staged.has_attempts()
    }
}

/// The order in which a database and its log are committed. Pure.
fn steps(known: Known) -> &'static [Step] {
    use Step::{Database, Log, TakeOut};
    match known {
        Known { database: false, log: false, .. } => &[],
        Known { log: false, .. } => &[Database],
        // If it was begun anew, the bucket's database has all of the one before.
        Known { database: false, .. } => &[Log],
        Known { is_log_there: false, .. } => &[Database, Log],
        Known { is_anew: false, .. } => &[Log, Database],
        _ => &[TakeOut, Database, Log],
    }
}

pub(super) fn is_disturbed(error: &FsError) -> bool {
    match error {
        FsError::Commit(CommitError::Disturbed) => true,
        // The upload of its conflict copy was.
        FsError::ConflictUnresolved(e) => is_disturbed(e),
        _ => false,
    }
}

impl Fs {
    /// Commits a file, or the database that it belongs to, unless that is in the midst of a transaction: then at the earliest after
    /// `delay`.
    pub(super) async fn commit_whole(self: &Arc<Self>, ino: Ino, delay: Duration) -> Result<()> {
        let (Some(row), Some(staged)) = (self.meta.get(ino)?, self.writer.get(ino)) else {
            return self.commit(ino).await;
        };
        if self.role_of(&staged, &row)? == Role::None {
            return self.commit(ino).await;
        }
        // Who unmounts, or waits for it, gets what there is.
        let is_hurried = staged.is_asked_for();
        if !is_hurried && !self.is_soon_idle(&row).await? {
            tracing::debug!(path = %self.path_of(ino), "is in the midst of a transaction: its upload waits");
            let later = self.meta.now().plus(delay.max(self.settings.writes.database_delay()));
            self.queue().postpone(ino, later);
            return Ok(());
        }
        match self.commit_database(&row, is_hurried).await {
            Err(e) if is_disturbed(&e) => {
                tracing::info!(path = %self.path_of(ino), "the database is being written to: it is uploaded later");
                return Ok(());
            }
            done => done?,
        }
        let Some(group) = self.group_of(&row)? else { return self.commit(ino).await };
        let known = [Some(&group.database), group.wal.as_ref()];
        // Renamed in this moment, if it is none of them.
        let is_done = known.into_iter().flatten().any(|file| file.ino == ino);
        let rest = [group.journal.as_ref(), group.shm.as_ref()].into_iter().flatten().map(|file| file.ino);
        let rest: Vec<Ino> = rest.filter(|file| *file != ino).chain((!is_done).then_some(ino)).collect();
        for file in rest {
            self.commit(file).await?;
        }
        Ok(())
    }

    /// Whether nobody is in the midst of a transaction now, or in a moment. A commit becomes due while one is being synced, more often
    /// than not; of a program that goes from one to the next no other moment would ever be seen.
    async fn is_soon_idle(&self, row: &InodeRow) -> Result<bool> {
        for pause in TRANSACTION_PAUSES_MS {
            if !self.is_in_transaction(row)? {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(!self.is_in_transaction(row)?)
    }

    /// Commits a database and its log, either of which may be given by `row`, in the order in which the bucket has a database that is
    /// whole at each moment. Unless it `is_hurried`, not in the midst of a transaction.
    ///
    /// # Errors
    /// [`CommitError::Disturbed`] if somebody goes on writing to it: both are committed later.
    pub(super) async fn commit_database(self: &Arc<Self>, row: &InodeRow, is_hurried: bool) -> Result<()> {
        let Some(group) = self.group_of(row)? else { return self.commit(row.ino).await };
        // Whoever has this claim may ask for those of a commit, and nobody does the opposite.
        let _turn = self.databases.claim(vec![Span::Key(self.key(&group.database)?)]).await;
        // The log may have come or gone while we waited.
        match self.group_of(row)? {
            Some(group) => self.commit_pair(&group, is_hurried).await,
            None => self.commit(row.ino).await,
        }
    }

    async fn commit_pair(self: &Arc<Self>, group: &Group, is_hurried: bool) -> Result<()> {
        // In this order: nobody was about to write to the database at its moment, and what the log is was found after that.
        let database = self.writer.get(group.database.ino).map(|staged| File { moment: staged.moment(), staged });
        let is_busy = !is_hurried && self.is_in_transaction(&group.database)?;
        let log = group.wal.as_ref().and_then(|row| self.writer.get(row.ino));
        let log = log.map(|staged| File { moment: staged.head_moment(), staged });
        let owed: Vec<Ino> = [&database, &log].into_iter().flatten().filter(|f| f.is_owed()).map(File::ino).collect();
        if is_busy {
            let disturbed = FsError::from(CommitError::Disturbed);
            self.put_off(&owed, &disturbed).await;
            return Err(disturbed);
        }
        let known = Known {
            database: database.as_ref().is_some_and(File::is_owed),
            log: log.as_ref().is_some_and(File::is_owed),
            is_log_there: log.as_ref().is_some_and(File::is_perhaps_there),
            is_anew: log.as_ref().is_some_and(|log| log.staged.has_new_head()),
        };
        for step in steps(known) {
            let file = if *step == Step::Database { database.as_ref() } else { log.as_ref() };
            let Some(file) = file else { continue };
            let is_fitting = *step != Step::Log || self.is_as_it_was(group.database.ino, database.as_ref());
            let done: Result<()> = match step {
                _ if !is_fitting => Err(CommitError::Disturbed.into()),
                Step::TakeOut => self.take_out(&file.staged, database.as_ref()).await,
                Step::Database | Step::Log => {
                    let _bound = file.staged.bind(file.moment);
                    self.commit(file.ino()).await
                }
            };
            if let Err(e) = done {
                // A commit that failed has told the queue of its own file.
                let is_told = is_fitting && *step != Step::TakeOut;
                let others: Vec<Ino> = owed.into_iter().filter(|ino| !is_told || *ino != file.ino()).collect();
                self.put_off(&others, &e).await;
                return Err(e);
            }
        }
        // Of the others there is nothing to be committed.
        let now = self.meta.now();
        for row in [Some(&group.database), group.wal.as_ref()].into_iter().flatten() {
            if !owed.contains(&row.ino) {
                self.queue().on_done(row.ino, now);
            }
        }
        Ok(())
    }

    /// The journal or log of a database is about to go. The bucket's database is whole together with it only: so the one that is whole
    /// without it goes there first, and before that all that takes it back.
    pub(super) async fn settle_database_of(self: &Arc<Self>, parent: Ino, name: &Name) {
        // The program has come to the end of its transaction, whatever becomes of that, and the directory is locked meanwhile. What is not
        // done by then is given up: the program may begin another one.
        let settled = tokio::time::timeout(SETTLE_MAX, self.settle_database(parent, name)).await;
        if !matches!(settled, Ok(Ok(()))) {
            tracing::warn!(file = %name, ?settled, "is removed before the bucket has the database that needs it no more");
        }
    }

    async fn settle_database(self: &Arc<Self>, parent: Ino, log: &Name) -> Result<()> {
        let Some(row) = self.meta.child(parent, log)?.filter(|row| row.version.is_some()) else { return Ok(()) };
        let Some(group) = self.group_of(&row)? else { return Ok(()) };
        let is_this = |file: &Option<InodeRow>| file.as_ref().is_some_and(|file| file.ino == row.ino);
        let Some(database) = self.writer.get(group.database.ino).filter(|database| database.is_owed()) else {
            return Ok(());
        };
        if self.role_of(&database, &group.database)? != Role::Database {
            return Ok(());
        }
        if is_this(&group.journal) {
            self.commit(row.ino).await?;
        } else if !is_this(&group.wal) {
            return Ok(());
        }
        self.commit_database(&group.database, true).await
    }

    /// Whether a database has the bytes that it had `then`: if it was not staged, whether nothing was written to it since.
    fn is_as_it_was(&self, database: Ino, then: Option<&File>) -> bool {
        match (self.writer.get(database), then) {
            (None, _) => true,
            (Some(now), Some(then)) if Arc::ptr_eq(&now, &then.staged) => now.is_of(then.moment),
            (Some(now), _) => !now.is_changed(),
        }
    }

    /// These files wait with another one of their database, which could not be committed. Whoever closes one of them hears of that, and
    /// finds it in the journal.
    async fn put_off(self: &Arc<Self>, files: &[Ino], error: &FsError) {
        for ino in files.iter().copied() {
            let is_owed = self.writer.get(ino).is_some_and(|staged| staged.is_owed());
            if !is_owed {
                continue;
            }
            if is_disturbed(error) {
                self.queue_commit_after(ino, self.settings.writes.database_delay());
                continue;
            }
            if let Err(unsafe_now) = self.journal_if_changed(ino).await {
                tracing::error!(inode = %ino, error = %unsafe_now, "what waits for its database could not be journaled");
            }
            let (now, jitter) = (self.meta.now(), fastrand::f64());
            self.queue().on_failed(ino, now, error.to_string(), error.prospect(), jitter);
            self.queue_changed.notify_one();
        }
    }

    /// The log was begun anew, and the bucket's is of no use to the database that comes: it goes. From then on the log is a file that
    /// the bucket does not have.
    async fn take_out(self: &Arc<Self>, log: &Arc<Staged>, database: Option<&File>) -> Result<()> {
        // A crash after the log is gone must find what takes its place, be it that nobody has synced that.
        if let Some(database) = database {
            self.keep_whole(&database.staged).await?;
        }
        match self.keep_whole(log).await {
            // The commit finds out what that means.
            Err(FsError::Commit(CommitError::BaseLost)) => return self.commit(log.ino()).await,
            kept => kept?,
        }
        let (row, key, _claim) = match self.claim_inode(log.ino()).await {
            // It was removed meanwhile, and from the bucket as well.
            Err(FsError::Stale) => return Ok(()),
            claimed => claimed?,
        };
        self.learn_attr(row.ino, &key).await?;
        let content = log.content();
        if !content.missing().is_empty() {
            // Committed or renamed meanwhile.
            return Err(CommitError::Disturbed.into());
        }
        let base = content.base().filter(|base| base.key == key).map(|base| base.version.clone());
        let there = InodeRow { version: base, ..self.row(row.ino)? };
        self.writer.keep_copies_of(&key).await?;
        match self.delete_object(&there, &key).await {
            // Somebody else wrote there: the log's commit meets that.
            Err(FsError::Stale) => return Ok(()),
            deleted => deleted?,
        }
        tracing::debug!(%key, "the log was begun anew: the one before is out of the bucket");
        log.rebase_on_nothing();
        self.handles.of(row.ino).iter().for_each(|handle| handle.set_object(None));
        let gone = |row: &mut InodeRow| {
            row.version = None;
            row.headers = None;
        };
        self.meta.change(row.ino, gone).await?;
        self.journal_anew(log, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a database with the first so many commits is whole beside a log that has those behind `from`, up to `to`: what is in the
    /// log counts, so nothing between the two may be missing, and nothing of the log be older.
    fn is_whole(database: u32, log: Option<(u32, u32)>) -> bool {
        log.is_none_or(|(from, to)| from <= database && database <= to)
    }

    #[test]
    fn the_bucket_has_a_whole_database_after_each_step() {
        let cases = [
            // Database and log in the bucket, and here.
            ((2, Some((2, 4))), (5, Some((2, 6)))),
            ((2, Some((2, 4))), (2, Some((2, 6)))),
            ((2, Some((2, 4))), (4, Some((2, 4)))),
            ((2, Some((2, 4))), (5, Some((5, 6)))),
            ((4, Some((2, 4))), (4, Some((4, 6)))),
            ((2, None), (5, Some((5, 6)))),
            ((2, None), (2, Some((2, 3)))),
            ((2, None), (3, None)),
        ];
        for (before, after) in cases {
            let known = Known {
                database: before.0 != after.0,
                log: before.1 != after.1,
                is_log_there: before.1.is_some(),
                is_anew: before.1.map(|log| log.0) != after.1.map(|log| log.0),
            };
            let mut bucket = before;
            for step in steps(known) {
                match step {
                    Step::TakeOut => bucket.1 = None,
                    Step::Database => bucket.0 = after.0,
                    Step::Log => bucket.1 = after.1,
                }
                assert!(is_whole(bucket.0, bucket.1), "{step:?} of {before:?} to {after:?}");
            }
            assert_eq!(bucket, after);
        }
    }

    #[test]
    fn each_case_has_its_steps() {
        use Step::{Database, Log, TakeOut};
        for bits in 0..16u8 {
            let bit = |at: u8| bits >> at & 1 == 1;
            let known = Known { database: bit(0), log: bit(1), is_log_there: bit(2), is_anew: bit(3) };
            let expected: &[Step] = match (known.database, known.log, known.is_log_there, known.is_anew) {
                (false, false, _, _) => &[],
                (true, false, _, _) => &[Database],
                (false, true, _, _) => &[Log],
                (true, true, false, _) => &[Database, Log],
                (true, true, true, false) => &[Log, Database],
                (true, true, true, true) => &[TakeOut, Database, Log],
            };
            assert_eq!(steps(known), expected, "{known:?}");
        }
    }
}
