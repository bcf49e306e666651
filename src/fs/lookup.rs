//! Lookup, and how fresh an answer must be.
//!
//! Owns: when the catalogue may answer and when the bucket is asked. Does not own: the requests (`remote`), the rules by
//! which an answer changes the catalogue (`meta`).

use super::begin::to_the_end;
use super::headers::{found_object, to_found, to_meta};
use super::{Entry, Fs, FsError, Result};
use crate::meta::{Found, InodeRow, Marker, Observation};
use crate::remote::OWN_DIR;
use crate::store::{ErrorKind, Op, StoreError};
use crate::types::{FileKind, Ino, Key, Name, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A directory of up to this many known entries is listed again when it is stale: one page, which then answers for all
/// its names. In a larger one a name is asked for alone, and it is listed in the background for who goes through it.
const RELIST_MAX: usize = 1000;

/// How long the bucket is not asked again, where something older can be shown, after it did not answer.
const OUTAGE: Duration = Duration::from_secs(5);

/// What came of a LOOKUP without waiting.
#[derive(Debug)]
pub enum Looked {
    /// The answer; `None` if there is no such name.
    Known(Option<Entry>),
    /// The bucket has to be asked.
    Asks(Box<Question>),
}

/// What the catalogue does not know of a name.
#[derive(Debug)]
pub struct Question {
    dir: InodeRow,
    name: Name,
    about: About,
}

#[derive(Debug)]
enum About {
    /// The headers of this row.
    Headers(InodeRow),
    /// Whether it is there; with what was known of it once.
    Name(Option<InodeRow>),
}

/// A row that is known well enough, or what has to be asked.
type Known = std::result::Result<Option<InodeRow>, Box<Question>>;

impl Fs {
    /// LOOKUP: `None` if there is no such name.
    ///
    /// # Errors
    /// [`FsError`]; while the bucket does not answer, what is known is shown.
    pub async fn lookup(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Option<Entry>> {
        match self.lookup_known(parent, name)? {
            Looked::Known(entry) => Ok(entry),
            Looked::Asks(question) => self.lookup_asking(question).await,
        }
    }

    /// LOOKUP as far as the catalogue can answer it, without waiting: microseconds. Within a tokio runtime.
    ///
    /// # Errors
    /// As [`Fs::lookup`].
    pub fn lookup_known(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Looked> {
        Ok(match self.known(parent, name)? {
            Ok(row) => Looked::Known(self.shown_entry(parent, name, row)),
            Err(question) => Looked::Asks(question),
        })
    }

    /// The rest of a LOOKUP that has to ask the bucket.
    ///
    /// # Errors
    /// As [`Fs::lookup`].
    pub async fn lookup_asking(self: &Arc<Self>, question: Box<Question>) -> Result<Option<Entry>> {
        let (parent, name) = (question.dir.ino, question.name.clone());
        let row = self.asked(question).await?;
        Ok(self.shown_entry(parent, &name, row))
    }

    fn shown_entry(&self, parent: Ino, name: &Name, row: Option<InodeRow>) -> Option<Entry> {
        row.filter(|row| self.is_shown(parent, name, row.attr.kind)).map(|row| self.entry(&row))
    }

    /// Whether the mount's filter shows the name.
    pub(super) fn is_shown(&self, parent: Ino, name: &Name, kind: FileKind) -> bool {
        self.settings.filter.shows(name, &self.filter_path(parent), kind)
    }

    /// The path of a directory for the filter, if that needs it.
    pub(super) fn filter_path(&self, dir: Ino) -> Vec<u8> {
        if !self.settings.filter.needs_paths() || dir == Ino::ROOT {
            return Vec::new();
        }
        let names = self.meta.path(dir).ok().flatten().unwrap_or_default();
        names.iter().flat_map(|name| [name.as_bytes(), b"/"].concat()).collect()
    }

    /// A name that the filter hides cannot be made: nobody would see it.
    pub(super) fn check_shown(&self, parent: Ino, name: &Name, kind: FileKind) -> Result<()> {
        if self.is_shown(parent, name, kind) { Ok(()) } else { Err(FsError::Hidden) }
    }

    /// The row of a name, as fresh as promised.
    pub(super) async fn resolve(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Option<InodeRow>> {
        match self.known(parent, name)? {
            Ok(row) => Ok(row),
            Err(question) => self.asked(question).await,
        }
    }

    /// What the catalogue knows of a name, if that is fresh enough.
    fn known(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Known> {
        let dir = self.dir_row(parent)?;
        if is_reserved(parent, name) {
            return Ok(Ok(None));
        }
        // Whoever asks for a name is shown it, even if that spoils the event of its creation.
        self.meta.watches().show(parent, name);
        let about = match self.meta.child(parent, name)? {
            Some(row) if row.local || row.marker == Marker::Owed => return Ok(Ok(Some(row))),
            Some(row) if self.is_fresh(row.checked_at) => {
                if !self.has_unread_attr(&row) || !self.unread.is_worth_asking(parent, self.meta.now()) {
                    return Ok(Ok(Some(row)));
                }
                About::Headers(row)
            }
            Some(row) if self.is_shown_while_listed(&dir, &row)? => return Ok(Ok(Some(row))),
            None if dir.complete_at.is_some_and(|at| self.is_fresh(at)) => return Ok(Ok(None)),
            stale => About::Name(stale),
        };
        Ok(Err(Box::new(Question { dir, name: name.clone(), about })))
    }

    /// Asks the bucket what the catalogue does not know.
    async fn asked(self: &Arc<Self>, question: Box<Question>) -> Result<Option<InodeRow>> {
        let Question { dir, name, about } = *question;
        match about {
            About::Headers(row) => self.with_headers(row).await,
            // Nothing older can be shown, so the answer is waited for; but not each time anew while there is none.
            About::Name(None) if self.is_silent() => {
                Err(silent(ErrorKind::Unreachable, "the bucket did not answer a moment ago"))
            }
            About::Name(None) => {
                let answer = self.ask(&dir, &name).await;
                self.note_outage(&answer);
                answer
            }
            About::Name(Some(known)) => match self.patiently(self.ask(&dir, &name)).await {
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
        let was_complete = dir.complete_at.is_some();
        if was_complete && !self.meta.has_more_children_than(dir.ino, RELIST_MAX)? {
            self.list(dir.ino).await?;
            self.meta.watches().show(dir.ino, name);
            return match self.meta.child(dir.ino, name)? {
                Some(row) => self.with_headers(row).await,
                None => Ok(None),
            };
        }
        if was_complete && self.unread.is_worth_listing_again(dir.ino, self.meta.now()) {
            self.list_later(dir.ino);
        }
        let asked = self.meta.observe_in(dir.ino)?;
        let key = self.key(dir)?;
        let found = self.remote.lookup(&key, name, self.kept().in_objects()).await?.map(to_found);
        self.apply_found(dir.ino, name.clone(), found, asked).await
    }

    /// Takes over what a question about one name found, and tells of it. Answers the row that the name has now.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the directory was renamed since it was asked, and the name is not known in it.
    pub(super) async fn apply_found(
        self: &Arc<Self>,
        parent: Ino,
        name: Name,
        found: Option<Found>,
        asked: Observation,
    ) -> Result<Option<InodeRow>> {
        let fs = Arc::clone(self);
        // Who is interrupted between the two would leave others without the event.
        to_the_end(async move {
            let Some((row, changes)) = fs.meta.apply_lookup(parent, name.clone(), found, &asked).await? else {
                return fs.meta.child(parent, &name)?.map(Some).ok_or(FsError::Stale);
            };
            fs.announce(changes);
            Ok(row)
        })
        .await
    }

    /// Reads the headers of a row that only a listing has shown: once per version, ever.
    async fn with_headers(self: &Arc<Self>, row: InodeRow) -> Result<Option<InodeRow>> {
        if !self.has_unread_attr(&row) || row.local {
            return Ok(Some(row));
        }
        match self.patiently(self.read_headers(&row)).await {
            Err(e) if e.is_outage() => Ok(Some(row)),
            result => result,
        }
    }

    pub(super) async fn read_headers(self: &Arc<Self>, row: &InodeRow) -> Result<Option<InodeRow>> {
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(Some(row.clone())) };
        let asked = self.meta.observe_in(parent)?;
        let key = self.key(row)?;
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
        self.apply_found(parent, name, found, asked).await
    }

    /// Asks whether the inode still shows what the bucket has, unless that was confirmed a moment ago. An inode that no
    /// longer does has changed in place, or lost its name to another. While the bucket does not answer, it counts as
    /// confirmed.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the name belongs to another inode now: the kernel looks it up again.
    pub(super) async fn revalidate(self: &Arc<Self>, row: InodeRow) -> Result<InodeRow> {
        let is_known = self.is_just_confirmed(row.checked_at) && !self.has_unread_attr(&row);
        if row.local || row.version.is_none() || is_known {
            return Ok(row);
        }
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(row) };
        let asked = self.meta.observe_in(parent)?;
        let key = self.key(&row)?;
        let head = match self.patiently(async { Ok(self.remote.head(&key).await?) }).await {
            Err(e) if e.is_outage() => {
                tracing::warn!(%key, error = %e, "the bucket does not answer: opening what is known");
                return Ok(row);
            }
            result => result?,
        };
        head.iter().for_each(|meta| self.note_headers(&meta.headers));
        match self.apply_found(parent, name, head.as_ref().map(found_object), asked).await? {
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
        if self.is_silent() {
            return Err(silent(ErrorKind::Unreachable, "the bucket did not answer a moment ago"));
        }
        let result = match tokio::time::timeout(self.settings.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(silent(ErrorKind::Timeout, "no answer in time")),
        };
        self.note_outage(&result);
        result
    }

    /// Whether the bucket did not answer a moment ago.
    fn is_silent(&self) -> bool {
        self.outage_until.load(Ordering::Relaxed) > self.meta.now().nanos()
    }

    fn note_outage<T>(&self, result: &Result<T>) {
        if result.as_ref().is_err_and(FsError::is_outage) {
            self.outage_until.store(self.meta.now().plus(OUTAGE).nanos(), Ordering::Relaxed);
        }
    }

    /// The directory key under which `parent` keeps its children.
    ///
    /// # Errors
    /// [`FsError::Name`] if it is too long: the bucket cannot be asked for what is below it.
    pub(super) fn dir_key(&self, dir: &InodeRow) -> Result<Key> {
        let key = self.key(dir)?;
        self.check_len(&key)?;
        Ok(key)
    }
}

fn silent(kind: ErrorKind, what: &str) -> FsError {
    FsError::Store(StoreError::new(kind, Op::Head, None, what))
}

/// Whether the name is objfs' own, and nobody else's to see or make.
pub(super) fn is_reserved(parent: Ino, name: &Name) -> bool {
    parent == Ino::ROOT && name.as_bytes() == OWN_DIR.as_bytes()
}
