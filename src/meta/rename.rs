//! Names that change their place, and names that we take away.
//!
//! Owns: a rename in the catalogue, names, places and versions in one transaction; who loses a name by it, and who does not.
//! Does not own: the copies in the bucket (`fs`).
//!
//! The kernel keeps others from a name only as long as its caller waits. Who was interrupted leaves a rename or an rmdir that
//! goes on, and what is made at its name meanwhile must not go with what it was to replace.

use super::apply::{self, Change, Context, Loser};
use super::pins::Pins;
use super::reconcile::{self, Found, Headers, Sighting};
use super::{InodeRow, Marker, Meta, Observation, Result};
use crate::db::{RowResult, Rows};
use crate::types::{FileKind, Ino, Name, Pos, Version};
use std::sync::Arc;

/// A version that an inode has at its new place.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The names from the renamed inode down to this one; none for itself.
    pub path: Vec<Name>,
    /// Whether it is a directory's marker.
    pub is_dir: bool,
    /// What was copied, which need not be what the catalogue has seen.
    pub from: Version,
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

/// Who may lose a name to an inode that gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losers {
    /// Whoever has it.
    All,
    /// The one that was looked at before, if any; of others only what holds nothing that we alone know.
    Seen(Option<Ino>),
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
        self.give_name(ino, (parent, name), moved, Losers::All, false).await
    }

    /// The same after requests, during which others may have got at the name. `seen` had it when the rename began, and loses
    /// it. Also `None`, and nothing has changed, if another inode has it by now that holds changes of ours, or if there are any
    /// below a directory that would lose it.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn rename_over(
        &self,
        ino: Ino,
        to: (Ino, Name),
        seen: Option<Ino>,
        moved: Vec<Moved>,
    ) -> Result<Option<Renamed>> {
        self.give_name(ino, to, moved, Losers::Seen(seen), false).await
    }

    /// Gives `ino` another name because its own goes to somebody else's version ([`Meta::take_place`]). What is `left` is the
    /// place in the directory that stays with that name; the inode is at the end from now on. Also `None` if somebody has made
    /// something under the new name here.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn make_way(&self, ino: Ino, parent: Ino, name: Name) -> Result<Option<Renamed>> {
        self.give_name(ino, (parent, name), Vec::new(), Losers::Seen(None), true).await
    }

    /// Takes the name of `ino` away. An open inode keeps its row.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn remove(&self, ino: Ino) -> Result<()> {
        self.take_away(ino, false).await.map(drop)
    }

    /// The same of a directory that was found empty a moment ago. `false`, and nothing has changed, if there are changes of ours
    /// below it by now.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn remove_empty(&self, ino: Ino) -> Result<bool> {
        self.take_away(ino, true).await
    }

    async fn take_away(&self, ino: Ino, if_empty: bool) -> Result<bool> {
        let (pins, gone, now) = (Arc::clone(&self.pins), self.gone.clone(), self.clock.now());
        let job = move |rows: Rows<'_>| -> RowResult<bool> {
            let Some(row) = rows.get(ino)? else { return Ok(true) };
            if if_empty && rows.holds_local(ino)? {
                return Ok(false);
            }
            // What the catalogue has below an empty directory was deleted elsewhere: whoever has that open is to hear of it.
            let loser = if if_empty { Loser::ToOthers } else { Loser::ToUs };
            apply::detach(rows, &pins, &row, loser)?;
            if let (Some(parent), Some(name)) = (row.parent, &row.name) {
                gone.note(parent, name, now);
                rows.touched(parent, now)?;
            }
            Ok(true)
        };
        // What is below a directory goes with it, and may be much.
        if self.has_children(ino)? { self.catalogue.write(job).await } else { self.catalogue.write_small(job).await }
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
        Ok(self.apply_at(place, name, Some(found), asked).await?.and_then(|(row, _)| row))
    }

    /// What was changed here of `ino` counts no more, and its name shows what the bucket has there. Who has it open keeps the inode,
    /// which has no name then; if nobody has, the inode stays. In one transaction, so that nobody changes it in between. Answers what
    /// changed.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn give_up(
        &self,
        ino: Ino,
        (parent, name): (Ino, Name),
        found: Found,
        asked: &Observation,
    ) -> Result<Vec<Change>> {
        let found = found.where_kept(self.defaults.kept);
        self.applying(asked, move |rows, cx| {
            let mut changes = Vec::new();
            let Some(before) = rows.get(ino)? else { return Ok(changes) };
            rows.update_from(&before, &InodeRow { local: false, ..before.clone() })?;
            apply::apply(rows, cx, parent, &Sighting { name, found }, &mut changes)?;
            Ok(changes)
        })
        .await
    }

    async fn give_name(
        &self,
        ino: Ino,
        (parent, name): (Ino, Name),
        moved: Vec<Moved>,
        losers: Losers,
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
                if let Some(loser) = &loser
                    && !lose(rows, &pins, loser, losers)?
                {
                    return Ok(None);
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
                    rows.touched(from, now)?;
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
                rows.touched(parent, now)?;
                let (defaults, pins, gone, watches) = (&*defaults, &*pins, &gone, &*watches);
                let (began, is_known, hides, place) = (now, true, false, None);
                let cx = Context { defaults, pins, gone, watches, began, is_known, hides, place };
                Ok(Some(Renamed { left, ..note_moved(rows, cx, ino, moved)? }))
            })
            .await
    }
}

/// Takes the name away from whoever has it. `false`, and nothing has changed, if that would take changes of ours along that
/// nobody has looked at.
fn lose(rows: Rows<'_>, pins: &Pins, loser: &InodeRow, losers: Losers) -> RowResult<bool> {
    let is_dir = loser.attr.kind == FileKind::Dir;
    let by = match losers {
        Losers::All => Loser::ToUs,
        Losers::Seen(seen) => {
            let is_seen = seen == Some(loser.ino);
            let holds_ours =
                if is_seen { is_dir && rows.holds_local(loser.ino)? } else { rows.local_below(loser.ino)? };
            if holds_ours {
                return Ok(false);
            }
            // Copies of ours that a listing has shown, or what somebody else has made: whoever has opened one of them to write
            // to it is to hear that it is gone.
            if is_seen && !is_dir { Loser::ToUs } else { Loser::ToOthers }
        }
    };
    apply::detach(rows, pins, loser, by)?;
    Ok(true)
}

/// Rows of what was moved show the versions that they have now. What is below a directory that the catalogue does not know is left
/// out.
fn note_moved(rows: Rows<'_>, cx: Context<'_>, top: Ino, moved: Vec<Moved>) -> RowResult<Renamed> {
    let mut renamed = Renamed::default();
    for (index, mut one) in moved.into_iter().enumerate() {
        one.headers = one.headers.where_kept(cx.defaults.kept);
        let Some((name, dirs)) = one.path.split_last() else {
            if let Some(row) = rows.get(top)?.filter(|row| (row.attr.kind == FileKind::Dir) == one.is_dir) {
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
        let is_as_known = known.as_ref().and_then(|row| row.version.as_ref()).is_some_and(|v| v.etag == one.from.etag);
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
fn follow(rows: Rows<'_>, cx: Context<'_>, before: InodeRow, moved: Moved) -> RowResult<InodeRow> {
    let mut row = before.clone();
    // A renamed file has the one that other machines find there, rather than that of a moment later.
    if moved.path.is_empty()
        && !moved.is_dir
        && let Some(ctime) = moved.headers.said(false).and_then(|said| said.ctime)
    {
        row.attr.ctime = ctime;
    }
    let is_other = row.version.as_ref().is_some_and(|version| version.etag != moved.from.etag);
    if is_other || !row.local && row.version.as_ref().is_some_and(|version| !version.same(&moved.from)) {
        // Somebody else's marker, or one more change before the copy, be it of attributes only: read anew.
        row.headers = None;
    }
    if is_other && !moved.is_dir && !row.local {
        row.attr.size = moved.version.size;
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
    rows.update_from(&before, &row)?;
    Ok(before)
}
