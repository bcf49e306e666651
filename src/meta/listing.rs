//! Listings of the bucket, page by page: of one directory, or of a whole tree.
//!
//! Owns: the transactions in which pages are applied. Does not own: what a sighting means (`apply`), what absence means
//! (`finish`), where pages come from (`remote`).

use super::apply::{self, Change, Context, UnmappableKey};
use super::finish::{self, Leftover};
use super::{Marker, Meta, Observation, Result, Sighting};
use crate::db::{RowResult, Rows};
use crate::types::{FileKind, Ino, Key, Name, Timestamp};

/// What a page of a directory's listing means for it.
#[derive(Debug, Default)]
pub struct PageOutcome {
    /// What changed.
    pub changes: Vec<Change>,
    /// Objects that must wait for the end of the listing; to be given to [`Meta::finish_listing`].
    pub hidden: Vec<Sighting>,
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
    /// Whether its marker was shown.
    pub marker: bool,
    /// Whether nothing more of it will come.
    pub is_last: bool,
}

impl Meta {
    /// The highest inode number given out: what a listing that begins now makes is above it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn last_ino(&self) -> Result<Ino> {
        self.catalogue.read(|rows| rows.last_ino())
    }

    /// Subdirectories of `parent` above `after` that were not listed since `since`, `limit` at most.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub fn unlisted_dirs(&self, parent: Ino, after: Ino, since: Timestamp, limit: usize) -> Result<Vec<Ino>> {
        self.catalogue.read(|rows| rows.unlisted_dirs(parent, after, since, limit))
    }

    /// Applies one page of a listing of `parent`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn apply_page(
        &self,
        parent: Ino,
        seen: Vec<Sighting>,
        unmappable: Vec<UnmappableKey>,
        marker: bool,
        asked: &Observation,
    ) -> Result<PageOutcome> {
        self.applying(asked, move |rows, cx| {
            let mut changes = Vec::new();
            let hidden = apply_page(rows, cx, parent, seen, &unmappable, marker, &mut changes)?;
            finish::touch_changed(rows, cx, &changes)?;
            Ok(PageOutcome { changes, hidden })
        })
        .await
    }

    /// A listing of `parent` is complete: names that it did not show are gone, and the directory answers for itself. `since`
    /// is what [`Meta::last_ino`] said before it began.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn finish_listing(
        &self,
        parent: Ino,
        key: Key,
        hidden: Vec<Sighting>,
        since: Ino,
        asked: &Observation,
    ) -> Result<Vec<Change>> {
        self.applying(asked, move |rows, cx| {
            let (mut changes, mut leftover) = (Vec::new(), Leftover::default());
            finish::finish_dir(rows, cx.began, parent, key, hidden, &mut leftover)?;
            finish::finish(rows, cx, leftover, since, &mut changes)?;
            Ok(changes)
        })
        .await
    }

    /// Applies one page of a listing of the tree below `top`. What it leaves is added to `leftover`, for [`Meta::finish_tree`].
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn apply_tree(
        &self,
        top: Ino,
        parts: Vec<TreePart>,
        mut leftover: Leftover,
        asked: &Observation,
    ) -> Result<(Vec<Change>, Leftover)> {
        self.applying(asked, move |rows, cx| {
            let (mut changes, mut at) = (Vec::new(), Vec::new());
            for part in parts {
                apply_part(rows, cx, top, part, &mut at, &mut leftover, &mut changes)?;
            }
            finish::touch_changed(rows, cx, &changes)?;
            Ok((changes, leftover))
        })
        .await
    }

    /// A listing of a tree is complete.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn finish_tree(&self, leftover: Leftover, since: Ino, asked: &Observation) -> Result<Vec<Change>> {
        self.applying(asked, move |rows, cx| {
            let mut changes = Vec::new();
            finish::finish(rows, cx, leftover, since, &mut changes)?;
            Ok(changes)
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
    marker: bool,
    changes: &mut Vec<Change>,
) -> RowResult<Vec<Sighting>> {
    for key in unmappable {
        rows.put_unmappable(parent, &key.key, key.why, key.size, cx.began)?;
    }
    if marker
        && let Some(mut dir) = rows.get(parent)?
        && dir.marker != Marker::Present
    {
        dir.marker = Marker::Present;
        rows.update(&dir)?;
    }
    apply::apply_page(rows, cx, parent, seen, changes)
}

/// Applies what a page shows of one directory. `at` are the directories from `top` to the one before, with their inodes.
fn apply_part(
    rows: Rows<'_>,
    cx: Context<'_>,
    top: Ino,
    part: TreePart,
    at: &mut Vec<(Name, Ino)>,
    leftover: &mut Leftover,
    changes: &mut Vec<Change>,
) -> RowResult<()> {
    let Some(dir) = find_dir(rows, top, &part.path, at)? else { return Ok(()) };
    let hidden = apply_page(rows, cx, dir, part.seen, &part.unmappable, part.marker, changes)?;
    if part.is_last {
        finish::finish_dir(rows, cx.began, dir, part.key, hidden, leftover)?;
    } else {
        leftover.hide(dir, part.key, hidden);
    }
    Ok(())
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
