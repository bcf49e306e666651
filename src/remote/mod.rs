//! What the bucket says now: one name, one directory, or the whole tree, by asking.
//!
//! Owns: which requests answer a question about a name, a directory or the tree, how keys become names, when which directory is
//! asked for again.
//! Does not own: what the answers mean for the catalogue (`meta`), dirty data (`write`), who holds or watches a directory (`fs`).

mod listing;
mod lookup;
mod schedule;
mod tree;

use crate::store::{InvalidKey, ObjectHeaders, ObjectMeta, ObjectStore};
use crate::types::{Name, Unmappable, Version};
use std::sync::Arc;

pub use listing::DirPage;
pub use lookup::Below;
pub use schedule::{Budget, Held, Next, Periods, Whole};
pub use tree::{DirPart, TreeWalk};

/// The name at the mount's root under which objfs keeps its own objects (probe keys, orphans). Hidden from listings.
pub const OWN_DIR: &str = ".objfs";

/// What the bucket has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An object.
    Object {
        /// Its version.
        version: Version,
        /// Its storage class, where told.
        storage_class: Option<String>,
        /// Its headers, if they were read.
        headers: Option<ObjectHeaders>,
    },
    /// Keys below `name/`.
    Dir {
        /// Whether a marker object exists, if that is known.
        marker: Option<bool>,
        /// The marker's version and headers, if they were read.
        read: Option<ObjectMeta>,
        /// The object of the same name that the directory hides: its size in bytes.
        hides: Option<u64>,
    },
}

/// A name of a listing, with what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name within the directory.
    pub name: Name,
    /// What is there.
    pub entry: Entry,
}

/// A key that no path can express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisted {
    /// The key, which may be none that a request can name.
    pub key: String,
    /// Why.
    pub why: Unmappable,
    /// Size of the object in bytes.
    pub size: u64,
}

impl From<InvalidKey> for Unlisted {
    fn from(key: InvalidKey) -> Unlisted {
        Unlisted { key: key.text, why: key.why, size: key.size }
    }
}

/// Asks the bucket.
#[derive(Debug, Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
}

impl Remote {
    /// Asks `store`, whose keys are relative to the mount.
    pub fn new(store: Arc<dyn ObjectStore>) -> Remote {
        Remote { store }
    }
}
