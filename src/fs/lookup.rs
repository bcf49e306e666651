//! Lookup, and how fresh an answer must be.
//!
//! Owns: when the catalogue may answer and when the bucket is asked. Does not own: the requests (`remote`), the rules by
//! which an answer changes the catalogue (`meta`).

use super::headers::{found_object, to_found, to_meta};
use super::{Entry, Fs, FsError, Result};
use crate::meta::{Found, InodeRow, Marker};
use crate::remote::OWN_DIR;
use crate::types::{FileKind, Ino, Key, Name, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A directory of up to this many known entries is listed again when it is stale: one page, which then answers for all
/// its names. In a larger one a name is asked for alone.
const RELIST_MAX: usize = 1000;

/// How long the bucket is not asked again, where something older can be shown, after it did not answer.
const OUTAGE: Duration = Duration::from_secs(5);

impl Fs {
    /// LOOKUP: `None` if there is no such name.
    ///
    /// # Errors
    /// [`FsError`]; while the bucket does not answer, what is known is shown.
    pub async fn lookup(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Option<Entry>> {
        let found = self.resolve(parent, name).await?;
        let shown = |row: &InodeRow| self.is_shown(parent, name, row.attr.kind);
        Ok(found.filter(shown).map(|row| self.entry(&row)))
    }

    /// Whether the mount's filter shows the name.
    pub(super) fn is_shown(&self, parent: Ino, name: &Name, kind: FileKind) -> bool {
        self.settings.filter.shows(name, &self.filter_path(parent), kind)
    }

    /// The path of a directory for the filter, if that needs it.
    pub(super) fn filter_path(&self, dir: Ino) -> String {
        if !self.settings.filter.needs_paths() || dir == Ino::ROOT {
            return String::new();
        }
        format!("{}/", self.path_of(dir))
    }

    /// A name that the filter hides cannot be made: nobody would see it.
    pub(super) fn check_shown(&self, parent: Ino, name: &Name, kind: FileKind) -> Result<()> {
        if self.is_shown(parent, name, kind) { Ok(()) } else { Err(FsError::Hidden) }
    }

    /// The row of a name, as fresh as promised.
    pub(super) async fn resolve(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Option<InodeRow>> {
        let dir = self.dir_row(parent)?;
        if is_reserved(parent, name) {
            return Ok(None);
        }
        // Whoever asks for a name is shown it, even if that spoils the event of its creation.
        self.meta.watches().show(parent, name);
        match self.meta.child(parent, name)? {
            Some(row) if row.local || row.marker == Marker::Owed => Ok(Some(row)),
            Some(row) if self.is_fresh(row.checked_at) => {
                let is_read = row.headers.is_some() || !self.unread.is_worth_asking(parent);
                if is_read { Ok(Some(row)) } else { self.with_headers(row).await }
            }
            Some(row) if self.is_shown_while_listed(&dir, &row)? => Ok(Some(row)),
            None if dir.complete_at.is_some_and(|at| self.is_fresh(at)) => Ok(None),
            None => self.ask(&dir, name).await,
            Some(known) => match self.patiently(self.ask(&dir, name)).await {
                Err(e) if e.is_outage() => {
                    tracing::warn!(%name, error = %e, "the bucket does not answer: showing what is known");
                    Ok(Some(known))
                }
                result => result,
            },
        }
    }

    /// The row of a directory.
    pub(super) fn dir_row(&self, ino: Ino) -> Result<InodeRow> {
        let row = self.row(ino)?;
        if row.attr.kind == FileKind::Dir { Ok(row) } else { Err(FsError::NotDir) }
    }

    /// Whether what the bucket said at `at` still counts.
    pub(super) fn is_fresh(&self, at: Timestamp) -> bool {
        self.is_younger(at, self.settings.poll_interval)
    }

    /// Whether the answer was given to an earlier mount of this bucket.
    pub(super) fn is_of_earlier_mount(&self, at: Timestamp) -> bool {
        at < self.meta.defaults().mounted_at
    }

    /// Whether what an earlier mount knew of a name is shown, because its directory is listed in the background. A large
    /// directory is not listed for one name.
    fn is_shown_while_listed(self: &Arc<Self>, dir: &InodeRow, row: &InodeRow) -> Result<bool> {
        let known = dir.complete_at.is_some_and(|at| self.is_of_earlier_mount(at));
        if !known || !self.is_of_earlier_mount(row.checked_at) {
            return Ok(false);
        }
        if !self.polled.is_later(dir.ino) {
            if self.meta.has_more_children_than(dir.ino, RELIST_MAX)? {
                return Ok(false);
            }
            self.list_later(dir.ino);
        }
        Ok(true)
    }

    /// Whether it is so fresh that an open need not ask again.
    pub(super) fn is_just_confirmed(&self, at: Timestamp) -> bool {
        self.is_younger(at, Duration::from_secs(1))
    }

    /// A time that lies ahead was told by a clock that has been set back since: it says nothing.
    fn is_younger(&self, at: Timestamp, age: Duration) -> bool {
        let now = self.meta.now();
        // What an earlier mount was told says nothing of what happened since.
        at.plus(age) > now && at <= now.plus(Duration::from_secs(2)) && at >= self.meta.defaults().mounted_at
    }

    /// Asks the bucket for one name: by listing a small directory that was complete once, or for the name alone.
    async fn ask(self: &Arc<Self>, dir: &InodeRow, name: &Name) -> Result<Option<InodeRow>> {
        if dir.complete_at.is_some() && !self.meta.has_more_children_than(dir.ino, RELIST_MAX)? {
            self.list(dir.ino).await?;
            self.meta.watches().show(dir.ino, name);
            return match self.meta.child(dir.ino, name)? {
                Some(row) => self.with_headers(row).await,
                None => Ok(None),
            };
        }
        let key = self.key(dir)?;
        let asked = self.meta.observe();
        let found = self.remote.lookup(&key, name).await?.map(to_found);
        let (row, changes) = self.meta.apply_lookup(dir.ino, name.clone(), found, &asked).await?;
        self.announce(changes);
        Ok(row)
    }

    /// Reads the headers of a row that only a listing has shown: once per version, ever.
    async fn with_headers(self: &Arc<Self>, row: InodeRow) -> Result<Option<InodeRow>> {
        if row.headers.is_some() || row.local {
            return Ok(Some(row));
        }
        match self.patiently(self.read_headers(&row)).await {
            Err(e) if e.is_outage() => Ok(Some(row)),
            result => result,
        }
    }

    pub(super) async fn read_headers(self: &Arc<Self>, row: &InodeRow) -> Result<Option<InodeRow>> {
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(Some(row.clone())) };
        let key = self.key(row)?;
        let asked = self.meta.observe();
        let head = self.remote.head(&key).await?;
        head.iter().for_each(|meta| self.note_headers(&meta.headers));
        let found = match (row.attr.kind, head) {
            (FileKind::Dir, Some(meta)) => {
                Some(Found::Dir { marker: Some(true), read: Some((meta.version, to_meta(&meta.headers))) })
            }
            (FileKind::Dir, None) => {
                // Implied by keys below it: there is nothing to read, and nothing to ask again.
                let row = self.meta.change(row.ino, |row| row.headers = Some("{}".to_owned())).await?;
                return Ok(row);
            }
            (_, head) => head.as_ref().map(found_object),
        };
        let (row, changes) = self.meta.apply_lookup(parent, name, found, &asked).await?;
        self.announce(changes);
        Ok(row)
    }

    /// Asks whether the inode still shows what the bucket has, unless that was confirmed a moment ago. An inode that no
    /// longer does has changed in place, or lost its name to another. While the bucket does not answer, it counts as
    /// confirmed.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the name belongs to another inode now: the kernel looks it up again.
    pub(super) async fn revalidate(self: &Arc<Self>, row: InodeRow) -> Result<InodeRow> {
        if row.local || row.version.is_none() || self.is_just_confirmed(row.checked_at) && row.headers.is_some() {
            return Ok(row);
        }
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(row) };
        let key = self.key(&row)?;
        let asked = self.meta.observe();
        let head = match self.patiently(async { Ok(self.remote.head(&key).await?) }).await {
            Err(e) if e.is_outage() => {
                tracing::warn!(%key, error = %e, "the bucket does not answer: opening what is known");
                return Ok(row);
            }
            result => result?,
        };
        head.iter().for_each(|meta| self.note_headers(&meta.headers));
        let (now, changes) = self.meta.apply_lookup(parent, name, head.as_ref().map(found_object), &asked).await?;
        self.announce(changes);
        match now {
            Some(now) if now.ino == row.ino => Ok(now),
            _ => Err(FsError::Stale),
        }
    }

    /// Asks the bucket at once, however fresh the answer is that we have: a directory is listed, a file is looked at.
    ///
    /// # Errors
    /// What the store says; [`FsError::Stale`] if the inode is gone.
    pub async fn refresh(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let row = self.row(ino)?;
        if row.attr.kind == FileKind::Dir {
            return self.list(ino).await;
        }
        let key = self.key(&row)?;
        self.look_again(&row, &key).await
    }

    /// The same for a path, given by the names from the root.
    ///
    /// # Errors
    /// As [`Fs::refresh`]; [`FsError::NotFound`] if there is no such path.
    pub async fn refresh_path(self: &Arc<Self>, names: &[Name]) -> Result<()> {
        let mut at = Ino::ROOT;
        for (index, name) in names.iter().enumerate() {
            let known = self.resolve(at, name).await?;
            at = match known {
                Some(row) => row.ino,
                // Made elsewhere a moment ago, perhaps.
                None => {
                    self.refresh(at).await?;
                    let found = self.resolve(at, name).await?.ok_or(FsError::NotFound)?;
                    if index + 1 == names.len() && found.attr.kind != FileKind::Dir {
                        return Ok(());
                    }
                    found.ino
                }
            };
        }
        self.refresh(at).await
    }

    /// Waits for the bucket only as long as somebody would who has something older to look at; and after it did not
    /// answer, for a while not at all, so that each name of an `ls -l` does not wait again.
    pub(super) async fn patiently<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        use crate::store::{ErrorKind, Op, StoreError};
        let silent = |what: &str| FsError::Store(StoreError::new(ErrorKind::Timeout, Op::Head, None, what));
        if self.outage_until.load(Ordering::Relaxed) > self.meta.now().nanos() {
            return Err(silent("the bucket did not answer a moment ago"));
        }
        let result = match tokio::time::timeout(self.settings.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(silent("no answer in time")),
        };
        if result.as_ref().is_err_and(FsError::is_outage) {
            self.outage_until.store(self.meta.now().plus(OUTAGE).nanos(), Ordering::Relaxed);
        }
        result
    }

    /// The directory key under which `parent` keeps its children.
    pub(super) fn dir_key(&self, dir: &InodeRow) -> Result<Key> {
        self.key(dir)
    }
}

/// Whether the name is objfs' own, and nobody else's to see or make.
pub(super) fn is_reserved(parent: Ino, name: &Name) -> bool {
    parent == Ino::ROOT && name.as_bytes() == OWN_DIR.as_bytes()
}
