//! Those who watch with inotify(7).
//!
//! Owns: what follows from who watches which directory. Does not own: finding them (`fuse::watchers`), events (`events`), hidden
//! names (`meta::Watches`).

use super::{Events, Fs};
use crate::meta::InodeRow;
use crate::types::{FileKind, Ino};
use std::collections::HashSet;

impl Fs {
    /// Whoever wanted to watch these directories does by now. `watched` are the inodes that are watched.
    pub fn watching(&self, watched: HashSet<Ino>, settled: &HashSet<Ino>) {
        for ino in &watched {
            if let Ok(Some(row)) = self.meta.get(*ino) {
                let dir = if row.attr.kind == FileKind::Dir { Some(row) } else { self.parent_of(&row) };
                if let Some(dir) = dir {
                    self.polled.shown(dir.ino, dir.complete_at.unwrap_or_default());
                }
            }
        }
        self.meta.watches().set(watched);
        settled.iter().for_each(|dir| self.meta.watches().settled(*dir));
    }

    fn parent_of(&self, row: &InodeRow) -> Option<InodeRow> {
        self.meta.get(row.parent?).ok().flatten()
    }

    /// Whether somebody could be watching: the kernel holds a directory.
    pub fn may_be_watched(&self) -> bool {
        self.polled.may_hold_any()
    }

    /// Somebody reads a directory that has just appeared in a watched one. Who watches it by now hears of what is in it; else
    /// it is shown, so that who heard of the directory and looks into it finds all. Not at OPENDIR: who walks and watches
    /// opens a directory first, then watches it, and then reads.
    pub(super) fn show_if_unwatched(&self, dir: Ino) {
        let watches = self.meta.watches();
        if self.settings.events == Events::All || !watches.is_fresh(dir) {
            return;
        }
        let Some(kernel) = self.kernel.get() else { return };
        let watched = kernel.watched();
        let is_watched = watched.contains(&dir);
        self.watching(watched, &HashSet::new());
        if !is_watched {
            watches.unhide(dir);
        }
    }
}
