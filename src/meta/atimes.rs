//! Times of last access, where reading a file is all that has happened to it.
//!
//! Owns: writing them. Does not own: which reads count (`fs::access`), atimes that somebody sets.

use super::{Meta, Result};
use crate::types::{Ino, Timestamp};

impl Meta {
    /// These inodes were read at these times. Rows keep an atime that is later, and all else that they have. `is_current` says, as
    /// late as possible, whether an atime still counts.
    ///
    /// # Errors
    /// As [`Meta::get`].
    pub async fn accessed(
        &self,
        atimes: Vec<(Ino, Timestamp)>,
        is_current: impl Fn(Ino, Timestamp) -> bool + Send + 'static,
    ) -> Result<()> {
        self.catalogue
            .write(move |rows| {
                let mut current = atimes.into_iter().filter(|(ino, at)| is_current(*ino, *at));
                current.try_for_each(|(ino, at)| rows.accessed(ino, at))
            })
            .await
    }
}
