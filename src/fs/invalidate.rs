//! Telling the kernel what it must forget.
//!
//! Owns: the seam [`KernelCache`] and which of its calls a change means. Does not own: how the kernel is told (`fuse`).

use super::Fs;
use super::events::Replay;
use crate::meta::Change;
use crate::types::{Ino, Name};
use std::collections::HashSet;
use std::fmt::Debug;

/// The kernel's caches. No call waits for a lock of the kernel that a request under way may hold: what takes one is queued.
pub trait KernelCache: Send + Sync + Debug {
    /// Forget what `name` in `parent` is.
    fn forget_entry(&self, parent: Ino, name: &Name);
    /// Forget the attributes and pages of `ino`.
    fn forget_content(&self, ino: Ino);
    /// Forget the attributes of `ino`.
    fn forget_attr(&self, ino: Ino);
    /// Do the change again by a system call, for those who watch.
    fn replay(&self, replay: Replay);
    /// The inodes that somebody watches at this moment. Looks through all processes: milliseconds.
    fn watched(&self) -> HashSet<Ino>;
}

/// What an operation changes, as the kernel names it.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    /// Names, with their directories.
    pub(super) names: Vec<(Ino, Name)>,
    /// Inodes.
    pub(super) inodes: Vec<Ino>,
}

impl Touched {
    /// One name.
    pub(super) fn name(parent: Ino, name: &Name) -> Touched {
        Touched { names: vec![(parent, name.clone())], inodes: Vec::new() }
    }
}

impl Fs {
    /// The kernel does not know how an operation ended that changes these: it looks again.
    pub(super) fn forget_touched(&self, touched: &Touched) {
        let Some(kernel) = self.kernel.get() else { return };
        for (parent, name) in &touched.names {
            kernel.forget_entry(*parent, name);
            kernel.forget_attr(*parent);
        }
        touched.inodes.iter().for_each(|ino| kernel.forget_attr(*ino));
    }

    /// Attributes are others than the kernel was told.
    pub(super) fn forget_attr(&self, ino: Ino) {
        if let Some(kernel) = self.kernel.get() {
            kernel.forget_attr(ino);
        }
    }

    /// Tells the kernel of changes that came from the bucket.
    pub(super) fn tell_kernel(&self, changes: &[Change]) {
        let Some(kernel) = self.kernel.get() else { return };
        let mut touched = HashSet::new();
        for change in changes {
            match change {
                // The kernel never holds a name as absent: we answer ENOENT without a lifetime. To tell it all the same would
                // take away again what the READDIRPLUS of the same listing has just given it.
                Change::Added { parent, is_news, .. } => {
                    if *is_news {
                        touched.insert(*parent);
                    }
                }
                Change::Removed { parent, name, .. } => {
                    kernel.forget_entry(*parent, name);
                    touched.insert(*parent);
                }
                Change::Replaced { parent, name, .. } => {
                    kernel.forget_entry(*parent, name);
                    touched.insert(*parent);
                }
                // The version that the kernel has seen stays on record: the next open finds another and drops the pages.
                Change::Content(ino) => kernel.forget_content(*ino),
                Change::Moved { from, to, row } => {
                    kernel.forget_entry(from.0, &from.1);
                    kernel.forget_entry(to.0, &to.1);
                    kernel.forget_attr(row.ino);
                    touched.extend([from.0, to.0]);
                }
            }
        }
        touched.into_iter().for_each(|dir| kernel.forget_attr(dir));
    }
}
