//! Inode numbers, places in directories, and file handles.
//!
//! Owns: the three newtypes. Does not own: how numbers are given out (`db` for places, `meta` for inodes, `fs` for handles).

use std::fmt;

/// An inode number: the rowid of the inode in the catalogue, stable across remounts and never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the mount (`FUSE_ROOT_ID`, include/uapi/linux/fuse.h).
    pub const ROOT: Ino = Ino(1);
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The place of a name in the order of its directory, in which readdir gives it: the number of the inode that had the name first.
/// A name keeps its place whoever has it, over remounts too, and no two names have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Pos(pub u64);

impl Pos {
    /// Before all entries.
    pub const START: Pos = Pos(0);
}

/// A file handle as the kernel carries it between OPEN and RELEASE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fh(pub u64);
