//! Large files that are sent while they are written. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::*;

impl Bench {
    /// Writes a large file from one end to the other, and waits until what is full was sent.
    pub(super) async fn write_ahead(&self, fh: Fh, body: &[u8], sent: u64) {
        let before = self.count(Op::UploadPart);
        for (i, piece) in body.chunks(MIB).enumerate() {
            self.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
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
    b.fs.write(fh, Some(75 * MIB as u64), b"!", false).await.unwrap();
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
    b.fs.write(fh, Some(40), b"moov", false).await.unwrap();
    body[40..44].copy_from_slice(b"moov");
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.bytes_of("film.mp4").await == body);
    assert_eq!(b.count(Op::UploadPart) - parts, 10);
    // Written to while it is under way.
    let (_, fh) = b.create("b.mp4").await;
    let held = b.faults.hold_next(Op::UploadPart);
    b.write_ahead(fh, &body, 0).await;
    held.reached().await;
    b.fs.write(fh, Some(41), b"late", false).await.unwrap();
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
async fn a_mode_that_changes_while_attributes_are_stored_after_an_upload_stays() {
    let body = noise(70 * MIB);
    // By a chmod, and by a write that clears set-user-ID.
    for (before, set, after) in [(0o640, Some(0o600), 0o600), (0o4755, None, 0o755)] {
        let b = probed().await;
        let (ino, fh) = b.create("film.mkv").await;
        b.write_ahead(fh, &body, 8).await;
        let mode_of = |mode: u32| SetAttr { mode: Some(mode), ..SetAttr::default() };
        b.fs.setattr(CALLER, ino, mode_of(before), true).await.unwrap();
        let held = b.faults.hold_next_answer(Op::Copy);
        let fs = Arc::clone(&b.fs);
        let syncing = tokio::spawn(async move { fs.fsync(fh).await });
        held.reached().await;
        b.fs.write(fh, Some(0), b"x", true).await.unwrap();
        if let Some(mode) = set {
            b.fs.setattr(CALLER, ino, mode_of(mode), true).await.unwrap();
        }
        held.release();
        syncing.await.unwrap().unwrap();
        assert_eq!(u32::from(b.fs.getattr(ino).unwrap().attr.perm), after);
        b.fs.flush(CALLER, fh).await.unwrap();
        b.fs.release(fh).await;
        let made = b.memory.head(&key("film.mkv")).await.unwrap().headers;
        assert_eq!(made.user["mode"], (libc::S_IFREG | after).to_string());
        assert_eq!(b.bytes_of("film.mkv").await[0], b'x');
    }
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

#[tokio::test]
async fn a_file_that_is_renamed_while_it_is_written_is_sent_ahead_under_its_new_name() {
    let b = probed().await;
    let body = noise(90 * MIB);
    let (_, fh) = b.create("before").await;
    let parts = b.count(Op::UploadPart);
    b.write_ahead(fh, &body[..66 * MIB], 8).await;
    b.fs.rename((Ino::ROOT, name("before")), (Ino::ROOT, name("after")), false).await.unwrap();
    for (i, piece) in body.chunks(MIB).enumerate().skip(66) {
        b.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
    }
    let all_that_is_full = async {
        while b.count(Op::UploadPart) - parts < 8 + 11 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_that_is_full).await.expect("before the close");
    b.close(fh).await;
    assert_eq!(b.count(Op::UploadPart) - parts, 8 + 12, "and at the close only the rest");
    assert!(b.bytes_of("after").await == body);
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

#[tokio::test]
async fn a_file_is_sent_ahead_from_64_mib_on_and_shows_elsewhere_when_its_upload_was_complete() {
    let b = probed().await;
    let body = noise(70 * MIB);
    let (_, fh) = b.create("film.mkv").await;
    let parts = b.count(Op::UploadPart);
    b.write_ahead(fh, &body[..63 * MIB], 0).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(b.count(Op::UploadPart), parts, "it may be done in a moment");
    for (i, piece) in body.chunks(MIB).enumerate().skip(63) {
        b.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
    }
    while b.count(Op::UploadPart) - parts < 8 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    b.close(fh).await;
    let made = b.memory.head(&key("film.mkv")).await.unwrap();
    assert!(made.headers.user.contains_key("mode") && !made.headers.user.contains_key("mtime"));
    let b = b.remount_without_catalogue().await;
    let found = b.fs.lookup(Ino::ROOT, &name("film.mkv")).await.unwrap().unwrap();
    assert_eq!(Some(found.attr.mtime), made.version.last_modified);
}

#[tokio::test]
async fn what_is_sent_ahead_is_not_taken_for_the_version_that_it_replaces() {
    let b = probed().await;
    b.write("film.mkv", "before").await.unwrap();
    let id = async || b.memory.head(&key("film.mkv")).await.unwrap().headers.write_id().unwrap();
    let before = id().await;
    let body = noise(70 * MIB);
    let (_, fh) = b.open("film.mkv", libc::O_WRONLY | libc::O_TRUNC).await;
    b.write_ahead(fh, &body, 8).await;
    // It is not carried out, which nobody can know: whoever asks must not find that it was.
    b.faults.fail_next(Op::CompleteUpload, ErrorKind::Broken, 1);
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert!(b.bytes_of("film.mkv").await == body);
    assert_ne!(id().await, before);
}

#[tokio::test]
async fn a_mode_that_is_set_after_the_upload_began_outlives_a_kill_before_it_is_stored() {
    let body = noise(70 * MIB);
    for is_completion_answered in [false, true] {
        let b = probed().await;
        b.write("film.mkv", "before").await.unwrap();
        let (ino, fh) = b.open("film.mkv", libc::O_WRONLY | libc::O_TRUNC).await;
        b.write_ahead(fh, &body, 8).await;
        b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o640), ..SetAttr::default() }, true).await.unwrap();
        let held = if is_completion_answered {
            b.faults.hold_next(Op::Copy)
        } else {
            b.faults.hold_next_answer(Op::CompleteUpload)
        };
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        held.reached().await;
        closing.abort();
        let b = b.crash().await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        let made = b.memory.head(&key("film.mkv")).await.unwrap().headers;
        assert_eq!(made.user["mode"], "33184", "answered: {is_completion_answered}");
        assert_eq!(b.fs.lookup(Ino::ROOT, &name("film.mkv")).await.unwrap().unwrap().attr.perm, 0o640);
        assert!(b.bytes_of("film.mkv").await == body);
        assert_eq!(b.ls(Ino::ROOT).await, ["film.mkv"]);
    }
}

#[tokio::test]
async fn a_large_file_that_was_deleted_elsewhere_is_created_again_with_the_mode_that_was_set_last() {
    let b = probed().await;
    b.write("film.mkv", "before").await.unwrap();
    let body = noise(70 * MIB);
    let (ino, fh) = b.open("film.mkv", libc::O_WRONLY | libc::O_TRUNC).await;
    b.write_ahead(fh, &body, 8).await;
    b.fs.setattr(CALLER, ino, SetAttr { mode: Some(0o640), ..SetAttr::default() }, true).await.unwrap();
    b.foreign_delete("film.mkv").await;
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.memory.head(&key("film.mkv")).await.unwrap().headers.user["mode"], "33184");
    assert!(b.bytes_of("film.mkv").await == body);
}
