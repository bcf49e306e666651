//! Speed of reads that the memory answers, and of those that it does not.
//!
//! Owns: the figures of `read::Reader` over a store in memory, which answers at once: what is measured of a miss is the
//! reader, the copy of the bytes and the check of their length. Counts the store's requests to see that hits are hits.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pace;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use fastrand::Rng;
use objfs::read::{Reader, Settings, Stream};
use objfs::store::observe::Counters;
use objfs::store::{Condition, MemoryStore, ObjectHeaders, ObjectStore, Observed, Op};
use objfs::types::{ByteRange, Key, ObjectRef};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Size of a block of the cache.
const BLOCK: u64 = 1 << 20;
/// What one READ of the kernel asks for.
const READ: u64 = 128 << 10;
/// Size of the large objects: two of them are half of what is kept by default.
const SIZE: u64 = 16 << 20;
/// Size of the small objects.
const SMALL: u64 = 4 << 10;

/// A read of an object.
type Read = (ObjectRef, ByteRange);

struct Bench {
    runtime: Runtime,
    store: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Observed::new(Arc::new(MemoryStore::new()));
        let counters = store.counters();
        Bench { runtime, store: Arc::new(store), counters }
    }

    /// Objects that all have the bytes of `body`, which is in memory once.
    fn objects(&self, name: &str, count: u64, body: &Bytes) -> Vec<ObjectRef> {
        let make = async |i| {
            let (key, headers) = (Key::parse(&format!("{name}/{i:06}")).unwrap(), ObjectHeaders::default());
            self.store.put(&key, body.clone(), &headers, &Condition::Always).await.unwrap();
            let version = self.store.head(&key).await.unwrap().version;
            ObjectRef { key, version }
        };
        (0..count).map(|i| self.runtime.block_on(make(i))).collect()
    }

    fn reader(&self, memory: u64) -> Reader {
        Reader::new(Arc::clone(&self.store), Settings { memory, ..Settings::default() })
    }

    /// A reader that keeps two of the objects: what a handle reads first is kept.
    fn warm(&self, objects: &[ObjectRef]) -> Reader {
        let reader = self.reader(Settings::default().memory);
        for (object, range) in objects[..2].iter().flat_map(|object| in_sequence(object, READ)) {
            self.runtime.block_on(reader.read(&object, range, Some(&Stream::default()))).unwrap();
        }
        reader
    }

    /// How often the store was asked for a range so far.
    fn gets(&self) -> u64 {
        self.counters.of(Op::Get).requests
    }

    /// One thread for each list of reads, and each goes round its list until it has read `rounds` times. Answers the time
    /// of the slowest.
    fn read_on_threads(&self, reader: &Reader, lists: &[Vec<Read>], rounds: u64) -> Duration {
        let barrier = Barrier::new(lists.len());
        let rounds = usize::try_from(rounds).unwrap();
        let read_all = |list: &[Read]| {
            self.runtime.block_on(async {
                barrier.wait();
                let started = Instant::now();
                for (object, range) in list.iter().cycle().take(rounds) {
                    black_box(reader.read(object, *range, None).await.unwrap());
                }
                started.elapsed()
            })
        };
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for list in lists {
                threads.push(scope.spawn(|| read_all(list)));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
        })
    }
}

/// Reads of `len` bytes from the first byte to the last.
fn in_sequence(object: &ObjectRef, len: u64) -> Vec<Read> {
    let size = object.version.size;
    (0..size.div_ceil(len))
        .map(|i| (object.clone(), ByteRange::new(i * len, size.min((i + 1) * len)).unwrap()))
        .collect()
}

/// Reads of `len` bytes, `shift` bytes past a multiple of that, in an order that says nothing of their places.
fn at_random(object: &ObjectRef, len: u64, shift: u64, rng: &mut Rng) -> Vec<Read> {
    let mut reads: Vec<Read> = (0..object.version.size / len - 1)
        .map(|i| (object.clone(), ByteRange::at(i * len + shift, len).unwrap()))
        .collect();
    rng.shuffle(&mut reads);
    reads
}

fn hits(c: &mut Criterion, bench: &Bench, objects: &[ObjectRef]) {
    let mut rng = Rng::with_seed(4);
    let reader = bench.warm(objects);
    let before = bench.gets();
    let object = &objects[0];
    let mut group = c.benchmark_group("block_cache/hit");
    for (name, files) in [
        ("128 KiB", vec![object]),
        ("128 KiB, two threads in one file", vec![object, object]),
        ("128 KiB, two threads in a file each", vec![object, &objects[1]]),
    ] {
        let lists: Vec<_> = files.iter().map(|file| at_random(file, READ, 0, &mut rng)).collect();
        group.throughput(Throughput::Elements(lists.len() as u64));
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| bench.read_on_threads(&reader, &lists, rounds));
        });
    }
    let across = [at_random(object, BLOCK, BLOCK / 2, &mut rng)];
    group.throughput(Throughput::Bytes(BLOCK));
    group.bench_function("1 MiB", |b| {
        b.iter_custom(|rounds| bench.read_on_threads(&reader, &across, rounds));
    });
    group.throughput(Throughput::Elements(1));
    let (reads, stream) = (in_sequence(object, READ), Stream::default());
    group.bench_function("128 KiB in sequence, with reading ahead", |b| {
        b.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let started = Instant::now();
                for (object, range) in reads.iter().cycle().take(usize::try_from(rounds).unwrap()) {
                    black_box(reader.read(object, *range, Some(&stream)).await.unwrap());
                }
                started.elapsed()
            })
        });
    });
    group.finish();
    assert_eq!(bench.gets(), before, "all of them were in memory");
}

/// Goes round what is not kept.
fn misses(c: &mut Criterion, bench: &Bench, name: &str, objects: &[ObjectRef], memory: u64) {
    let reader = bench.reader(memory);
    let mut reads = objects.iter().flat_map(|object| in_sequence(object, BLOCK)).cycle();
    let bytes = objects[0].version.size.min(BLOCK);
    let (before, mut count) = (bench.gets(), 0);
    let mut group = c.benchmark_group("block_cache/miss");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(name, |b| {
        b.iter(|| {
            count += 1;
            let (object, range) = reads.next().unwrap();
            let bytes = bench.runtime.block_on(reader.read(&object, range, None)).unwrap();
            assert_eq!(bytes.len() as u64, range.len());
        });
    });
    group.finish();
    assert_eq!(bench.gets() - before, count, "none of them was in memory");
}

fn main() {
    let bench = Bench::new();
    let large = bench.objects("large", 4, &Bytes::from(vec![7; usize::try_from(SIZE).unwrap()]));
    let small = bench.objects("small", 20_000, &Bytes::from(vec![7; usize::try_from(SMALL).unwrap()]));
    let mut criterion = pace::criterion();
    hits(&mut criterion, &bench, &large);
    misses(&mut criterion, &bench, "1 MiB", &large, 16 << 20);
    misses(&mut criterion, &bench, "4 KiB", &small, 16 << 20);
    criterion.final_summary();
}
