//! Bytes of a staged file that the journal counts on, before they are changed.
//!
//! Owns: whether a change has to wait for a copy of them, and making that before the change; databases, whose are overwritten.
//! Does not own: the copy itself (`place`), which bytes these are (`snapshot`).

use super::place::InPlace;
use super::staging::Staged;
use crate::types::ByteRange;
use std::io;
use std::sync::atomic::Ordering;

/// Bytes that are copied on the thread of whoever changes one of them.
const COPY_AT_ONCE_MAX: u64 = 1 << 20;

impl Staged {
    /// Whether a change of `range` takes its time: much has to be copied before it, or is being copied.
    pub fn waits_for_copy(&self, range: ByteRange) -> bool {
        self.is_being_copied() || self.held.load(Ordering::Relaxed) > COPY_AT_ONCE_MAX && self.file.is_kept(range)
    }

    /// Whether much of it is being copied just now.
    fn is_being_copied(&self) -> bool {
        self.file.is_copying()
    }

    /// Waits until it is not being copied: whoever takes its lock then has it in a moment. To be called before that on each thread that
    /// others need.
    pub async fn copy_ended(&self) {
        self.file.copy_ended().await;
    }

    /// Copies what a change of `range` needs, so that the change that follows finds it done. Blocks.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub fn copy_before(&self, range: ByteRange) -> io::Result<()> {
        let content = self.lock();
        let present = content.dirty().iter().chain(content.local().iter());
        self.changing(std::iter::once(range), present)
    }

    /// Whether what the journal has may be overwritten from now on: whoever writes the file can deal with that after a crash.
    pub fn overwrite_in_place(&self, in_place: InPlace) {
        let _content = self.lock();
        self.file.overwrite_in_place(in_place);
    }
}
