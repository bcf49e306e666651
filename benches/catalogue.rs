//! Speed of the catalogue with 100,000 rows: what a lookup, a readdir and a page of a listing cost without the bucket.
//!
//! Owns: the figures of `meta::Meta` and of `db::Catalogue` below it, in a temporary folder.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod pace;

use criterion::{BatchSize, Criterion, Throughput};
use fastrand::Rng;
use futures::future::join_all;
use objfs::db::Catalogue;
use objfs::meta::headers::Kept;
use objfs::meta::{Defaults, Found, InodeRow, Meta, Page, Sighting};
use objfs::types::{Attr, ETag, FileKind, Ino, Key, Name, Pos, SystemClock, Timestamp, Version, WallClock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::runtime::Runtime;

/// Files of a page of a listing, as S3 gives them, and of a small directory.
const PAGE: usize = 1_000;
/// Small directories.
const SMALL: usize = 50;
/// Files of the large directory.
const LARGE: usize = 50_000;

struct Bench {
    runtime: Runtime,
    /// Before its folder, which is removed after it.
    meta: Meta,
    /// Numbers the directories that benches make.
    made: AtomicU64,
    dir: tempfile::TempDir,
}

fn name(name: &str) -> Name {
    Name::parse(name).unwrap()
}

fn file_name(i: usize) -> Name {
    name(&format!("IMG_2024_{i:06}.jpg"))
}

fn attr(kind: FileKind) -> Attr {
    let now = SystemClock.now();
    Attr { kind, perm: 0o644, uid: 1000, gid: 1000, rdev: 0, size: 0, atime: now, mtime: now, ctime: now }
}

/// Files as a listing shows them.
fn sightings(range: std::ops::Range<usize>) -> Vec<Sighting> {
    let last_modified = Some(Timestamp::from_parts(1_700_000_000, 0));
    let found = |i| Found::Object {
        version: Version { etag: ETag::parse(&format!("{i:032x}")), last_modified, size: 4_000_000 },
        storage_class: Some("STANDARD".to_owned()),
        headers: None,
    };
    range.map(|i| Sighting { name: file_name(i), found: found(i) }).collect()
}

async fn open(dir: &Path) -> Meta {
    let defaults = Defaults {
        uid: 1000,
        gid: 1000,
        uid_forced: false,
        gid_forced: false,
        file_perm: 0o644,
        dir_perm: 0o755,
        file_mode: None,
        dir_mode: None,
        kept: Kept::InObjects,
        mounted_at: SystemClock.now(),
    };
    Meta::open(&dir.join("catalogue.db"), defaults, Arc::new(SystemClock)).await.unwrap()
}

impl Bench {
    fn new() -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let meta = runtime.block_on(open(dir.path()));
        Bench { runtime, meta, made: AtomicU64::new(0), dir }
    }

    /// Closes the catalogue and opens it again, so that all of it is in the database and nothing in the WAL.
    fn reopen(&mut self) {
        self.meta.close();
        self.meta = self.runtime.block_on(open(self.dir.path()));
    }

    /// A new directory in the root, with nothing in it.
    fn make_dir(&self) -> Ino {
        let name = name(&format!("dir-{:04}", self.made.fetch_add(1, Relaxed)));
        let row = self.meta.blank(Ino::ROOT, &name, attr(FileKind::Dir));
        self.runtime.block_on(self.meta.create(row)).unwrap().unwrap().ino
    }

    /// A page of a listing of `dir` arrives. Answers how many changes it meant.
    fn apply_page(&self, dir: Ino, seen: Vec<Sighting>) -> usize {
        let listing = self.meta.begin_listing(dir).unwrap();
        let page = Page { seen, ..Page::default() };
        self.runtime
            .block_on(self.meta.apply_page(page, Key::parse("dir-0000/").unwrap(), Vec::new(), &listing))
            .unwrap()
            .0
            .len()
    }

    /// A whole listing of `dir` arrives, in one page.
    fn apply_listing(&self, dir: Ino, seen: Vec<Sighting>) -> usize {
        let listing = self.meta.begin_listing(dir).unwrap();
        let page = Page { seen, is_last: true, ..Page::default() };
        self.runtime
            .block_on(self.meta.apply_page(page, Key::parse("dir-0000/").unwrap(), Vec::new(), &listing))
            .unwrap()
            .0
            .len()
    }
}

fn lookup(c: &mut Criterion, bench: &Bench, small: &[Ino]) {
    let mut rng = Rng::with_seed(5);
    let anywhere: Vec<(Ino, Name)> =
        (0..10_000).map(|_| (*rng.choice(small).unwrap(), file_name(rng.usize(0..PAGE)))).collect();
    let rows: Vec<InodeRow> =
        anywhere.iter().map(|(dir, name)| bench.meta.child(*dir, name).unwrap().unwrap()).collect();
    let mut group = c.benchmark_group("catalogue/lookup");
    group.bench_function("name that is there", |b| {
        let mut names = anywhere.iter().cycle();
        b.iter(|| {
            let (dir, name) = names.next().unwrap();
            bench.meta.child(*dir, name).unwrap().unwrap()
        });
    });
    let missing = name("desktop.ini");
    group.bench_function("name that is not there", |b| {
        let mut names = anywhere.iter().cycle();
        b.iter(|| assert_eq!(bench.meta.child(names.next().unwrap().0, &missing).unwrap(), None));
    });
    group.bench_function("inode by number", |b| {
        let mut rows = rows.iter().cycle();
        b.iter(|| bench.meta.get(rows.next().unwrap().ino).unwrap().unwrap());
    });
    group.bench_function("key of an inode", |b| {
        let mut rows = rows.iter().cycle();
        b.iter(|| bench.meta.key(rows.next().unwrap()).unwrap().unwrap().unwrap());
    });
    // What statfs(2) asks for.
    group.bench_function("totals", |b| b.iter(|| bench.meta.totals().unwrap()));
    group.finish();
}

fn readdir(c: &mut Criterion, bench: &Bench, small: Ino, large: Ino) {
    let mut group = c.benchmark_group("catalogue/readdir");
    let last_page = bench.meta.children(large, Pos::START, LARGE).unwrap()[LARGE - PAGE - 1].pos();
    for (name, dir, after, limit) in [
        // As many as one READDIR asks for.
        ("256 of 50,000", large, Pos::START, 256),
        ("1,000 of 1,000", small, Pos::START, PAGE),
        ("first 1,000 of 50,000", large, Pos::START, PAGE),
        ("last 1,000 of 50,000", large, last_page, PAGE),
    ] {
        assert_eq!(bench.meta.children(dir, after, limit).unwrap().len(), limit);
        group.throughput(Throughput::Elements(limit as u64));
        group.bench_function(name, |b| b.iter(|| bench.meta.children(dir, after, limit).unwrap()));
    }
    group.finish();
}

fn listing(c: &mut Criterion, bench: &Bench, small: Ino) {
    let mut group = c.benchmark_group("catalogue/listing");
    group.throughput(Throughput::Elements(PAGE as u64)).sample_size(20);
    let seen = sightings(0..PAGE);
    group.bench_function("1,000 new names", |b| {
        let fresh = || (bench.make_dir(), seen.clone());
        b.iter_batched(fresh, |(dir, seen)| assert_eq!(bench.apply_page(dir, seen), PAGE), BatchSize::PerIteration);
    });
    group.bench_function("1,000 known names", |b| {
        b.iter_batched(|| seen.clone(), |seen| assert_eq!(bench.apply_page(small, seen), 0), BatchSize::PerIteration);
    });
    group.bench_function("1,000 known names and the end", |b| {
        let apply = |seen| assert_eq!(bench.apply_listing(small, seen), 0);
        b.iter_batched(|| seen.clone(), apply, BatchSize::PerIteration);
    });
    group.finish();
}

fn change(c: &mut Criterion, bench: &Bench, large: Ino) {
    let mut group = c.benchmark_group("catalogue/change");
    let rows: Vec<Ino> = bench.meta.children(large, Pos::START, PAGE).unwrap().iter().map(|row| row.ino).collect();
    let change =
        |ino| bench.meta.change(ino, |row| row.attr.mtime = row.attr.mtime.plus(std::time::Duration::from_nanos(1)));
    // Each waits for its transaction; those that come at once share one.
    for (name, count) in [("one row", 1), ("64 rows at once", 64)] {
        let mut pages = rows.chunks_exact(count).cycle();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |b| {
            b.iter(|| bench.runtime.block_on(join_all(pages.next().unwrap().iter().map(|ino| change(*ino)))));
        });
    }
    group.finish();
}

/// The rows alone, without the rules of `meta`: what SQLite takes of a listing.
fn rows(c: &mut Criterion, bench: &Bench) {
    let mut group = c.benchmark_group("catalogue/rows");
    group.throughput(Throughput::Elements(PAGE as u64)).sample_size(20);
    let catalogue = Catalogue::open(&bench.dir.path().join("rows.db")).unwrap();
    let (mut parent, attr) = (0, attr(FileKind::File));
    let mut fresh = || {
        parent += 1;
        let new = |i| bench.meta.blank(Ino(parent), &file_name(i), attr.clone());
        (0..PAGE).map(new).collect::<Vec<_>>()
    };
    group.bench_function("insert 1,000", |b| {
        let insert = |new: Vec<InodeRow>| {
            let job = catalogue.write(move |rows| new.iter().try_for_each(|new| rows.insert(new).map(drop)));
            bench.runtime.block_on(job).unwrap();
        };
        b.iter_batched(&mut fresh, insert, BatchSize::PerIteration);
    });
    group.finish();
}

fn main() {
    let mut bench = Bench::new();
    let small: Vec<Ino> = (0..SMALL).map(|_| bench.make_dir()).collect();
    small.iter().for_each(|dir| assert_eq!(bench.apply_listing(*dir, sightings(0..PAGE)), PAGE));
    let large = bench.make_dir();
    for page in 0..LARGE / PAGE {
        bench.apply_page(large, sightings(page * PAGE..(page + 1) * PAGE));
    }
    assert_eq!(bench.meta.totals().unwrap().0 as usize, SMALL * PAGE + LARGE + SMALL + 2, "all rows, and the root");
    bench.reopen();
    let mut criterion = pace::criterion();
    lookup(&mut criterion, &bench, &small);
    readdir(&mut criterion, &bench, small[0], large);
    change(&mut criterion, &bench, large);
    // Last: they make the catalogue larger.
    listing(&mut criterion, &bench, small[0]);
    rows(&mut criterion, &bench);
    criterion.final_summary();
}
