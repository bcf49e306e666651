//! Renames of directories that were not ended. Owns nothing else.

use super::large::probed;
use super::promises::bench_with;
use super::*;
use crate::write::{RenamePhase, RenameRow};

async fn with_directory() -> Bench {
    let b = bench().await;
    // The first write of a mount probes the bucket.
    b.write("probe", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("probe")).await.unwrap();
    b.foreign("old/", "").await;
    for i in 0..20 {
        b.foreign(&format!("old/f{i:02}"), "content").await;
    }
    b.ls(Ino::ROOT).await;
    let old = b.fs.lookup(Ino::ROOT, &name("old")).await.unwrap().unwrap();
    assert_eq!(b.ls(old.ino).await.len(), 20);
    b
}

async fn rename(b: &Bench) -> Result<()> {
    b.fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await
}

/// The background of the next mount, until the journal knows of no rename.
async fn ended(b: &Bench) {
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..1000 {
        if b.fs.writer.journal().renames().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(b.fs.writer.journal().renames().unwrap().is_empty());
    background.abort();
}

async fn keys(b: &Bench) -> (usize, usize) {
    let request = |prefix: &str| crate::store::ListRequest {
        prefix: key(prefix),
        delimited: false,
        continuation: None,
        max_keys: 1000,
    };
    let (old, new) = (b.memory.list(&request("old/")).await.unwrap(), b.memory.list(&request("new/")).await.unwrap());
    (old.objects.len(), new.objects.len())
}

#[tokio::test]
async fn a_mount_that_is_killed_among_the_copies_leaves_them_to_the_next() {
    let b = with_directory().await;
    let held: Vec<_> = (0..5).map(|_| b.faults.hold_next(Op::Copy)).collect();
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await });
    for hold in &held {
        hold.reached().await;
    }
    while keys(&b).await.1 < 16 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let b = b.crash().await;
    assert_eq!(keys(&b).await.0, 21, "nothing has gone before all was copied");
    // Somebody writes to one of them before the rename is ended: that is no longer what was to be moved.
    b.foreign("old/f07", "newer").await;
    ended(&b).await;
    let (old, new) = keys(&b).await;
    assert!((old, new) == (1, 20) || (old, new) == (1, 21), "{:?}", (old, new));
    assert_eq!(b.object("old/f07").await.as_deref(), Some("newer"));
    assert_eq!(b.object("new/f08").await.as_deref(), Some("content"));
    assert_eq!(b.ls(Ino::ROOT).await, ["new", "old"]);
}

#[tokio::test]
async fn old_names_that_could_not_be_deleted_go_with_the_next_mount() {
    let b = with_directory().await;
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 60);
    rename(&b).await.unwrap_err();
    assert_eq!(b.ls(Ino::ROOT).await[0], "new");
    let (old, new) = keys(&b).await;
    assert!(old > 0 && new == 21, "{:?}", (old, new));
    let b = b.crash().await;
    ended(&b).await;
    assert_eq!(keys(&b).await, (0, 21));
    assert_eq!(b.ls(Ino::ROOT).await, ["new"]);
}

#[tokio::test]
async fn what_was_copied_for_a_rename_that_failed_goes_with_the_next_mount() {
    let b = with_directory().await;
    // A copy is lost on the way back, another fails, and no copy can be deleted.
    b.faults.lose_next(Op::Copy, ErrorKind::Broken, 1);
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 99);
    rename(&b).await.unwrap_err();
    assert!(keys(&b).await.0 == 21 && keys(&b).await.1 > 0);
    let b = b.crash().await;
    ended(&b).await;
    let (old, new) = keys(&b).await;
    assert!(old == 21 && new <= 1, "{:?}", (old, new));
}

#[tokio::test]
async fn a_rename_is_taken_back_if_files_below_were_written_while_it_went_on() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    for k in ["old/x", "old/y"] {
        b.foreign(k, "content").await;
    }
    let old = b.fs.lookup(Ino::ROOT, &name("old")).await.unwrap().unwrap().ino;
    let x = b.fs.lookup(old, &name("x")).await.unwrap().unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, old, name("n"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"new", false).await.unwrap();
    b.close(opened.fh).await;
    let held = [Op::Copy; 2].map(|op| b.faults.hold_next_answer(op));
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await });
    for hold in &held {
        hold.reached().await;
    }
    let fh = b.fs.open(CALLER, x, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh;
    b.fs.write(fh, Some(0), b"newer", false).await.unwrap();
    b.close(fh).await;
    assert_eq!(keys(&b).await, (2, 2));
    let b = b.crash().await;
    ended(&b).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(keys(&b).await, (3, 0));
    for (k, content) in [("old/n", "new"), ("old/x", "newer"), ("old/y", "content")] {
        assert_eq!(b.object(k).await.as_deref(), Some(content), "{k}");
    }
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_left_rename_that_could_not_be_ended_is_tried_again_and_one_that_this_mount_began_is_not() {
    let b = with_directory().await;
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 60);
    rename(&b).await.unwrap_err();
    let b = b.crash().await;
    b.foreign("mine/a", "content").await;
    let etag = b.memory.head(&key("mine/a")).await.unwrap().version.etag;
    let objects = vec![("mine/a".to_owned(), etag.as_str().to_owned(), None)];
    let (source, target, phase) = (key("mine/"), key("theirs/"), RenamePhase::Copying);
    let mine = RenameRow { id: "mine".to_owned(), source, target, objects, phase };
    b.fs.writer.journal().record_rename(mine.clone()).await.unwrap();
    let (error_rate, errors) = (1.0, vec![ErrorKind::Unreachable]);
    b.faults.set(fault::Settings { error_rate, errors, ..fault::Settings::default() });
    let heads = b.count(Op::Head);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    while b.count(Op::Head) == heads {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    b.faults.set(fault::Settings::default());
    assert_eq!(b.fs.writer.journal().renames().unwrap().len(), 2);
    b.advance(31);
    while b.fs.writer.journal().renames().unwrap() != [mine.clone()] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    background.abort();
    assert_eq!(keys(&b).await, (0, 21));
    assert_eq!((b.object("mine/a").await.as_deref(), b.object("theirs/a").await), (Some("content"), None));
}

#[tokio::test]
async fn a_rename_that_fails_begins_nothing_more() {
    let b = probed().await;
    for i in 0..200 {
        b.foreign(&format!("old/f{i:03}"), "content").await;
    }
    let copies = b.count(Op::Copy);
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    assert_eq!(rename(&b).await.unwrap_err().errno(), libc::EACCES);
    assert!(b.count(Op::Copy) - copies < 50, "{} copies", b.count(Op::Copy) - copies);
    assert_eq!((keys(&b).await, b.fs.writer.journal().renames().unwrap()), ((200, 0), vec![]));
    // Of one that has no network any more the old names are left to the next mount.
    let deletes = b.count(Op::Delete);
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 400);
    rename(&b).await.unwrap_err();
    assert!(b.count(Op::Delete) - deletes < 100, "{} deletes", b.count(Op::Delete) - deletes);
    assert_eq!(b.fs.writer.journal().renames().unwrap().len(), 1);
    let b = b.crash().await;
    ended(&b).await;
    assert_eq!(keys(&b).await, (0, 200));
}
