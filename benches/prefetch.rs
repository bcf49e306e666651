//! Speed of the decision which blocks to fetch ahead: it is taken under a lock in every read of a handle.
//!
//! Owns: the figures of `read::Sequence`. Fetching is in `block_cache`.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pace;

use criterion::Throughput;
use fastrand::Rng;
use objfs::read::{Sequence, Settings};
use objfs::types::ByteRange;
use std::hint::black_box;

/// Reads of one handle.
const COUNT: u64 = 8_192;
/// What one READ of the kernel asks for.
const READ: u64 = 128 << 10;
/// Size of the file.
const SIZE: u64 = 64 << 30;

/// Reads of `len` bytes, each at the offset that `offset` tells of its number.
fn reads(len: u64, mut offset: impl FnMut(u64) -> u64) -> Vec<ByteRange> {
    (0..COUNT).map(|i| ByteRange::at(offset(i), len).unwrap()).collect()
}

/// Bytes that a new handle asks for ahead of its readers in all.
fn asked(reads: &[ByteRange], window: u64) -> u64 {
    let mut sequence = Sequence::default();
    let mut on_read = |range: &ByteRange| {
        let advice = black_box(sequence.on_read(*range, SIZE, window));
        let from = advice.asked.max(range.end());
        sequence.on_asked(&advice, advice.to);
        advice.to.saturating_sub(from)
    };
    reads.iter().map(&mut on_read).sum()
}

fn main() {
    let mut rng = Rng::with_seed(3);
    // Name, whether blocks are fetched ahead, reads.
    let patterns = [
        ("sequential, 128 KiB", true, reads(READ, |i| i * READ)),
        ("sequential, 1 MiB", true, reads(1 << 20, |i| i << 20)),
        // As the kernel's read-ahead sends them: side by side, so that neighbours change places.
        ("sequential, out of order", true, reads(READ, |i| (i ^ 1) * READ)),
        ("skips of 64 KiB", true, reads(READ, |i| i * (READ + (64 << 10)))),
        ("skips of 4 MiB", false, reads(READ, |i| i * (READ + (4 << 20)))),
        ("random, 4 KiB", false, reads(4 << 10, |_| rng.u64(0..SIZE >> 12) << 12)),
    ];
    let window = Settings::default().window;
    let mut criterion = pace::criterion();
    let mut group = criterion.benchmark_group("prefetch");
    group.throughput(Throughput::Elements(COUNT));
    for (name, is_served, reads) in &patterns {
        assert_eq!(asked(reads, window) > 0, *is_served, "{name}");
        group.bench_function(*name, |b| b.iter(|| asked(reads, window)));
    }
    group.finish();
    criterion.final_summary();
}
