//! What happens without anybody waiting: due commits, owed markers, draining at the end.
//!
//! Owns: the background loop, what is pending. Does not own: when a commit is due again (`write::queue`), what an earlier daemon
//! left (`recover`, `resume`).

use super::begin::to_the_end;
use super::databases::is_disturbed;
use super::orphans::ORPHAN_PAUSE;
use super::{Fs, FsError, Result};
use crate::meta::Marker;
use crate::store::Condition;
use crate::types::Ino;
use crate::write::{Asked, Span, Staged, unattended};
use futures::StreamExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long an emptied directory waits for its marker: `rm -r` removes it within that, and no request is made.
const MARKER_DELAY: Duration = Duration::from_secs(2);
/// How long a marker waits that could not be written.
const MARKER_PAUSE: Duration = Duration::from_secs(30);
/// How long a rename waits that an earlier mount left, or that failed, after it could not be ended.
const RENAME_PAUSE: Duration = Duration::from_secs(30);
/// As long as that it doubles.
const RENAME_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// When a file is looked at again that somebody writes to. Its close comes earlier, as a rule.
const WRITTEN_PAUSE: Duration = Duration::from_secs(1);
/// When a file is looked at again of which nobody has said what becomes of it.
const ENDED_PAUSE: Duration = Duration::from_secs(2);
/// How often the background looks for what fell due by itself.
const PERIOD: Duration = Duration::from_millis(500);
/// What timers can tell.
const TICK: Duration = Duration::from_millis(1);
/// Markers that are written in the background at once.
const MARKERS_IN_FLIGHT: usize = 8;
/// What somebody may wait for, at most: clocks have an end.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the bucket does not have yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Files that are staged and changed.
    pub files: usize,
    /// Directories whose marker is owed.
    pub markers: usize,
    /// Files whose commit failed: path, reason, and whether it is tried again by itself.
    pub failed: Vec<(String, String, bool)>,
    /// Conflicts since the mount.
    pub conflicts: u64,
    /// Open handles.
    pub handles: usize,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// The bucket has everything.
    Clean,
    /// These could not be committed, and wait in the journal for the next mount.
    Left(Pending),
}

impl Fs {
    /// Inodes of which the bucket lacks something that this mount is to send. A read-only one sends nothing.
    pub(super) fn owed(&self) -> Vec<Ino> {
        if self.settings.read_only { Vec::new() } else { self.writer.owed() }
    }

    /// The file is committed as soon as the background gets to it.
    pub(super) fn queue_commit(&self, ino: Ino) {
        self.queue_commit_after(ino, Duration::ZERO);
    }

    /// The file is committed after `delay`.
    pub(super) fn queue_commit_after(&self, ino: Ino, delay: Duration) {
        let due = self.meta.now().plus(delay);
        self.queue().push(ino, due);
        self.queue_changed.notify_one();
    }

    /// The file is committed at once, be it that somebody goes on writing to it, as long as whoever asks keeps the answer. After that,
    /// what is half written waits for its close again.
    pub(super) fn hurry(&self, ino: Ino) -> Option<Asked> {
        let staged = self.writer.get(ino);
        let asked = staged.map(|staged| {
            staged.set_delay(Duration::ZERO);
            staged.ask_for()
        });
        self.queue_commit(ino);
        asked
    }

    /// How long the upload of a file waits that was acknowledged before it.
    pub(super) fn delay_of(&self, ino: Ino) -> Duration {
        self.writer.get(ino).map_or(Duration::ZERO, |staged| staged.delay())
    }

    /// The background: runs until the task is dropped.
    pub async fn run_background(self: Arc<Self>) {
        tokio::join!(self.clear_left(), self.run_orphans(), self.run_commits(), self.run_markers(), self.run_poller());
    }

    /// Copies that nobody reads any more, and that could not be deleted so far, go.
    async fn run_orphans(&self) {
        let mut due = self.meta.now();
        loop {
            if self.orphans.has_left() && due <= self.meta.now() {
                if let Err(e) = self.delete_left_orphans().await {
                    tracing::warn!(error = %e, "copies that nobody reads any more could not be deleted");
                }
                due = self.meta.now().plus(ORPHAN_PAUSE);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// What an earlier mount left in the bucket is ended or taken away, beside all else: it may take long. So is what failed in this one,
    /// and could not be noted.
    async fn clear_left(self: &Arc<Self>) {
        if self.settings.read_only {
            return;
        }
        let left = std::mem::take(&mut *self.left_uploads.lock().unwrap_or_else(PoisonError::into_inner));
        for upload in left {
            self.writer.abort_left(&upload).await;
        }
        let (mut due, mut pause, mut known) = (self.meta.now(), RENAME_PAUSE, 0);
        loop {
            self.tell_failed_renames().await;
            let left = self.left_renames_count();
            if left > known {
                // Another one does not wait for those before it.
                (due, pause) = (due.min(self.meta.now()), RENAME_PAUSE);
            }
            known = left;
            if left > 0 && due <= self.meta.now() {
                self.end_left_renames().await;
                due = self.meta.now().plus(pause);
                // It looks at each of its objects, and nobody writes to either directory meanwhile.
                pause = (2 * pause).min(RENAME_PAUSE_MAX);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn run_commits(self: &Arc<Self>) {
        let in_flight = Arc::new(tokio::sync::Semaphore::new(self.settings.writes.uploads));
        loop {
            while let Ok(permit) = Arc::clone(&in_flight).try_acquire_owned()
                && let Some(ino) = self.next_ready()
            {
                let fs = Arc::clone(self);
                tokio::spawn(async move {
                    fs.commit_in_background(ino).await;
                    drop(permit);
                    fs.queue_changed.notify_one();
                });
            }
            // Until something is pushed or done, or a pause is over.
            let is_free = in_flight.available_permits() > 0;
            let pause = if is_free { self.until_next_due() } else { PERIOD };
            let changed = self.queue_changed.notified();
            if tokio::time::timeout(pause, changed).await.is_err() {
                tracing::trace!("looking for commits whose pause is over");
            }
        }
    }

    /// How long there is nothing to commit by itself, as far as is known now.
    fn until_next_due(&self) -> Duration {
        let due = self.queue().next_due();
        due.map_or(PERIOD, |due| due.since(self.meta.now()).clamp(TICK, PERIOD))
    }

    async fn run_markers(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.write_due_markers(MARKER_DELAY).await;
        }
    }

    fn next_ready(&self) -> Option<Ino> {
        let now = self.meta.now();
        self.queue().next_ready(now)
    }

    /// A part of a file that is being written is full: sends it, so that close has little left to do.
    pub(super) fn send_ahead(self: &Arc<Self>, staged: &Arc<Staged>) {
        let (fs, staged) = (Arc::clone(self), Arc::clone(staged));
        self.runtime.spawn(async move {
            if let Err(e) = fs.send_parts_ahead(&staged).await {
                tracing::info!(inode = %staged.ino(), error = %e, "is sent when it is closed");
            }
        });
    }

    async fn send_parts_ahead(self: &Arc<Self>, staged: &Arc<Staged>) -> Result<()> {
        let Some(row) = self.meta.get(staged.ino())?.filter(|row| row.parent.is_some()) else { return Ok(()) };
        if row.name.as_ref().is_some_and(|name| self.settings.writes.temp_names.contains(name)) {
            return Ok(());
        }
        let key = self.key(&row)?;
        let headers = async {
            let mut headers = self.headers_for_commit(&row, &key).await.ok()?;
            crate::meta::headers::remove_times(&mut headers.user);
            Some(headers)
        };
        Ok(self.writer.send_ahead(staged, &key, headers).await?)
    }

    async fn commit_in_background(self: &Arc<Self>, ino: Ino) {
        let delay = self.delay_of(ino);
        let is_open = self.handles.of(ino).iter().any(|handle| handle.writable);
        let is_written_to = self.writer.get(ino).is_some_and(|staged| staged.is_changed() && !staged.is_recorded());
        let is_asked_for = self.writer.get(ino).is_some_and(|staged| staged.is_asked_for());
        if !is_asked_for && is_open && is_written_to {
            // Somebody goes on writing, and has perhaps only emptied the file so far. What was acknowledged is in the journal; the
            // close that is to come is a part of the same upload.
            tracing::debug!(path = %self.path_of(ino), "is being written to: its upload waits");
            self.queue().postpone(ino, self.meta.now().plus(delay.max(WRITTEN_PAUSE)));
            return;
        }
        // The last close could not journal it. As long as it cannot be, nobody goes on writing: it is uploaded as it is.
        let is_unsafe = is_written_to
            && !is_open
            && self.keep_failed(ino).await.is_err()
            && !self.handles.of(ino).iter().any(|handle| handle.writable);
        let fs = Arc::clone(self);
        // It is large, and this is moved several times.
        let commit = Box::pin(async move { fs.commit_whole(ino, delay).await });
        let is_awaited = is_asked_for || is_unsafe;
        let committed = if is_awaited { to_the_end(commit).await } else { to_the_end(unattended(commit)).await };
        match committed {
            Ok(()) => self.drop_clean(ino),
            Err(e) if is_disturbed(&e) => {
                tracing::debug!(path = %self.path_of(ino), "is being written to again: its upload waits");
                self.queue().postpone(ino, self.meta.now().plus(delay.max(WRITTEN_PAUSE)));
            }
            Err(e) => tracing::error!(path = %self.path_of(ino), error = %e, "could not be committed"),
        }
        let later = self.meta.now().plus(ENDED_PAUSE);
        self.queue().on_ended(ino, later);
    }

    /// The path of an inode, for people.
    pub(super) fn path_of(&self, ino: Ino) -> String {
        match self.meta.path(ino) {
            Ok(Some(names)) => names.iter().map(ToString::to_string).collect::<Vec<_>>().join("/"),
            _ => format!("inode {ino}"),
        }
    }

    /// Writes the markers that were owed for `delay` at least. Answers how many failed for good.
    async fn write_due_markers(self: &Arc<Self>, delay: Duration) -> usize {
        let Ok(owed) = self.meta.owed_markers() else { return 0 };
        let now = self.meta.now();
        let due = owed.into_iter().filter(|r| r.checked_at.plus(delay) <= now || delay.is_zero());
        let failed = futures::stream::iter(due)
            .map(|row| async move {
                let Err(e) = self.write_owed_marker(row.ino).await else { return false };
                let path = self.path_of(row.ino);
                tracing::warn!(dir = %path, error = %e, "the marker of an emptied directory is still owed");
                let later = self.meta.now().plus(MARKER_PAUSE);
                self.meta.change(row.ino, move |row| row.checked_at = later).await.is_err() || e.is_permanent()
            })
            .buffer_unordered(MARKERS_IN_FLIGHT)
            .filter(|failed| std::future::ready(*failed));
        failed.count().await
    }

    /// Writes the marker that a directory owes, if it does. A read-only mount leaves that to the next.
    pub(super) async fn write_owed_marker(self: &Arc<Self>, ino: Ino) -> Result<()> {
        if self.settings.read_only {
            return Ok(());
        }
        let Some(row) = self.meta.get(ino)?.filter(|r| r.marker == Marker::Owed) else { return Ok(()) };
        let key = self.key(&row)?;
        let _claim = self.claims.claim(vec![Span::Key(key.clone())]).await;
        // Removed or renamed while we waited?
        let Some(row) = self.meta.get(ino)?.filter(|r| r.marker == Marker::Owed && self.has_key(r, &key)) else {
            return Ok(());
        };
        let version = match self.put_marker(&key, &row, Condition::IfAbsent).await {
            Ok(version) => Some(version),
            // Somebody else made it: just as good.
            Err(FsError::Exists) => None,
            Err(e) => return Err(e),
        };
        // After the answer: a listing that began before this need not have seen it.
        let now = self.meta.now();
        self.meta
            .change(ino, move |row| {
                row.marker = Marker::Present;
                row.version = version;
                row.checked_at = now;
            })
            .await?;
        Ok(())
    }

    /// What the bucket does not have yet.
    ///
    /// # Errors
    /// [`FsError::Catalogue`].
    pub fn pending(&self) -> Result<Pending> {
        let waiting = self.queue().waiting();
        let failed = waiting.into_iter().filter_map(|w| Some((self.path_of(w.ino), w.reason?, !w.parked))).collect();
        let unnamed = |ino: &Ino| self.meta.get(*ino).is_ok_and(|r| r.is_none_or(|r| r.parent.is_none()));
        Ok(Pending {
            files: self.owed().iter().filter(|ino| !unnamed(ino)).count(),
            markers: if self.settings.read_only { 0 } else { self.meta.owed_markers()?.len() },
            failed,
            conflicts: self.conflicts.load(Ordering::Relaxed),
            handles: self.handles.count(),
        })
    }

    /// Commits everything, until the bucket has it or `deadline` has passed. What failed for good is tried once more. Copies that
    /// nobody reads any more are deleted.
    ///
    /// # Errors
    /// [`FsError::Catalogue`].
    pub async fn drain(self: &Arc<Self>, deadline: Duration) -> Result<Drained> {
        let until = end_of(deadline);
        let drained = self.drain_until(until).await;
        self.tell_failed_renames().await;
        self.delete_unread_orphans(until).await;
        drained
    }

    async fn drain_until(self: &Arc<Self>, until: tokio::time::Instant) -> Result<Drained> {
        let mut asked = Vec::new();
        for ino in self.owed() {
            // What is dirty without an acknowledgement (the last close never came) is kept all the same.
            if let Err(e) = self.journal(ino).await {
                tracing::error!(path = %self.path_of(ino), error = %e, "could not be journaled");
            }
            asked.extend(self.hurry(ino));
        }
        let mut hurried = None::<tokio::time::Instant>;
        let mut hopeless = 0;
        loop {
            // A failing server is not hammered: what fails is tried again every two seconds until the deadline.
            if hurried.is_none_or(|at| at.elapsed() > Duration::from_secs(2)) {
                let now = self.meta.now();
                self.queue().hurry(now, false);
                self.queue_changed.notify_one();
                let markers = self.write_due_markers(Duration::ZERO);
                hopeless = tokio::time::timeout_at(until, markers).await.unwrap_or(0);
                hurried = Some(tokio::time::Instant::now());
            }
            let pending = self.pending()?;
            let active = self.queue().active();
            if pending.files == 0 && pending.markers == 0 {
                self.writer.inodes().into_iter().for_each(|ino| self.drop_clean(ino));
                return Ok(Drained::Clean);
            }
            if active == 0 && pending.markers <= hopeless || tokio::time::Instant::now() >= until {
                return Ok(Drained::Left(pending));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// When a wait ends that begins now.
pub(super) fn end_of(wait: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + wait.min(WAIT_MAX)
}
