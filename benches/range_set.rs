//! Speed of `RangeSet`, as a file has one that was written to in 10,000 scattered places.
//!
//! Owns: the figures of `types::RangeSet`. What a staged file makes of it is in `plan`.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pace;

use criterion::{BatchSize, Criterion, Throughput};
use fastrand::Rng;
use objfs::types::{ByteRange, RangeSet};
use std::hint::black_box;

/// Ranges of the set.
const COUNT: u64 = 10_000;
/// Size of the file that they lie in.
const SIZE: u64 = 8 << 30;
/// Each range lies in a slot of its own, so that no two touch.
const SLOT: u64 = SIZE / COUNT;
const PAGE: u64 = 4 << 10;
/// The largest range, in pages: no more than half a slot.
const PAGES_MAX: u64 = 16;

/// The ranges, in an order that says nothing of their places.
fn scattered(rng: &mut Rng) -> Vec<ByteRange> {
    let range = |slot: u64, rng: &mut Rng| {
        let start = (slot * SLOT).next_multiple_of(PAGE) + rng.u64(0..PAGES_MAX) * PAGE;
        ByteRange::at(start, rng.u64(1..=PAGES_MAX) * PAGE).unwrap()
    };
    let mut ranges: Vec<_> = (0..COUNT).map(|slot| range(slot, rng)).collect();
    rng.shuffle(&mut ranges);
    ranges
}

/// Windows of `len` bytes anywhere in the file, on pages.
fn windows(rng: &mut Rng, len: u64) -> Vec<ByteRange> {
    let start = |rng: &mut Rng| rng.u64(0..(SIZE - len) / PAGE) * PAGE;
    (0..COUNT).map(|_| ByteRange::at(start(rng), len).unwrap()).collect()
}

fn insert(c: &mut Criterion, ranges: &[ByteRange]) {
    let mut group = c.benchmark_group("range_set/insert");
    let in_sequence: Vec<_> = (0..COUNT).map(|i| ByteRange::at(i * (128 << 10), 128 << 10).unwrap()).collect();
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("10,000 scattered", |b| {
        b.iter_with_large_drop(|| ranges.iter().copied().collect::<RangeSet>());
    });
    group.bench_function("10,000 in sequence, which become one", |b| {
        b.iter_with_large_drop(|| in_sequence.iter().copied().collect::<RangeSet>());
    });
    let set: RangeSet = ranges.iter().copied().collect();
    let all = ByteRange::new(0, SIZE).unwrap();
    group.bench_function("one over 10,000", |b| {
        b.iter_batched_ref(|| set.clone(), |set| set.insert(all), BatchSize::LargeInput);
    });
    group.finish();
}

fn remove(c: &mut Criterion, set: &RangeSet, ranges: &[ByteRange]) {
    let mut group = c.benchmark_group("range_set/remove");
    // A page out of the middle of a range leaves two; one out of a range of a page leaves none.
    let holes: Vec<_> = ranges.iter().map(|r| ByteRange::at(r.start() + r.len() / 2, PAGE).unwrap()).collect();
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("10,000 scattered", |b| {
        let remove_all = |set: &mut RangeSet| holes.iter().for_each(|hole| set.remove(*hole));
        b.iter_batched_ref(|| set.clone(), remove_all, BatchSize::LargeInput);
    });
    group.throughput(Throughput::Elements(COUNT / 2));
    group.bench_function("truncate to half", |b| {
        b.iter_batched_ref(|| set.clone(), |set| set.truncate(SIZE / 2), BatchSize::LargeInput);
    });
    group.finish();
}

fn ask(c: &mut Criterion, set: &RangeSet, ranges: &[ByteRange], rng: &mut Rng) {
    let mut group = c.benchmark_group("range_set/ask");
    group.bench_function("contains, yes", |b| {
        let mut queries = ranges.iter().cycle();
        b.iter(|| set.contains(*queries.next().unwrap()));
    });
    let anywhere = windows(rng, 128 << 10);
    group.bench_function("contains, no", |b| {
        let mut queries = anywhere.iter().cycle();
        b.iter(|| set.contains(*queries.next().unwrap()));
    });
    for (name, len) in [("gaps in 128 KiB", 128 << 10), ("gaps in 8 MiB", 8 << 20)] {
        let windows = windows(rng, len);
        group.bench_function(name, |b| {
            let mut queries = windows.iter().cycle();
            b.iter(|| set.gaps(*queries.next().unwrap()));
        });
    }
    // Not in all of it: whether an answer of that size comes from the heap or from new pages depends on what ran before.
    let quarter = ByteRange::new(0, SIZE / 4).unwrap();
    group.throughput(Throughput::Elements(COUNT / 4));
    group.bench_function("gaps in 2 GiB", |b| b.iter(|| set.gaps(black_box(quarter))));
    group.throughput(Throughput::Elements(COUNT));
    group.bench_function("size", |b| b.iter(|| black_box(set).size()));
    group.finish();
}

fn main() {
    let mut rng = Rng::with_seed(1);
    let ranges = scattered(&mut rng);
    let set: RangeSet = ranges.iter().copied().collect();
    assert_eq!(set.count() as u64, COUNT, "no two ranges touch");
    let mut criterion = pace::criterion();
    insert(&mut criterion, &ranges);
    remove(&mut criterion, &set, &ranges);
    ask(&mut criterion, &set, &ranges, &mut rng);
    criterion.final_summary();
}
