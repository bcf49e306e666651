//! How long the kernel may believe what it is told of an inode.
//!
//! Owns: that time. Pure. Does not own: telling the kernel earlier (`invalidate`), how fresh the catalogue must be (`lookup`).
//!
//! What the kernel believes is as old as the bucket's last word, so a lifetime ends when that word is no longer fresh: then
//! LOOKUP asks. Where the poller hears of a change before, the kernel is told at once.

use super::{Entry, Fs};
use crate::meta::Known;
use crate::types::Attr;
use crate::types::{Ino, Timestamp};
use std::time::Duration;

/// The shortest lifetime: the catalogue answers again in microseconds, but not for each of the hundred system calls with
/// which a program looks at a file.
const SHORTEST: Duration = Duration::from_secs(1);

/// The lifetime of what is known, at `now`, where an answer of the bucket counts as fresh for `fresh`.
fn ttl(known: Known, now: Timestamp, fresh: Duration) -> Duration {
    let shortest = SHORTEST.min(fresh);
    match known {
        // What we changed ourselves, the kernel has seen.
        Known { local: true, .. } => fresh,
        // Its headers may show another mode, or another kind.
        Known { is_read: false, .. } => shortest,
        // A time that lies ahead says nothing.
        Known { checked_at, .. } if checked_at > now => shortest,
        Known { checked_at, .. } => fresh.saturating_sub(now.since(checked_at)).max(shortest),
    }
}

impl Fs {
    /// An inode as the kernel is told of it at `now`. Attributes and what is known of them are those of a row that was read a moment
    /// ago: the rows of a READDIR are all of the moment of its first.
    pub(super) fn entry_of(&self, ino: Ino, mut attr: Attr, mut nlink: u32, mut known: Known, now: Timestamp) -> Entry {
        let mut staged = self.writer.get(ino);
        if known.local && staged.is_none() {
            // A commit may have ended since: then what was staged is gone, and only the row as it is now knows what was made of it.
            match self.meta.get(ino).ok().flatten() {
                Some(row) => (nlink, known, attr) = (self.links(&row), Known::from(&row), row.attr),
                // Removed meanwhile: what the kernel is told is asked for again soon.
                None => known = Known { checked_at: Timestamp::default(), is_read: false, local: false },
            }
            staged = self.writer.get(ino);
        }
        // Where headers say nothing of attributes, there is nothing to be read.
        let known = Known { is_read: known.is_read || !self.kept().in_objects(), ..known };
        let attr = self.shown_with(ino, attr, staged.as_deref());
        Entry { ino, attr, nlink, ttl: ttl(known, now, self.settings.poll_interval) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_parts(secs, 0)
    }

    fn known(checked_at: i64) -> Known {
        Known { checked_at: at(checked_at), is_read: true, local: false }
    }

    #[test]
    fn nothing_is_believed_for_longer_than_an_answer_is_fresh() {
        let secs = |checked_at| ttl(known(checked_at), at(1000), MINUTE).as_secs();
        assert_eq!([1000, 990, 941, 940, 900, 0].map(secs), [60, 50, 1, 1, 1, 1]);
        assert_eq!(secs(1001), 1, "by a clock that was set back since");
        assert_eq!(ttl(known(1000), at(1000), Duration::from_millis(300)), Duration::from_millis(300));
    }

    #[test]
    fn what_headers_may_change_is_asked_for_soon_and_what_is_ours_need_not_be() {
        let unread = Known { is_read: false, ..known(1000) };
        assert_eq!(ttl(unread, at(1000), MINUTE), SHORTEST);
        assert_eq!(ttl(Known { local: true, ..unread }, at(5000), MINUTE), MINUTE);
    }
}
