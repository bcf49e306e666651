//! Small changes to large objects, and large files that are sent while they are written. Owns nothing else.

use super::*;

const MIB: usize = 1 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

/// With the probe behind it, which makes uploads of its own.
async fn probed() -> Bench {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("probe")).await.unwrap();
    b
}

impl Bench {
    async fn put_large(&self, k: &str, body: &[u8]) {
        let body = Bytes::copy_from_slice(body);
        self.memory.put(&key(k), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    }

    async fn bytes_of(&self, k: &str) -> Vec<u8> {
        use futures::TryStreamExt;
        let got = self.memory.get(&key(k), None, None).await.unwrap();
        let parts: Vec<Bytes> = got.body.try_collect().await.unwrap();
        parts.concat()
    }

    async fn read_through(&self, fh: Fh) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.fs.read(fh, all.len() as u64, MIB as u32).await.unwrap();
            if piece.is_empty() {
                return all;
            }
            all.extend_from_slice(&piece);
        }
    }
}

#[tokio::test]
async fn what_is_changed_of_a_large_file_is_sent_and_the_rest_is_copied_by_the_bucket() {
    let b = probed().await;
    let mut body = noise(40 * MIB + 3);
    let (parts, copies) = (b.count(Op::UploadPart), b.count(Op::UploadPartCopy));
    b.put_large("large", &body).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, body.len() as u64, b"!", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body.push(b'!');
    assert!(b.bytes_of("large").await == body);
    let sent = || (b.count(Op::UploadPart) - parts, b.count(Op::UploadPartCopy) - copies);
    assert_eq!(sent(), (1, 1), "the end of the last part; what is copied is one part");
    // Again, over what was committed: in the middle, and a cut.
    b.fs.write(fh, 10 * MIB as u64, b"middle", false).await.unwrap();
    body[10 * MIB..10 * MIB + 6].copy_from_slice(b"middle");
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("large").await == body);
    assert_eq!(sent(), (1 + 2, 1 + 2), "that part, and the small last one");
    let cut = SetAttr { size: Some(30 * MIB as u64), ..SetAttr::default() };
    let (ino, _) = b.open("large", libc::O_RDONLY).await;
    b.fs.setattr(CALLER, ino, cut, true).await.unwrap();
    b.fs.write(fh, 31 * MIB as u64, b"beyond", false).await.unwrap();
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
    b.fs.write(fh, 0, b"new", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body[..3].copy_from_slice(b"new");
    assert!(b.bytes_of("large").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 2, "the first part, and what was to be copied");
}

#[tokio::test]
async fn theirs_is_never_mixed_with_ours() {
    let b = probed().await;
    b.put_large("large", &noise(24 * MIB)).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, 0, b"ours", false).await.unwrap();
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
    b.fs.write(fh, 9 * MIB as u64, b"ours", false).await.unwrap();
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
    b.fs.write(fh, 0, b"ours", false).await.unwrap();
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
async fn what_the_bucket_cannot_copy_any_more_is_taken_from_the_cache() {
    let b = probed().await;
    b.put_large("large", &noise(24 * MIB)).await;
    let (_, fh) = b.open("large", libc::O_RDWR).await;
    // Here and there, from the end: what is read so is kept.
    let mut whole = vec![0; 24 * MIB];
    for at in (0..24 * MIB).step_by(64 << 10).rev() {
        whole[at..at + (64 << 10)].copy_from_slice(&b.fs.read(fh, at as u64, 64 << 10).await.unwrap());
    }
    b.fs.write(fh, 0, b"ours", false).await.unwrap();
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
async fn attributes_that_wait_for_a_commit_are_a_copy() {
    let b = probed().await;
    let body = noise(24 * MIB);
    b.put_large("large", &body).await;
    let (ino, fh) = b.open("large", libc::O_RDWR).await;
    b.fs.write(fh, 0, &body[..1], false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    let (puts, parts, copies) = (b.count(Op::Put), b.count(Op::UploadPart), b.count(Op::Copy));
    // Staged again, but not written to.
    let held = b.faults.hold_next(Op::CompleteUpload);
    b.fs.write(fh, 0, &body[..1], false).await.unwrap();
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

impl Bench {
    /// Writes a large file from one end to the other, and waits until what is full was sent.
    async fn write_ahead(&self, fh: Fh, body: &[u8], sent: u64) {
        let before = self.count(Op::UploadPart);
        for (i, piece) in body.chunks(MIB).enumerate() {
            self.fs.write(fh, (i * MIB) as u64, piece, false).await.unwrap();
        }
        while self.count(Op::UploadPart) - before < sent {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_large_file_is_sent_while_it_is_written_and_each_part_once() {
    let b = probed().await;
    let mut body = noise(75 * MIB);
    let (ino, fh) = b.create("film.mkv").await;
    let (parts, uploads, copies) = (b.count(Op::UploadPart), b.count(Op::CreateUpload), b.count(Op::Copy));
    b.write_ahead(fh, &body, 9).await;
    assert_eq!(
        b.memory.head(&key("film.mkv")).await.unwrap_err().kind,
        ErrorKind::NotFound,
        "not there before its close"
    );
    b.fs.flush(CALLER, fh).await.unwrap();
    let sent = (b.count(Op::UploadPart) - parts, b.count(Op::CreateUpload) - uploads, b.count(Op::Copy) - copies);
    assert_eq!(sent, (10, 1, 0));
    assert!(b.bytes_of("film.mkv").await == body);
    // What goes on at its end is a part more, and the rest is copied.
    b.fs.write(fh, 75 * MIB as u64, b"!", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    body.push(b'!');
    assert!(b.bytes_of("film.mkv").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 11);
    b.fs.release(fh).await;
    let mtime = b.fs.getattr(ino).unwrap().attr.mtime;
    let b = b.remount().await;
    let found = b.fs.lookup(Ino::ROOT, &name("film.mkv")).await.unwrap().unwrap();
    assert_eq!((found.ino, found.attr.mtime, found.attr.size), (ino, mtime, body.len() as u64));
    assert!(b.memory.list_uploads(&Key::root()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_part_that_is_written_to_again_is_sent_again() {
    let b = probed().await;
    let mut body = noise(70 * MIB);
    let (_, fh) = b.create("film.mp4").await;
    let parts = b.count(Op::UploadPart);
    b.write_ahead(fh, &body, 8).await;
    // As a muxer does that goes back to its header.
    b.fs.write(fh, 40, b"moov", false).await.unwrap();
    body[40..44].copy_from_slice(b"moov");
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("film.mp4").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 10);
    // Written to while it is under way.
    let (_, fh) = b.create("b.mp4").await;
    let held = b.faults.hold_next(Op::UploadPart);
    b.write_ahead(fh, &body, 0).await;
    held.reached().await;
    b.fs.write(fh, 41, b"late", false).await.unwrap();
    body[41..45].copy_from_slice(b"late");
    held.release();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("b.mp4").await == body);
}

#[tokio::test]
async fn mode_and_times_that_are_set_after_the_upload_began_are_stored() {
    let b = probed().await;
    let body = noise(70 * MIB);
    let (ino, fh) = b.create("film.mkv").await;
    let copies = b.count(Op::Copy);
    b.write_ahead(fh, &body, 8).await;
    let at = Timestamp::from_nanos(1_000_000_005_000_000_000);
    let set = SetAttr { mode: Some(0o640), mtime: Some(SetTime::At(at)), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, true).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.count(Op::Copy) - copies, 1);
    let b = b.remount_without_catalogue().await;
    let found = b.fs.lookup(Ino::ROOT, &name("film.mkv")).await.unwrap().unwrap();
    assert_eq!((found.attr.perm, found.attr.mtime), (0o640, at));
    assert!(b.bytes_of("film.mkv").await == body);
}

#[tokio::test]
async fn a_failed_close_sends_only_what_is_missing_when_it_is_tried_again() {
    let b = probed().await;
    let body = noise(70 * MIB);
    let (_, fh) = b.create("film.mkv").await;
    let parts = b.count(Op::UploadPart);
    b.write_ahead(fh, &body, 8).await;
    b.faults.fail_next(Op::CompleteUpload, ErrorKind::Unreachable, 2);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    assert_eq!(b.count(Op::UploadPart) - parts, 9);
    b.advance(10);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("film.mkv").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 9, "no part is sent twice");
    // Aborted by somebody between two attempts.
    let (_, fh) = b.create("b.mkv").await;
    b.write_ahead(fh, &body, 8).await;
    for upload in b.memory.list_uploads(&Key::root()).await.unwrap() {
        b.memory.abort_upload(&upload).await.unwrap();
    }
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert!(b.bytes_of("b.mkv").await == body);
}

#[tokio::test]
async fn nothing_is_left_of_the_upload_of_a_file_that_was_deleted_renamed_or_left_behind() {
    let b = probed().await;
    let body = noise(66 * MIB);
    let none_left = async |b: &Bench| {
        for _ in 0..500 {
            if b.memory.list_uploads(&Key::root()).await.unwrap().is_empty()
                && b.fs.writer.uploads().await.unwrap().is_empty()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    let (_, fh) = b.create("deleted").await;
    b.write_ahead(fh, &body, 8).await;
    b.fs.unlink(Ino::ROOT, name("deleted")).await.unwrap();
    assert!(none_left(&b).await);
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    let (_, fh) = b.create("before").await;
    b.write_ahead(fh, &body, 8).await;
    b.fs.rename((Ino::ROOT, name("before")), (Ino::ROOT, name("after")), false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert!(b.bytes_of("after").await == body && none_left(&b).await);
    // Killed: the next mount aborts what was under way, and forgets what nobody was promised.
    let (_, fh) = b.create("left").await;
    b.write_ahead(fh, &body, 8).await;
    let b = b.crash().await;
    assert_eq!(b.memory.list_uploads(&Key::root()).await.unwrap().len(), 1);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    assert!(none_left(&b).await);
    background.abort();
    assert_eq!(b.ls(Ino::ROOT).await, ["after"]);
}

impl Bench {
    /// As cp(1) does it: all of `from` into a new file `to`, which stays open.
    async fn copy_range(&self, from: &str, to: &str) -> (Fh, Option<u64>) {
        let (_, source) = self.open(from, libc::O_RDONLY).await;
        let (_, target) = self.create(to).await;
        let copied = self.fs.copy_range((source, 0), (target, 0), u64::MAX >> 1).await.unwrap();
        self.fs.release(source).await;
        (target, copied)
    }

    async fn close(&self, fh: Fh) {
        self.fs.flush(CALLER, fh).await.unwrap();
        self.fs.release(fh).await;
    }
}

#[tokio::test]
async fn a_copy_within_the_mount_is_made_by_the_bucket() {
    let b = probed().await;
    let mut body = noise(3 * MIB);
    b.put_large("a", &body).await;
    let before = (b.count(Op::Get), b.count(Op::Put), b.count(Op::Copy));
    let (fh, copied) = b.copy_range("a", "b.mkv").await;
    assert_eq!(copied, Some(3 * MIB as u64));
    b.close(fh).await;
    let now = (b.count(Op::Get), b.count(Op::Put), b.count(Op::Copy));
    assert_eq!(now, (before.0, before.1, before.2 + 1), "no byte has come or gone");
    assert!(b.bytes_of("b.mkv").await == body);
    let meta = b.memory.head(&key("b.mkv")).await.unwrap();
    assert_eq!(meta.headers.content_type.as_deref(), Some("video/x-matroska"));
    // Read and written to before its close, it is a file like others.
    let (fh, _) = b.copy_range("a", "c").await;
    assert!(b.read_through(fh).await == body);
    b.fs.write(fh, 5, b"changed", false).await.unwrap();
    body[5..12].copy_from_slice(b"changed");
    b.close(fh).await;
    assert!(b.bytes_of("c").await == body);
    // Over a file that is there, in two calls, and cut.
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, target) = b.open("c", libc::O_WRONLY | libc::O_TRUNC).await;
    let mib = MIB as u64;
    assert_eq!(b.fs.copy_range((source, 0), (target, 0), 2 * mib).await.unwrap(), Some(2 * mib));
    assert_eq!(b.fs.copy_range((source, 2 * mib), (target, 2 * mib), 9 * mib).await.unwrap(), Some(mib));
    assert_eq!(b.fs.copy_range((source, 0), (target, mib), mib).await.unwrap(), None, "elsewhere");
    b.close(target).await;
    assert!(b.bytes_of("c").await == b.bytes_of("a").await);
    let (_, target) = b.open("c", libc::O_WRONLY | libc::O_TRUNC).await;
    assert_eq!(b.fs.copy_range((source, 0), (target, 0), mib).await.unwrap(), Some(mib));
    b.close(target).await;
    assert!(b.bytes_of("c").await == b.bytes_of("a").await[..MIB]);
    b.fs.release(source).await;
}

#[tokio::test]
async fn a_copy_whose_source_was_replaced_is_no_mixture() {
    let b = probed().await;
    b.put_large("a", &noise(3 * MIB)).await;
    let (fh, _) = b.copy_range("a", "b").await;
    b.put_large("a", &noise(3 * MIB + 1)).await;
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.memory.head(&key("b")).await.unwrap_err().kind, ErrorKind::NotFound);
    b.fs.unlink(Ino::ROOT, name("b")).await.unwrap();
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn a_mode_that_was_to_travel_with_a_version_that_is_gone_makes_no_file_of_zeros() {
    let b = probed().await;
    b.put_large("a", &noise(20 * MIB)).await;
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    // Staged, and written to nowhere.
    b.fs.write(fh, 0, b"", false).await.unwrap();
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }, true).await.unwrap();
    b.foreign_delete("a").await;
    let flushed = b.fs.flush(CALLER, fh).await;
    assert!(flushed.is_err_and(|e| e.errno() == libc::ESTALE));
    b.fs.release(fh).await;
    assert_eq!(b.memory.head(&key("a")).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn no_copy_begins_in_the_midst_of_a_commit() {
    let b = probed().await;
    b.put_large("src", &noise(2 * MIB)).await;
    let (ino, fh) = b.create("dst").await;
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    let (_, source) = b.open("src", libc::O_RDONLY).await;
    assert_eq!(b.fs.copy_range((source, 0), (fh, 0), 2 * MIB as u64).await.unwrap(), None, "the kernel writes it");
    held.release();
    committing.await.unwrap().unwrap();
    assert_eq!(b.fs.copy_range((source, 0), (fh, 0), 2 * MIB as u64).await.unwrap(), Some(2 * MIB as u64));
    b.close(fh).await;
    b.fs.release(source).await;
    assert!(b.bytes_of("dst").await == noise(2 * MIB));
}

#[tokio::test]
async fn what_is_appended_before_a_commit_takes_its_bytes_counts_in_the_size() {
    let b = probed().await;
    b.put_large("log", &noise(MIB)).await;
    let (ino, first) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    let (_, second) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(first, 0, b"first", false).await.unwrap();
    // The rest of the file is fetched before the PUT.
    let held = b.faults.hold_next(Op::Get);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, first).await });
    held.reached().await;
    b.fs.write(second, 0, b"second", false).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    b.close(second).await;
    b.fs.release(first).await;
    let size = (MIB + 11) as u64;
    assert_eq!((b.fs.getattr(ino).unwrap().attr.size, b.bytes_of("log").await.len() as u64), (size, size));
}

#[tokio::test]
async fn a_copy_that_was_acknowledged_does_without_its_source() {
    let b = probed().await;
    b.put_large("a", &noise(2 * MIB)).await;
    b.put_large("a~", b"an older copy").await;
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, new) = b.create("b.tmp").await;
    let (_, old) = b.open("a~", libc::O_WRONLY | libc::O_TRUNC).await;
    for target in [new, old] {
        assert!(b.fs.copy_range((source, 0), (target, 0), u64::MAX >> 1).await.unwrap().is_some());
        b.close(target).await;
    }
    b.fs.release(source).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("b.tmp").await == noise(2 * MIB) && b.bytes_of("a~").await == noise(2 * MIB));
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn headers_that_could_not_be_stored_after_an_upload_are_owed() {
    let b = probed().await;
    let body = noise(70 * MIB);
    let (ino, fh) = b.create("film.mkv").await;
    b.write_ahead(fh, &body, 8).await;
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o640), ..SetAttr::default() }, true).await.unwrap();
    b.faults.fail_next(Op::Copy, ErrorKind::Unreachable, 2);
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    let parts = b.count(Op::UploadPart);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let meta = b.memory.head(&key("film.mkv")).await.unwrap();
    assert_eq!(meta.headers.user.get("mode").map(String::as_str), Some("33184"));
    assert_eq!(b.count(Op::UploadPart), parts, "nothing else is sent");
}
