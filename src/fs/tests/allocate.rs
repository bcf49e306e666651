//! Room and holes: fallocate, SEEK_DATA and SEEK_HOLE. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::promises::bench_with;
use super::*;

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;

impl Bench {
    async fn fallocate(&self, fh: Fh, mode: i32, start: usize, end: usize) -> Result<()> {
        self.fs.fallocate(CALLER, fh, start as u64, (end - start) as u64, mode).await
    }
}

/// A mount with so much room for what is staged.
async fn bench_with_room(staging: u64) -> Bench {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let limits = crate::write::Settings { staging, ..crate::write::Settings::default() };
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    mount_limited(dir, memory, clock, Writes::default(), limits).await
}

fn size_of(b: &Bench, ino: Ino) -> u64 {
    b.fs.getattr(ino).unwrap().attr.size
}

#[tokio::test]
async fn what_is_punched_is_zeros_and_the_size_stays() {
    let b = bench().await;
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"0123456789", false).await.unwrap();
    b.advance(5);
    b.fallocate(fh, PUNCH, 2, 5).await.unwrap();
    assert_eq!(b.fs.getattr(ino).unwrap().attr.mtime, b.clock.now(), "it was written to");
    b.fallocate(fh, PUNCH, 8, 100).await.unwrap();
    b.fallocate(fh, ZERO | KEEP, 0, 1).await.unwrap();
    b.fallocate(fh, PUNCH, 10, 20).await.unwrap();
    let wanted = b"\x001\0\0\x00567\0\0";
    assert_eq!(b.read_through(fh).await, wanted);
    b.close(fh).await;
    assert_eq!((b.bytes_of("a").await, size_of(&b, ino)), (wanted.to_vec(), 10));
    // Again, of what the bucket has.
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    b.fallocate(fh, PUNCH, 6, 7).await.unwrap();
    assert_eq!(b.read_through(fh).await, b"\x001\0\0\x005\x007\0\0");
    b.close(fh).await;
    assert_eq!((b.bytes_of("a").await, size_of(&b, ino)), (b"\x001\0\0\x005\x007\0\0".to_vec(), 10));
}

#[tokio::test]
async fn zeros_in_a_large_object_are_sent_and_no_byte_of_it_is_fetched() {
    let b = probed().await;
    let mut body = noise(40 * MIB + 3);
    b.put_large("large", &body).await;
    let (parts, copies, gets) = (b.count(Op::UploadPart), b.count(Op::UploadPartCopy), b.count(Op::Get));
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    // All of the second part: it has nothing in common with the version before.
    b.fallocate(fh, PUNCH, 8 * MIB, 16 * MIB).await.unwrap();
    body[8 * MIB..16 * MIB].fill(0);
    assert_eq!(b.count(Op::Get), gets);
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("large").await == body);
    assert_eq!(
        (b.count(Op::UploadPart) - parts, b.count(Op::UploadPartCopy) - copies),
        (2, 2),
        "that part, and the small last one"
    );
    // Across the border of two parts, over what was committed.
    b.fallocate(fh, ZERO, 24 * MIB - 5, 24 * MIB + 7).await.unwrap();
    body[24 * MIB - 5..24 * MIB + 7].fill(0);
    assert!(b.read_through(fh).await == body);
    b.close(fh).await;
    assert!(b.bytes_of("large").await == body);
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn a_part_that_was_sent_ahead_is_sent_again_with_its_zeros() {
    let b = probed().await;
    let mut body = noise(70 * MIB);
    let (_, fh) = b.create("film.mp4").await;
    let parts = b.count(Op::UploadPart);
    b.write_ahead(fh, &body, 8).await;
    b.fallocate(fh, PUNCH, MIB, 3 * MIB).await.unwrap();
    body[MIB..3 * MIB].fill(0);
    b.close(fh).await;
    assert!(b.bytes_of("film.mp4").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 10);
    // While it is under way.
    let (_, fh) = b.create("b.mp4").await;
    let held = b.faults.hold_next(Op::UploadPart);
    b.write_ahead(fh, &body, 0).await;
    held.reached().await;
    b.fallocate(fh, ZERO, 10, 1000).await.unwrap();
    body[10..1000].fill(0);
    held.release();
    b.close(fh).await;
    assert!(b.bytes_of("b.mp4").await == body);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_hole_that_nobody_has_acknowledged_is_there_after_a_crash() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    // Too large for the journal's row: it counts on the staging file.
    let body = noise(300_000);
    let mut punched = body.clone();
    punched[1000..200_000].fill(0);
    for n in ["lost", "kept"] {
        let (_, fh) = b.create(n).await;
        b.fs.write(fh, Some(0), &body, false).await.unwrap();
        b.fs.flush(CALLER, fh).await.unwrap();
        b.fallocate(fh, PUNCH, 1000, 200_000).await.unwrap();
        assert!(b.read_through(fh).await == punched, "{n}");
        if n == "kept" {
            b.fs.flush(CALLER, fh).await.unwrap();
            b.fallocate(fh, ZERO, 0, 300_000).await.unwrap();
        }
    }
    let b = b.crash().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("lost").await == body);
    assert!(b.bytes_of("kept").await == punched);
}

#[tokio::test]
async fn zeros_made_during_a_commit_belong_to_the_next() {
    let b = probed().await;
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"0123456789", false).await.unwrap();
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    b.fallocate(fh, PUNCH, 3, 6).await.unwrap();
    b.fallocate(fh, 0, 0, 12).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    assert_eq!(b.bytes_of("a").await, b"0123456789");
    assert_eq!(b.read_through(fh).await, b"012\0\0\x006789\0\0");
    b.close(fh).await;
    assert_eq!(b.bytes_of("a").await, b"012\0\0\x006789\0\0");
}

#[tokio::test]
async fn a_hole_in_a_copy_is_one_of_the_copy() {
    let b = probed().await;
    let mut body = noise(2 * MIB);
    b.put_large("from", &body).await;
    let (_, from) = b.open("from", libc::O_RDONLY).await;
    let (_, to) = b.create("to").await;
    let len = body.len() as u64;
    assert_eq!(b.fs.copy_range((from, 0), (to, 0), len).await.unwrap(), Some(len));
    b.fallocate(to, PUNCH, 5, 100_000).await.unwrap();
    b.close(to).await;
    assert!(b.bytes_of("from").await == body);
    body[5..100_000].fill(0);
    assert!(b.bytes_of("to").await == body);
    b.fs.release(from).await;
}

#[tokio::test]
async fn a_file_grows_by_zeros_unless_it_is_to_keep_its_size() {
    let b = probed().await;
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"abc", false).await.unwrap();
    b.advance(5);
    b.fallocate(fh, 0, 1, 10).await.unwrap();
    assert_eq!((size_of(&b, ino), b.fs.getattr(ino).unwrap().attr.mtime), (10, b.clock.now()));
    b.fallocate(fh, 0, 0, 4).await.unwrap();
    b.fallocate(fh, KEEP, 5, 1000).await.unwrap();
    b.fallocate(fh, ZERO | KEEP, 9, 1000).await.unwrap();
    b.fallocate(fh, PUNCH, 100, 1000).await.unwrap();
    assert_eq!(size_of(&b, ino), 10);
    b.fallocate(fh, ZERO, 2, 12).await.unwrap();
    b.close(fh).await;
    assert_eq!((b.bytes_of("a").await, size_of(&b, ino)), (b"ab\0\0\0\0\0\0\0\0\0\0".to_vec(), 12));
    // Over what the bucket has. What changes nothing is no upload.
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    let before = (b.count(Op::Put), b.count(Op::Copy));
    b.fallocate(fh, KEEP, 0, 1000).await.unwrap();
    b.fallocate(fh, 0, 0, 12).await.unwrap();
    b.fallocate(fh, PUNCH, 12, 100).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!((b.count(Op::Put), b.count(Op::Copy)), before);
    assert!(b.fs.writer.get(ino).is_none());
    b.fallocate(fh, 0, 14, 15).await.unwrap();
    b.close(fh).await;
    assert_eq!((b.bytes_of("a").await, size_of(&b, ino)), (b"ab\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 15));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_before_anything_has_changed() {
    let b = probed().await;
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"abc", false).await.unwrap();
    for (mode, start, errno) in [
        (0, 1 << 60, libc::EFBIG),
        (ZERO, 1 << 60, libc::EFBIG),
        (libc::FALLOC_FL_COLLAPSE_RANGE, 0, libc::EOPNOTSUPP),
        (libc::FALLOC_FL_PUNCH_HOLE, 0, libc::EOPNOTSUPP),
    ] {
        assert_eq!(b.fallocate(fh, mode, start, start + 3).await.unwrap_err().errno(), errno, "{mode} at {start}");
    }
    assert_eq!(b.fs.fallocate(CALLER, fh, 0, 0, 0).await.unwrap_err().errno(), libc::EINVAL);
    assert_eq!((size_of(&b, ino), b.read_through(fh).await), (3, b"abc".to_vec()));
    b.close(fh).await;
    let (_, fh) = b.open("a", libc::O_RDONLY).await;
    assert_eq!(b.fallocate(fh, PUNCH, 0, 3).await.unwrap_err().errno(), libc::EBADF);
    b.close(fh).await;
    assert_eq!(b.bytes_of("a").await, b"abc");
}

#[tokio::test]
async fn without_room_nothing_grows_and_nothing_becomes_zeros() {
    let b = bench_with_room(MIB as u64).await;
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), &[1; 1000], false).await.unwrap();
    for mode in [0, KEEP, ZERO, ZERO | KEEP] {
        let refused = b.fallocate(fh, mode, 0, MIB + 1).await.unwrap_err();
        assert_eq!((refused.errno(), size_of(&b, ino)), (libc::ENOSPC, 1000), "{mode}");
    }
    assert_eq!(b.read_through(fh).await, [1; 1000]);
    b.fallocate(fh, 0, 0, MIB).await.unwrap();
    let used = b.fs.writer.room().used();
    assert_eq!((size_of(&b, ino), used), (MIB as u64, 1000), "room was looked for, and is not taken");
    b.close(fh).await;
    // Zeros in the place of what is not here are written to the bucket as all else is.
    let body = noise(3 * MIB);
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    assert_eq!(b.fallocate(fh, PUNCH, 0, 2 * MIB).await.unwrap_err().errno(), libc::ENOSPC);
    assert!(b.read_through(fh).await == body);
    b.fallocate(fh, PUNCH, 0, 1000).await.unwrap();
    let read = b.fs.read(fh, 0, 1001).await.unwrap();
    assert!(read[..1000] == [0; 1000] && read[1000] == body[1000]);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn holes_are_found_in_what_is_not_in_the_bucket_yet() {
    let b = probed().await;
    let (_, fh) = b.create("a").await;
    let seek = |fh: Fh, offset: i64, whence: i32| match begin(b.fs.seek(fh, offset, whence)) {
        Begun::Done(found) => found.map_err(|e| e.errno()),
        Begun::Waits(_) => panic!("there is nothing to wait for"),
    };
    let (data, hole) = (libc::SEEK_DATA, libc::SEEK_HOLE);
    assert_eq!((seek(fh, 0, data), seek(fh, 0, hole)), (Err(libc::ENXIO), Err(libc::ENXIO)), "empty");
    b.fs.write(fh, Some(0), b"x", false).await.unwrap();
    b.fallocate(fh, 0, 0, 100_000).await.unwrap();
    b.fs.write(fh, Some(50_000), b"there", false).await.unwrap();
    assert_eq!((seek(fh, 0, data), seek(fh, 0, hole)), (Ok(0), Ok(1)));
    assert_eq!((seek(fh, 1, data), seek(fh, 1, hole)), (Ok(50_000), Ok(1)));
    assert_eq!((seek(fh, 50_001, data), seek(fh, 50_001, hole)), (Ok(50_001), Ok(50_005)));
    assert_eq!((seek(fh, 60_000, data), seek(fh, 60_000, hole)), (Err(libc::ENXIO), Ok(60_000)), "the last one");
    for offset in [100_000, i64::MAX, -1] {
        assert_eq!((seek(fh, offset, data), seek(fh, offset, hole)), (Err(libc::ENXIO), Err(libc::ENXIO)), "{offset}");
    }
    assert_eq!(seek(fh, 0, libc::SEEK_SET), Err(libc::EINVAL));
    b.close(fh).await;
    // What the bucket has is data, up to the hole that ends each file.
    let (_, fh) = b.open("a", libc::O_RDWR).await;
    assert_eq!((seek(fh, 7, data), seek(fh, 7, hole)), (Ok(7), Ok(100_000)));
    assert_eq!((seek(fh, 100_000, data), seek(fh, 100_000, hole)), (Err(libc::ENXIO), Err(libc::ENXIO)));
    // So is what was changed of it, but for what is new.
    b.fs.write(fh, Some(9), b"x", false).await.unwrap();
    b.fallocate(fh, 0, 0, 100_001).await.unwrap();
    assert_eq!((seek(fh, 7, data), seek(fh, 7, hole)), (Ok(7), Ok(100_000)));
    assert_eq!((seek(fh, 100_000, data), seek(fh, 100_000, hole)), (Err(libc::ENXIO), Ok(100_000)));
    b.close(fh).await;
}

#[tokio::test]
async fn set_user_id_does_not_survive_zeros_made_by_somebody_else() {
    let b = probed().await;
    let (ino, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"abc", false).await.unwrap();
    let perm = || b.fs.getattr(ino).unwrap().attr.perm;
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o6755), ..SetAttr::default() }, true).await.unwrap();
    b.fallocate(fh, PUNCH, 0, 1).await.unwrap();
    assert_eq!(perm(), 0o6755, "root may");
    let other = Caller { uid: 1000, gid: 1000, tid: 0 };
    b.fs.fallocate(other, fh, 0, 3, KEEP).await.unwrap();
    assert_eq!(perm(), 0o6755, "nothing has changed");
    b.fs.fallocate(other, fh, 1, 1, PUNCH).await.unwrap();
    assert_eq!(perm(), 0o755);
    b.close(fh).await;
}

#[tokio::test]
async fn whoever_finds_no_room_waits_for_a_close_that_is_uploading() {
    let b = bench_with_room(MIB as u64).await;
    b.write("probe", "x").await.unwrap();
    let (_, large) = b.create("a").await;
    b.fs.write(large, Some(0), &noise(MIB - 1000), false).await.unwrap();
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, large).await });
    held.reached().await;
    let (_, fh) = b.create("b").await;
    let fs = Arc::clone(&b.fs);
    let writing = tokio::spawn(async move { fs.write(fh, Some(0), &[1; 2000], false).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!writing.is_finished());
    held.release();
    closing.await.unwrap().unwrap();
    // It is open still, and what the bucket has of it can go.
    writing.await.unwrap().unwrap();
    b.close(fh).await;
    b.fs.release(large).await;
    assert!(b.bytes_of("a").await == noise(MIB - 1000));
}
