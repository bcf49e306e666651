//! The end of a listing: what it did not show is gone, or has moved.
//!
//! Owns: what completeness means for names that were not shown, and which file that is gone is the same as one that is new.
//! Does not own: pages (`apply`), rules for one row (`reconcile`).

use super::apply::{self, Change, Context};
use super::reconcile::{Found, Sighting};
use crate::db::{FileVersion, RowResult, Rows};
use crate::types::{FileKind, Ino, Key, Timestamp, Unmappable};
use std::collections::{HashMap, HashSet};

/// Files on either side that are compared to find moves, at most. Beyond that they count as removed and added.
const MOVES_MAX: usize = 100_000;

/// What the directories of a listing leave to be done once all of it was seen.
#[derive(Debug, Default)]
pub struct Leftover {
    /// Inodes that were not shown where they were.
    gone: Vec<Ino>,
    /// Objects that stand beside a directory of the same name.
    hidden: Vec<(Ino, Key, Vec<Sighting>)>,
}

impl Leftover {
    /// These objects of `dir` must wait for the end of the listing.
    pub(super) fn hide(&mut self, dir: Ino, key: Key, hidden: Vec<Sighting>) {
        if !hidden.is_empty() {
            self.hidden.push((dir, key, hidden));
        }
    }
}

/// A directory all of whose names were shown.
pub(super) struct Done {
    pub(super) dir: Ino,
    pub(super) key: Key,
    /// Objects that must wait for the end of the listing.
    pub(super) hidden: Vec<Sighting>,
    /// Whether anything was known of it before the listing.
    pub(super) may_have_lost: bool,
}

/// All names of a directory were shown.
pub(super) fn finish_dir(rows: Rows<'_>, began: Timestamp, done: Done, leftover: &mut Leftover) -> RowResult<()> {
    let Done { dir, key, hidden, may_have_lost } = done;
    if may_have_lost {
        leftover.gone.extend(rows.unconfirmed(dir, began)?);
    }
    leftover.hide(dir, key, hidden);
    rows.forget_unmappable(dir, began)?;
    rows.completed(dir, began)
}

/// The listing, whose question has the number `asked`, is over: what is gone has moved to a name that is new since inode number
/// `since`, or is gone for good.
pub(super) fn finish(
    rows: Rows<'_>,
    cx: Context<'_>,
    leftover: Leftover,
    since: Ino,
    asked: u64,
    changes: &mut Vec<Change>,
) -> RowResult<()> {
    let Leftover { mut gone, hidden } = leftover;
    // Of an object that we wrote anew meanwhile nothing was taken over; and where that has failed, nothing confirms a name that was
    // shown. The next listing tells.
    gone.retain(|ino| !cx.pins.was_rewritten(*ino, asked));
    let mut is_moved = HashSet::new();
    if !gone.is_empty() {
        let (old, new) = (files_among(rows, &gone)?, rows.new_files(since, cx.began, MOVES_MAX)?);
        for (from, to) in same_files(&old, &new) {
            if let Some(change) = apply_move(rows, cx, from, to)? {
                is_moved.insert(from);
                changes.push(change);
            }
        }
    }
    for ino in gone.into_iter().filter(|ino| !is_moved.contains(ino)) {
        if let Some(row) = rows.get(ino)?
            && let (Some(parent), Some(name)) = (row.parent, &row.name)
        {
            apply::apply_absence(rows, cx, parent, name, changes)?;
        }
    }
    for (dir, key, seen) in hidden {
        settle_hidden(rows, cx, dir, &key, &seen, changes)?;
    }
    rows.set_kv(super::LATEST, &cx.began.nanos().to_string())
}

/// Objects that stood beside a directory of the same name: either that was confirmed, and they are hidden by it, or it is gone
/// by now, and the name is theirs.
fn settle_hidden(
    rows: Rows<'_>,
    cx: Context<'_>,
    parent: Ino,
    key: &Key,
    hidden: &[Sighting],
    changes: &mut Vec<Change>,
) -> RowResult<()> {
    for seen in hidden {
        let dir = rows.child(parent, &seen.name)?.filter(|r| r.attr.kind == FileKind::Dir);
        match (dir, &seen.found, key.child(&seen.name)) {
            (Some(_), Found::Object { version, .. }, Ok(key)) => {
                let why = Unmappable::HiddenByDirectory.as_str();
                rows.put_unmappable(parent, key.as_str(), why, version.size, cx.began)?;
            }
            (Some(_), _, _) => {}
            (None, _, _) => drop(apply::apply(rows, cx, parent, seen, changes)?),
        }
    }
    Ok(())
}

/// Directories' mtimes move when a child appears or goes.
pub(super) fn touch_changed(rows: Rows<'_>, cx: Context<'_>, changes: &[Change]) -> RowResult<()> {
    let mut touched: HashSet<Ino> = HashSet::new();
    for change in changes {
        match change {
            Change::Added { parent, is_news: true, .. } | Change::Removed { parent, .. } => touched.extend([*parent]),
            Change::Moved { from, to, .. } => touched.extend([from.0, to.0]),
            Change::Added { .. } | Change::Replaced { .. } | Change::Content(_) => {}
        }
    }
    for dir in touched {
        if let Some(before) = rows.get(dir)?
            && before.attr.mtime < cx.began
        {
            // What we did to it since the question was asked is later.
            let mut dir = before.clone();
            dir.attr.mtime = cx.began;
            dir.attr.ctime = dir.attr.ctime.max(cx.began);
            rows.update_from(&before, &dir)?;
        }
    }
    Ok(())
}

/// The files among `gone`, and those in its directories.
fn files_among(rows: Rows<'_>, gone: &[Ino]) -> RowResult<Vec<FileVersion>> {
    let mut files = Vec::new();
    for ino in gone {
        files.extend(rows.file_versions(*ino, MOVES_MAX.saturating_sub(files.len()))?);
        if files.len() >= MOVES_MAX {
            break;
        }
    }
    Ok(files)
}

/// Pairs of a file that is gone and one that is new with the same ETag and size, where either is the only one of its kind.
/// Empty files are all the same. Pure.
fn same_files(gone: &[FileVersion], new: &[FileVersion]) -> Vec<(Ino, Ino)> {
    let (gone, new) = (by_content(gone), by_content(new));
    let pair = |(content, from): (&(&str, u64), &Option<Ino>)| Some(((*from)?, (*new.get(content)?)?));
    let mut pairs: Vec<(Ino, Ino)> = gone.iter().filter_map(pair).collect();
    pairs.sort_unstable();
    pairs
}

/// By ETag and size the inode that has them, or `None` where there are several.
fn by_content(files: &[FileVersion]) -> HashMap<(&str, u64), Option<Ino>> {
    let mut found = HashMap::new();
    for file in files.iter().filter(|f| f.size > 0) {
        found.entry((file.etag.as_str(), file.size)).and_modify(|ino| *ino = None).or_insert(Some(file.ino));
    }
    found
}

/// The inode `from` takes over name and version of `to`, which goes. `None` if somebody has `to` open, or either changed.
fn apply_move(rows: Rows<'_>, cx: Context<'_>, from: Ino, to: Ino) -> RowResult<Option<Change>> {
    let (Some(mut row), Some(new)) = (rows.get(from)?, rows.get(to)?) else { return Ok(None) };
    let (Some(old_parent), Some(old_name)) = (row.parent, row.name.take()) else { return Ok(None) };
    let pos = new.pos();
    let (Some(parent), Some(name)) = (new.parent, new.name) else { return Ok(None) };
    // Of another kind, as far as anybody has read: an inode never changes its kind.
    let fits = row.attr.kind == FileKind::File && new.attr.kind == FileKind::File;
    if !fits || row.local || row.checked_at >= cx.began || cx.pins.is_pinned(to) {
        return Ok(None);
    }
    rows.delete(to)?;
    row.parent = Some(parent);
    row.name = Some(name.clone());
    row.place = Some(pos);
    row.version = new.version;
    row.storage_class = new.storage_class;
    // A copy may have been given other metadata; until somebody reads them, what was known of the file is shown.
    if new.headers.is_some() {
        row.xattrs = new.xattrs;
    }
    row.headers = new.headers;
    row.attr.ctime = cx.began;
    row.checked_at = new.checked_at;
    rows.update(&row)?;
    Ok(Some(Change::Moved { from: (old_parent, old_name), to: (parent, name), row: Box::new(row) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ino: u64, etag: &str, size: u64) -> FileVersion {
        FileVersion { ino: Ino(ino), etag: etag.to_owned(), size }
    }

    #[test]
    fn only_the_one_file_of_a_content_has_moved() {
        let gone = [file(1, "a", 5), file(2, "b", 5), file(3, "c", 0), file(4, "d", 7), file(5, "d", 7)];
        let new = [file(11, "a", 5), file(12, "b", 6), file(13, "c", 0), file(14, "d", 7)];
        assert_eq!(same_files(&gone, &new), [(Ino(1), Ino(11))]);
        let twice = [file(11, "a", 5), file(12, "a", 5)];
        assert_eq!(same_files(&gone, &twice), []);
    }
}
