//! Names that change their place.
//!
//! Owns: a rename in the catalogue, names, places and versions in one transaction. Does not own: the copies in the bucket (`fs`).

use super::apply::{self, Change, Context, Loser};
use super::reconcile::{self, Found, Headers, Sighting};
use super::{InodeRow, Marker, Meta, Observation, Result, touch};
use crate::db::{RowResult, Rows};
use crate::types::{ETag, FileKind, Ino, Name, Pos, Version};
use std::sync::Arc;

/// A version that an inode has at its new place.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The names from the renamed inode down to this one; none for itself.
    pub path: Vec<Name>,
    /// Whether it is a directory's marker.
    pub is_dir: bool,
    /// What was copied, which need not be what the catalogue has seen.
    pub from: ETag,
    /// The version at the new place.
    pub version: Version,
    /// Its headers there.
    pub headers: Headers,
    /// Its storage class, where told.
    pub storage_class: Option<String>,
}

/// What a rename was in the catalogue.
#[derive(Debug, Default)]
pub struct Renamed {
    /// The inodes whose version is at another place now, as they were, with their place among those that were moved.
    pub followed: Vec<(InodeRow, usize)>,
    /// What somebody else had written below that nobody here had seen yet.
    pub changes: Vec<Change>,
    /// The place in the directory that was left to whoever gets the old name.
    pub left: Option<Pos>,
}

impl Meta {
    /// Gives `ino` another name, and takes that name away from whoever has it. `moved` are the versions that it and what is
    /// below it have at the new place: name and versions change in one transaction, so that nobody sees the new names with
    /// the old versions. Where another version was copied than the catalogue shows, it is taken for what it is: somebody else's.
    /// `None` if the inode or the directory is gone.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn rename(&self, ino: Ino, parent: Ino, name: Name, moved: Vec<Moved>) -> Result<Option<Renamed>> {
        self.give_name(ino, (parent, name), moved, false).await
    }

    /// Gives `ino` another name because its own goes to somebody else's version ([`Meta::take_place`]). What is `left` is the
    /// place in the directory that stays with that name; the inode is at the end from now on.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn make_way(&self, ino: Ino, parent: Ino, name: Name) -> Result<Option<Renamed>> {
        self.give_name(ino, (parent, name), Vec::new(), true).await
    }

    /// Applies what the bucket has under a name for which an inode made way: its place is `place`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn take_place(
        &self,
        name: (Ino, Name),
        found: Found,
        place: Option<Pos>,
        asked: &Observation,
    ) -> Result<Option<InodeRow>> {
        Ok(self.apply_at(place, name, Some(found), asked).await?.0)
    }

    async fn give_name(
        &self,
        ino: Ino,
        (parent, name): (Ino, Name),
        moved: Vec<Moved>,
        makes_way: bool,
    ) -> Result<Option<Renamed>> {
        let (pins, gone, now) = (Arc::clone(&self.pins), self.gone.clone(), self.clock.now());
        let (defaults, watches) = (Arc::clone(&self.defaults), Arc::clone(&self.watches));
        self.catalogue
            .write(move |rows| {
                let Some(mut row) = rows.get(ino)? else { return Ok(None) };
                // Somebody else may have deleted it in this moment: the new name would be in nobody's path.
                if rows.path(parent)?.is_none() {
                    return Ok(None);
                }
                let loser = rows.child(parent, &name)?.filter(|r| r.ino != ino);
                if let Some(loser) = &loser {
                    apply::detach(rows, &pins, loser, Loser::ToUs)?;
                }
                let left = row.parent.filter(|_| makes_way).map(|_| row.pos());
                row.place = match loser {
                    // One name all the time: whoever reads the directory just now meets it once.
                    Some(loser) => Some(loser.pos()),
                    // Another inode has got its place together with its name, or will.
                    None if makes_way || row.parent.is_none() => Some(rows.new_pos()?),
                    None => row.place,
                };
                if let (Some(from), Some(old)) = (row.parent, &row.name) {
                    gone.note(from, old, now);
                    touch(rows, from, now)?;
                }
                row.parent = Some(parent);
                row.name = Some(name);
                row.attr.ctime = now;
                row.checked_at = now;
                rows.update(&row)?;
                if row.attr.kind == FileKind::Dir {
                    // A listing that began before has seen none of them here.
                    rows.confirm_dirs_below(ino, now)?;
                }
                touch(rows, parent, now)?;
                let (defaults, pins, gone, watches) = (&*defaults, &*pins, &gone, &*watches);
                let (began, is_known, hides, place) = (now, true, false, None);
                let cx = Context { defaults, pins, gone, watches, began, is_known, hides, place };
                Ok(Some(Renamed { left, ..note_moved(rows, cx, ino, moved)? }))
            })
            .await
    }
}

/// Rows of what was moved show the versions that they have now. What is below a directory that the catalogue does not know is left
/// out.
fn note_moved(rows: Rows<'_>, cx: Context<'_>, top: Ino, moved: Vec<Moved>) -> RowResult<Renamed> {
    let mut renamed = Renamed::default();
    for (index, mut one) in moved.into_iter().enumerate() {
        one.headers = one.headers.where_kept(cx.defaults.kept);
        let Some((name, dirs)) = one.path.split_last() else {
            if let Some(mut row) = rows.get(top)?.filter(|row| (row.attr.kind == FileKind::Dir) == one.is_dir) {
                // The one that other machines find there, rather than that of a moment later.
                if !one.is_dir
                    && let Some(ctime) = one.headers.said(one.is_dir).and_then(|said| said.ctime)
                {
                    row.attr.ctime = ctime;
                }
                renamed.followed.push((follow(rows, cx, row, one)?, index));
            }
            continue;
        };
        let mut dir = Some(top);
        for name in dirs {
            let below = dir.map(|dir| rows.child(dir, name)).transpose()?.flatten();
            dir = below.filter(|row| row.attr.kind == FileKind::Dir).map(|row| row.ino);
        }
        let Some(dir) = dir else { continue };
        let known = rows.child(dir, name)?;
        let is_as_known = known.as_ref().and_then(|row| row.version.as_ref()).is_some_and(|v| v.etag == one.from);
        match known {
            // An object beside keys below its name: the directory hides it.
            Some(row) if (row.attr.kind == FileKind::Dir) != one.is_dir => {}
            Some(row) if one.is_dir || is_as_known => {
                renamed.followed.push((follow(rows, cx, row, one)?, index));
            }
            None if one.is_dir => {}
            _ => {
                let Moved { version, headers, storage_class, .. } = one;
                let found = Found::Object { version, storage_class, headers: Some(headers) };
                apply::apply(rows, cx, dir, &Sighting { name: name.clone(), found }, &mut renamed.changes)?;
            }
        }
    }
    Ok(renamed)
}

/// The row of what was moved. Answers what it was before.
fn follow(rows: Rows<'_>, cx: Context<'_>, mut row: InodeRow, moved: Moved) -> RowResult<InodeRow> {
    let before = row.clone();
    if row.version.as_ref().is_some_and(|version| version.etag != moved.from) {
        // Somebody else's marker, or one more change in the moment of the copy: read anew.
        row.headers = None;
        if !moved.is_dir && !row.local {
            row.attr.size = moved.version.size;
        }
    }
    // Of a row that nobody has read the attributes are defaults, which must not count as the object's.
    reconcile::learn(&mut row, &moved.headers, cx.defaults);
    if row.headers.is_some() {
        row.headers = Some(moved.headers.json);
    }
    row.version = Some(moved.version);
    row.checked_at = cx.began;
    if moved.is_dir {
        row.marker = Marker::Present;
    }
    rows.update(&row)?;
    Ok(before)
}
