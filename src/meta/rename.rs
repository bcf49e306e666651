//! Names that change their place.
//!
//! Owns: a rename in the catalogue, names and versions in one transaction. Does not own: the copies in the bucket (`fs`).

use super::apply::{self, Loser};
use super::reconcile::{self, Defaults, Headers};
use super::{InodeRow, Marker, Meta, Result, touch};
use crate::db::{RowResult, Rows};
use crate::types::{FileKind, Ino, Name, Timestamp, Version};
use std::sync::Arc;

/// A version that an inode has at its new place.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The names from the renamed inode down to this one; none for itself.
    pub path: Vec<Name>,
    /// Whether it is a directory's marker.
    pub is_dir: bool,
    /// The version at the new place.
    pub version: Version,
    /// Its headers there.
    pub headers: Headers,
}

impl Meta {
    /// Gives `ino` another name, and takes that name away from whoever has it. `moved` are the versions that it and what is
    /// below it have at the new place: name and versions change in one transaction, so that nobody sees the new names with
    /// the old versions. Answers the inodes whose version changed, with their place in `moved`.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn rename(&self, ino: Ino, parent: Ino, name: Name, moved: Vec<Moved>) -> Result<Vec<(InodeRow, usize)>> {
        let (pins, gone, now) = (Arc::clone(&self.pins), self.gone.clone(), self.clock.now());
        let defaults = Arc::clone(&self.defaults);
        self.catalogue
            .write(move |rows| {
                let Some(mut row) = rows.get(ino)? else { return Ok(Vec::new()) };
                if let Some(loser) = rows.child(parent, &name)?.filter(|r| r.ino != ino) {
                    apply::detach(rows, &pins, &loser, Loser::ToUs)?;
                }
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
                note_moved(rows, ino, moved, now, &defaults)
            })
            .await
    }
}

/// Rows of what was moved show the versions that they have now. What the catalogue does not know is left out.
fn note_moved(
    rows: Rows<'_>,
    top: Ino,
    moved: Vec<Moved>,
    now: Timestamp,
    defaults: &Defaults,
) -> RowResult<Vec<(InodeRow, usize)>> {
    let mut noted = Vec::new();
    for (index, one) in moved.into_iter().enumerate() {
        let mut at = rows.get(top)?;
        for name in &one.path {
            at = match at {
                Some(dir) => rows.child(dir.ino, name)?,
                None => None,
            };
        }
        let Some(mut row) = at.filter(|r| (r.attr.kind == FileKind::Dir) == one.is_dir) else { continue };
        let before = row.clone();
        // Of a row that nobody has read the attributes are defaults, which must not count as the object's.
        reconcile::learn(&mut row, &one.headers, defaults);
        if row.headers.is_some() {
            row.headers = Some(one.headers.json);
        }
        row.version = Some(one.version);
        row.checked_at = now;
        if one.is_dir {
            row.marker = Marker::Present;
        }
        rows.update(&row)?;
        noted.push((before, index));
    }
    Ok(noted)
}
