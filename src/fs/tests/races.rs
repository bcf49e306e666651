//! Answers of the bucket that arrive while something is half done here. Owns nothing else.

use super::*;

async fn ino_of(b: &Bench, dir: Ino, n: &str) -> Option<Ino> {
    b.fs.lookup(dir, &name(n)).await.unwrap().map(|entry| entry.ino)
}

/// The in-memory store tells the time of day, and versions with the same bytes differ by the second.
fn next_second() {
    std::thread::sleep(Duration::from_millis(1001));
}

fn rename(b: &Bench, from: &str, to: &str) -> tokio::task::JoinHandle<Result<()>> {
    let (fs, from, to) = (Arc::clone(&b.fs), name(from), name(to));
    tokio::spawn(async move { fs.rename((Ino::ROOT, from), (Ino::ROOT, to), false).await })
}

#[tokio::test]
async fn a_name_that_is_renamed_does_not_come_back_before_its_old_key_is_gone() {
    let b = bench().await;
    for k in ["d/s/x", "d/y"] {
        b.foreign(k, "x").await;
    }
    // The first write asks what the server can do.
    b.write("a", "x").await.unwrap();
    assert_eq!(b.ls(Ino::ROOT).await, ["a", "d"]);
    for (from, to) in [("a", "b"), ("d", "e")] {
        let hold = b.faults.hold_next(Op::Delete);
        let renaming = rename(&b, from, to);
        hold.reached().await;
        b.advance(1);
        b.fs.refresh(Ino::ROOT).await.unwrap();
        assert_eq!(ino_of(&b, Ino::ROOT, from).await, None, "the bucket still has it, but we do not");
        assert!(b.fs.list_whole(9).await.unwrap().is_some());
        assert_eq!(ino_of(&b, Ino::ROOT, from).await, None);
        hold.release();
        renaming.await.unwrap().unwrap();
    }
    b.advance(1);
    assert_eq!(b.ls(Ino::ROOT).await, ["b", "e"]);
    b.foreign("a", "again").await;
    b.advance(60);
    assert_eq!(b.ls(Ino::ROOT).await, ["a", "b", "e"], "what others write there later is shown");
}

#[tokio::test]
async fn a_listing_of_a_directory_that_is_renamed_meanwhile_is_not_taken_for_the_new_one() {
    let b = bench().await;
    for k in ["d/s/x", "d/y"] {
        b.foreign(k, "x").await;
    }
    let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    // Known, but not listed: what is not known may be there.
    let s = ino_of(&b, d, "s").await.unwrap();
    let before = (s, ino_of(&b, s, "x").await);
    // The request is on its way when the directory is renamed: it finds nothing.
    let hold = b.faults.hold_next(Op::List);
    let fs = Arc::clone(&b.fs);
    let listing = tokio::spawn(async move { fs.refresh(d).await });
    hold.reached().await;
    b.advance(1);
    rename(&b, "d", "e").await.unwrap().unwrap();
    hold.release();
    listing.await.unwrap().unwrap();
    assert_eq!(b.ls(d).await, ["s", "y"]);
    let s = ino_of(&b, d, "s").await.unwrap();
    assert_eq!((s, ino_of(&b, s, "x").await), before);
}

#[tokio::test]
async fn our_own_new_headers_are_no_foreign_version() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    // A listing tells when it was written.
    b.advance(1);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    next_second();
    for n in ["a", "d"] {
        let target = ino_of(&b, Ino::ROOT, n).await.unwrap();
        b.advance(2);
        let hold = b.faults.hold_next_answer(Op::Copy);
        let fs = Arc::clone(&b.fs);
        let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
        let changing = tokio::spawn(async move { fs.setattr(CALLER, target, set, false).await });
        hold.reached().await;
        b.advance(1);
        b.fs.refresh(Ino::ROOT).await.unwrap();
        b.fs.list_whole(9).await.unwrap();
        hold.release();
        assert_eq!(changing.await.unwrap().unwrap().attr.perm, 0o700, "{n}");
        b.advance(1);
        b.fs.refresh(Ino::ROOT).await.unwrap();
        assert_eq!(ino_of(&b, Ino::ROOT, n).await, Some(target), "{n}");
    }
    assert_eq!(b.fs.read(fh, 0, 9).await.unwrap(), &b"text"[..]);
    b.fs.write(fh, Some(0), b"TEXT", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!((b.object("a").await.as_deref(), b.ls(Ino::ROOT).await.len()), (Some("TEXT"), 2));
    assert_eq!(ino_of(&b, Ino::ROOT, "a").await, Some(ino));
}

#[tokio::test]
async fn another_machines_chmod_of_a_directory_is_seen() {
    let b = bench().await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    b.advance(2);
    b.fs.refresh(d).await.unwrap();
    b.advance(2);
    let mut headers = b.memory.head(&key("d/")).await.unwrap().headers;
    headers.user.insert("mode".to_owned(), (libc::S_IFDIR | 0o700).to_string());
    next_second();
    b.memory.put(&key("d/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    b.fs.refresh(d).await.unwrap();
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().attr.perm, 0o700);
}

#[tokio::test]
async fn another_machines_chmod_of_a_directory_is_not_undone_by_what_is_set_here() {
    for is_xattr in [true, false] {
        let b = bench().await;
        b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
        let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
        let known = SetAttr { mode: Some(0o750), ..SetAttr::default() };
        b.fs.setattr(CALLER, d, known, false).await.unwrap();
        let private = (libc::S_IFDIR | 0o700).to_string();
        let mut headers = b.memory.head(&key("d/")).await.unwrap().headers;
        headers.user.insert("mode".to_owned(), private.clone());
        // Nothing has been asked since.
        b.memory.put(&key("d/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
        let at = Timestamp::from_parts(5, 0);
        if is_xattr {
            b.fs.setxattr(d, b"user.a".to_vec(), b"x".to_vec(), 0).await.unwrap();
        } else {
            let times = SetAttr { mtime: Some(SetTime::At(at)), ..SetAttr::default() };
            assert_eq!(b.fs.setattr(CALLER, d, times, false).await.unwrap().attr.mtime, at);
        }
        let made = b.memory.head(&key("d/")).await.unwrap().headers.user;
        assert_eq!((made["mode"].as_str(), made.contains_key("xattr")), (private.as_str(), is_xattr));
        assert_eq!(b.fs.getattr(d).unwrap().attr.perm, 0o700, "{is_xattr}");
    }
}

#[tokio::test]
async fn a_name_that_is_made_while_a_directory_gets_another_mode_moves_its_mtime() {
    let b = bench().await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    let held = b.faults.hold_next_answer(Op::Copy);
    let fs = Arc::clone(&b.fs);
    let private = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let changing = tokio::spawn(async move { fs.setattr(CALLER, d, private, false).await });
    held.reached().await;
    b.advance(1);
    let (_, opened) = b.fs.create(CALLER, d, name("f"), 0o644, CREATE).await.unwrap();
    let moved = b.fs.getattr(d).unwrap().attr.mtime;
    held.release();
    let attr = changing.await.unwrap().unwrap().attr;
    assert_eq!((attr.perm, attr.mtime), (0o700, moved));
    b.fs.release(opened.fh).await;
}

#[tokio::test]
async fn a_rename_that_meets_a_conflict_does_not_move_another_inode_than_the_kernel() {
    let b = bench().await;
    b.write("a", "base").await.unwrap();
    let (ours, fh) = b.open("a", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    // As a close by another process: what is only half written would wait for its own.
    b.fs.journal(ours).await.unwrap();
    b.foreign("a", "theirs").await;
    assert_eq!(rename(&b, "a", "b").await.unwrap().unwrap_err().errno(), libc::ESTALE);
    assert_eq!(ino_of(&b, Ino::ROOT, "b").await, None);
    let theirs = ino_of(&b, Ino::ROOT, "a").await;
    assert!(theirs.is_some() && theirs != Some(ours));
    // The kernel looks again, and moves what has the name now.
    rename(&b, "a", "b").await.unwrap().unwrap();
    assert_eq!((ino_of(&b, Ino::ROOT, "b").await, b.object("b").await.as_deref()), (theirs, Some("theirs")));
    assert_eq!(b.ls(Ino::ROOT).await.len(), 2, "ours is kept under the conflict's name");
}

#[tokio::test]
async fn a_rename_that_fails_after_the_names_have_changed_tells_the_kernel() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    b.write("a", "text").await.unwrap();
    let kernel = b.kernel();
    for (from, to) in [("a", "b"), ("d", "e")] {
        assert!(ino_of(&b, Ino::ROOT, from).await.is_some());
        b.faults.fail_next(Op::Delete, ErrorKind::AccessDenied, 1);
        assert!(rename(&b, from, to).await.unwrap().is_err());
        let told = kernel.0.lock().unwrap().clone();
        assert!([from, to].iter().all(|n| told.contains(&format!("#1/{n}"))), "{told:?}");
        assert!(ino_of(&b, Ino::ROOT, to).await.is_some(), "it is there");
    }
}

#[tokio::test]
async fn whoever_is_interrupted_finds_what_was_done_after_that() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let a = ino_of(&b, Ino::ROOT, "a").await.unwrap();
    let kernel = b.kernel();
    let hold = b.faults.hold_next(Op::Delete);
    let renaming = rename(&b, "a", "b");
    hold.reached().await;
    renaming.abort();
    assert!(renaming.await.unwrap_err().is_cancelled());
    hold.release();
    let told = |what: &str| kernel.0.lock().unwrap().iter().any(|t| t == what);
    while !(told("#1/a") && told("#1/b")) {
        tokio::task::yield_now().await;
    }
    assert_eq!((b.object("a").await, ino_of(&b, Ino::ROOT, "b").await), (None, Some(a)));
    let hold = b.faults.hold_next(Op::Copy);
    let (fs, set) = (Arc::clone(&b.fs), SetAttr { mode: Some(0o600), ..SetAttr::default() });
    let changing = tokio::spawn(async move { fs.setattr(CALLER, a, set, false).await });
    hold.reached().await;
    changing.abort();
    hold.release();
    while !told(&format!("attr {a}")) {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.fs.getattr(a).unwrap().attr.perm, 0o600);
}

#[tokio::test]
async fn a_listing_goes_on_when_whoever_asked_for_it_is_interrupted() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    let hold = b.faults.hold_next(Op::List);
    let fs = Arc::clone(&b.fs);
    let asking = tokio::spawn(async move { fs.opendir(d).await });
    hold.reached().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    hold.release();
    while b.fs.meta.get(d).unwrap().unwrap().complete_at.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let lists = b.count(Op::List);
    assert_eq!((b.ls(d).await, b.count(Op::List)), (vec!["x".to_owned()], lists), "what it shows is known");
}

#[tokio::test]
async fn a_name_is_removed_even_if_nobody_can_tell_whether_its_directory_is_empty_now() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    let d = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    assert!(ino_of(&b, d, "x").await.is_some());
    b.write("first", "asks what the server can do").await.unwrap();
    b.faults.fail_next(Op::List, ErrorKind::AccessDenied, 1);
    b.fs.unlink(d, name("x")).await.unwrap();
    assert_eq!(b.fs.pending().unwrap().markers, 1, "the directory stays");
}

/// A directory is renamed in which somebody else has written what this mount has not seen.
#[tokio::test]
async fn a_renamed_directory_takes_what_others_wrote_in_it_for_theirs() {
    for is_read in [false, true] {
        let b = bench().await;
        let d = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
        for k in ["d/open", "d/closed"] {
            b.foreign(k, "before").await;
        }
        b.advance(120);
        assert_eq!(b.ls(d).await, ["closed", "open"]);
        let open = b.fs.lookup(d, &name("open")).await.unwrap().unwrap().ino;
        let fh = b.fs.open(CALLER, open, libc::O_RDWR).await.unwrap().fh;
        // Clean again, and still staged.
        b.fs.write(fh, Some(0), b"BEFORE", false).await.unwrap();
        b.fs.fsync(fh).await.unwrap();
        let closed = b.fs.lookup(d, &name("closed")).await.unwrap().unwrap().ino;
        if is_read {
            let fh = b.fs.open(CALLER, closed, libc::O_RDONLY).await.unwrap().fh;
            assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "before");
            b.fs.release(fh).await;
        }
        for k in ["d/open", "d/closed", "d/new"] {
            b.foreign(k, "theirs, and longer").await;
        }
        b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
        // Without asking again.
        assert_eq!(b.fs.getattr(closed).unwrap().attr.size, 18);
        let opened = b.fs.open(CALLER, closed, libc::O_RDONLY).await.unwrap();
        assert!(!is_read || !opened.keep_cache, "the kernel's pages are of the version before");
        assert_eq!(b.fs.read(opened.fh, 0, 100).await.unwrap(), "theirs, and longer");
        b.fs.release(opened.fh).await;
        let is_shown =
            |n| b.fs.meta.child(d, &name(n)).unwrap().is_some_and(|row| row.attr.size == 18 && row.ino != open);
        assert!(["open", "closed", "new"].into_iter().all(is_shown));
        assert_eq!(b.fs.write(fh, Some(0), b"ours", false).await.unwrap_err().errno(), libc::ESTALE);
        b.fs.release(fh).await;
        assert_eq!(b.object("e/open").await.as_deref(), Some("theirs, and longer"));
    }
}

#[tokio::test]
async fn a_new_file_in_a_renamed_directory_does_not_replace_one_that_appeared_there() {
    let b = bench().await;
    let d = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let (made, opened) = b.fs.create(CALLER, d, name("n"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("d/n", "theirs").await;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    b.fs.release(opened.fh).await;
    assert_eq!(b.object("e/n").await.as_deref(), Some("theirs"));
    let names = b.ls(d).await;
    assert!(names.len() == 2 && names.contains(&"n".to_owned()), "{names:?}");
    let copy = names.iter().find(|n| n.contains("conflict")).unwrap();
    assert_eq!(b.object(&format!("e/{copy}")).await.as_deref(), Some("ours"));
    assert_eq!(b.fs.lookup(d, &name(copy)).await.unwrap().unwrap().ino, made.ino);
}

#[tokio::test]
async fn keys_that_are_hidden_or_have_no_path_move_along_and_change_nothing_that_is_shown() {
    let b = bench().await;
    for k in ["d/a", "d/a/b", "d//a", "d//", "d/x", "d//x"] {
        b.foreign(k, "text").await;
    }
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(d).await, ["a", "x"]);
    let inner = b.fs.lookup(d, &name("a")).await.unwrap().unwrap().ino;
    let file = b.fs.lookup(inner, &name("b")).await.unwrap().unwrap().ino;
    let x = b.fs.lookup(d, &name("x")).await.unwrap().unwrap().ino;
    let fh = b.fs.open(CALLER, file, libc::O_RDWR).await.unwrap().fh;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    assert_eq!((ino_of(&b, d, "a").await, ino_of(&b, inner, "b").await), (Some(inner), Some(file)));
    assert_eq!(ino_of(&b, d, "x").await, Some(x));
    let row = b.fs.meta.get(x).unwrap().unwrap();
    let there = b.memory.head(&key("e/x")).await.unwrap();
    assert_eq!(row.version.unwrap().etag, there.version.etag);
    b.fs.write(fh, Some(0), b"TEXT", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!((b.object("e/a/b").await.as_deref(), b.object("e/a").await.as_deref()), (Some("TEXT"), Some("text")));
    assert!(b.object("e//a").await.is_some() && b.object("e//x").await.is_some());
}

/// The directory goes in the bucket, between the look at it and the new name in it.
#[tokio::test]
async fn nothing_is_made_in_or_moved_to_a_directory_that_is_gone() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let dir = b.fs.meta.get(d).unwrap().unwrap();
    let (made, fh) = b.create("new").await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign_delete("d/x").await;
    b.advance(120);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.fs.getattr(d).unwrap_err().errno(), libc::ESTALE);
    let attr = b.fs.new_attr(CALLER, &dir, FileKind::File, 0o644);
    assert!(b.fs.meta.create(b.fs.meta.blank(d, &name("n"), attr)).await.unwrap().is_none());
    assert!(b.fs.meta.rename(made, d, name("n"), Vec::new()).await.unwrap().is_none());
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object("new").await.as_deref(), Some("ours"));
}

/// What an earlier mount left is deleted, and what this one needs is not.
#[tokio::test]
async fn copies_for_readers_that_this_mount_made_are_not_taken_for_left_ones() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    let b = b.remount().await;
    b.fs.meta.set_kv("orphans", ".objfs/orphan/left".to_owned()).await.unwrap();
    b.foreign(".objfs/orphan/left", "left").await;
    let b = b.remount().await;
    let (_, fh) = b.open("a", libc::O_RDONLY).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert!(b.fs.meta.kv("orphans").unwrap().unwrap().contains("left"), "until it is deleted");
    b.fs.delete_left_orphans().await.unwrap();
    assert_eq!(b.object(".objfs/orphan/left").await, None);
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "text");
    assert_eq!(b.fs.meta.kv("orphans").unwrap().unwrap().lines().count(), 1);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn whoever_is_interrupted_when_the_answer_is_known_leaves_others_its_event() {
    let b = bench().await;
    b.write("a", "ours").await.unwrap();
    let a = ino_of(&b, Ino::ROOT, "a").await.unwrap();
    let kernel = b.kernel();
    let told = |what: &str| kernel.0.lock().unwrap().iter().any(|t| t == what);
    let size = || b.fs.getattr(a).unwrap().attr.size;
    b.foreign("a", "theirs, and longer").await;
    b.advance(120);
    let known = name("a");
    let mut asking = Box::pin(b.fs.lookup(Ino::ROOT, &known));
    while size() == 4 {
        if futures::poll!(&mut asking).is_ready() {
            // Too fast to be interrupted.
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(asking);
    for _ in 0..400 {
        if told(&format!("pages {a}")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(told(&format!("pages {a}")));
}

#[tokio::test]
async fn a_rename_of_a_file_moves_what_is_known_of_it_and_nothing_that_somebody_else_wrote() {
    let b = bench().await;
    b.write("a", "ours").await.unwrap();
    let held = b.faults.hold_next(Op::Delete);
    let renaming = rename(&b, "a", "b");
    held.reached().await;
    assert_eq!((b.object("a").await.as_deref(), b.object("b").await.as_deref()), (Some("ours"), Some("ours")));
    b.foreign("a", "theirs").await;
    held.release();
    renaming.await.unwrap().unwrap();
    assert_eq!((b.object("a").await.as_deref(), b.object("b").await.as_deref()), (Some("theirs"), Some("ours")));
    b.foreign("b", "theirs, too").await;
    assert_eq!(rename(&b, "b", "c").await.unwrap().unwrap_err().errno(), libc::ESTALE);
    assert_eq!((b.object("b").await.as_deref(), b.object("c").await), (Some("theirs, too"), None));
}

#[tokio::test]
async fn a_rename_waits_for_what_is_just_being_uploaded() {
    for is_new in [true, false] {
        let b = bench().await;
        let root = Ino::ROOT;
        b.foreign(if is_new { "d/other" } else { "d/f" }, "before").await;
        let dir = b.fs.lookup(root, &name("d")).await.unwrap().unwrap().ino;
        let fh = match b.fs.lookup(dir, &name("f")).await.unwrap() {
            Some(entry) => b.fs.open(CALLER, entry.ino, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh,
            None => b.fs.create(CALLER, dir, name("f"), 0o644, CREATE).await.unwrap().1.fh,
        };
        b.fs.write(fh, Some(0), b"whole", false).await.unwrap();
        b.write("probe", "x").await.unwrap();
        let held = b.faults.hold_next(Op::Put);
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        held.reached().await;
        let fs = Arc::clone(&b.fs);
        let renaming = tokio::spawn(async move { fs.rename((root, name("d")), (root, name("e")), false).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!renaming.is_finished());
        held.release();
        closing.await.unwrap().unwrap();
        renaming.await.unwrap().unwrap();
        b.fs.release(fh).await;
        assert_eq!((b.object("e/f").await.as_deref(), b.object("d/f").await), (Some("whole"), None), "new: {is_new}");
        assert_eq!(b.fs.pending().unwrap().conflicts, 0);
    }
}

#[tokio::test]
async fn what_the_bucket_says_of_a_path_says_nothing_of_a_directory_that_has_left_it() {
    let b = bench().await;
    b.foreign("d/x", "there").await;
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let ino = b.fs.lookup(dir, &name("x")).await.unwrap().unwrap().ino;
    b.advance(5);
    let held = b.faults.hold_next(Op::Head);
    let fs = Arc::clone(&b.fs);
    let opening = tokio::spawn(async move { fs.open(CALLER, ino, libc::O_RDONLY).await });
    held.reached().await;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    held.release();
    let fh = opening.await.unwrap().unwrap().fh;
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "there");
    b.fs.release(fh).await;
    assert_eq!(b.fs.lookup(dir, &name("x")).await.unwrap().unwrap().ino, ino);
}

#[tokio::test]
async fn who_opened_one_version_does_not_write_into_another() {
    let b = bench().await;
    b.foreign("a", "one").await;
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    // A listing that was applied in the moment of the open.
    b.foreign("a", "another").await;
    let now = b.memory.head(&key("a")).await.unwrap().version;
    b.fs.meta.change(ino, move |row| row.version = Some(now)).await.unwrap();
    assert_eq!(b.fs.write(fh, Some(0), b"ONE", false).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.object("a").await.as_deref(), Some("another"));
}
