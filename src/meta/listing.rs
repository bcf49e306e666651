//! Listings of the bucket, page by page: of one directory, or of a whole tree.
//!
//! Owns: the transactions in which pages are applied. Does not own: what a sighting means (`apply`), what absence means
//! (`finish`), where pages come from (`remote`).

use super::apply::{self, Change, Context, UnmappableKey};
use super::finish::{self, Leftover};
use super::{Marker, Meta, Observation, Result, Sighting};
use crate::db::{InodeRow, RowResult, Rows};
use crate::types::{FileKind, Ino, Key, Name, Pos, Timestamp, Version};

/// A listing under way, of a directory or of the tree below it.
#[derive(Debug)]
pub struct Listing {
    asked: Observation,
    top: Ino,
    /// The names to it: a directory that was renamed meanwhile is not what is listed.
    path: Option<Vec<Name>>,
    /// The highest inode number given out before it: what the listing makes is above.
    since: Ino,
    /// Whether nothing was known of what is in the directory: then nothing can be gone from it.
    was_empty: bool,
}

impl Listing {
    /// When it began: its answer is as old as this moment.
    pub fn began(&self) -> Timestamp {
        self.asked.began()
    }
}

/// A page of a directory's listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Names in it.
    pub seen: Vec<Sighting>,
    /// Keys that no path can express.
    pub unmappable: Vec<UnmappableKey>,
    /// The version of its marker, if that was shown.
    pub marker: Option<Version>,
    /// Whether this page or one before has shown its marker.
    pub has_marker: bool,
    /// Whether it is the last: names that were not shown are gone, and the directory answers for itself.
    pub is_last: bool,
}

/// What a page of a tree's listing shows of one directory.
#[derive(Debug)]
pub struct TreePart {
    /// The names from the top of the listing to it.
    pub path: Vec<Name>,
    /// Its key.
    pub key: Key,
    /// Names in it.
    pub seen: Vec<Sighting>,
    /// Keys that no path can express.
    pub unmappable: Vec<UnmappableKey>,
    /// The version of its marker, if that was shown.
    pub marker: Option<Version>,
    /// Whether nothing more of it will come.
    pub is_last: bool,
}

impl Meta {
    /// Begins a listing of the directory `top`, or of all that is below it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn begin_listing(&self, top: Ino) -> Result<Listing> {
        let asked = self.observe();
        let known = |rows: Rows<'_>| Ok((rows.path(top)?, rows.last_ino()?, !rows.has_children(top)?));
        let (path, since, was_empty) = self.catalogue.read(known)?;
        Ok(Listing { asked, top, path, since, was_empty })
    }

    /// Subdirectories of `parent` beyond `after` that were not listed since `since`, with their places, in their order, `limit` at
    /// most.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn unlisted_dirs(&self, parent: Ino, after: Pos, since: Timestamp, limit: usize) -> Result<Vec<(Pos, Ino)>> {
        self.catalogue.read(|rows| rows.unlisted_dirs(parent, after, since, limit))
    }

    /// Entries of `parent` beyond `after` that have an object whose headers were not read, in their order, `limit` at most.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn unread(&self, parent: Ino, after: Pos, limit: usize) -> Result<Vec<InodeRow>> {
        self.catalogue.read(|rows| rows.unread(parent, after, limit))
    }

    /// Whether `dir` has entries that nobody has confirmed since `since`, but for those that only we know.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn has_unconfirmed(&self, dir: Ino, since: Timestamp) -> Result<bool> {
        self.catalogue.read(|rows| rows.has_unconfirmed(dir, since))
    }

    /// Whether the directory that is listed still has the name that it had.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn is_in_place(&self, listing: &Listing) -> Result<bool> {
        self.catalogue.read(|rows| Ok(rows.path(listing.top)? == listing.path))
    }

    /// Applies one page of a listing of a directory, whose key is `key`. What it leaves is added to `hidden`: objects that must
    /// wait for the end of the listing. Nothing is applied to a directory that was renamed meanwhile.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn apply_page(
        &self,
        page: Page,
        key: Key,
        mut hidden: Vec<Sighting>,
        listing: &Listing,
    ) -> Result<(Vec<Change>, Vec<Sighting>)> {
        let (dir, since, may_have_lost) = (listing.top, listing.since, !listing.was_empty);
        let (path, asked) = (listing.path.clone(), listing.asked.id());
        self.applying(&listing.asked, move |rows, cx| {
            if rows.path(dir)? != path {
                return Ok((Vec::new(), Vec::new()));
            }
            let mut changes = Vec::new();
            hidden.extend(apply_page(rows, cx, dir, page.seen, &page.unmappable, page.marker.as_ref(), &mut changes)?);
            if page.is_last {
                if !page.has_marker {
                    note_no_marker(rows, cx, dir)?;
                }
                let mut leftover = Leftover::default();
                let hidden = std::mem::take(&mut hidden);
                finish::finish_dir(rows, cx.began, finish::Done { dir, key, hidden, may_have_lost }, &mut leftover)?;
                finish::finish(rows, cx, leftover, since, asked, &mut changes)?;
            }
            finish::touch_changed(rows, cx, &changes)?;
            Ok((changes, hidden))
        })
        .await
    }

    /// Applies one page of a listing of a tree. What it leaves is added to `leftover`; the last page settles it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn apply_tree(
        &self,
        parts: Vec<TreePart>,
        mut leftover: Leftover,
        is_last: bool,
        listing: &Listing,
    ) -> Result<(Vec<Change>, Leftover)> {
        let (top, since, was_empty) = (listing.top, listing.since, listing.was_empty);
        let (path, asked) = (listing.path.clone(), listing.asked.id());
        self.applying(&listing.asked, move |rows, cx| {
            if rows.path(top)? != path {
                return Ok((Vec::new(), Leftover::default()));
            }
            let (mut changes, mut at) = (Vec::new(), Vec::new());
            for part in parts {
                let Some(dir) = find_dir(rows, top, &part.path, &mut at)? else { continue };
                let TreePart { key, seen, unmappable, marker, is_last, .. } = part;
                let hidden = apply_page(rows, cx, dir, seen, &unmappable, marker.as_ref(), &mut changes)?;
                if is_last {
                    let may_have_lost = dir <= since && !(dir == top && was_empty);
                    let done = finish::Done { dir, key, hidden, may_have_lost };
                    finish::finish_dir(rows, cx.began, done, &mut leftover)?;
                } else {
                    leftover.hide(dir, key, hidden);
                }
            }
            if is_last {
                finish::finish(rows, cx, std::mem::take(&mut leftover), since, asked, &mut changes)?;
            }
            finish::touch_changed(rows, cx, &changes)?;
            Ok((changes, leftover))
        })
        .await
    }
}

fn apply_page(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    seen: Vec<Sighting>,
    unmappable: &[UnmappableKey],
    marker: Option<&Version>,
    changes: &mut Vec<Change>,
) -> RowResult<Vec<Sighting>> {
    for key in unmappable {
        rows.put_unmappable(parent, &key.key, key.why, key.size, cx.began)?;
    }
    if let Some(version) = marker {
        note_marker(rows, cx, parent, version, changes)?;
    }
    apply::apply_page(rows, cx, parent, seen, changes)
}

/// The marker of a directory was shown. Another version than the one that we know may say something else of mode and owner.
fn note_marker(
    rows: Rows<'_>,
    cx: Context<'_>,
    dir: Ino,
    version: &Version,
    changes: &mut Vec<Change>,
) -> RowResult<()> {
    let Some(before) = rows.get(dir)? else { return Ok(()) };
    let mut row = before.clone();
    // What a PUT of ours answered has no time yet.
    let is_same = row.version.as_ref().is_some_and(|known| known.same(version) && known.last_modified.is_some());
    if row.marker == Marker::Present && is_same || row.local || row.checked_at > cx.began || cx.pins.is_rewritten(dir) {
        return Ok(());
    }
    // Of a directory that had none, or another, the kernel was told what no longer holds. The root's says nothing: nobody reads it.
    let is_other = dir != Ino::ROOT && row.version.as_ref().is_none_or(|known| !known.same(version));
    if is_other && row.headers.take().is_some() {
        changes.push(Change::Content(dir));
    }
    row.marker = Marker::Present;
    row.version = Some(version.clone());
    rows.update_from(&before, &row)
}

/// The marker of a directory was not shown: only its keys say that it is there.
fn note_no_marker(rows: Rows<'_>, cx: Context<'_>, dir: Ino) -> RowResult<()> {
    let Some(before) = rows.get(dir)? else { return Ok(()) };
    let mut row = before.clone();
    if row.marker != Marker::Present || row.local || row.checked_at > cx.began || cx.pins.is_rewritten(dir) {
        return Ok(());
    }
    row.marker = Marker::Implied;
    row.version = None;
    if dir != Ino::ROOT {
        row.headers = None;
    }
    rows.update_from(&before, &row)
}

/// The directory at `path` below `top`. `None` if we show something else there: a file of ours that the bucket does not have yet.
fn find_dir(rows: Rows<'_>, top: Ino, path: &[Name], at: &mut Vec<(Name, Ino)>) -> RowResult<Option<Ino>> {
    let same = at.iter().zip(path).take_while(|((name, _), wanted)| name == *wanted).count();
    at.truncate(same);
    for name in &path[same..] {
        let parent = at.last().map_or(top, |(_, ino)| *ino);
        let Some(row) = rows.child(parent, name)?.filter(|r| r.attr.kind == FileKind::Dir) else { return Ok(None) };
        at.push((name.clone(), row.ino));
    }
    Ok(Some(at.last().map_or(top, |(_, ino)| *ino)))
}
