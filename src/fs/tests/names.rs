//! Names: renaming, removing, and what is in the way. Owns nothing else.

use super::*;

#[tokio::test]
async fn saving_by_rename_is_one_put_when_the_new_file_is_not_uploaded_yet() {
    let b = bench().await;
    b.write("a", "old").await.unwrap();
    let (_, fh) = b.create("a.tmp").await;
    b.fs.write(fh, Some(0), b"new", false).await.unwrap();
    let (puts, copies) = (b.count(Op::Put), b.count(Op::Copy));
    b.fs.rename((Ino::ROOT, name("a.tmp")), (Ino::ROOT, name("a")), false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.count(Op::Put) - puts, 1);
    assert_eq!(b.count(Op::Copy), copies);
    assert_eq!(b.object("a").await.as_deref(), Some("new"));
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
}

#[tokio::test]
async fn a_renamed_directory_takes_everything_along_or_nothing() {
    let b = bench().await;
    for k in ["d/a", "d/s/b", "d/s/", "d/unseen/c"] {
        b.foreign(k, "x").await;
    }
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, dir, name("new"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"staged", false).await.unwrap();
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    assert!(b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.is_err());
    assert_eq!(b.object("d/s/b").await.as_deref(), Some("x"));
    assert_eq!(b.object("e/a").await.or(b.object("e/s/b").await), None, "copies that were made are taken back");
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    for k in ["e/a", "e/s/b", "e/unseen/c"] {
        assert_eq!(b.object(k).await.as_deref(), Some("x"), "{k}");
    }
    assert_eq!(b.object("e/new").await.as_deref(), Some("staged"));
    assert_eq!(b.object("d/a").await, None);
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino, dir, "the same inode");
}

#[tokio::test]
async fn a_renamed_directory_shows_nothing_of_keys_that_are_no_paths() {
    let b = bench().await;
    for k in ["d/x", "d//y", "d/../z", "d/\u{e061}"] {
        b.foreign(k, "x").await;
    }
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    for k in ["e/x", "e//y", "e/../z", "e/\u{e061}"] {
        assert_eq!(b.object(k).await.as_deref(), Some("x"), "{k:?}");
    }
    let rows = b.fs.meta.children(dir, crate::types::Pos(0), 9).unwrap();
    let shown: Vec<String> = rows.iter().filter_map(|row| row.name.as_ref()).map(ToString::to_string).collect();
    assert_eq!(shown, ["x"]);
}

#[tokio::test]
async fn a_directory_is_not_renamed_over_one_with_entries() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    b.foreign("e/b", "y").await;
    let over = b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap_err();
    assert_eq!(over.errno(), libc::ENOTEMPTY);
    let into_itself = {
        let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
        b.fs.rename((Ino::ROOT, name("d")), (d, name("x")), false).await.unwrap_err()
    };
    assert_eq!(into_itself.errno(), libc::EINVAL);
}

#[tokio::test]
async fn an_emptied_directory_stays_and_rm_r_makes_no_marker() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["d"], "nothing in the bucket implies it any more");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/").await.as_deref(), Some(""));
    b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap();
    assert_eq!(b.object("d/").await, None);
    b.foreign("e/a", "x").await;
    b.advance(120);
    let dir = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    let puts = b.count(Op::Put);
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.fs.rmdir(Ino::ROOT, name("e")).await.unwrap();
    assert_eq!(b.count(Op::Put), puts);
}

#[tokio::test]
async fn names_of_ours_are_nobodys() {
    let b = bench().await;
    assert!(b.fs.lookup(Ino::ROOT, &name(".objfs")).await.unwrap().is_none());
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name(".objfs"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EACCES);
    assert!(b.fs.create(CALLER, Ino::ROOT, name(".objfs"), 0o644, CREATE).await.is_err());
    let link = b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"target")).await.unwrap();
    assert_eq!(link.attr.kind, FileKind::Symlink);
    let b = b.remount().await;
    b.advance(120);
    let link = b.fs.lookup(Ino::ROOT, &name("l")).await.unwrap().unwrap();
    assert_eq!(b.fs.readlink(link.ino).await.unwrap(), "target");
}

#[tokio::test]
async fn a_name_that_appeared_elsewhere_is_seen_after_it_was_in_the_way() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.foreign("d/x", "x").await;
    b.foreign("d/", "").await;
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EEXIST);
    assert!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().is_some(), "EEXIST and ENOENT would contradict");
}

#[tokio::test]
async fn keys_too_long_are_told_at_create_and_not_at_close() {
    let b = bench().await;
    let mut dir = Ino::ROOT;
    for _ in 0..5 {
        dir = b.fs.mkdir(CALLER, dir, name(&"d".repeat(190)), 0o755).await.unwrap().ino;
    }
    let error = b.fs.create(CALLER, dir, name(&"f".repeat(100)), 0o644, CREATE).await.unwrap_err();
    assert_eq!(error.errno(), libc::ENAMETOOLONG);
    assert!(b.fs.create(CALLER, dir, name(&"f".repeat(60)), 0o644, CREATE).await.is_ok());
}

#[tokio::test]
async fn appending_to_a_name_that_appeared_elsewhere_does_not_create_it_anew() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.advance(10);
    b.foreign("log", "theirs").await;
    let append = CREATE | libc::O_APPEND;
    b.fs.look_before_create(Ino::ROOT, &name("log"), append).await.unwrap();
    let create = b.fs.create(CALLER, Ino::ROOT, name("log"), 0o644, append).await.unwrap_err();
    assert_eq!(create.errno(), libc::ESTALE, "the kernel looks again, and opens what is there");
    let (_, fh) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(fh, None, b" ours", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("log").await.as_deref(), Some("theirs ours"));
}

#[tokio::test]
async fn a_changed_file_that_was_changed_elsewhere_can_be_removed_and_replaced() {
    let b = bench().await;
    for n in ["a", "b"] {
        b.write(n, "base").await.unwrap();
        let (_, fh) = b.open(n, libc::O_RDWR).await;
        b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
        b.foreign(n, "theirs").await;
    }
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.object("a").await.as_deref(), Some("theirs"), "nobody here has seen it");
    assert_eq!(b.read("a").await, "theirs");
    // What is read ahead of it was asked before that.
    b.clock.advance(Duration::from_millis(1));
    b.write("new", "new").await.unwrap();
    b.fs.rename((Ino::ROOT, name("new")), (Ino::ROOT, name("b")), false).await.unwrap();
    assert_eq!(b.object("b").await.as_deref(), Some("new"));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("b (conflict")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn keys_that_are_no_paths_are_forgotten_with_their_directory() {
    let b = bench().await;
    for k in ["d/x", "d//y", "d/e//z"] {
        b.memory.put(&key(k), Bytes::new(), &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    }
    assert!(b.fs.list_whole(9).await.unwrap().is_some());
    assert_eq!(b.fs.meta.count_unmappable().unwrap(), 2);
    for k in ["d/x", "d//y", "d/e//z"] {
        b.foreign_delete(k).await;
    }
    b.advance(2);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.fs.meta.count_unmappable().unwrap(), 0);
}
