//! Small changes to large objects. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::*;
use crate::store::{Capabilities, Conditions, Support};

#[tokio::test]
async fn what_is_changed_of_a_large_file_is_sent_and_the_rest_is_copied_by_the_bucket() {
    let b = probed().await;
    let mut body = noise(40 * MIB + 3);
    let (parts, copies) = (b.count(Op::UploadPart), b.count(Op::UploadPartCopy));
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(body.len() as u64), b"!", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body.push(b'!');
    assert!(b.bytes_of("large").await == body);
    let sent = || (b.count(Op::UploadPart) - parts, b.count(Op::UploadPartCopy) - copies);
    assert_eq!(sent(), (1, 1), "the end of the last part; what is copied is one part");
    // Again, over what was committed: in the middle, and a cut.
    b.fs.write(fh, Some(10 * MIB as u64), b"middle", false).await.unwrap();
    body[10 * MIB..10 * MIB + 6].copy_from_slice(b"middle");
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("large").await == body);
    assert_eq!(sent(), (1 + 2, 1 + 2), "that part, and the small last one");
    let cut = SetAttr { size: Some(30 * MIB as u64), ..SetAttr::default() };
    let (ino, _) = b.open("large", libc::O_RDONLY).await;
    b.fs.setattr(CALLER, ino, cut, true).await.unwrap();
    b.fs.write(fh, Some(31 * MIB as u64), b"beyond", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body.truncate(30 * MIB);
    body.resize(31 * MIB, 0);
    body.extend_from_slice(b"beyond");
    assert!(b.bytes_of("large").await == body);
    assert!(b.read_through(fh).await == body, "what is not here is read from the new version");
    b.fs.release(fh).await;
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn a_bucket_that_copies_no_parts_is_sent_all() {
    let b = probed().await;
    let mut body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let parts = b.count(Op::UploadPart);
    b.faults.fail_next(Op::UploadPartCopy, ErrorKind::NotImplemented, 99);
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body[..3].copy_from_slice(b"new");
    assert!(b.bytes_of("large").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 2, "the first part, and what was to be copied");
}

#[tokio::test]
async fn of_the_parts_that_the_bucket_copies_no_more_are_under_way_than_of_others() {
    let capabilities = Capabilities { parts_equal: true, ..Capabilities::default() };
    let memory = Arc::new(MemoryStore::with(capabilities, Conditions::all(Support::Honoured)));
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let b = mount(tempfile::tempdir().unwrap(), memory, clock).await;
    b.write("probe", "x").await.unwrap();
    // Twelve parts, of which the first is sent.
    b.put_large("large", &vec![7; 12 * 8 * MIB]).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    let held: Vec<_> = (0..11).map(|_| b.faults.hold_next(Op::UploadPartCopy)).collect();
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    for hold in &held[..8] {
        hold.reached().await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), held[8].reached()).await.is_err(), "a ninth");
    held.iter().for_each(|hold| hold.release());
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    let meta = b.memory.head(&key("large")).await.unwrap();
    assert_eq!(meta.version.size, 12 * 8 * MIB as u64);
}

#[tokio::test]
async fn theirs_is_never_mixed_with_ours() {
    let b = probed().await;
    b.put_large("large", &noise(24 * MIB)).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    // After the parts were copied, and before the upload is complete.
    let held = b.faults.hold_next(Op::CompleteUpload);
    let (fs, theirs) = (Arc::clone(&b.fs), noise(24 * MIB + 1));
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    b.put_large("large", &theirs).await;
    held.release();
    assert_eq!(closing.await.unwrap().unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert!(b.bytes_of("large").await == theirs);
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("large (conflict desk ")).unwrap();
    let (_, fh) = b.open(copy, libc::O_RDONLY).await;
    assert_eq!(b.fs.read(fh, 0, 4).await.unwrap(), "ours", "what was written is kept apart");
}

#[tokio::test]
async fn a_lost_answer_to_an_upload_of_copies_is_no_conflict() {
    let b = probed().await;
    let mut body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(9 * MIB as u64), b"ours", false).await.unwrap();
    body[9 * MIB..9 * MIB + 4].copy_from_slice(b"ours");
    b.faults.lose_next(Op::CompleteUpload, ErrorKind::Broken, 1);
    b.faults.fail_next(Op::Head, ErrorKind::Broken, 8);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    b.faults.fail_next(Op::Head, ErrorKind::Broken, 0);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("large").await == body);
    assert_eq!((b.ls(Ino::ROOT).await, b.fs.pending().unwrap().conflicts), (vec!["large".to_owned()], 0));
}

#[tokio::test]
async fn bytes_of_the_base_are_read_while_and_after_its_successor_is_made() {
    let b = probed().await;
    let mut body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    body[..4].copy_from_slice(b"ours");
    let held = b.faults.hold_next_answer(Op::CompleteUpload);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    // The new version is there, and this mount does not know yet.
    let fs = Arc::clone(&b.fs);
    let reading = tokio::spawn(async move { fs.read(fh, 12 * MIB as u64, 4096).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    held.release();
    closing.await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), body[12 * MIB..12 * MIB + 4096]);
    assert!(b.read_through(fh).await == body);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_the_bucket_does_not_copy_is_sent_as_it_was_when_the_upload_began() {
    let b = probed().await;
    let mut body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (ino, fh) = b.open("large", libc::O_RDWR).await;
    for at in (0..8 * MIB).step_by(MIB) {
        b.fs.write(fh, Some(at as u64), &[7; MIB], false).await.unwrap();
    }
    body[..8 * MIB].fill(7);
    b.faults.fail_next(Op::UploadPartCopy, ErrorKind::AccessDenied, 1);
    let held = b.faults.hold_next(Op::Get);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    // It reads what the bucket did not copy.
    held.reached().await;
    b.fs.write(fh, Some(12 * MIB as u64), b"late", false).await.unwrap();
    let cut = SetAttr { size: Some(20 * MIB as u64), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, cut, true).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    assert!(b.bytes_of("large").await == body, "nobody has closed what was written since");
    b.fs.flush(CALLER, fh).await.unwrap();
    body[12 * MIB..12 * MIB + 4].copy_from_slice(b"late");
    assert!(b.bytes_of("large").await == body[..20 * MIB]);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn what_the_bucket_cannot_copy_any_more_is_taken_from_the_cache() {
    let b = probed().await;
    b.put_large("large", &noise(24 * MIB)).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    // Here and there, from the end: what is read so is kept.
    let mut whole = vec![0; 24 * MIB];
    for at in (0..24 * MIB).step_by(64 << 10).rev() {
        whole[at..at + (64 << 10)].copy_from_slice(&b.fs.read(fh, at as u64, 64 << 10).await.unwrap());
    }
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    let held = b.faults.hold_next(Op::UploadPartCopy);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    b.foreign("large", "theirs").await;
    held.release();
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object("large").await.as_deref(), Some("theirs"));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("large (conflict desk ")).unwrap();
    assert!(b.bytes_of(copy).await[4..] == whole[4..], "both versions are whole");
}

#[tokio::test]
async fn a_part_that_the_bucket_copied_from_their_version_is_not_taken_for_ours() {
    let memory = Arc::new(MemoryStore::new().with_lax_part_copies());
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let writes = Writes { conflict: Conflicts::Ours, ..Writes::default() };
    let b = mount_with(tempfile::tempdir().unwrap(), memory, clock, writes).await;
    b.write("probe", "x").await.unwrap();
    let mut body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    // All of it stays in the cache.
    for at in (0..24 * MIB).step_by(64 << 10).rev() {
        b.fs.read(fh, at as u64, 64 << 10).await.unwrap();
    }
    // The part between these two is copied.
    for at in [0, 20 * MIB] {
        b.fs.write(fh, Some(at as u64), b"ours", false).await.unwrap();
        body[at..at + 4].copy_from_slice(b"ours");
    }
    let held = b.faults.hold_next(Op::UploadPartCopy);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    b.put_large("large", &noise(24 * MIB + 1)).await;
    held.release();
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert!(b.bytes_of("large").await == body);
}

#[tokio::test]
async fn attributes_that_wait_for_a_commit_are_a_copy() {
    let b = probed().await;
    let body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (ino, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), &body[..1], false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    let (puts, parts, copies) = (b.count(Op::Put), b.count(Op::UploadPart), b.count(Op::Copy));
    // Staged again, but not written to.
    let held = b.faults.hold_next(Op::CompleteUpload);
    b.fs.write(fh, Some(0), &body[..1], false).await.unwrap();
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, mode, true).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!((b.count(Op::Put) - puts, b.count(Op::UploadPart) - parts, b.count(Op::Copy) - copies), (0, 1, 1));
    let meta = b.memory.head(&key("large")).await.unwrap();
    assert_eq!(meta.headers.user.get("mode").map(String::as_str), Some("33152"));
    assert!(b.bytes_of("large").await == body);
}

#[tokio::test]
async fn a_mode_that_was_to_travel_with_a_version_that_is_gone_makes_no_file_of_zeros() {
    let b = probed().await;
    b.put_large("a", &noise(20 * MIB)).await;
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    // Staged, and written to nowhere.
    b.fs.write(fh, Some(0), b"", false).await.unwrap();
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }, true).await.unwrap();
    b.foreign_delete("a").await;
    let flushed = b.fs.flush(CALLER, fh).await;
    assert!(flushed.is_err_and(|e| e.errno() == libc::ESTALE));
    b.fs.release(fh).await;
    assert_eq!(b.memory.head(&key("a")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_appended_before_a_commit_takes_its_bytes_counts_in_the_size() {
    let b = probed().await;
    b.put_large("log", &noise(MIB)).await;
    let (ino, first) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    let (_, second) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(first, None, b"first", false).await.unwrap();
    // The rest of the file is fetched before the PUT.
    let held = b.faults.hold_next(Op::Get);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, first).await });
    held.reached().await;
    b.fs.write(second, None, b"second", false).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    b.close(second).await;
    b.fs.release(first).await;
    let size = (MIB + 11) as u64;
    assert_eq!((b.fs.getattr(ino).unwrap().attr.size, b.bytes_of("log").await.len() as u64), (size, size));
}

/// `{ echo line; sleep 1; } >> big.log`: the children that end close a descriptor which the shell has opened.
#[tokio::test]
async fn a_child_that_ends_does_not_wait_until_the_large_file_is_fetched() {
    let b = probed().await;
    let mut body = noise(64 * MIB);
    b.put_large("big.log", &body).await;
    let shell = Caller { tid: std::process::id(), ..CALLER };
    let ino = b.fs.lookup(Ino::ROOT, &name("big.log")).await.unwrap().unwrap().ino;
    let fh = b.fs.open(shell, ino, libc::O_WRONLY).await.unwrap().fh;
    let fetched = b.counters.of(Op::Get).bytes_in;
    let child = CALLER;
    for line in [b"a", b"b"] {
        b.fs.write(fh, None, line, false).await.unwrap();
        body.extend_from_slice(line);
        b.fs.flush(child, fh).await.unwrap();
        assert!(b.bytes_of("big.log").await == body, "it could be in the journal only with all of it");
    }
    let fetched = b.counters.of(Op::Get).bytes_in - fetched;
    assert!(fetched < 16 * MIB as u64, "{fetched} bytes");
    b.fs.flush(shell, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn an_export_has_all_bytes_although_the_upload_ends_meanwhile() {
    let b = probed().await;
    let mut body = noise(40 * MIB);
    b.put_large("large", &body).await;
    let (ino, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    body[..3].copy_from_slice(b"new");
    b.faults.fail_next(Op::CompleteUpload, ErrorKind::AccessDenied, 1);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    let held = b.faults.hold_next(Op::Get);
    let (fs, to) = (Arc::clone(&b.fs), b.dir.path().join("exported"));
    let exporting = tokio::spawn(async move { fs.export_path(&[name("large")], &to).await });
    held.reached().await;
    b.fs.commit(ino).await.unwrap();
    held.release();
    assert_eq!(exporting.await.unwrap().unwrap(), 0);
    assert!(std::fs::read(b.dir.path().join("exported")).unwrap() == body);
}
