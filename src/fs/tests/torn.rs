//! Files that somebody changes while they are sent or read. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::*;
use crate::write::Span;

/// One part fits into memory at a time. Closes are acknowledged by the journal, and nobody uploads anything by himself.
async fn narrow_bench() -> Bench {
    narrow_bench_with(back()).await
}

async fn narrow_bench_with(writes: Writes) -> Bench {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let limits = crate::write::Settings { memory: 8 << 20, ..crate::write::Settings::default() };
    let b = mount_limited(dir, memory, clock, writes, limits).await;
    // The first write probes the bucket.
    b.write("probe", "x").await.unwrap();
    b.commit("probe").await.unwrap();
    b
}

fn back() -> Writes {
    Writes { mode: WriteMode::Back, ..Writes::default() }
}

impl Bench {
    async fn commit(&self, n: &str) -> Result<()> {
        let ino = self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino;
        self.fs.commit(ino).await
    }

    async fn write_large(&self, n: &str, body: &[u8]) {
        let (_, fh) = self.create(n).await;
        for (i, piece) in body.chunks(MIB).enumerate() {
            self.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
        }
        self.close(fh).await;
    }

    /// As whoever writes a file anew, and has not come to its end.
    async fn empty(&self, n: &str) {
        let (_, fh) = self.open(n, libc::O_WRONLY | libc::O_TRUNC).await;
        self.fs.write(fh, Some(0), b"half", false).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_emptied_while_its_parts_are_sent_is_what_was_acknowledged_after_a_kill() {
    let b = narrow_bench().await;
    let body = noise(24 * MIB);
    b.write_large("f", &body).await;
    let ino = b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino;
    // The first part was read, and the others were not.
    let held = b.faults.hold_next(Op::UploadPart);
    let fs = Arc::clone(&b.fs);
    let uploading = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    b.empty("f").await;
    held.release();
    uploading.await.unwrap().unwrap();
    assert!(b.bytes_of("f").await == body, "nobody sees a mixture");
    let b = b.crash_with(back()).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("f").await == body);
    assert_eq!(b.ls(Ino::ROOT).await, ["f", "probe"]);
}

#[tokio::test]
async fn what_a_close_waits_for_is_what_there_was_then_whoever_empties_the_file_or_writes_into_its_holes() {
    for is_emptied in [true, false] {
        let b = narrow_bench_with(Writes::default()).await;
        let mut body = noise(16 * MIB);
        let (ino, fh) = b.create("f").await;
        for (i, piece) in body.chunks(MIB).enumerate() {
            b.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
        }
        body.resize(24 * MIB, 0);
        let longer = SetAttr { size: Some(24 * MIB as u64), ..SetAttr::default() };
        b.fs.setattr(CALLER, ino, longer, true).await.unwrap();
        let held = b.faults.hold_next(Op::UploadPart);
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        held.reached().await;
        let (_, other) = b.open("f", libc::O_WRONLY | if is_emptied { libc::O_TRUNC } else { 0 }).await;
        b.fs.write(other, Some(20 * MIB as u64), b"half", false).await.unwrap();
        held.release();
        closing.await.unwrap().unwrap();
        assert!(b.bytes_of("f").await == body, "emptied: {is_emptied}");
        b.close(other).await;
        let last = b.bytes_of("f").await;
        assert_eq!((last.len(), last[0] == body[0]), if is_emptied { (20 * MIB + 4, false) } else { (24 * MIB, true) });
        assert_eq!(&last[20 * MIB..20 * MIB + 4], b"half");
        b.fs.release(fh).await;
    }
}

#[tokio::test]
async fn a_small_file_that_is_emptied_before_it_is_read_for_its_upload_is_there_after_a_kill() {
    for is_cut in [false, true] {
        let b = narrow_bench().await;
        b.write_large("large", &noise(24 * MIB)).await;
        if is_cut {
            // All of it is as in the bucket.
            b.foreign("small", "acknowledged, and more").await;
            let (ino, fh) = b.open("small", libc::O_RDWR).await;
            b.fs.setattr(CALLER, ino, SetAttr { size: Some(12), ..SetAttr::default() }, true).await.unwrap();
            b.close(fh).await;
        } else {
            b.write("small", "acknowledged").await.unwrap();
        }
        let held = b.faults.hold_next(Op::UploadPart);
        let inode = async |n: &str| b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino;
        let commit = |ino: Ino| {
            let fs = Arc::clone(&b.fs);
            tokio::spawn(async move { fs.commit(ino).await })
        };
        let large = commit(inode("large").await);
        // All memory is taken.
        held.reached().await;
        let small = commit(inode("small").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
        b.empty("small").await;
        held.release();
        large.await.unwrap().unwrap();
        small.await.unwrap().unwrap();
        assert_eq!(b.object("small").await.as_deref(), Some("acknowledged"), "cut: {is_cut}");
        let b = b.crash_with(back()).await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.object("small").await.as_deref(), Some("acknowledged"), "cut: {is_cut}");
    }
}

#[tokio::test]
async fn attributes_that_are_owed_after_an_upload_take_no_half_written_bytes_along() {
    let b = probed().await;
    let body = noise(70 * MIB);
    let (ino, fh) = b.create("f").await;
    b.write_ahead(fh, &body, 8).await;
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o640), ..SetAttr::default() }, true).await.unwrap();
    let held = b.faults.hold_next_answer(Op::CompleteUpload);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    let (_, other) = b.open("f", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.write(other, Some(0), b"half", false).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    assert!(b.bytes_of("f").await == body);
    b.close(other).await;
    assert_eq!(b.object("f").await.as_deref(), Some("half"));
    assert_eq!(b.memory.head(&key("f")).await.unwrap().headers.user["mode"], "33184");
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_was_discarded_is_not_sent_by_a_commit_that_waited_for_its_turn() {
    let b = narrow_bench().await;
    b.foreign("f", "before").await;
    b.write("f", "discarded").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino;
    let claim = b.fs.claims.claim(vec![Span::Key(key("f"))]).await;
    let fs = Arc::clone(&b.fs);
    let discarding = tokio::spawn(async move { fs.discard_path(&[name("f")]).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(claim);
    discarding.await.unwrap().unwrap();
    committing.await.unwrap().unwrap();
    assert_eq!(b.object("f").await.as_deref(), Some("before"));
    assert_eq!(b.read("f").await, "before");
}

#[tokio::test]
async fn a_reader_goes_on_while_our_own_chmod_of_a_large_file_is_under_way() {
    let b = probed().await;
    let body = noise(17 * MIB);
    b.write_large("film.mkv", &body).await;
    let b = b.remount().await;
    // The first write of a mount probes the bucket.
    b.write("probe", "x").await.unwrap();
    let (ino, fh) = b.open("film.mkv", libc::O_RDONLY).await;
    let etag = async || b.memory.head(&key("film.mkv")).await.unwrap().version.etag;
    let before = etag().await;
    let held = b.faults.hold_next_answer(Op::Copy);
    let fs = Arc::clone(&b.fs);
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let setting = tokio::spawn(async move { fs.setattr(CALLER, ino, private, false).await.map(drop) });
    held.reached().await;
    let fs = Arc::clone(&b.fs);
    assert_ne!(etag().await, before);
    let gets = b.count(Op::Get);
    let reading = tokio::spawn(async move { fs.read(fh, 0, 4096).await });
    // It meets the version that the copy has made.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(b.count(Op::Get), gets + 1);
    held.release();
    setting.await.unwrap().unwrap();
    assert!(reading.await.unwrap().unwrap() == body[..4096]);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn a_database_that_is_written_to_during_an_upload_is_not_uploaded_whatever_the_next_one_waits_for() {
    let b = narrow_bench_with(Writes::default()).await;
    let (ino, fh) = b.create("books.db").await;
    for i in 0..24 {
        b.fs.write(fh, Some(i * MIB as u64), &[1; MIB], false).await.unwrap();
    }
    let staged = b.fs.writer.get(ino).unwrap();
    staged.overwrite_in_place(crate::write::InPlace::Parts);
    let held = b.faults.hold_next(Op::UploadPart);
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    b.fs.write(fh, Some(0), &[2; 4096], false).await.unwrap();
    // As a commit of database and log that waits for this one.
    let bound = staged.bind(staged.moment());
    held.release();
    let refused = committing.await.unwrap().unwrap_err();
    assert!(matches!(refused, FsError::Commit(crate::write::CommitError::Disturbed)), "{refused:?}");
    assert!(b.memory.head(&key("books.db")).await.is_err());
    drop(bound);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_is_half_written_is_acknowledged_neither_by_the_release_of_another_handle_nor_by_an_upload() {
    for is_released in [true, false] {
        let b = narrow_bench().await;
        b.write("f", "acknowledged").await.unwrap();
        let (ino, closed) = b.open("f", libc::O_WRONLY).await;
        let (_, fh) = b.open("f", libc::O_WRONLY).await;
        // The kernel releases a handle after its close was answered, be it that somebody writes by then.
        b.fs.write(fh, Some(12), b", and half", false).await.unwrap();
        if is_released {
            b.fs.release(closed).await;
        } else {
            let refused = crate::write::unattended(b.fs.commit(ino)).await.unwrap_err();
            assert!(matches!(refused, FsError::Commit(crate::write::CommitError::Disturbed)), "{refused:?}");
            assert_eq!(b.object("f").await, None);
        }
        let b = b.crash_with(back()).await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.object("f").await.as_deref(), Some("acknowledged"), "released: {is_released}");
    }
}

#[tokio::test]
async fn what_is_half_written_is_not_uploaded_by_whoever_came_second() {
    let b = narrow_bench().await;
    b.write("f", "acknowledged").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino;
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let first = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    let fs = Arc::clone(&b.fs);
    let second = tokio::spawn(crate::write::unattended(async move { fs.commit(ino).await }));
    let (_, fh) = b.open("f", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"half", false).await.unwrap();
    held.release();
    first.await.unwrap().unwrap();
    let refused = second.await.unwrap().unwrap_err();
    assert!(matches!(refused, FsError::Commit(crate::write::CommitError::Disturbed)), "{refused:?}");
    assert_eq!(b.object("f").await.as_deref(), Some("acknowledged"));
    b.fs.write(fh, Some(4), b", and whole", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("f").await.as_deref(), Some("half, and whole"));
}

#[tokio::test]
async fn what_could_not_be_journaled_is_uploaded_once_it_can_be() {
    let b = narrow_bench().await;
    b.put_large("a", &noise(2 * MIB)).await;
    b.write("f", "acknowledged").await.unwrap();
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, fh) = b.open("f", libc::O_WRONLY | libc::O_TRUNC).await;
    assert!(b.fs.copy_range((source, 0), (fh, 0), u64::MAX >> 1).await.unwrap().is_some());
    b.fs.release(source).await;
    b.faults.fail_next(Op::Get, ErrorKind::AccessDenied, 1);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..500 {
        b.advance(10);
        tokio::time::sleep(Duration::from_millis(10)).await;
        if b.fs.pending().unwrap().files == 0 {
            break;
        }
    }
    background.abort();
    let pending = b.fs.pending().unwrap();
    assert!(pending.files == 0 && b.bytes_of("f").await == noise(2 * MIB), "{:?}", pending.failed);
}

#[tokio::test]
async fn what_is_half_written_is_not_sent_because_somebody_once_waited_in_vain() {
    let b = narrow_bench().await;
    b.write("f", "acknowledged").await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    let left = b.fs.sync_path(&[name("f")], Duration::from_secs(20)).await.unwrap();
    assert_eq!(left.len(), 1);
    b.empty("f").await;
    assert_eq!(b.fs.retry_path(&[name("f")]).unwrap(), 1);
    for _ in 0..5 {
        b.advance(10);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    background.abort();
    assert_eq!(b.object("f").await, None);
    let b = b.crash_with(back()).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("f").await.as_deref(), Some("acknowledged"));
}

#[tokio::test]
async fn what_failed_of_keys_that_had_run_out_is_sent_once_there_are_others_and_nobody_waits_for_that() {
    let b = narrow_bench().await;
    b.write("f", "acknowledged").await.unwrap();
    b.faults.set(crate::store::fault::Settings {
        error_rate: 1.0,
        errors: vec![ErrorKind::Credentials],
        ..crate::store::fault::Settings::default()
    });
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    let draining = b.fs.drain(Duration::from_secs(600));
    let drained = tokio::time::timeout(Duration::from_secs(20), draining).await.unwrap().unwrap();
    let Drained::Left(left) = drained else { panic!("{drained:?}") };
    assert!(left.failed[0].2, "it is tried again: {:?}", left.failed);
    b.faults.set(crate::store::fault::Settings::default());
    for _ in 0..200 {
        b.advance(10);
        tokio::time::sleep(Duration::from_millis(10)).await;
        if b.fs.pending().unwrap().files == 0 {
            break;
        }
    }
    background.abort();
    assert_eq!(b.object("f").await.as_deref(), Some("acknowledged"));
}

#[tokio::test]
async fn whoever_waits_for_many_files_keeps_no_room_of_those_that_are_uploaded() {
    let b = narrow_bench().await;
    for n in ["a", "b"] {
        b.write_large(n, &noise(MIB)).await;
    }
    assert_eq!(b.fs.writer.room().used(), 2 * MIB as u64);
    let held = b.faults.hold_next(Op::Put);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    let waiting = b.spawn(|fs| async move { fs.sync_path(&[], Duration::from_secs(60)).await.map(drop) });
    held.reached().await;
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if b.fs.writer.room().used() < 2 * MIB as u64 {
            break;
        }
    }
    assert_eq!((b.fs.writer.room().used(), waiting.is_finished()), (MIB as u64, false));
    held.release();
    waiting.await.unwrap().unwrap();
    background.abort();
    assert_eq!(b.fs.writer.room().used(), 0);
}
