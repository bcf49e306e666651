//! Large files that are copied on a slow disk. Owns nothing else.

use super::large::{MIB, noise};
use super::*;
use crate::write::testing::{Gate, Gated};
use std::time::Instant;
use tokio::task::JoinHandle;

/// An open file whose 2 MiB the journal counts on.
async fn journaled() -> (Bench, Arc<Gate>, Ino, Fh) {
    let gate = Arc::new(Gate::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let writes = Writes { mode: WriteMode::Back, ..Writes::default() };
    let limits = crate::write::Settings::default();
    let set = |settings: &mut Settings, _: &mut Defaults| settings.writes = writes;
    let b = mount_on(dir, memory, clock, limits, set, |disk| Arc::new(Gated::new(disk, &gate))).await;
    // The first write of a mount probes the bucket.
    let (_, fh) = b.create("probe").await;
    b.fs.fsync(fh).await.unwrap();
    b.fs.release(fh).await;
    let (ino, fh) = b.create("large").await;
    b.fs.write(fh, Some(0), &noise(2 * MIB), false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.fs.writer.get(ino).unwrap().is_acknowledged());
    (b, gate, ino, fh)
}

impl Bench {
    pub(super) fn spawn<F>(&self, request: impl FnOnce(Arc<Fs>) -> F) -> JoinHandle<Result<()>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        tokio::spawn(request(Arc::clone(&self.fs)))
    }
}

/// All run on one thread here: if one of them held it, nothing else would go on.
#[tokio::test]
async fn while_a_large_file_is_copied_its_requests_hold_no_thread_that_others_need() {
    let (b, gate, ino, fh) = journaled().await;
    b.put_large("src", &noise(2 * MIB)).await;
    let ((_, src), (_, other)) = (b.open("src", libc::O_RDONLY).await, b.open("large", libc::O_RDWR).await);
    gate.set_closed(true);
    let writing = b.spawn(move |fs| async move { fs.write(fh, Some(5), b"x", false).await });
    gate.reached().await;
    let begun = Instant::now();
    let cut = SetAttr { size: Some(1000), ..SetAttr::default() };
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let requests = [
        b.spawn(move |fs| async move { fs.read(fh, 0, 4096).await.map(drop) }),
        b.spawn(move |fs| async move {
            match fs.seek(fh, 0, libc::SEEK_HOLE).await {
                // Another of them has emptied it first.
                Ok(_) | Err(FsError::PastEnd) => Ok(()),
                Err(e) => Err(e),
            }
        }),
        b.spawn(move |fs| async move { fs.write(fh, Some(9), b"y", false).await }),
        b.spawn(move |fs| async move { fs.fallocate(CALLER, fh, 0, 10, punch).await }),
        b.spawn(move |fs| async move { fs.copy_range((src, 5), (fh, 5), 100).await.map(drop) }),
        b.spawn(move |fs| async move { fs.setattr(CALLER, ino, cut, true).await.map(drop) }),
        b.spawn(move |fs| async move { fs.open(CALLER, ino, libc::O_WRONLY | libc::O_TRUNC).await.map(drop) }),
        b.spawn(move |fs| async move { fs.flush(CALLER, fh).await }),
        b.spawn(move |fs| async move { fs.fsync(fh).await }),
        b.spawn(move |fs| async move {
            fs.release(other).await;
            Ok(())
        }),
    ];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = begun.elapsed();
    gate.set_closed(false);
    assert!(held < Duration::from_secs(1), "{held:?}");
    for request in requests {
        request.await.unwrap().unwrap();
    }
    writing.await.unwrap().unwrap();
}

/// A cut and a hole have what stays copied.
#[tokio::test]
async fn a_cut_and_a_hole_are_copied_for_on_no_thread_that_others_need() {
    for is_cut in [true, false] {
        let (b, gate, ino, fh) = journaled().await;
        gate.set_closed(true);
        let begun = Instant::now();
        let cut = SetAttr { size: Some(1000), ..SetAttr::default() };
        let changing = match is_cut {
            true => b.spawn(move |fs| async move { fs.setattr(CALLER, ino, cut, true).await.map(drop) }),
            false => b.spawn(move |fs| async move {
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                fs.fallocate(CALLER, fh, 1000, 4 * MIB as u64, punch).await
            }),
        };
        gate.reached().await;
        let held = begun.elapsed();
        gate.set_closed(false);
        assert!(held < Duration::from_secs(1), "{held:?}");
        changing.await.unwrap().unwrap();
        let read = b.fs.read(fh, 0, 1001).await.unwrap();
        assert!(read[..1000] == noise(2 * MIB)[..1000] && read[1000..].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test]
async fn a_commit_that_ends_between_a_copy_and_the_write_that_follows_hears_of_it() {
    let (b, gate, ino, fh) = journaled().await;
    let held = b.faults.hold_next_answer(Op::Put);
    let committing = b.spawn(move |fs| async move { fs.commit(ino).await });
    held.reached().await;
    gate.set_closed(true);
    let fs = Arc::clone(&b.fs);
    // Its first step, which has the bytes copied. The others come after the commit.
    let Begun::Waits(writing) = begin(async move { fs.write(fh, Some(5), b"x", false).await }) else {
        panic!("it waits for the copy")
    };
    gate.reached().await;
    held.release();
    gate.set_closed(false);
    committing.await.unwrap().unwrap();
    assert!(b.fs.meta.get(ino).unwrap().unwrap().local);
    writing.await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    assert_eq!(b.bytes_of("large").await[5], b'x');
    b.fs.release(fh).await;
}

#[tokio::test]
async fn a_row_that_is_being_written_while_changes_are_dropped_goes_with_them() {
    let (b, gate, ino, fh) = journaled().await;
    b.fs.write(fh, None, b"more", false).await.unwrap();
    let staged = b.fs.writer.get(ino).unwrap();
    gate.set_closed(true);
    let journaling = b.spawn(move |fs| async move { fs.journal(ino).await });
    // Before its row: it is synced.
    gate.reached().await;
    let kept = Arc::clone(&staged);
    let dropping = b.spawn(move |fs| async move {
        fs.writer.drop_changes(&kept, || false).await?;
        Ok(())
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.set_closed(false);
    journaling.await.unwrap().unwrap();
    dropping.await.unwrap().unwrap();
    assert!(b.fs.writer.journal().inodes().unwrap().is_empty());
    assert!(!staged.is_journaled() && b.fs.writer.get(ino).is_none());
}

#[tokio::test]
async fn what_a_sync_that_failed_may_have_lost_is_safe_in_another_file() {
    let (b, gate, ino, fh) = journaled().await;
    let row = |b: &Bench| b.fs.writer.journal().row(ino).unwrap().unwrap();
    let before = row(&b);
    b.fs.write(fh, Some(2 * MIB as u64), b"more", false).await.unwrap();
    gate.set_failing(true);
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::EIO);
    let files = || std::fs::read_dir(b.dir.path().join("staging")).unwrap().count();
    let beside = files();
    for _ in 0..3 {
        b.fs.flush(CALLER, fh).await.unwrap_err();
    }
    assert!(files() <= beside + 1, "copies that are no good either do not stay");
    // The kernel says so once.
    gate.set_failing(false);
    assert_eq!((row(&b).file, row(&b).size), (before.file.clone(), before.size));
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!((row(&b).file == before.file, row(&b).size), (false, 2 * MIB as u64 + 4));
    let b = b.crash_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("large").await == [&noise(2 * MIB)[..], b"more"].concat());
}
