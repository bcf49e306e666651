//! Staged files that are copies of an object.
//!
//! Owns: becoming one, and a file like others again. Does not own: what a copy consists of (`content`), who asks for one (`fs`).

use super::staging::Staged;
use crate::types::{ByteRange, ObjectRef};
use std::io;

impl Staged {
    /// `range` of `object` becomes a part of the file, at the same place, of which nothing is fetched as long as nobody needs it here.
    /// Answers how many bytes, or `None` if they have to be written.
    ///
    /// # Errors
    /// What the disk says.
    pub fn copy_of(&self, object: &ObjectRef, range: ByteRange) -> io::Result<Option<u64>> {
        let mut content = self.lock();
        let copied = content.on_copied(object, range);
        if copied.is_some() {
            self.file.file().set_len(content.size())?;
            self.note_bytes(0);
        }
        Ok(copied)
    }

    /// A copy, all of which is here, is a file like others from now on.
    pub(super) fn become_file(&self) {
        let mut content = self.lock();
        let base = content.base().cloned();
        content.on_rebased(base);
        self.note_change();
    }
}
