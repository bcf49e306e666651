//! Applies what the bucket showed to the catalogue.
//!
//! Owns: carrying out the verdicts of `reconcile` on rows: of one name, and of one page of a listing.
//! Does not own: the rules (`reconcile`), the end of a listing (`finish`), telling the kernel (`fs::invalidate`).

use super::pins::{Pins, RecentlyGone};
use super::reconcile::{self, Defaults, Found, Sighting, Verdict};
use super::watches::Watches;
use crate::db::{InodeRow, RowResult, Rows};
use crate::types::{FileKind, Ino, Name, Pos, Timestamp};

/// A change of the catalogue that came from the bucket, and that the kernel may have cached otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A name that was not known.
    Added {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
        /// What it is.
        kind: FileKind,
        /// Whether the directory was known completely, so that the name is new in it and not only to us.
        is_news: bool,
    },
    /// A name that is gone.
    Removed {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
        /// The inode that had it, as it was.
        ghost: Box<InodeRow>,
    },
    /// A name that belongs to another inode now, because the old one is open.
    Replaced {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
        /// The inode that has it now.
        ino: Ino,
    },
    /// An inode with other content.
    Content(Ino),
    /// A file that has another name now, and is the same inode.
    Moved {
        /// The directory and the name that it had.
        from: (Ino, Name),
        /// Where it is now.
        to: (Ino, Name),
        /// The inode, as it is now.
        row: Box<InodeRow>,
    },
}

/// A key of a listing that no path can express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmappableKey {
    /// The key, relative to the mount; what the server sent, if that is no key.
    pub key: String,
    /// Why, in one word.
    pub why: &'static str,
    /// Size of the object in bytes.
    pub size: u64,
}

/// What applying needs to know beside the rows.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) pins: &'a Pins,
    pub(super) gone: &'a RecentlyGone,
    pub(super) watches: &'a Watches,
    pub(super) began: Timestamp,
    /// Whether the directory was known completely before, so that a new name in it is news.
    pub(super) is_known: bool,
    /// Whether new names are hidden until their event is raised.
    pub(super) hides: bool,
    /// The place that the name had when another inode had it. What is new comes at the end.
    pub(super) place: Option<Pos>,
}

impl Context<'_> {
    /// For a listing of `parent`.
    fn in_listing_of(self, rows: Rows<'_>, parent: Ino) -> RowResult<Self> {
        let is_known = rows.get(parent)?.is_some_and(|dir| dir.complete_at.is_some());
        let is_watched = is_known && self.watches.is_watched(parent);
        Ok(Context { is_known, hides: is_watched || self.watches.is_fresh(parent), ..self })
    }
}

/// Applies one sighting. Answers the row that the name has now, if any.
pub(super) fn apply(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    seen: &Sighting,
    changes: &mut Vec<Change>,
) -> RowResult<Option<InodeRow>> {
    let row = rows.child(parent, &seen.name)?;
    apply_to(rows, cx, parent, row, seen, changes)
}

/// Applies one sighting to the row that the name has.
fn apply_to(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    row: Option<InodeRow>,
    seen: &Sighting,
    changes: &mut Vec<Change>,
) -> RowResult<Option<InodeRow>> {
    if row.is_none() && cx.gone.is_newer(parent, &seen.name, cx.began) {
        return Ok(None);
    }
    if row.as_ref().is_some_and(|r| cx.pins.is_rewritten(r.ino)) {
        return Ok(row);
    }
    let pinned = row.as_ref().is_some_and(|r| cx.pins.is_pinned(r.ino));
    match (reconcile::judge(row.as_ref(), &seen.found, pinned, cx.began), row) {
        (Verdict::Keep, row) => Ok(row),
        (Verdict::Insert, _) | (_, None) => insert(rows, cx, parent, seen, changes),
        (Verdict::Confirm, Some(before)) => {
            let mut row = before.clone();
            reconcile::confirm(&mut row, &seen.found, cx.defaults, cx.began);
            // Most of what a listing shows is as it was: one column is written instead of twenty.
            if (InodeRow { checked_at: before.checked_at, ..row.clone() }) == before {
                rows.confirmed(row.ino, row.checked_at)?;
            } else {
                rows.update_from(&before, &row)?;
            }
            Ok(Some(row))
        }
        (Verdict::Update, Some(before)) => {
            let mut row = before.clone();
            reconcile::adopt(&mut row, &seen.found, cx.defaults, cx.began);
            rows.update_from(&before, &row)?;
            changes.push(Change::Content(row.ino));
            Ok(Some(row))
        }
        (Verdict::Replace, Some(row)) => {
            if rows.local_below(row.ino)? {
                return Ok(Some(row));
            }
            replace(rows, cx, parent, row, seen, changes)
        }
    }
}

/// Gives the name to a new inode, which keeps its place: whoever reads the directory just now meets it once. A file that takes the
/// place of another is no news of a directory: one name, other content.
fn replace(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    old: InodeRow,
    seen: &Sighting,
    changes: &mut Vec<Change>,
) -> RowResult<Option<InodeRow>> {
    let cx = Context { place: Some(old.pos()), ..cx };
    let of_files = old.attr.kind != FileKind::Dir && !is_dir(&seen.found);
    if !of_files {
        lose(rows, cx, parent, old, changes)?;
        return insert(rows, cx, parent, seen, changes);
    }
    detach(rows, cx.pins, &old, Loser::ToOthers)?;
    let row = insert(rows, Context { hides: false, ..cx }, parent, seen, &mut Vec::new())?;
    if let Some(row) = &row {
        changes.push(Change::Replaced { parent, name: seen.name.clone(), ino: row.ino });
    }
    Ok(row)
}

/// The name is gone, with what is below it.
fn lose(rows: Rows<'_>, cx: Context<'_>, parent: Ino, row: InodeRow, changes: &mut Vec<Change>) -> RowResult<()> {
    let Some(name) = row.name.clone() else { return Ok(()) };
    if row.attr.kind == FileKind::Dir && cx.watches.any() {
        // Whoever watches below is to see each name go, children before parents.
        for ino in rows.descendants(row.ino)?.into_iter().rev() {
            if let Some(below) = rows.get(ino)?
                && let (Some(dir), Some(name)) = (below.parent, below.name.clone())
                && (cx.watches.is_watched_or_fresh(dir) || cx.watches.is_watched(ino))
            {
                changes.push(Change::Removed { parent: dir, name, ghost: Box::new(below) });
            }
        }
    }
    detach(rows, cx.pins, &row, Loser::ToOthers)?;
    changes.push(Change::Removed { parent, name, ghost: Box::new(row) });
    Ok(())
}

/// Makes the row of a name. `None` if there is one.
fn insert(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    seen: &Sighting,
    changes: &mut Vec<Change>,
) -> RowResult<Option<InodeRow>> {
    let mut row = super::blank(parent, &seen.name, seen.found.kind(), cx.began);
    row.place = cx.place;
    reconcile::adopt(&mut row, &seen.found, cx.defaults, cx.began);
    let Some(ino) = rows.insert(&row)? else { return Ok(None) };
    row.ino = ino;
    if cx.hides {
        // Before the transaction is committed: nobody has seen the name yet.
        cx.watches.hide(parent, &seen.name, cx.began);
        if row.attr.kind == FileKind::Dir {
            cx.watches.freshen(row.ino);
        }
    }
    // What a first listing finds is no news to anybody.
    if cx.is_known || cx.hides {
        changes.push(Change::Added { parent, name: seen.name.clone(), kind: row.attr.kind, is_news: cx.is_known });
    }
    Ok(Some(row))
}

/// The name is not in the bucket, as a question asked at `cx.began` found.
pub(super) fn apply_absence(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    name: &Name,
    changes: &mut Vec<Change>,
) -> RowResult<Option<InodeRow>> {
    let Some(row) = rows.child(parent, name)? else { return Ok(None) };
    if cx.pins.is_rewritten(row.ino) || rows.is_newer_below(row.ino, cx.began)? {
        return Ok(Some(row));
    }
    lose(rows, cx, parent, row, changes)?;
    Ok(None)
}

/// Why an inode loses its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loser {
    /// Somebody on this mount removed or replaced it.
    ToUs,
    /// The bucket has another version there, or none.
    ToOthers,
}

/// Takes an inode's name away, and what is below it. What is open keeps its row until the last close.
pub(super) fn detach(rows: Rows<'_>, pins: &Pins, row: &InodeRow, loser: Loser) -> RowResult<()> {
    if row.attr.kind == FileKind::Dir {
        let below = rows.descendants(row.ino)?;
        if rows.has_unmappable()? {
            below
                .iter()
                .chain([&row.ino])
                .try_for_each(|dir| rows.forget_unmappable(*dir, Timestamp::from_nanos(i64::MAX)))?;
        }
        for ino in below {
            drop_or_unname(rows, pins, ino, loser)?;
        }
    }
    drop_or_unname(rows, pins, row.ino, loser)
}

fn drop_or_unname(rows: Rows<'_>, pins: &Pins, ino: Ino, loser: Loser) -> RowResult<()> {
    if !pins.is_pinned(ino) {
        return rows.delete(ino);
    }
    if loser == Loser::ToOthers {
        pins.mark_lost(ino);
    }
    if let Some(mut row) = rows.get(ino)? {
        row.parent = None;
        row.name = None;
        rows.update(&row)?;
    }
    Ok(())
}

/// Splits a page of a listing into what can be applied at once and objects whose name is known as a directory, which must
/// wait for the end of the listing: `a` comes before `a/`, and other names may lie between.
pub(super) fn apply_page(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    seen: Vec<Sighting>,
    changes: &mut Vec<Change>,
) -> RowResult<Vec<Sighting>> {
    let cx = cx.in_listing_of(rows, parent)?;
    let mut hidden = Vec::new();
    for sighting in seen {
        // In a directory that was never listed most names are new: made without looking for them first.
        let may_be_new = !cx.is_known && !cx.gone.is_newer(parent, &sighting.name, cx.began);
        if may_be_new && insert(rows, cx, parent, &sighting, changes)?.is_some() {
            continue;
        }
        let known = rows.child(parent, &sighting.name)?;
        let clash = known.as_ref().is_some_and(|r| (r.attr.kind == FileKind::Dir) != is_dir(&sighting.found));
        match known {
            Some(row) if clash && !is_dir(&sighting.found) && !row.local => hidden.push(sighting),
            Some(row) if clash && row.version.is_some() && !row.local => {
                let (version, storage_class, checked_at) =
                    (row.version.clone(), row.storage_class.clone(), row.checked_at);
                apply_to(rows, cx, parent, Some(row), &sighting, changes)?;
                // Shown by this very listing, and hidden by the directory that follows.
                if let Some(version) = version.filter(|_| checked_at >= cx.began) {
                    let found = Found::Object { version, storage_class, headers: None };
                    hidden.push(Sighting { name: sighting.name, found });
                }
            }
            row => drop(apply_to(rows, cx, parent, row, &sighting, changes)?),
        }
    }
    Ok(hidden)
}

fn is_dir(found: &Found) -> bool {
    matches!(found, Found::Dir { .. })
}
