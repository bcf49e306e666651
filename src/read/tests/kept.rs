//! Tests of what stays on the disk of what was read. Owns nothing else.

use super::*;

fn disk(dir: &tempfile::TempDir, size: u64) -> Settings {
    let disk = DiskSettings { dir: dir.path().join("cache"), size, keep_free: 0 };
    Settings { disk: Some(disk), ..Settings::default() }
}

impl Bench {
    /// Another mount with the same bucket and the same disk.
    fn remount(self, settings: Settings) -> Bench {
        self.settle();
        let Bench { memory, faults, reader, .. } = self;
        drop(reader);
        let observed = Observed::new(Arc::<FaultStore>::clone(&faults));
        let counters = observed.counters();
        let next = Bench { memory, faults, counters, reader: Reader::new(Arc::new(observed), settings) };
        next.settle();
        next
    }

    fn settle(&self) {
        self.reader.0.disk.as_ref().unwrap().settle();
    }
}

#[tokio::test]
async fn what_was_read_is_on_the_disk_for_the_next_mount() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 100 * MIB));
    let (film, page) = (bytes_of(20 * MIB + 9), bytes_of(300 * KIB));
    let (film_at, page_at) = (b.put("film", &film).await, b.put("page", &page).await);
    assert!(b.read_all(&film_at, &film, &Stream::default(), 128 * KIB).await);
    assert!(b.read_all(&page_at, &page, &Stream::default(), 4 * KIB).await);
    let b = b.remount(disk(&dir, 100 * MIB));
    assert!(b.read_all(&film_at, &film, &Stream::default(), 128 * KIB).await);
    assert!(b.read_all(&page_at, &page, &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets().0, 0);
    assert!(b.reader.disk_bytes() >= 20 * MIB);
    let changed = b.put("page", &bytes_of(301 * KIB)).await;
    assert!(b.read_all(&changed, &bytes_of(301 * KIB), &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets().0, 1, "another version is another file");
}

#[tokio::test]
async fn what_is_kept_of_an_object_is_kept_of_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 100 * MIB));
    let (film, page) = (bytes_of(20 * MIB + 9), bytes_of(300 * KIB));
    let before = [b.put("film", &film).await, b.put("page", &page).await];
    assert!(b.read_all(&before[0], &film, &Stream::default(), 128 * KIB).await);
    assert!(b.read_all(&before[1], &page, &Stream::default(), 4 * KIB).await);
    let asked = b.gets().0;
    let after = [b.put("films/film", &film).await, b.put("pages/page", &page).await];
    for (before, after) in before.iter().zip(&after) {
        b.reader.carry(before, after);
    }
    assert!(b.read_all(&after[1], &page, &Stream::default(), 4 * KIB).await, "at once from memory");
    assert_eq!(b.gets().0, asked);
    let b = b.remount(disk(&dir, 100 * MIB));
    assert!(b.read_all(&after[0], &film, &Stream::default(), 128 * KIB).await);
    assert!(b.read_all(&after[1], &page, &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets().0, 0);
    assert!(b.read_all(&before[1], &page, &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets().0, 1, "it is not there twice");
}

#[tokio::test]
async fn a_damaged_cache_answers_right_bytes_by_asking_again() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 100 * MIB));
    let body = bytes_of(3 * MIB + 77);
    let object = b.put("a", &body).await;
    assert!(b.read_all(&object, &body, &Stream::default(), 128 * KIB).await);
    let mut dice = fastrand::Rng::with_seed(5);
    let mut asked = 0;
    let mut b = b;
    for _ in 0..40 {
        b.settle();
        for file in std::fs::read_dir(dir.path().join("cache")).unwrap() {
            let path = file.unwrap().path();
            if path.ends_with("lock") {
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            for _ in 0..dice.usize(1..20) {
                let at = dice.usize(0..bytes.len());
                bytes[at] ^= 1 << dice.u8(0..8);
            }
            bytes.truncate(if dice.u8(0..5) == 0 { dice.usize(0..bytes.len()) } else { bytes.len() });
            std::fs::write(&path, bytes).unwrap();
        }
        b = b.remount(disk(&dir, 100 * MIB));
        assert!(b.read_all(&object, &body, &Stream::default(), 128 * KIB).await);
        asked += b.gets().0;
    }
    assert!(asked >= 40, "{asked} requests after 40 times damage");
}

#[tokio::test]
async fn a_scan_of_large_files_leaves_what_was_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 40 * MIB));
    let body = bytes_of(20 * MIB);
    let film = b.put("film", &body).await;
    let look = async |b: &Bench| {
        let stream = Stream::default();
        for start in [0, 64 * KIB, 128 * KIB, 20 * MIB - 100 * KIB] {
            b.reader.read(&film, range(start, 64 * KIB), Some(&stream)).await.unwrap();
        }
    };
    look(&b).await;
    for i in 0..6 {
        let body = bytes_of(16 * MIB + i);
        let large = b.put(&format!("large{i}"), &body).await;
        assert!(b.read_all(&large, &body, &Stream::default(), MIB).await);
        b.settle();
        assert!(b.reader.disk_bytes() <= 40 * MIB);
    }
    let b = b.remount(disk(&dir, 40 * MIB));
    look(&b).await;
    assert_eq!(b.gets().0, 0);
    assert!(b.reader.disk_bytes() > 20 * MIB, "and the last of the scan is there too");
}

#[tokio::test]
async fn who_looks_at_what_is_here_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 100 * MIB));
    let body = bytes_of(20 * MIB);
    let film = b.put("film", &body).await;
    let read = async |b: &Bench, stream: &Stream, to: u64| {
        for start in (0..to).step_by(128 << 10) {
            let got = b.reader.read(&film, range(start, 128 * KIB), Some(stream)).await.unwrap();
            assert_eq!(got, body[start as usize..(start + 128 * KIB) as usize]);
        }
    };
    read(&b, &Stream::default(), MIB).await;
    // Requests ahead end with their reader.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let b = b.remount(disk(&dir, 100 * MIB));
    let stream = Stream::default();
    read(&b, &stream, MIB).await;
    tokio::task::yield_now().await;
    assert_eq!(b.gets().0, 0);
    read(&b, &stream, 20 * MIB).await;
    assert!(b.gets().1 < 20 * MIB, "{} bytes", b.gets().1);
}

/// A library is looked at, copied as a whole, and looked at again by the next mount.
#[tokio::test]
async fn a_scan_of_the_library_itself_leaves_what_was_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 40 * MIB));
    let mut films = Vec::new();
    for i in 0..8 {
        let body = bytes_of(16 * MIB + i);
        films.push((b.put(&format!("film{i}"), &body).await, body));
    }
    let look = async |b: &Bench| {
        for (film, body) in &films {
            let stream = Stream::default();
            // The beginning, and an index of a megabyte at the end.
            for start in [0, 64 * KIB].into_iter().chain((15 * MIB..16 * MIB).step_by(64 << 10)) {
                let got = b.reader.read(film, range(start, 64 * KIB), Some(&stream)).await.unwrap();
                assert_eq!(got, body[start as usize..(start + 64 * KIB) as usize]);
            }
        }
    };
    look(&b).await;
    b.settle();
    for _ in 0..2 {
        for (film, body) in &films {
            assert!(b.read_all(film, body, &Stream::default(), 128 * KIB).await);
            b.settle();
        }
    }
    assert!(b.reader.disk_bytes() <= 40 * MIB);
    let b = b.remount(disk(&dir, 40 * MIB));
    look(&b).await;
    assert_eq!(b.gets().0, 0, "what was looked into is there");
    let (film, body) = &films[0];
    assert!(b.read_all(film, body, &Stream::default(), 128 * KIB).await, "and the rest is fetched");
    assert!(b.gets().1 < 15 * MIB);
}

#[tokio::test]
async fn a_disk_that_refuses_only_costs_requests() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be.
    std::fs::write(dir.path().join("cache"), "x").unwrap();
    let b = bench(disk(&dir, 40 * MIB));
    let body = bytes_of(MIB);
    let object = b.put("a", &body).await;
    assert!(b.read_all(&object, &body, &Stream::default(), 64 * KIB).await);
    assert_eq!(b.reader.disk_bytes(), 0);
}

#[tokio::test]
async fn two_mounts_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (b, other) = (bench(disk(&dir, 40 * MIB)), bench(disk(&dir, 40 * MIB)));
    assert!(b.reader.0.disk.is_some() && other.reader.0.disk.is_none());
    let body = bytes_of(MIB);
    let object = other.put("a", &body).await;
    assert!(other.read_all(&object, &body, &Stream::default(), 64 * KIB).await);
}

#[tokio::test]
async fn what_is_to_stay_free_on_the_disk_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 100 * MIB));
    let (page, other) = (bytes_of(300 * KIB), bytes_of(301 * KIB));
    let (page_at, other_at) = (b.put("page", &page).await, b.put("other", &other).await);
    assert!(b.read_all(&page_at, &page, &Stream::default(), 4 * KIB).await);
    b.settle();
    assert!(b.reader.disk_bytes() >= 300 * KIB);
    let full = DiskSettings { dir: dir.path().join("cache"), size: 100 * MIB, keep_free: u64::MAX };
    let b = b.remount(Settings { disk: Some(full), ..Settings::default() });
    assert!(b.read_all(&other_at, &other, &Stream::default(), 4 * KIB).await);
    b.settle();
    let asked = b.gets().0;
    assert!(b.read_all(&page_at, &page, &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets().0, asked + 1, "it was on the disk before");
    let there = nix::sys::statvfs::statvfs(dir.path()).unwrap();
    let size = there.blocks() * there.fragment_size();
    assert_eq!(DiskSettings::default_in(dir.path().join("cache")).keep_free, (size / 20).min(1 << 30));
}

/// Each of them needs memory for what the disk has, and for what it has not.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_read_much_that_the_disk_has_but_for_holes_do_not_wait_for_each_other_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 200 * MIB));
    let body = bytes_of(32 * MIB);
    let object = b.put("database", &body).await;
    for piece in 0..4 {
        // From behind, so that nobody reads ahead.
        for cell in (0..120).rev() {
            let at = range(piece * 8 * MIB + cell * 64 * KIB, 64 * KIB);
            b.reader.read(&object, at, Some(&Stream::default())).await.unwrap();
        }
        b.settle();
    }
    let b = b.remount(Settings { memory: 0, ..disk(&dir, 200 * MIB) });
    let reads = (0..4).map(|piece| b.reader.read(&object, range(piece * 8 * MIB, 8 * MIB), None));
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), futures::future::try_join_all(reads)).await;
    assert!(read.unwrap().unwrap().concat() == body);
    assert!(b.gets().1 < 8 * MIB, "most of it was on the disk: {:?}", b.gets());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_handles_that_read_what_the_disk_has_in_part_do_not_wait_for_each_other_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(disk(&dir, 200 * MIB));
    let body = bytes_of(64 * MIB);
    let object = b.put("database", &body).await;
    // Every other cell, from behind.
    for cell in (0..512).rev() {
        let at = range(2 * cell * 64 * KIB, 64 * KIB);
        b.reader.read(&object, at, Some(&Stream::default())).await.unwrap();
        if cell % 32 == 0 {
            b.settle();
        }
    }
    let b = b.remount(Settings { memory: 0, ..disk(&dir, 200 * MIB) });
    let reads = (0..64).map(|at| {
        let (b, object) = (&b, &object);
        async move { b.reader.read(object, range(at * MIB, MIB), Some(&Stream::default())).await }
    });
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), futures::future::try_join_all(reads)).await;
    assert!(read.unwrap().unwrap().concat() == body);
}

#[tokio::test]
async fn all_holes_of_what_is_read_at_once_are_asked_for_at_once() {
    let b = bench(Settings::default());
    let body = bytes_of(4 * MIB);
    let object = b.put("database", &body).await;
    b.reader.read(&object, range(2 * MIB, 64 * KIB), Some(&Stream::default())).await.unwrap();
    let held = [b.faults.hold_next(Op::Get), b.faults.hold_next(Op::Get)];
    let (reader, all) = (b.reader.clone(), range(0, 4 * MIB));
    let reading = tokio::spawn(async move { reader.read(&object, all, None).await });
    for hold in &held {
        hold.reached().await;
    }
    held.iter().for_each(|hold| hold.release());
    assert!(reading.await.unwrap().unwrap() == body);
}
