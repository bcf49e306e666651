//! Speed of what is decided about a staged file: its upload, and where its bytes come from.
//!
//! Owns: the figures of `write::plan_upload` and `write::Content`, for a file of 10 GiB that was written to in 1,000 scattered
//! places. Nothing is read, fetched or sent.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pace;

use criterion::{BatchSize, Criterion, Throughput};
use fastrand::Rng;
use objfs::store::Capabilities;
use objfs::types::{ByteRange, ETag, Key, ObjectRef, Version};
use objfs::write::{Content, Plan, Source, plan_upload};
use std::hint::black_box;

/// Size of the file.
const SIZE: u64 = 10 << 30;
/// Places that it was written to.
const COUNT: u64 = 1_000;
/// What one write carries.
const WRITE: u64 = 64 << 10;
/// What one READ of the kernel asks for.
const READ: u64 = 128 << 10;
/// How much of the base is fetched at once before a commit.
const FILL: u64 = 8 << 20;

fn object(etag: &str) -> ObjectRef {
    let version = Version { etag: ETag::parse(etag), last_modified: None, size: SIZE };
    ObjectRef { key: Key::parse("library/disk.img").unwrap(), version }
}

/// Windows of `len` bytes anywhere in the file.
fn windows(rng: &mut Rng, len: u64) -> Vec<ByteRange> {
    (0..COUNT).map(|_| ByteRange::at(rng.u64(0..SIZE / WRITE - len / WRITE) * WRITE, len).unwrap()).collect()
}

/// The file with its writes, of which the staging file has nothing else.
fn dirty(rng: &mut Rng) -> Content {
    let mut content = Content::new(Some(object("1")));
    windows(rng, WRITE).into_iter().for_each(|range| content.on_write(range));
    content
}

/// The file once all of its base was fetched.
fn filled(mut content: Content) -> Content {
    for piece in pieces(FILL) {
        content.on_fetched(piece);
    }
    assert!(content.missing().is_empty());
    content
}

/// The file in pieces of `len` bytes.
fn pieces(len: u64) -> Vec<ByteRange> {
    (0..SIZE / len).map(|i| ByteRange::at(i * len, len).unwrap()).collect()
}

fn uploads(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan/upload");
    let capabilities = Capabilities::default();
    for (name, size) in [("16 MiB", 16 << 20), ("10 GiB", SIZE), ("5 TiB", 5 << 40)] {
        group.bench_function(name, |b| b.iter(|| plan_upload(black_box(size), &capabilities).unwrap()));
    }
    group.finish();
}

fn writes(c: &mut Criterion, dirty: &Content, rng: &mut Rng) {
    let mut group = c.benchmark_group("plan/write");
    group.throughput(Throughput::Elements(COUNT));
    for (name, is_committing) in [("1,000 more", false), ("1,000 more during a commit", true)] {
        let more = windows(rng, WRITE);
        let mut content = dirty.clone();
        if is_committing {
            content.on_commit_began();
        }
        let write_all = |content: &mut Content| more.iter().for_each(|range| content.on_write(*range));
        group.bench_function(name, |b| b.iter_batched_ref(|| content.clone(), write_all, BatchSize::LargeInput));
    }
    group.finish();
}

fn reads(c: &mut Criterion, dirty: &Content, rng: &mut Rng) {
    let mut group = c.benchmark_group("plan/read");
    let (anywhere, filled) = (windows(rng, READ), filled(dirty.clone()));
    for (name, content) in [("sources of 128 KiB", dirty), ("sources of 128 KiB, base fetched", &filled)] {
        group.bench_function(name, |b| {
            let mut reads = anywhere.iter().cycle();
            b.iter(|| content.sources(*reads.next().unwrap()));
        });
    }
    group.finish();
}

fn commit(c: &mut Criterion, dirty: &Content) {
    let mut group = c.benchmark_group("plan/commit");
    group.bench_function("missing", |b| b.iter(|| black_box(dirty).missing()));
    let fills = pieces(FILL);
    group.throughput(Throughput::Elements(fills.len() as u64));
    group.bench_function("fetched, 8 MiB at a time", |b| {
        let fetch_all = |content: &mut Content| fills.iter().for_each(|p| drop(black_box(content.on_fetched(*p))));
        b.iter_batched_ref(|| dirty.clone(), fetch_all, BatchSize::LargeInput);
    });
    let Plan::Multipart(layout) = plan_upload(SIZE, &Capabilities::default()).unwrap() else { unreachable!() };
    let parts: Vec<_> = layout.parts(SIZE).map(|(_, range)| range).collect();
    let filled = filled(dirty.clone());
    let is_there = |part: &ByteRange| filled.sources(*part).iter().all(|(_, source)| *source == Source::File);
    group.throughput(Throughput::Elements(parts.len() as u64));
    group.bench_function("sources of every part", |b| b.iter(|| assert!(parts.iter().all(is_there))));
    group.throughput(Throughput::Elements(1));
    group.bench_function("begun and done", |b| {
        let commit = |content: &mut Content| {
            content.on_commit_began();
            content.on_committed(object("2"));
        };
        b.iter_batched_ref(|| filled.clone(), commit, BatchSize::LargeInput);
    });
    group.finish();
}

fn main() {
    let mut rng = Rng::with_seed(2);
    let dirty = dirty(&mut rng);
    let mut criterion = pace::criterion();
    uploads(&mut criterion);
    writes(&mut criterion, &dirty, &mut rng);
    reads(&mut criterion, &dirty, &mut rng);
    commit(&mut criterion, &dirty);
    criterion.final_summary();
}
