//! Rows of the journal that lack bytes of the version before, or tell of one that we have replaced. Owns nothing else.

use super::super::large::{MIB, noise};
use super::*;
use crate::write::unattended;

/// Somebody has put another object into the place of what the row takes its bytes from, or none.
#[tokio::test]
async fn a_change_whose_bytes_are_all_here_by_now_takes_none_of_theirs_after_a_kill() {
    for is_deleted in [false, true] {
        let writes = || Writes { conflict: Conflicts::Ours, ..Writes::default() };
        let b = bench_with(writes()).await;
        b.foreign("a", "the version before").await;
        let (ino, fh) = b.open("a", libc::O_RDWR).await;
        b.fs.write(fh, Some(0), b"our", false).await.unwrap();
        b.faults.fail_next(Op::Get, ErrorKind::AccessDenied, 1);
        b.fs.flush(CALLER, fh).await.unwrap_err();
        b.fs.release(fh).await;
        assert_eq!(b.journal_keys(), ["a"]);
        let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
        let committing = b.spawn(move |fs| unattended(async move { fs.commit(ino).await }));
        first.reached().await;
        match is_deleted {
            true => b.foreign_delete("a").await,
            false => b.foreign("a", "theirs, and longer than ours").await,
        }
        first.release();
        second.reached().await;
        committing.abort();
        let b = b.crash_with(writes()).await;
        assert_eq!(b.read("a").await, "our version before", "deleted: {is_deleted}");
        assert_eq!(b.drained(&["a"]).await, ["our version before"]);
        assert_eq!(b.ls(Ino::ROOT).await, ["a", "known"]);
    }
}

/// An object that was uploaded in parts has another ETag when it is copied to itself.
#[tokio::test]
async fn what_is_acknowledged_while_our_own_chmod_is_under_way_meets_no_conflict_after_a_kill() {
    let b = late_bench().await;
    let (ino, fh) = b.create("film.mkv").await;
    for (i, piece) in noise(17 * MIB).chunks(MIB).enumerate() {
        b.fs.write(fh, Some((i * MIB) as u64), piece, false).await.unwrap();
    }
    b.close(fh).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let (_, fh) = b.open("film.mkv", libc::O_RDWR).await;
    let etag = async || b.memory.head(&key("film.mkv")).await.unwrap().version.etag;
    let before = etag().await;
    let held = b.faults.hold_next_answer(Op::Copy);
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let setting = b.spawn(move |fs| async move { fs.setattr(CALLER, ino, private, false).await.map(drop) });
    held.reached().await;
    assert_ne!(etag().await, before);
    // It keeps nothing of what is there.
    let body: Vec<u8> = noise(MIB).into_iter().rev().collect();
    b.fs.write(fh, Some(0), &body, false).await.unwrap();
    let cut = SetAttr { size: Some(MIB as u64), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, cut, true).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    held.release();
    setting.await.unwrap().unwrap();
    let b = b.crash_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("film.mkv").await == body);
    assert_eq!(
        (b.fs.pending().unwrap().conflicts, b.ls(Ino::ROOT).await),
        (0, vec!["film.mkv".to_owned(), "known".to_owned()])
    );
}
