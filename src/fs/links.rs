//! How many links an inode has, as st_nlink shows it.
//!
//! Owns: that number. Does not own: counting subdirectories (`meta`), telling the kernel of another count (`invalidate`: whatever
//! adds or removes a name makes it forget the directory's attributes).

use super::Fs;
use crate::meta::InodeRow;
use crate::types::{FileKind, Ino};

/// The links of an inode that has a name. Pure. There are no hard links, and a directory has those of its own `.` and of the `..` of
/// each subdirectory. 1 says that these were not counted: programs that go by the count, as find(1) did, then expect any number.
pub(super) fn links(kind: FileKind, subdirs: Option<u32>) -> u32 {
    match (kind, subdirs) {
        (FileKind::Dir, Some(count)) => count + 2,
        _ => 1,
    }
}

impl Fs {
    /// The links of an inode. None once it has lost its name and is only open (unlink(2)).
    pub(super) fn links(&self, row: &InodeRow) -> u32 {
        if row.parent.is_none() && row.ino != Ino::ROOT {
            return 0;
        }
        links(row.attr.kind, self.subdirs(row))
    }

    /// How many subdirectories a directory has. `None` if not all names in it are known, or if there are more than are counted.
    fn subdirs(&self, row: &InodeRow) -> Option<u32> {
        if row.attr.kind != FileKind::Dir || row.complete_at.is_none() {
            return None;
        }
        self.meta.subdirs(row.ino).unwrap_or_else(|e| {
            tracing::debug!(dir = %row.ino, error = %e, "its subdirectories cannot be counted");
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_whose_names_are_known_show_a_count() {
        assert_eq!(links(FileKind::File, None), 1);
        assert_eq!(links(FileKind::Symlink, None), 1);
        assert_eq!(links(FileKind::Dir, None), 1);
        assert_eq!(links(FileKind::Dir, Some(0)), 2);
        assert_eq!(links(FileKind::Dir, Some(7)), 9);
    }
}
