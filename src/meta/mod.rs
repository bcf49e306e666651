//! What we believe of the bucket: inodes, names, completeness of directories. The catalogue answers; nothing here asks.
//!
//! Owns: the façade over `catalogue.db`, the rules by which answers of the bucket change it, attributes as headers.
//! Does not own: the network, the kernel, staged bytes.
//!
//! Invariants: an inode number never changes its kind and is never used twice; a directory that is not complete never
//! answers that a name does not exist; what we wrote after a question was asked is not undone by its answer; a name keeps its
//! place in the order of its directory whoever has it.

pub mod headers;
pub mod xattrs;

mod apply;
mod atimes;
mod finish;
mod listing;
mod pins;
mod reconcile;
mod rename;
mod totals;
mod watches;

use crate::db::{RowResult, Rows, set_aside};
use crate::types::{Attr, FileKind, Ino, Key, KeyError, Name, Pos, Timestamp, Version, WallClock};
use pins::RecentlyGone;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[cfg(test)]
pub(crate) use crate::db::testing::Refusal;
pub use crate::db::{Catalogue, Child, DbError, InodeRow, Known, Marker};
pub use apply::{Change, UnmappableKey};
pub use finish::Leftover;
pub use listing::{Listing, Page, TreePart};
pub use pins::{Leaving, Observation, Pins, Rewrite};
pub use reconcile::{Defaults, Found, Headers, Sighting};
pub use rename::{Moved, Renamed};
pub use watches::Watches;

use apply::Context;

/// Where the catalogue keeps the time of the last listing, in ns since the epoch.
const LATEST: &str = "latest";

/// Where the catalogue keeps whether attributes were in it alone ([`headers::Kept`]).
const KEPT: &str = "kept";

/// What the catalogue answers.
pub type Result<T> = std::result::Result<T, DbError>;

/// The catalogue and the rules around it.
#[derive(Debug)]
pub struct Meta {
    catalogue: Catalogue,
    clock: Arc<dyn WallClock>,
    defaults: Arc<Defaults>,
    pins: Arc<Pins>,
    watches: Arc<Watches>,
    gone: RecentlyGone,
    /// What was counted last, and how long that counts.
    totals: Mutex<Option<(Instant, (u64, u64))>>,
    /// What became of an earlier catalogue that could not be used.
    notice: Option<String>,
}

impl Meta {
    /// Opens the catalogue at `path`, makes the root, and drops what only open files of an earlier daemon held. A catalogue
    /// that is damaged or of a newer objfs is set aside: the bucket has what is in it.
    ///
    /// # Errors
    /// As [`Catalogue::open`].
    pub async fn open(path: &Path, defaults: Defaults, clock: Arc<dyn WallClock>) -> Result<Meta> {
        let (catalogue, notice) = open_or_set_aside(path)?;
        let (now, kept) = (clock.now(), defaults.kept);
        let root = Attr {
            kind: FileKind::Dir,
            perm: defaults.dir_perm,
            uid: defaults.uid,
            gid: defaults.gid,
            rdev: 0,
            size: 0,
            atime: defaults.mounted_at,
            mtime: defaults.mounted_at,
            ctime: defaults.mounted_at,
        };
        catalogue
            .write(move |rows| {
                rows.ensure_root(&root)?;
                if kept.in_objects() && rows.kv(KEPT)?.as_deref() == Some("here") {
                    // Nobody went by what objects say of attributes.
                    rows.forget_headers()?;
                }
                rows.set_kv(KEPT, if kept.in_objects() { "in objects" } else { "here" })?;
                let latest = rows.kv(LATEST)?.and_then(|nanos| nanos.parse().ok()).map(Timestamp::from_nanos);
                if latest.is_some_and(|latest| latest > now) {
                    tracing::warn!(
                        "the clock was set back since the last mount: everything known will be asked for again"
                    );
                    rows.forget_future(now)?;
                }
                rows.delete_nameless()
            })
            .await?;
        let gone = RecentlyGone::default();
        let pins = Arc::new(Pins::new(gone.clone()));
        let (defaults, watches, totals) = (Arc::new(defaults), Arc::default(), Mutex::default());
        Ok(Meta { catalogue, clock, defaults, pins, watches, gone, totals, notice })
    }

    /// What became of an earlier catalogue that could not be used, for people.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Which inodes are open.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Which inodes are watched, and which names are not shown yet.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Owner and mode of what names none.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Now, by the clock that all comparisons with the bucket use.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Begins a question to the bucket: its answer is as old as this moment.
    pub fn observe(&self) -> Observation {
        self.gone.observe(self.clock.now())
    }

    /// The same of a question about a name in `dir`, whose key the caller makes after this. If the directory has another path when the
    /// answer comes, it says nothing of that name.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn observe_in(&self, dir: Ino) -> Result<Observation> {
        let path = self.path(dir)?;
        let mut asked = self.observe();
        asked.path = path;
        Ok(asked)
    }

    /// `name` moves away from `parent`: until the guard is dropped, the bucket does not bring it back.
    pub fn leave(&self, parent: Ino, name: Name) -> Leaving {
        self.gone.leave(parent, name, Arc::clone(&self.clock))
    }

    /// The inode `ino`.
    ///
    /// # Errors
    /// What SQLite says, as for every method here.
    pub fn get(&self, ino: Ino) -> Result<Option<InodeRow>> {
        self.catalogue.read(|rows| rows.get(ino))
    }

    /// The entry `name` of `parent`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn child(&self, parent: Ino, name: &Name) -> Result<Option<InodeRow>> {
        self.catalogue.read(|rows| rows.child(parent, name))
    }

    /// Entries of `parent` beyond `after`, in their order.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn children(&self, parent: Ino, after: Pos, limit: usize) -> Result<Vec<InodeRow>> {
        self.catalogue.read(|rows| rows.children(parent, after, limit))
    }

    /// Gives `visit` the entries of `parent` beyond `after`, in their order, until it says that it has enough.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn each_child(&self, parent: Ino, after: Pos, visit: impl FnMut(Child<'_>) -> bool) -> Result<()> {
        self.catalogue.read(|rows| rows.each_child(parent, after, visit))
    }

    /// Whether `parent` has more than `limit` entries that we know.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn has_more_children_than(&self, parent: Ino, limit: usize) -> Result<bool> {
        self.catalogue.read(|rows| rows.has_more_children_than(parent, limit))
    }

    /// Whether `parent` has any entry that we know.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn has_children(&self, parent: Ino) -> Result<bool> {
        self.catalogue.read(|rows| rows.has_children(parent))
    }

    /// Every inode number below `ino`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn descendants(&self, ino: Ino) -> Result<Vec<Ino>> {
        self.catalogue.read(|rows| rows.descendants(ino))
    }

    /// Whether anything below `ino`, without itself, holds changes of ours or owes a marker.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn holds_local(&self, ino: Ino) -> Result<bool> {
        self.catalogue.read(|rows| rows.holds_local(ino))
    }

    /// The names from the root to `ino`. `None` if it has no name any more.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn path(&self, ino: Ino) -> Result<Option<Vec<Name>>> {
        self.catalogue.read(|rows| rows.path(ino))
    }

    /// The key that follows from the path: with a trailing `/` for directories. `Ok(None)` if the inode has no name, the
    /// inner error if the path makes no key.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn key(&self, row: &InodeRow) -> Result<Option<std::result::Result<Key, KeyError>>> {
        Ok(self.path(row.ino)?.map(|names| key_of(&names, row.attr.kind)))
    }

    /// Makes an inode under a name. `None` if the name is taken, or its directory is gone.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn create(&self, mut row: InodeRow) -> Result<Option<InodeRow>> {
        let now = self.clock.now();
        row.checked_at = now;
        self.catalogue
            .write_small(move |rows| {
                let Some(parent) = row.parent else { return Ok(None) };
                // Somebody else may have deleted it in this moment: the new name would be in nobody's path.
                if rows.path(parent)?.is_none() {
                    return Ok(None);
                }
                let Some(ino) = rows.insert(&row)? else { return Ok(None) };
                row.ino = ino;
                rows.touched(parent, now)?;
                Ok(Some(row))
            })
            .await
    }

    /// A row for a new inode, not yet in the catalogue.
    pub fn blank(&self, parent: Ino, name: &Name, attr: Attr) -> InodeRow {
        InodeRow { attr, ..blank(parent, name, FileKind::File, self.clock.now()) }
    }

    /// Changes the row of `ino` in one transaction. `None` if there is none.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn change(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut InodeRow) + Send + 'static,
    ) -> Result<Option<InodeRow>> {
        self.catalogue
            .write_small(move |rows| {
                let Some(before) = rows.get(ino)? else { return Ok(None) };
                let mut row = before.clone();
                change(&mut row);
                rows.update_from(&before, &row)?;
                Ok(Some(row))
            })
            .await
    }

    /// Headers of `version`, which was asked for by itself: the row takes its attributes from them, if it shows that version and
    /// nobody has read them before. A directory's marker counts as it is. Answers the row.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn learn(&self, ino: Ino, version: Version, headers: Headers) -> Result<Option<InodeRow>> {
        let defaults = Arc::clone(&self.defaults);
        let headers = headers.where_kept(defaults.kept);
        self.change(ino, move |row| {
            if row.attr.kind == FileKind::Dir {
                reconcile::learn_marker(row, &version, &headers, &defaults);
            } else if row.version.as_ref().is_some_and(|known| known.same(&version)) {
                reconcile::learn(row, &headers, &defaults);
            }
        })
        .await
    }

    /// The bucket has `version` of `ino` now, with these headers: we wrote it. `is_local` tells, as late as possible, whether
    /// newer changes wait; `settle` changes what else has become known of it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn committed(
        &self,
        ino: Ino,
        version: Version,
        headers: String,
        is_local: impl FnOnce() -> bool + Send + 'static,
        settle: impl FnOnce(&mut InodeRow) + Send + 'static,
    ) -> Result<Option<InodeRow>> {
        let now = self.clock.now();
        self.change(ino, move |row| {
            settle(row);
            row.version = Some(version);
            row.headers = Some(headers);
            row.local = is_local();
            row.checked_at = now;
        })
        .await
    }

    /// Inode numbers up to `ino` are taken: the journal names them.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn reserve(&self, ino: Ino) -> Result<()> {
        self.catalogue.write(move |rows| rows.reserve(ino)).await
    }

    /// Drops the row of an inode that has no name, once nobody has it open.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn drop_nameless(&self, ino: Ino) -> Result<()> {
        let pins = Arc::clone(&self.pins);
        self.catalogue
            .write(move |rows| match rows.get(ino)? {
                Some(row) if row.parent.is_none() && ino != Ino::ROOT && !pins.is_pinned(ino) => {
                    pins.forget_lost(ino);
                    rows.delete(ino)
                }
                _ => Ok(()),
            })
            .await
    }

    /// Applies what a question about one name found, or that it found nothing. `None`, and nothing has changed, if the directory has
    /// moved since it was asked.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn apply_lookup(
        &self,
        parent: Ino,
        name: Name,
        found: Option<Found>,
        asked: &Observation,
    ) -> Result<Option<(Option<InodeRow>, Vec<Change>)>> {
        self.apply_at(None, (parent, name), found, asked).await
    }

    /// The same; a row that is made has this place in its directory, if one is kept for it.
    async fn apply_at(
        &self,
        place: Option<Pos>,
        (parent, name): (Ino, Name),
        found: Option<Found>,
        asked: &Observation,
    ) -> Result<Option<(Option<InodeRow>, Vec<Change>)>> {
        let found = found.map(|found| found.where_kept(self.defaults.kept));
        let path = asked.path.clone();
        self.applying(asked, move |rows, cx| {
            if path.is_some() && rows.path(parent)? != path {
                return Ok(None);
            }
            let mut changes = Vec::new();
            // Whoever asked is shown the name at once.
            let is_known = rows.get(parent)?.is_some_and(|dir| dir.complete_at.is_some());
            let cx = Context { is_known, place, ..cx };
            let row = match found {
                Some(found) => apply::apply(rows, cx, parent, &Sighting { name, found }, &mut changes)?,
                None => apply::apply_absence(rows, cx, parent, &name, &mut changes)?,
            };
            finish::touch_changed(rows, cx, &changes)?;
            Ok(Some((row, changes)))
        })
        .await
    }

    async fn applying<T: Send + 'static>(
        &self,
        asked: &Observation,
        job: impl FnOnce(Rows<'_>, Context<'_>) -> RowResult<T> + Send + 'static,
    ) -> Result<T> {
        let (defaults, pins, gone) = (Arc::clone(&self.defaults), Arc::clone(&self.pins), self.gone.clone());
        let (watches, began) = (Arc::clone(&self.watches), asked.began());
        self.catalogue
            .write(move |rows| {
                let (is_known, hides, place) = (false, false, None);
                let (defaults, pins, gone, watches) = (&defaults, &pins, &gone, &watches);
                job(rows, Context { defaults, pins, gone, watches, began, is_known, hides, place })
            })
            .await
    }

    /// Directories that owe a marker.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn owed_markers(&self) -> Result<Vec<InodeRow>> {
        self.catalogue.read(|rows| rows.owed_markers())
    }

    /// Inodes that hold changes which the bucket does not have.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn local(&self) -> Result<Vec<InodeRow>> {
        self.catalogue.read(|rows| rows.local())
    }

    /// A value remembered under `key` (probe results).
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn kv(&self, key: &str) -> Result<Option<String>> {
        self.catalogue.read(|rows| rows.kv(key))
    }

    /// Remembers `value` under `key`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn set_kv(&self, key: &'static str, value: String) -> Result<()> {
        self.catalogue.write(move |rows| rows.set_kv(key, &value)).await
    }

    /// Commits what was sent and closes the catalogue.
    pub fn close(&self) {
        self.catalogue.close();
    }
}

fn open_or_set_aside(path: &Path) -> Result<(Catalogue, Option<String>)> {
    let why = match Catalogue::open(path) {
        Ok(catalogue) => return Ok((catalogue, None)),
        Err(e @ (DbError::Damaged { .. } | DbError::Newer { .. })) => e,
        Err(e) => return Err(e),
    };
    let failed = |e: std::io::Error| DbError::Sqlite {
        path: path.to_owned(),
        message: format!("{why}; and it could not be set aside: {e}"),
    };
    let aside = set_aside(path).map_err(failed)?;
    let notice = format!("{why}: kept as {}, and rebuilt from the bucket", aside.display());
    tracing::error!(notice);
    Ok((Catalogue::open(path)?, Some(notice)))
}

/// The key of the object or directory at a path.
pub fn key_of(names: &[Name], kind: FileKind) -> std::result::Result<Key, KeyError> {
    let Some((last, dirs)) = names.split_last() else { return Ok(Key::root()) };
    let dir = dirs.iter().try_fold(Key::root(), |key, name| key.child_dir(name))?;
    if kind == FileKind::Dir { dir.child_dir(last) } else { dir.child(last) }
}

fn blank(parent: Ino, name: &Name, kind: FileKind, now: Timestamp) -> InodeRow {
    let attr = Attr { kind, perm: 0, uid: 0, gid: 0, rdev: 0, size: 0, atime: now, mtime: now, ctime: now };
    InodeRow {
        ino: Ino(0),
        parent: Some(parent),
        name: Some(name.clone()),
        attr,
        version: None,
        storage_class: None,
        symlink: None,
        headers: None,
        xattrs: Some(String::new()),
        local: false,
        checked_at: Timestamp::default(),
        complete_at: None,
        marker: Marker::Implied,
        place: None,
    }
}

#[cfg(test)]
mod tests;
