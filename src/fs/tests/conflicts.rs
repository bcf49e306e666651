//! Somebody else wrote, and so did we. Owns nothing else.

use super::promises::bench_with;
use super::*;

#[tokio::test]
async fn a_conflict_keeps_both_and_the_handle_goes_on_with_ours() {
    let b = bench().await;
    b.write("a.txt", "base").await.unwrap();
    let (ino, fh) = b.open("a.txt", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("a.txt", "theirs").await;
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("a.txt").await.as_deref(), Some("theirs"));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("a (conflict desk ")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("ours"));
    assert_eq!(b.read("a.txt").await, "theirs");
    assert_eq!(b.fs.lookup(Ino::ROOT, &name(copy)).await.unwrap().unwrap().ino, ino);
    b.fs.write(fh, Some(4), b" more", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object(copy).await.as_deref(), Some("ours more"));
    assert_eq!(b.fs.pending().unwrap().conflicts, 1);
}

#[tokio::test]
async fn a_new_file_does_not_overwrite_one_that_appeared_meanwhile() {
    let b = bench().await;
    let (_, fh) = b.create("n").await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("n", "theirs").await;
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("n").await.as_deref(), Some("theirs"));
    assert_eq!(b.ls(Ino::ROOT).await.len(), 2);
}

#[tokio::test]
async fn what_was_deleted_elsewhere_while_it_was_changed_is_created_again() {
    let b = bench().await;
    b.write("a", "base").await.unwrap();
    let (_, fh) = b.open("a", libc::O_RDWR | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.memory.delete(&key("a"), None).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("a").await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn a_lost_reply_is_no_conflict() {
    let b = bench().await;
    b.write("a", "one").await.unwrap();
    // Every attempt of one close is lost: the store's retries, and then the background's.
    b.faults.lose_next(Op::Put, ErrorKind::Broken, 1);
    b.faults.fail_next(Op::Head, ErrorKind::Broken, 8);
    let closed = b.write("a", "two").await;
    assert!(closed.is_err(), "nobody could tell whether it was written");
    assert_eq!(b.fs.pending().unwrap().files, 1);
    b.faults.set(fault::Settings::default());
    b.faults.fail_next(Op::Head, ErrorKind::Broken, 0);
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a").await.as_deref(), Some("two"));
    assert_eq!(b.ls(Ino::ROOT).await, ["a"], "no conflict copy");
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn what_cannot_be_completed_is_kept_apart_and_theirs_keeps_the_name() {
    let b = bench().await;
    b.write("a", "base").await.unwrap();
    // Another mount, which has read nothing of it.
    let b = b.remount().await;
    let (ino, fh) = b.open("a", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(fh, None, b" ours", false).await.unwrap();
    b.foreign("a", "theirs").await;
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    let apart = |names: Vec<String>| names.into_iter().find(|n| n.starts_with("a (conflict desk ")).unwrap();
    let copy = apart(b.ls(Ino::ROOT).await);
    assert_eq!((b.read("a").await.as_str(), b.object("a").await.as_deref()), ("theirs", Some("theirs")));
    assert_eq!(b.object(&copy).await, None, "half a file is not uploaded");
    // It has holes where bytes are lost.
    let over = b.fs.rename((Ino::ROOT, name(&copy)), (Ino::ROOT, name("a")), false).await;
    assert_eq!(over.unwrap_err().errno(), libc::ESTALE);
    assert_eq!(b.object("a").await.as_deref(), Some("theirs"));
    // Tried again by the next mount, it stays where it is.
    let b = b.remount().await;
    let drained = Arc::clone(&b.fs).drain_with_background().await;
    let Drained::Left(left) = drained else { panic!("{drained:?}") };
    let parked: Vec<_> = left.failed.iter().map(|(path, _, again)| (path.as_str(), *again)).collect();
    assert_eq!(parked, [(copy.as_str(), false)]);
    assert_eq!(b.ls(Ino::ROOT).await, ["a", copy.as_str()]);
    let (same, fh) = b.open(&copy, libc::O_RDONLY).await;
    assert_eq!(same, ino);
    assert_eq!(b.fs.read(fh, 4, 5).await.unwrap(), &b" ours"[..]);
    assert_eq!(b.fs.read(fh, 0, 4).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.rename((Ino::ROOT, name(&copy)), (d, name("kept")), false).await.unwrap();
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    assert_eq!(b.fs.lookup(d, &name("kept")).await.unwrap().unwrap().ino, ino);
    b.fs.unlink(d, name("kept")).await.unwrap();
    b.fs.rmdir(Ino::ROOT, name("e")).await.unwrap();
    assert_eq!((b.fs.pending().unwrap().files, b.ls(Ino::ROOT).await), (0, vec!["a".to_owned()]));
}

#[tokio::test]
async fn what_cannot_be_completed_is_kept_apart_in_a_directory_that_was_renamed_as_well() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.foreign("d/f", "base").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let f = b.fs.lookup(d, &name("f")).await.unwrap().unwrap().ino;
    let fh = b.fs.open(CALLER, f, libc::O_WRONLY).await.unwrap().fh;
    b.foreign("d/f", "theirs").await;
    let hold = b.faults.hold_next(Op::Copy);
    let fs = Arc::clone(&b.fs);
    let renaming = tokio::spawn(async move { fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await });
    hold.reached().await;
    // After the look at what is dirty below, and before the names change.
    b.fs.write(fh, Some(1), b"O", false).await.unwrap();
    hold.release();
    renaming.await.unwrap().unwrap();
    // Tried again, it has a name of its own.
    for _ in 0..2 {
        assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    }
    b.fs.release(fh).await;
    let names = b.ls(d).await;
    assert!(names.len() == 2 && names.contains(&"f".to_owned()), "{names:?}");
    let copy = names.iter().find(|n| n.starts_with("f (conflict desk ")).unwrap();
    assert_eq!(b.fs.lookup(d, &name(copy)).await.unwrap().unwrap().ino, f);
    let fh = b.fs.open(CALLER, f, libc::O_RDONLY).await.unwrap().fh;
    assert_eq!(b.fs.read(fh, 1, 1).await.unwrap(), "O");
    b.fs.release(fh).await;
    assert_ne!(b.fs.lookup(d, &name("f")).await.unwrap().unwrap().ino, f);
    assert_eq!(b.object("e/f").await.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_conflict_copy_leaves_the_file_alone_that_was_kept_apart_in_the_same_second() {
    let b = bench().await;
    b.write("a", "base").await.unwrap();
    let b = b.remount().await;
    let (apart, fh) = b.open("a", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(fh, None, b" ours", false).await.unwrap();
    b.foreign("a", "theirs").await;
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    let (copy, fh) = b.open("a", libc::O_RDWR | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"mine", false).await.unwrap();
    b.foreign("a", "theirs again").await;
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.read("a").await, "theirs again");
    let conflicts: Vec<String> = b.ls(Ino::ROOT).await.into_iter().filter(|n| n.contains("conflict")).collect();
    let mut inodes = Vec::new();
    for n in &conflicts {
        inodes.push(b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino);
    }
    inodes.sort();
    assert_eq!(inodes, [apart, copy], "{conflicts:?}");
}

async fn with_policy(conflict: Conflicts) -> (Bench, Fh) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let writes = Writes { conflict, ..Writes::default() };
    let b = mount_with(tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()), clock, writes).await;
    b.foreign("f", "before").await;
    let (_, fh) = b.open("f", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.foreign("f", "theirs").await;
    (b, fh)
}

#[tokio::test]
async fn the_mount_may_say_who_wins() {
    let (b, fh) = with_policy(Conflicts::Ours).await;
    b.fs.read(fh, 0, 100).await.unwrap_err();
    // What was not changed here is gone with their version: that nobody can win.
    b.fs.flush(CALLER, fh).await.unwrap_err();
    let (b, fh) = with_policy(Conflicts::Ours).await;
    b.fs.setattr(CALLER, b.fs.handles.get(fh).unwrap().ino, SetAttr { size: Some(4), ..SetAttr::default() }, true)
        .await
        .unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!((b.object("f").await.as_deref(), b.ls(Ino::ROOT).await.len()), (Some("ours"), 1));
    b.fs.release(fh).await;
    assert_eq!(b.fs.pending().unwrap().conflicts, 1);
    let (b, fh) = with_policy(Conflicts::Theirs).await;
    b.fs.setattr(CALLER, b.fs.handles.get(fh).unwrap().ino, SetAttr { size: Some(4), ..SetAttr::default() }, true)
        .await
        .unwrap();
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "ours", "who has it open goes on reading that");
    b.fs.release(fh).await;
    assert_eq!((b.read("f").await, b.ls(Ino::ROOT).await.len()), ("theirs".to_owned(), 1));
    assert_eq!((b.fs.pending().unwrap().files, b.fs.pending().unwrap().conflicts), (0, 1));
}

#[tokio::test]
async fn what_is_open_when_theirs_wins_is_not_mixed_with_theirs_and_whoever_writes_to_it_hears_of_that() {
    for is_written_meanwhile in [false, true] {
        let (b, closed) = with_policy(Conflicts::Theirs).await;
        let ino = b.fs.handles.get(closed).unwrap().ino;
        b.fs.setattr(CALLER, ino, SetAttr { size: Some(4), ..SetAttr::default() }, true).await.unwrap();
        let fh = b.fs.open(CALLER, ino, libc::O_RDWR).await.unwrap().fh;
        if !is_written_meanwhile {
            b.fs.write(fh, Some(4), b" more", false).await.unwrap();
        }
        let held = b.faults.hold_next_answer(Op::Head);
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, closed).await });
        // That the other version is there is known, and nothing was done about it.
        held.reached().await;
        if is_written_meanwhile {
            b.fs.write(fh, Some(4), b" more", false).await.unwrap();
        }
        held.release();
        assert_eq!(closing.await.unwrap().unwrap_err().errno(), libc::ESTALE);
        b.fs.release(closed).await;
        assert_eq!(b.fs.write(fh, Some(9), b" still", false).await.unwrap_err().errno(), libc::ESTALE);
        assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
        assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "ours more");
        assert_ne!(b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino, ino);
        assert_eq!((b.read("f").await.as_str(), b.object("f").await.as_deref()), ("theirs", Some("theirs")));
        b.fs.release(fh).await;
        assert_eq!((b.ls(Ino::ROOT).await, b.fs.pending().unwrap().files), (vec!["f".to_owned()], 0));
        assert!(b.fs.writer.get(ino).is_none() && b.fs.writer.journal().inodes().unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_inode_of_a_closed_file_stays_when_theirs_wins() {
    let b = bench_with(Writes { mode: WriteMode::Back, conflict: Conflicts::Theirs, ..Writes::default() }).await;
    b.write("known", "ours").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("known")).await.unwrap().unwrap().ino;
    b.foreign("known", "theirs").await;
    assert_eq!(b.fs.commit(ino).await.unwrap_err().errno(), libc::ESTALE);
    assert!(b.fs.writer.get(ino).is_none() && b.fs.writer.journal().inodes().unwrap().is_empty());
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("known")).await.unwrap().unwrap().ino, ino);
    assert_eq!((b.read("known").await.as_str(), b.object("known").await.as_deref()), ("theirs", Some("theirs")));
}

#[tokio::test]
async fn a_conflict_copy_tells_which_name_it_had() {
    let (b, fh) = with_policy(Conflicts::KeepBoth).await;
    let ino = b.fs.handles.get(fh).unwrap().ino;
    b.fs.setattr(CALLER, ino, SetAttr { size: Some(4), ..SetAttr::default() }, true).await.unwrap();
    assert_eq!(b.fs.conflict_of(ino).unwrap(), None);
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.fs.conflict_of(ino).unwrap().as_deref(), Some(&b"f"[..]));
}

#[tokio::test]
async fn what_takes_the_place_of_a_file_whose_answer_was_lost_meets_no_conflict() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    for way in ["rename", "unlink"] {
        let (_, fh) = b.create("f").await;
        b.fs.write(fh, Some(0), b"first", false).await.unwrap();
        b.faults.lose_next(Op::Put, ErrorKind::Broken, 2);
        b.faults.fail_next(Op::Head, ErrorKind::Broken, 8);
        b.fs.flush(CALLER, fh).await.unwrap_err();
        b.fs.release(fh).await;
        while b.remote_head("f").await.is_err() {}
        if way == "rename" {
            b.write("f.tmp", "second").await.unwrap();
            b.fs.rename((Ino::ROOT, name("f.tmp")), (Ino::ROOT, name("f")), false).await.unwrap();
            assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
            assert_eq!(b.object("f").await.as_deref(), Some("second"));
        }
        b.fs.unlink(Ino::ROOT, name("f")).await.unwrap();
        assert_eq!((b.object("f").await, b.fs.pending().unwrap().conflicts), (None, 0), "{way}");
    }
    assert_eq!(b.ls(Ino::ROOT).await, ["probe"]);
}

impl Bench {
    /// Asks until the faults that were planned for it are used up.
    async fn remote_head(&self, k: &str) -> Result<()> {
        Ok(self.fs.remote.head(&key(k)).await.map(drop)?)
    }
}

#[tokio::test]
async fn a_conflict_copy_has_the_time_of_day_in_utc() {
    let (b, fh) = with_policy(Conflicts::KeepBoth).await;
    let ino = b.fs.handles.get(fh).unwrap().ino;
    b.fs.setattr(CALLER, ino, SetAttr { size: Some(4), ..SetAttr::default() }, true).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("f (")).unwrap();
    let shape: String = copy.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "f (conflict desk 9999-99-99 99.99.99)");
    let second = b.clock.now().secs() % 86_400;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    assert!(copy.ends_with(&format!(" {hours:02}.{minutes:02}.{seconds:02})")), "{copy}");
}

#[tokio::test]
async fn a_conflict_of_which_no_copy_can_be_made_is_told_and_nothing_is_lost() {
    for (kind, is_retried) in [(ErrorKind::AccessDenied, false), (ErrorKind::Unreachable, true)] {
        let b = bench().await;
        b.write("f", "before").await.unwrap();
        let (_, fh) = b.open("f", libc::O_RDWR).await;
        b.fs.write(fh, Some(0), b"ours, and longer", false).await.unwrap();
        b.foreign("f", "theirs").await;
        // The write that meets theirs is answered, and that of the copy is not; be it tried twice.
        let held = b.faults.hold_next_answer(Op::Put);
        b.faults.fail_next(Op::Put, kind, if is_retried { 2 } else { 1 });
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        held.reached().await;
        held.release();
        assert_eq!(closing.await.unwrap().unwrap_err().errno(), libc::EBUSY, "{kind:?}");
        assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "ours, and longer");
        let pending = b.fs.pending().unwrap();
        assert_eq!((pending.files, pending.failed.len(), pending.failed[0].2), (1, 1, is_retried), "{kind:?}");
        b.fs.release(fh).await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.object("f").await.as_deref(), Some("theirs"));
        let names = b.ls(Ino::ROOT).await;
        let copy = names.iter().find(|n| n.starts_with("f (conflict desk ")).unwrap();
        assert_eq!(b.object(copy).await.as_deref(), Some("ours, and longer"));
    }
}

async fn act_on(b: &Bench, act: &str) -> Result<()> {
    match act {
        "rename" => b.fs.rename((Ino::ROOT, name("a")), (Ino::ROOT, name("b")), false).await,
        "unlink" => b.fs.unlink(Ino::ROOT, name("a")).await,
        _ => {
            let ino = b.fs.lookup(Ino::ROOT, &name("a")).await?.unwrap().ino;
            let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            b.fs.setattr(CALLER, ino, private, false).await.map(drop)
        }
    }
}

/// The kernel asks a second time by itself.
#[tokio::test]
async fn what_was_changed_elsewhere_is_not_renamed_removed_or_given_a_mode_before_it_is_known() {
    for act in ["rename", "unlink", "chmod"] {
        let b = bench().await;
        b.write("a", "seen").await.unwrap();
        b.foreign("a", "theirs, unseen").await;
        assert_eq!(act_on(&b, act).await.unwrap_err().errno(), libc::ESTALE, "{act}");
        assert_eq!(b.object("a").await.as_deref(), Some("theirs, unseen"), "{act}");
        assert_eq!(b.read("a").await, "theirs, unseen", "{act}");
        act_on(&b, act).await.unwrap();
        match act {
            "rename" => assert_eq!(b.object("b").await.as_deref(), Some("theirs, unseen")),
            "unlink" => assert_eq!(b.object("a").await, None),
            _ => assert_eq!(b.memory.head(&key("a")).await.unwrap().headers.user["mode"], "33152"),
        }
    }
}

#[tokio::test]
async fn a_file_of_which_no_conflict_copy_could_be_made_has_its_name_after_a_crash() {
    let b = bench().await;
    b.write("f", "before").await.unwrap();
    let (ino, fh) = b.open("f", libc::O_RDWR | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"ours, and longer", false).await.unwrap();
    // The journal has it before its upload.
    b.fs.journal(ino).await.unwrap();
    b.foreign("f", "theirs").await;
    let held = b.faults.hold_next_answer(Op::Put);
    b.faults.fail_next(Op::Put, ErrorKind::Unreachable, 2);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    held.release();
    assert_eq!(closing.await.unwrap().unwrap_err().errno(), libc::EBUSY);
    let b = b.crash().await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino, ino);
    assert_eq!(b.read("f").await, "ours, and longer");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.read("f").await, "theirs");
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("f (conflict desk ")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("ours, and longer"));
}

#[tokio::test]
async fn a_conflict_copy_whose_answer_was_lost_with_the_daemon_is_made_once() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    b.write("f", "ours").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino;
    // Of the second attempt the journal has to be told.
    b.faults.fail_next(Op::Put, ErrorKind::Unreachable, 2);
    b.fs.commit(ino).await.unwrap_err();
    b.foreign("f", "theirs").await;
    let (met, copied) = (b.faults.hold_next_answer(Op::Put), b.faults.hold_next_answer(Op::Put));
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    met.reached().await;
    met.release();
    copied.reached().await;
    committing.abort();
    let b = b.crash().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let mut names = b.ls(Ino::ROOT).await;
    names.retain(|n| n.starts_with('f'));
    assert_eq!((names.len(), b.object("f").await.as_deref()), (2, Some("theirs")), "{names:?}");
    assert_eq!(b.object(&names[1]).await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn a_conflict_copy_whose_answer_was_lost_is_made_once_whatever_time_it_is_by_then() {
    for is_listed in [false, true] {
        let b = bench().await;
        b.write("f", "before").await.unwrap();
        let (ino, fh) = b.open("f", libc::O_RDWR | libc::O_TRUNC).await;
        b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
        b.foreign("f", "theirs").await;
        let held = b.faults.hold_next_answer(Op::Head);
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        // The conflict is known. The copy is stored, and nobody hears of it.
        held.reached().await;
        b.faults.lose_next(Op::Put, ErrorKind::Broken, 1);
        b.faults.fail_next(Op::Head, ErrorKind::Broken, 8);
        held.release();
        assert_eq!(closing.await.unwrap().unwrap_err().errno(), libc::EBUSY);
        b.fs.release(fh).await;
        while b.remote_head("f").await.is_err() {}
        // Its name would be another one by now.
        b.advance(120);
        if is_listed {
            assert_eq!(b.ls(Ino::ROOT).await.len(), 2);
        }
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        let names = b.ls(Ino::ROOT).await;
        assert_eq!((names.len(), b.memory.count()), (2, 2), "listed: {is_listed}, {names:?}");
        let copy = names.iter().find(|n| n.starts_with("f (conflict desk ")).unwrap();
        assert_eq!(b.fs.lookup(Ino::ROOT, &name(copy)).await.unwrap().unwrap().ino, ino);
        assert_eq!((b.object(copy).await.as_deref(), b.object("f").await.as_deref()), (Some("ours"), Some("theirs")));
    }
}
