//! Applies what the bucket showed to the catalogue.
//!
//! Owns: carrying out the verdicts of `reconcile` on rows, and what a finished listing means for names it did not show.
//! Does not own: the rules (`reconcile`), telling the kernel (`fs::invalidate`).

use super::pins::{Pins, RecentlyGone};
use super::reconcile::{self, Defaults, Found, Sighting, Verdict};
use crate::db::{InodeRow, RowResult, Rows};
use crate::types::{FileKind, Ino, Key, Name, Timestamp, Unmappable};

/// A change of the catalogue that came from the bucket, and that the kernel may have cached otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A name that was not known.
    Added {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
    },
    /// A name that is gone, or that belongs to another inode now.
    Removed {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
        /// The inode that had it.
        ino: Ino,
    },
    /// An inode with other content.
    Content(Ino),
}

/// A key of a listing that no path can express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmappableKey {
    /// The key, relative to the mount.
    pub key: Key,
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
    pub(super) began: Timestamp,
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
    let pinned = row.as_ref().is_some_and(|r| cx.pins.is_pinned(r.ino));
    match (reconcile::judge(row.as_ref(), &seen.found, pinned, cx.began), row) {
        (Verdict::Keep, row) => Ok(row),
        (Verdict::Insert, _) | (_, None) => insert(rows, cx, parent, seen, changes).map(Some),
        (Verdict::Confirm, Some(before)) => {
            let mut row = before.clone();
            reconcile::confirm(&mut row, &seen.found, cx.defaults, cx.began);
            // Most of what a listing shows is as it was: one column is written instead of twenty.
            if (InodeRow { checked_at: before.checked_at, ..row.clone() }) == before {
                rows.confirmed(row.ino, row.checked_at)?;
            } else {
                rows.update(&row)?;
            }
            Ok(Some(row))
        }
        (Verdict::Update, Some(mut row)) => {
            reconcile::adopt(&mut row, &seen.found, cx.defaults, cx.began);
            rows.update(&row)?;
            changes.push(Change::Content(row.ino));
            Ok(Some(row))
        }
        (Verdict::Replace, Some(row)) => {
            if rows.local_below(row.ino)? {
                return Ok(Some(row));
            }
            detach(rows, cx.pins, &row, Loser::ToOthers)?;
            changes.push(Change::Removed { parent, name: seen.name.clone(), ino: row.ino });
            insert(rows, cx, parent, seen, changes).map(Some)
        }
    }
}

fn insert(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    seen: &Sighting,
    changes: &mut Vec<Change>,
) -> RowResult<InodeRow> {
    let mut row = super::blank(parent, &seen.name, seen.found.kind(), cx.began);
    reconcile::adopt(&mut row, &seen.found, cx.defaults, cx.began);
    row.ino = rows.insert(&row)?;
    changes.push(Change::Added { parent, name: seen.name.clone() });
    Ok(row)
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
    if row.checked_at > cx.began || rows.local_below(row.ino)? {
        return Ok(Some(row));
    }
    detach(rows, cx.pins, &row, Loser::ToOthers)?;
    changes.push(Change::Removed { parent, name: name.clone(), ino: row.ino });
    Ok(None)
}

/// A listing of `parent` that began at `cx.began` is complete: what it did not show is gone.
pub(super) fn finish_listing(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    dir_key: &Key,
    hidden: &[Sighting],
    changes: &mut Vec<Change>,
) -> RowResult<()> {
    for row in rows.unconfirmed(parent, cx.began)? {
        if let Some(name) = &row.name {
            apply_absence(rows, cx, parent, name, changes)?;
        }
    }
    // Objects that stood beside a directory of the same name: either that was confirmed, and they are hidden by it, or it
    // is gone by now, and the name is theirs.
    for seen in hidden {
        let dir = rows.child(parent, &seen.name)?.filter(|r| r.attr.kind == FileKind::Dir);
        match (dir, &seen.found, dir_key.child(&seen.name)) {
            (Some(_), Found::Object { version, .. }, Ok(key)) => {
                let why = Unmappable::HiddenByDirectory.as_str();
                rows.put_unmappable(parent, &key, why, version.size, cx.began)?;
            }
            (Some(_), _, _) => {}
            (None, _, _) => drop(apply(rows, cx, parent, seen, changes)?),
        }
    }
    rows.forget_unmappable(parent, cx.began)?;
    if let Some(mut dir) = rows.get(parent)? {
        dir.complete_at = Some(cx.began);
        rows.update(&dir)?;
    }
    Ok(())
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
        for ino in rows.descendants(row.ino)? {
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
    let mut hidden = Vec::new();
    for sighting in seen {
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
