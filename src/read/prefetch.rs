//! How far ahead of its readers a handle is served. Pure.
//!
//! Owns: telling sequential readers from random ones, several of them in one handle, and the window of each.
//! Does not own: fetching (`mod`), what is kept of it (`stream`).
//!
//! A window grows with what was read in sequence, and beyond [`PATIENT`] only when the reader had to wait: who plays a film needs
//! no more than a few megabytes ahead, who copies it takes all that the memory allows.

use super::unit::{GET_MAX, STEP};
use crate::types::ByteRange;

/// Readers of one handle that are told apart: a player reads sound and picture in turn.
const CURSORS_MAX: usize = 4;
/// How far behind its reader a read may come: the kernel's own read-ahead sends requests side by side.
const BEHIND: u64 = 2 << 20;
/// How far behind its reader bytes are kept that nobody has read: the requests of the kernel's read-ahead may overtake each other.
const KEPT_BEHIND: u64 = 8 << 20;
/// How far a reader may skip and still count as the same, where nothing was fetched ahead of it. What was, it may skip.
const SKIP: u64 = 128 << 10;
/// Bytes that somebody must have read in sequence before any are fetched ahead.
const TRUSTED: u64 = 128 << 10;
/// Bytes in sequence up to which somebody only looks into an object: players and scanners read as much to find out what it is.
const LOOK_MAX: u64 = 8 << 20;
/// The largest window of a reader that never waits.
const PATIENT: u64 = 8 << 20;

/// One reader of a handle.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Where it has come to.
    end: u64,
    /// Bytes read in sequence up to there.
    run: u64,
    /// Bytes below this were asked for.
    asked: u64,
    /// Bytes below this are read from the disk ahead of it.
    from_disk: u64,
    /// What it is served ahead, beyond what its run is worth, because it waits.
    window: u64,
    /// Where it was when its window last grew.
    grew_at: u64,
    /// When it last read, by the count of reads.
    used: u64,
}

/// The readers of one handle.
#[derive(Debug, Default)]
pub struct Sequence {
    cursors: Vec<Cursor>,
    reads: u64,
}

/// What a read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    cursor: usize,
    /// Bytes up to here should be on their way. The end of the read where nothing is to be fetched ahead.
    pub to: u64,
    /// Bytes below this were asked for already.
    pub asked: u64,
    /// Where the reader has come to.
    pub at: u64,
    /// How many bytes each request should ask for, where it can.
    pub get: u64,
    /// Whether the object is read through, and not looked into.
    pub is_stream: bool,
}

impl Advice {
    /// Whether the read is one of a sequence.
    pub fn is_ahead_of(&self, range: ByteRange) -> bool {
        self.to > range.end()
    }
}

impl Sequence {
    /// A read of `range` in an object of `size` bytes comes in, and no window may be larger than `window_max`.
    pub fn on_read(&mut self, range: ByteRange, size: u64, window_max: u64) -> Advice {
        self.reads += 1;
        let index = self.cursor_of(range);
        let cursor = &mut self.cursors[index];
        cursor.run += range.end().saturating_sub(cursor.end.max(range.start()));
        cursor.end = cursor.end.max(range.end());
        cursor.used = self.reads;
        let window = window_of(cursor).min(window_max);
        let to = match window {
            0 => range.end(),
            _ => (cursor.end + window).div_ceil(STEP).saturating_mul(STEP).min(size).max(range.end()),
        };
        let is_stream = cursor.run > LOOK_MAX;
        Advice { cursor: index, to, asked: cursor.asked, at: cursor.end, get: get_of(window), is_stream }
    }

    /// Whose read it is: that of the nearest reader, or of a new one.
    fn cursor_of(&mut self, range: ByteRange) -> usize {
        let start = range.start();
        let is_near = |c: &Cursor| start + BEHIND >= c.end && start <= c.asked.max(c.end + SKIP);
        let near = self.cursors.iter().enumerate().filter(|(_, c)| is_near(c));
        if let Some((index, _)) = near.min_by_key(|(_, c)| start.abs_diff(c.end)) {
            return index;
        }
        let new = Cursor { end: start, run: 0, asked: start, from_disk: start, window: 0, grew_at: start, used: 0 };
        if self.cursors.len() < CURSORS_MAX {
            self.cursors.push(new);
            return self.cursors.len() - 1;
        }
        let oldest = self.cursors.iter().enumerate().min_by_key(|(_, c)| c.used).map_or(0, |(index, _)| index);
        self.cursors[oldest] = new;
        oldest
    }

    /// Bytes below `to` were asked for, for the reader of this read.
    pub fn on_asked(&mut self, advice: &Advice, to: u64) {
        if let Some(cursor) = self.cursors.get_mut(advice.cursor) {
            cursor.asked = cursor.asked.max(to);
        }
    }

    /// Bytes below `to` are read from the disk ahead of the reader of this read.
    pub fn on_read_from_disk(&mut self, advice: &Advice, to: u64) {
        if let Some(cursor) = self.cursors.get_mut(advice.cursor) {
            cursor.from_disk = cursor.from_disk.max(to);
        }
    }

    /// Up to where bytes were asked for by now, for the reader of this read: others of its reads may have come first.
    pub fn asked(&self, advice: &Advice) -> u64 {
        self.cursors.get(advice.cursor).map_or(0, |cursor| cursor.asked)
    }

    /// The reader had to wait.
    pub fn on_wait(&mut self, advice: &Advice) {
        let Some(cursor) = self.cursors.get_mut(advice.cursor) else { return };
        let window = window_of(cursor);
        // Once for each half of a window: what it waits for now was asked for before the window grew.
        if window >= PATIENT && cursor.end >= cursor.grew_at + window / 2 {
            // Each step takes a round trip to show: few and large ones.
            cursor.window = window.saturating_mul(4);
            cursor.grew_at = cursor.end;
        }
    }

    /// Whether any reader is still to come to `offset`, or was there a moment ago.
    pub fn wants(&self, range: ByteRange) -> bool {
        self.cursors
            .iter()
            .any(|c| range.end() + KEPT_BEHIND > c.end && range.start() < c.asked.max(c.end).max(c.from_disk))
    }
}

/// Few large requests cost less, but a window must be several for their latencies to overlap.
fn get_of(window: u64) -> u64 {
    let several = (window / 4).min(2 << 20).max(window / 16);
    (several / STEP * STEP).clamp(STEP, GET_MAX)
}

fn window_of(cursor: &Cursor) -> u64 {
    match cursor.run {
        ..=TRUSTED => 0,
        run => (run * 2).clamp(STEP, PATIENT).max(cursor.window),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 40;

    /// Reads, and asks for all that is advised. Answers from where to where.
    fn read(s: &mut Sequence, start: u64, len: u64) -> (u64, u64) {
        let advice = s.on_read(ByteRange::at(start, len).unwrap(), SIZE, 128 * MIB);
        s.on_asked(&advice, advice.to);
        (advice.asked.max(start), advice.to)
    }

    #[test]
    fn a_window_grows_with_what_was_read_in_sequence() {
        let mut s = Sequence::default();
        let reads: Vec<_> = (0..6).map(|i| read(&mut s, i * 128 * KIB, 128 * KIB)).collect();
        assert_eq!(reads[0], (0, 128 * KIB), "one read is no sequence");
        assert_eq!(reads[1], (128 * KIB, 2 * MIB));
        assert_eq!(reads[5], (2 * MIB, 3 * MIB));
        for i in 1..64 {
            read(&mut s, i * MIB, MIB);
        }
        assert_eq!(read(&mut s, 64 * MIB, MIB), (72 * MIB, 73 * MIB), "eight megabytes for who never waits");
    }

    #[test]
    fn a_reader_that_waits_is_served_farther_ahead() {
        let mut s = Sequence::default();
        let mut last = 0;
        for i in 0..600 {
            let advice = s.on_read(ByteRange::at(i * MIB, MIB).unwrap(), SIZE, 128 * MIB);
            s.on_asked(&advice, advice.to);
            s.on_wait(&advice);
            assert!(advice.to <= (i + 129) * MIB && advice.to >= last);
            last = advice.to;
        }
        assert_eq!(last, 728 * MIB);
        assert_eq!([8, 32, 64, 85, 128].map(|mib| get_of(mib * MIB) / MIB), [2, 2, 4, 5, 8]);
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut s = Sequence::default();
        for start in [500, 3, 900, 77, 1200, 40, 333] {
            assert_eq!(read(&mut s, start * 10 * MIB, 128 * KIB).1, start * 10 * MIB + 128 * KIB);
        }
    }

    #[test]
    fn reads_side_by_side_and_small_skips_are_one_sequence() {
        let mut s = Sequence::default();
        for i in [1, 0, 3, 2, 5, 4, 7, 6] {
            read(&mut s, i * 128 * KIB, 128 * KIB);
        }
        assert_eq!((s.cursors.len(), s.cursors[0].end), (1, MIB));
        read(&mut s, 2 * MIB, 128 * KIB);
        assert_eq!(s.cursors.len(), 1, "it was fetched ahead");
        read(&mut s, 17 * MIB, 128 * KIB);
        assert_eq!(s.cursors.len(), 2);
    }

    #[test]
    fn interleaved_readers_each_have_a_window() {
        let mut s = Sequence::default();
        let (mut a, mut b) = ((0, 0), (0, 0));
        for i in 0..20 {
            a = read(&mut s, i * MIB, MIB);
            b = read(&mut s, 500 * MIB + i * MIB, MIB);
        }
        assert_eq!((a.1, b.1), (28 * MIB, 528 * MIB));
        let of = |at: u64| ByteRange::at(at * MIB, MIB).unwrap();
        assert!(s.wants(of(25)) && s.wants(of(18)) && s.wants(of(527)));
        assert!(!s.wants(of(10)) && !s.wants(of(100)) && !s.wants(of(528)));
    }

    #[test]
    fn a_window_ends_with_the_object_and_with_what_is_allowed() {
        let mut s = Sequence::default();
        let mut to = |start, size, max| s.on_read(ByteRange::at(start, MIB).unwrap(), size, max).to;
        assert_eq!(to(0, 2 * MIB + 7, 128 * MIB), 2 * MIB + 7);
        assert_eq!(to(MIB, SIZE, 0), 2 * MIB);
    }
}
