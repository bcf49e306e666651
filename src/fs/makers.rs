//! Directories that were never listed, and in which files are made one after another.
//!
//! Owns: seeing that, and listing such a directory if it is small: from then on a new name needs no question to the bucket.
//! Does not own: listing (`listing`).

use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::store::ListRequest;
use crate::types::Ino;
use std::sync::Arc;

/// Files that are made in a directory before it is listed: each has cost a HEAD and a LIST by then.
const MADE_MIN: u32 = 3;
/// Entries of a directory that is listed for this: one page.
const ENTRIES_MAX: u16 = 1000;
/// Directories that are remembered.
const DIRS_MAX: u64 = 1000;

/// How many files were made in directories that were never listed.
#[derive(Debug)]
pub(super) struct Makers(moka::sync::Cache<Ino, u32>);

impl Default for Makers {
    fn default() -> Makers {
        Makers(moka::sync::Cache::new(DIRS_MAX))
    }
}

impl Makers {
    /// A file was made in `dir`. `true` once: when it is worth listing.
    fn on_made(&self, dir: Ino) -> bool {
        let count = self.0.get(&dir).unwrap_or_default() + 1;
        self.0.insert(dir, count);
        count == MADE_MIN
    }
}

impl Fs {
    /// A file was made in `dir`, as it was known before.
    pub(super) fn note_made_in(self: &Arc<Self>, dir: &InodeRow) {
        if dir.complete_at.is_some() || !self.makers.on_made(dir.ino) {
            return;
        }
        let (fs, ino) = (Arc::clone(self), dir.ino);
        self.runtime.spawn(async move {
            if let Err(e) = fs.list_if_small(ino).await {
                tracing::debug!(dir = %ino, error = %e, "could not be listed for those who make files in it");
            }
        });
    }

    async fn list_if_small(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let prefix = self.key(&self.row(ino)?)?;
        let request = ListRequest { prefix, delimited: true, continuation: None, max_keys: ENTRIES_MAX };
        if self.store.list(&request).await?.next.is_some() {
            return Ok(());
        }
        self.list(ino).await
    }
}
