//! Attributes that the journal has of files whose bytes it does not have, after a crash. Owns nothing else.

use super::*;

#[tokio::test]
async fn attributes_that_only_the_journal_knows_are_there() {
    for is_renamed in [false, true] {
        let b = late_bench().await;
        b.write("a", "a").await.unwrap();
        let a = b.ino("a").await;
        let before = b.fs.meta.get(a).unwrap().unwrap();
        b.advance(1);
        let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        b.fs.setattr(CALLER, a, private, false).await.unwrap();
        b.fs.setxattr(a, b"user.a".to_vec(), b"x".to_vec(), 0).await.unwrap();
        if is_renamed {
            b.mv("a", "b").await.unwrap();
        }
        // Power is lost, and with it what the catalogue was told last.
        b.fs.meta.rename(a, Ino::ROOT, name("a"), Vec::new()).await.unwrap();
        b.fs.meta.change(a, move |row| *row = before).await.unwrap();
        let b = b.crash().await;
        let now = if is_renamed { "b" } else { "a" };
        assert_eq!(b.ino(now).await, a);
        assert_eq!(b.fs.getattr(a).unwrap().attr.perm, 0o600, "renamed: {is_renamed}");
        assert_eq!(b.fs.getxattr(a, b"user.a").await.unwrap(), b"x");
        assert_eq!(b.drained(&[now]).await, ["a"]);
        let made = b.memory.head(&key(now)).await.unwrap();
        assert_eq!(made.headers.user.get("mode").map(String::as_str), Some("33152"));
    }
}

impl Bench {
    /// A file that somebody has emptied, is writing to, and gives another mode meanwhile.
    async fn half_written(&self, n: &str) -> Fh {
        let (ino, fh) = self.open(n, libc::O_WRONLY | libc::O_TRUNC).await;
        self.fs.write(fh, Some(0), b"half", false).await.unwrap();
        let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        self.fs.setattr(CALLER, ino, private, true).await.unwrap();
        fh
    }

    async fn mode(&self, n: &str) -> u16 {
        self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().attr.perm
    }

    async fn stored_mode(&self, k: &str) -> String {
        self.memory.head(&key(k)).await.unwrap().headers.user["mode"].clone()
    }
}

#[tokio::test]
async fn attributes_are_in_the_journal_at_once_and_what_was_written_since_is_not() {
    let b = late_bench().await;
    b.write("a", "acknowledged").await.unwrap();
    b.half_written("a").await;
    let (new, _) = b.create("new").await;
    let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, new, private, true).await.unwrap();
    let rows = Journal::open(&b.dir.path().join("journal.db")).unwrap().rows().unwrap();
    assert_eq!(rows.len(), 1, "a file that nobody has acknowledged goes with its attributes");
    assert!(rows[0].headers.contains("33152"), "{}", rows[0].headers);
    assert_eq!(rows[0].body.as_deref(), Some(&b"acknowledged"[..]));
    let b = b.crash().await;
    assert_eq!((b.read("a").await.as_str(), b.mode("a").await), ("acknowledged", 0o600));
    assert_eq!(b.drained(&["a", "new"]).await, ["acknowledged", "nothing"]);
    assert_eq!(b.stored_mode("a").await, "33152");
}

#[tokio::test]
async fn attributes_of_a_file_that_is_written_anew_outlive_its_bytes() {
    for is_closed in [true, false] {
        let b = bench().await;
        b.write("a", "in the bucket").await.unwrap();
        let fh = b.half_written("a").await;
        assert_eq!(b.journal_keys(), ["a"]);
        // Not even now.
        b.fs.fsyncdir(Ino::ROOT).await.unwrap();
        assert_eq!(b.object("a").await.as_deref(), Some("in the bucket"));
        let wanted = if is_closed {
            b.fs.flush(CALLER, fh).await.unwrap();
            b.fs.release(fh).await;
            assert_eq!(b.journal_keys(), [""; 0], "nothing is owed any more");
            "half"
        } else {
            "in the bucket"
        };
        let b = b.crash().await;
        assert_eq!((b.read("a").await.as_str(), b.mode("a").await), (wanted, 0o600));
        assert_eq!(b.drained(&["a"]).await, [wanted]);
        assert_eq!(b.stored_mode("a").await, "33152");
    }
}

#[tokio::test]
async fn attributes_that_are_owed_of_a_half_written_file_follow_its_name() {
    let b = bench().await;
    b.write("a", "in the bucket").await.unwrap();
    b.half_written("a").await;
    b.mv("a", "b").await.unwrap();
    assert_eq!((b.journal_keys(), b.object("b").await.as_deref()), (vec!["b".to_owned()], Some("in the bucket")));
    let b = b.crash().await;
    assert_eq!((b.read("b").await.as_str(), b.mode("b").await), ("in the bucket", 0o600));
    assert_eq!(b.drained(&["a", "b"]).await, ["nothing", "in the bucket"]);
    assert_eq!(b.stored_mode("b").await, "33152");
}

#[tokio::test]
async fn attributes_that_are_owed_of_a_version_that_is_gone_make_no_conflict_copy() {
    let b = bench().await;
    b.write("a", "in the bucket").await.unwrap();
    b.half_written("a").await;
    let b = b.crash().await;
    // All of it is here, and could be sent once more.
    assert_eq!(b.read("a").await, "in the bucket");
    b.foreign("a", "theirs").await;
    assert_eq!(b.drained(&["a"]).await, ["theirs"]);
    b.advance(120);
    assert_eq!((b.read("a").await.as_str(), b.ls(Ino::ROOT).await), ("theirs", vec!["a".to_owned()]));
}

#[tokio::test]
async fn attributes_that_are_owed_replace_no_file_and_bring_none_back() {
    for (n, before) in [("e", ""), ("a", "in the bucket")] {
        for (conflict, is_deleted) in [
            (Conflicts::KeepBoth, false),
            (Conflicts::Ours, false),
            (Conflicts::KeepBoth, true),
            (Conflicts::Ours, true),
        ] {
            let b = bench().await;
            b.foreign(n, before).await;
            b.half_written(n).await;
            let b = b.crash_with(Writes { conflict, ..Writes::default() }).await;
            // All of it is here, and somebody has it open.
            let (_, fh) = b.open(n, libc::O_RDONLY).await;
            assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), before.as_bytes());
            if is_deleted {
                b.foreign_delete(n).await;
            } else {
                b.foreign(n, "theirs").await;
            }
            let (there, names) = if is_deleted { ("nothing", vec![]) } else { ("theirs", vec![n.to_owned()]) };
            assert_eq!(b.drained(&[n]).await, [there], "{n:?} {conflict:?}");
            b.fs.release(fh).await;
            b.advance(120);
            assert_eq!(b.ls(Ino::ROOT).await, names, "{n:?} {conflict:?}");
            assert_eq!(b.fs.pending().unwrap().conflicts, 0);
        }
    }
}

#[tokio::test]
async fn what_is_closed_in_the_moment_in_which_owed_attributes_are_given_up_is_kept() {
    let b = bench().await;
    b.write("a", "in the bucket").await.unwrap();
    b.half_written("a").await;
    let b = b.crash_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    b.foreign("a", "theirs").await;
    // The copy is refused; the look at who has taken the place waits.
    let refused = b.faults.hold_next_answer(Op::Copy);
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    refused.reached().await;
    let held = b.faults.hold_next_answer(Op::Head);
    refused.release();
    held.reached().await;
    let (_, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"acknowledged", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    held.release();
    assert!(committing.await.unwrap().is_err());
    assert_eq!(b.drained(&["a"]).await, ["theirs"]);
    b.advance(120);
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("a (conflict desk ")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("acknowledged"));
}

#[tokio::test]
async fn attributes_that_are_owed_of_an_empty_file_are_no_file_without_the_catalogue_either() {
    let b = bench().await;
    b.foreign("e", "").await;
    b.half_written("e").await;
    let b = b.remount_without_catalogue().await;
    b.foreign("e", "theirs").await;
    assert_eq!(b.drained(&["e"]).await, ["theirs"]);
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["e"]);
}

#[tokio::test]
async fn attributes_that_are_set_during_an_upload_outlive_a_kill_before_its_answer() {
    for is_known in [true, false] {
        let b = bench().await;
        b.write("a", "in the bucket").await.unwrap();
        b.advance(1);
        let (ino, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
        b.fs.write(fh, Some(0), b"longer than what was there", false).await.unwrap();
        let held = b.faults.hold_next_answer(Op::Put);
        let fs = Arc::clone(&b.fs);
        let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
        held.reached().await;
        b.advance(1);
        let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        b.fs.setattr(CALLER, ino, private, true).await.unwrap();
        closing.abort();
        let mtime = b.memory.head(&key("a")).await.unwrap().headers.user["mtime"].clone();
        let b = if is_known { b.crash().await } else { b.remount_without_catalogue().await };
        assert_eq!(b.drained(&["a"]).await, ["longer than what was there"], "known: {is_known}");
        assert_eq!((b.read("a").await.as_str(), b.mode("a").await), ("longer than what was there", 0o600));
        assert_eq!(b.stored_mode("a").await, "33152");
        assert_eq!(b.memory.head(&key("a")).await.unwrap().headers.user["mtime"], mtime);
        assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
    }
}

#[tokio::test]
async fn an_empty_file_that_was_acknowledged_is_more_than_its_attributes() {
    let b = late_bench().await;
    b.foreign("e", "").await;
    let (_, fh) = b.open("e", libc::O_RDWR | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"more", false).await.unwrap();
    let ino = b.ino("e").await;
    b.fs.setattr(CALLER, ino, SetAttr { size: Some(0), ..SetAttr::default() }, true).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    let b = b.crash().await;
    b.foreign_delete("e").await;
    assert_eq!(b.drained(&["e"]).await, [""]);
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["e", "known"]);
}
