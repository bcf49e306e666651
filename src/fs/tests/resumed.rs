//! Renames of directories that were not ended. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::promises::bench_with;
use super::*;
use crate::store::fault::Hold;
use crate::write::{RenamePhase, RenameRow};
use tokio::task::JoinHandle;

/// The first write of a mount probes the bucket.
async fn probe(b: &Bench) {
    b.write("probe", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("probe")).await.unwrap();
}

async fn with_directory() -> Bench {
    let b = bench().await;
    probe(&b).await;
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
    until_ended(b).await;
    background.abort();
}

async fn until_ended(b: &Bench) {
    for _ in 0..1000 {
        if b.fs.writer.journal().renames().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(b.fs.writer.journal().renames().unwrap().is_empty());
}

/// The mount after one that was killed when all but five were copied.
async fn killed_among_the_copies(b: Bench) -> Bench {
    for _ in 0..5 {
        b.faults.hold_next(Op::Copy);
    }
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await });
    while keys(&b).await.1 < 16 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    b.crash().await
}

async fn open_below(b: &Bench, dir: &str, n: &str, flags: i32) -> Fh {
    let dir = b.fs.lookup(Ino::ROOT, &name(dir)).await.unwrap().unwrap().ino;
    let ino = b.fs.lookup(dir, &name(n)).await.unwrap().unwrap().ino;
    b.fs.open(CALLER, ino, flags).await.unwrap().fh
}

/// As whoever changes one byte of a file, and has not come to its end.
async fn begin_to_change(b: &Bench, dir: &str, n: &str) -> Fh {
    let fh = open_below(b, dir, n, libc::O_WRONLY).await;
    b.fs.write(fh, Some(0), b"C", false).await.unwrap();
    fh
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
    let b = killed_among_the_copies(with_directory().await).await;
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

#[tokio::test]
async fn an_old_name_does_not_go_if_somebody_has_begun_to_change_what_is_there() {
    let b = with_directory().await;
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 60);
    rename(&b).await.unwrap_err();
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["new", "old"]);
    let fh = begin_to_change(&b, "old", "f07").await;
    let (error_rate, errors) = (1.0, vec![ErrorKind::Unreachable]);
    b.faults.set(fault::Settings { error_rate, errors, ..fault::Settings::default() });
    b.fs.flush(CALLER, fh).await.unwrap_err();
    b.fs.release(fh).await;
    b.faults.set(fault::Settings::default());
    let b = b.crash().await;
    ended(&b).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("old/f07").await.as_deref(), Some("Content"));
    // It was shown there by the mount that has moved it.
    assert_eq!(b.object("new/f07").await.as_deref(), Some("content"));
    assert_eq!((keys(&b).await, b.fs.pending().unwrap().conflicts), ((1, 21), 0));
}

#[tokio::test]
async fn a_rename_is_taken_back_if_somebody_begins_to_write_below_while_the_next_mount_goes_on_with_it() {
    let b = killed_among_the_copies(with_directory().await).await;
    probe(&b).await;
    let hold = b.faults.hold_next(Op::Copy);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    hold.reached().await;
    let fh = begin_to_change(&b, "old", "f00").await;
    hold.release();
    b.close(fh).await;
    until_ended(&b).await;
    background.abort();
    assert_eq!(b.object("old/f00").await.as_deref(), Some("Content"));
    let (old, new) = keys(&b).await;
    assert!(old == 21 && new <= 1, "{:?}", (old, new));
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

/// A mount that ends a rename, and is about to delete as many old names as it does at once.
async fn with_deletes_under_way() -> (Bench, Vec<Arc<Hold>>, JoinHandle<()>) {
    let b = killed_among_the_copies(with_directory().await).await;
    probe(&b).await;
    let held: Vec<_> = (0..16).map(|_| b.faults.hold_next(Op::Delete)).collect();
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for hold in &held {
        hold.reached().await;
    }
    (b, held, background)
}

#[tokio::test]
async fn what_somebody_begins_to_write_while_the_old_names_go_is_not_lost() {
    // Those under way come too late for some, and the others are not begun.
    let (b, held, background) = with_deletes_under_way().await;
    let names: Vec<String> = (0..20).map(|i| format!("f{i:02}")).collect();
    let mut begun = Vec::new();
    for n in &names {
        begun.push(begin_to_change(&b, "old", n).await);
    }
    held.iter().for_each(|hold| hold.release());
    for fh in begun {
        b.close(fh).await;
    }
    until_ended(&b).await;
    background.abort();
    for n in &names {
        assert_eq!(b.object(&format!("old/{n}")).await.as_deref(), Some("Content"), "{n}");
        assert!(b.object(&format!("new/{n}")).await.is_none_or(|copy| copy == "content"), "{n}");
    }
    assert!(keys(&b).await.1 <= 17, "what stays has one name: {:?}", keys(&b).await);
    let old = b.fs.lookup(Ino::ROOT, &name("old")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(old).await, names, "no conflict copies");
}

#[tokio::test]
async fn who_reads_or_copies_what_moves_with_the_next_mount_goes_on_with_it() {
    let (b, body) = (with_directory().await, noise(2 * MIB));
    b.put_large("old/big", &body).await;
    let b = killed_among_the_copies(b).await;
    probe(&b).await;
    let hold = b.faults.hold_next(Op::Copy);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    hold.reached().await;
    let reader = open_below(&b, "old", "f03", libc::O_RDONLY).await;
    let source = open_below(&b, "old", "big", libc::O_RDONLY).await;
    let (_, copy) = b.create("copy").await;
    assert_eq!(b.fs.copy_range((source, 0), (copy, 0), u64::MAX >> 1).await.unwrap(), Some(2 * MIB as u64));
    b.fs.release(source).await;
    // What was looked up is older than the listings that follow.
    b.advance(1);
    hold.release();
    until_ended(&b).await;
    background.abort();
    assert_eq!(keys(&b).await, (0, 22));
    assert_eq!(b.fs.read(reader, 0, 100).await.unwrap(), "content");
    b.fs.release(reader).await;
    b.close(copy).await;
    assert!(b.bytes_of("copy").await == body);
    assert_eq!(b.ls(Ino::ROOT).await, ["copy", "new"]);
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

/// A mount after one in which a rename has failed. Answers the names that it has left copies of.
async fn with_failed_rename() -> (Bench, Vec<String>) {
    let b = with_directory().await;
    // The marker and a file are copied, and what comes next is not.
    let held = [Op::Copy; 2].map(|op| b.faults.hold_next_answer(op));
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 99);
    let renaming =
        b.spawn(|fs| async move { fs.rename((Ino::ROOT, name("old")), (Ino::ROOT, name("new")), false).await });
    for hold in &held {
        hold.reached().await;
        hold.release();
    }
    renaming.await.unwrap().unwrap_err();
    let b = b.crash().await;
    let mut copied = Vec::new();
    for n in (0..20).map(|i| format!("f{i:02}")) {
        if b.object(&format!("new/{n}")).await.is_some() {
            copied.push(n);
        }
    }
    (b, copied)
}

#[tokio::test]
async fn a_copy_that_somebody_begins_to_change_before_it_is_taken_back_is_his() {
    let (b, copied) = with_failed_rename().await;
    let fh = begin_to_change(&b, "new", &copied[0]).await;
    ended(&b).await;
    b.close(fh).await;
    assert_eq!(b.object(&format!("new/{}", copied[0])).await.as_deref(), Some("Content"));
    assert_eq!(b.object(&format!("old/{}", copied[0])).await.as_deref(), Some("content"));
    let (old, new) = keys(&b).await;
    assert!(old == 21 && new <= 2, "{:?}", (old, new));
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_rename_that_failed_is_not_carried_out_because_the_journal_could_not_be_told() {
    for is_forgotten in [true, false] {
        let b = with_directory().await;
        let catalogue = b.refusing("catalogue.db", "UPDATE ON inode WHEN NEW.name IS NOT OLD.name");
        let journal = b.refusing("journal.db", "UPDATE ON rename");
        if !is_forgotten {
            // A copy stays.
            b.faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 1);
        }
        rename(&b).await.unwrap_err();
        catalogue.end().unwrap();
        journal.end().unwrap();
        let known: Vec<_> = b.fs.writer.journal().renames().unwrap().into_iter().map(|rename| rename.phase).collect();
        if is_forgotten {
            assert!(known.is_empty());
        } else {
            assert_eq!(known, [RenamePhase::Copying]);
            ended(&b).await;
        }
        let b = b.crash().await;
        ended(&b).await;
        let (old, new) = keys(&b).await;
        assert!(old == 21 && new <= 1, "{:?}", (old, new));
        assert_eq!(b.object("old/f07").await.as_deref(), Some("content"));
    }
}

#[tokio::test]
async fn what_is_kept_of_an_old_name_that_goes_is_here_before_anybody_takes_the_copy_away() {
    let (b, held, background) = with_deletes_under_way().await;
    let fh = begin_to_change(&b, "old", "f03").await;
    b.advance(1);
    held.iter().for_each(|hold| hold.release());
    until_ended(&b).await;
    background.abort();
    assert_eq!(b.object("old/f03").await, None);
    let new = b.fs.lookup(Ino::ROOT, &name("new")).await.unwrap().unwrap().ino;
    b.fs.lookup(new, &name("f03")).await.unwrap().unwrap();
    b.fs.unlink(new, name("f03")).await.unwrap();
    b.close(fh).await;
    assert_eq!(b.object("old/f03").await.as_deref(), Some("Content"));
}

#[tokio::test]
async fn a_left_rename_whose_old_names_may_not_be_deleted_asks_for_few() {
    let b = probed().await;
    for i in 0..200 {
        b.foreign(&format!("old/f{i:03}"), "content").await;
    }
    b.faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 100_000);
    rename(&b).await.unwrap_err();
    let b = b.crash().await;
    b.faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 100_000);
    b.fs.end_left_renames().await;
    assert!(b.fs.left_renames_count() == 1 && b.count(Op::Delete) < 50, "{} deletes", b.count(Op::Delete));
    assert_eq!(keys(&b).await, (200, 200));
}

#[tokio::test]
async fn a_copy_of_a_rename_that_failed_stays_if_the_old_name_has_something_else_by_now() {
    let (b, copied) = with_failed_rename().await;
    let old = b.fs.lookup(Ino::ROOT, &name("old")).await.unwrap().unwrap().ino;
    b.fs.lookup(old, &name(&copied[0])).await.unwrap().unwrap();
    b.fs.unlink(old, name(&copied[0])).await.unwrap();
    let (_, opened) = b.fs.create(CALLER, old, name(&copied[0]), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"another", false).await.unwrap();
    b.close(opened.fh).await;
    ended(&b).await;
    let both = [format!("old/{}", copied[0]), format!("new/{}", copied[0])];
    assert_eq!(b.object(&both[0]).await.as_deref(), Some("another"));
    assert_eq!(b.object(&both[1]).await.as_deref(), Some("content"), "it may be the last one");
}
