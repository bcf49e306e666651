//! Attributes that only the bucket knows yet. Owns nothing else.

use super::*;

const OWNED: [(&str, &str); 4] = [("uid", "1234"), ("gid", "77"), ("mtime", "1000.5"), ("mode", "33188")];

impl Bench {
    /// What another client puts into the bucket with user metadata.
    async fn foreign_with(&self, k: &str, user: &[(&str, &str)]) {
        let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
        self.memory.put(&key(k), Bytes::from_static(b"text"), &headers, &Condition::Always).await.unwrap();
    }

    async fn user(&self, k: &str, n: &str) -> String {
        self.memory.head(&key(k)).await.unwrap().headers.user.get(n).cloned().unwrap_or_default()
    }

    /// The inode as READDIR shows it: without asking for its headers.
    fn listed(&self, dir: Ino, n: &str) -> Ino {
        let row = self.fs.meta.child(dir, &name(n)).unwrap().unwrap();
        assert_eq!(row.headers, None, "nobody has read them");
        row.ino
    }

    async fn chmod(&self, ino: Ino, mode: u32) -> Attr {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.fs.setattr(CALLER, ino, set, false).await.unwrap().attr
    }
}

#[tokio::test]
async fn chmod_of_a_file_that_only_a_listing_has_shown_keeps_owner_and_time() {
    let b = bench().await;
    b.foreign_with("a", &OWNED).await;
    b.ls(Ino::ROOT).await;
    let attr = b.chmod(b.listed(Ino::ROOT, "a"), 0o600).await;
    let mtime = Timestamp::from_nanos(1_000_500_000_000);
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.mtime), (0o600, 1234, 77, mtime));
    assert_eq!((b.user("a", "uid").await.as_str(), b.user("a", "mode").await.as_str()), ("1234", "33152"));
    assert!(b.user("a", "mtime").await.starts_with("1000.5"));
}

#[tokio::test]
async fn chmod_of_a_directory_that_only_a_listing_has_shown_keeps_its_owner() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    b.memory.put(&key("d/"), Bytes::new(), &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    b.foreign_with("e/x", &[]).await;
    let user = [("uid".to_owned(), "1234".to_owned())].into();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key("e/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    b.ls(Ino::ROOT).await;
    assert_eq!(b.chmod(b.listed(Ino::ROOT, "e"), 0o700).await.uid, 1234);
    assert_eq!(b.user("e/", "uid").await, "1234");
}

#[tokio::test]
async fn a_rename_of_a_directory_makes_no_defaults_of_what_was_not_read() {
    let b = bench().await;
    b.foreign_with("d/a", &OWNED).await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.ls(d).await;
    let a = b.listed(d, "a");
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    let attr = b.chmod(a, 0o600).await;
    assert_eq!((attr.uid, attr.gid), (1234, 77));
    assert_eq!(b.user("e/a", "uid").await, "1234");
}

#[tokio::test]
async fn a_rename_moves_the_ctime_for_every_machine() {
    let b = bench().await;
    b.write("a", "text").await.unwrap();
    b.foreign_with("plain", &[("color", "blue")]).await;
    b.advance(10);
    let now = b.clock.now();
    for (from, to) in [("a", "b"), ("plain", "other")] {
        b.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await.unwrap();
    }
    assert_eq!((b.user("other", "ctime").await, b.user("other", "color").await), (String::new(), "blue".to_owned()));
    let before = b.fs.lookup(Ino::ROOT, &name("b")).await.unwrap().unwrap().attr;
    assert_eq!((before.ctime, before.mtime), (now, now.minus(Duration::from_secs(10))));
    let b = b.remount_without_catalogue().await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("b")).await.unwrap().unwrap().attr, before);
}

#[tokio::test]
async fn a_commit_keeps_the_owner_that_could_not_be_read_when_the_file_was_opened() {
    let b = bench().await;
    b.foreign_with("a", &OWNED).await;
    b.ls(Ino::ROOT).await;
    let ino = b.listed(Ino::ROOT, "a");
    b.faults.fail_next(Op::Head, ErrorKind::Unreachable, 2);
    let fh = b.fs.open(CALLER, ino, libc::O_WRONLY | libc::O_APPEND).await.unwrap().fh;
    b.advance(10);
    b.fs.write(fh, None, b" more", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!((b.object("a").await.as_deref(), b.user("a", "uid").await.as_str()), (Some("text more"), "1234"));
    assert_eq!(b.fs.getattr(ino).unwrap().attr.gid, 77);
}

#[tokio::test]
async fn a_marker_that_somebody_gives_to_a_directory_without_one_is_read() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.ls(d).await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().attr.perm, 0o755);
    let user = [("mode".to_owned(), (libc::S_IFDIR | 0o700).to_string())].into();
    let headers = ObjectHeaders { user, ..ObjectHeaders::default() };
    b.memory.put(&key("d/"), Bytes::new(), &headers, &Condition::Always).await.unwrap();
    b.advance(2);
    b.fs.refresh(d).await.unwrap();
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().attr.perm, 0o700);
}

#[tokio::test]
async fn a_directory_whose_marker_somebody_deleted_stays_when_it_is_emptied_here() {
    let b = bench().await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    b.foreign("d/x", "x").await;
    b.foreign_delete("d/").await;
    b.advance(120);
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    assert_eq!(b.ls(d).await, ["x"]);
    b.fs.unlink(d, name("x")).await.unwrap();
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.memory.head(&key("d/")).await.is_ok(), "nothing else shows that it is there");
}

#[tokio::test]
async fn a_marker_that_has_bytes_keeps_them() {
    let b = bench().await;
    b.foreign("a/", "somebody's notes").await;
    let dir = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap();
    let private = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let set = b.fs.setattr(CALLER, dir.ino, private, false).await.unwrap();
    assert_eq!(set.attr.perm, 0o700);
    assert_eq!(b.object("a/").await.as_deref(), Some("somebody's notes"));
    let made = b.memory.head(&key("a/")).await.unwrap();
    assert_eq!(made.headers.user.get("mode").map(String::as_str), Some("16832"));
}

#[tokio::test]
async fn attributes_whose_answer_was_lost_make_no_conflict() {
    // Its parts make an ETag that a copy does not have.
    let large = "large".repeat(4 << 20);
    for is_open in [true, false] {
        let b = bench().await;
        b.write("a", &large).await.unwrap();
        let held = if is_open { Some(b.open("a", libc::O_RDWR).await) } else { None };
        if let Some((_, fh)) = held {
            b.fs.write(fh, Some(0), b"LARGE", false).await.unwrap();
            b.fs.fsync(fh).await.unwrap();
        }
        let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
        let before = b.memory.head(&key("a")).await.unwrap().version.etag;
        b.faults.lose_next(Op::Copy, ErrorKind::Unreachable, 10);
        b.faults.fail_next(Op::Head, ErrorKind::Unreachable, 10);
        let private = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        b.fs.setattr(CALLER, ino, private, false).await.unwrap_err();
        while b.fs.store.head(&key("a")).await.is_err() {}
        assert_ne!(b.memory.head(&key("a")).await.unwrap().version.etag, before);
        match held {
            Some((_, fh)) => {
                b.fs.write(fh, Some(0), b"other", false).await.unwrap();
                b.fs.flush(CALLER, fh).await.unwrap();
                b.fs.release(fh).await;
            }
            None => b.write("a", "other").await.unwrap(),
        }
        assert!(b.object("a").await.is_some_and(|now| now.starts_with("other")));
        assert_eq!((b.ls(Ino::ROOT).await, b.fs.pending().unwrap().conflicts), (vec!["a".to_owned()], 0), "{is_open}");
    }
}

/// Between the moment in which the headers of a commit are made and that in which its bytes count as sent.
#[tokio::test]
async fn an_attribute_that_is_set_while_a_commit_fetches_bytes_reaches_the_bucket() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.foreign("a", "text").await;
    let (ino, fh) = b.open("a", libc::O_WRONLY).await;
    b.fs.write(fh, Some(0), b"T", false).await.unwrap();
    let held = b.faults.hold_next(Op::Get);
    let fs = Arc::clone(&b.fs);
    let closing = tokio::spawn(async move { fs.flush(CALLER, fh).await });
    held.reached().await;
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, false).await.unwrap();
    held.release();
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let mode = b.user("a", "mode").await;
    assert_eq!((b.object("a").await.as_deref(), mode.parse::<u32>().unwrap() & 0o7777), (Some("Text"), 0o600));
}

#[tokio::test]
async fn writes_of_a_user_look_at_the_mode_once_and_again_when_it_was_set() {
    let b = bench().await;
    let (ino, fh) = b.create("a").await;
    let perm = || b.fs.getattr(ino).unwrap().attr.perm;
    let at_once = |kill_suid| b.fs.write_staged(fh, Some(0), b"x", kill_suid).map(|written| written.unwrap());
    for _ in 0..2 {
        assert_eq!(b.chmod(ino, 0o4755).await.perm, 0o4755);
        assert_eq!(at_once(true), None, "it has to be taken away");
        assert_eq!((at_once(false), perm()), (Some(()), 0o4755));
        b.fs.write(fh, Some(0), b"x", true).await.unwrap();
        assert_eq!((perm(), at_once(true)), (0o755, Some(())));
    }
}

#[tokio::test]
async fn what_says_nothing_of_itself_has_the_time_of_its_last_change_or_of_the_mount() {
    let b = bench().await;
    let mounted = b.clock.now();
    b.foreign("d/x", "x").await;
    b.advance(5);
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap();
    assert_eq!((d.attr.perm, d.attr.mtime, d.attr.ctime), (0o755, mounted, mounted));
    b.ls(d.ino).await;
    let x = b.fs.lookup(d.ino, &name("x")).await.unwrap().unwrap().attr;
    let modified = b.memory.head(&key("d/x")).await.unwrap().version.last_modified.unwrap();
    assert_eq!((x.perm, x.mtime, x.ctime, x.atime), (0o644, modified, modified, modified));
    assert_eq!(b.fs.getattr(d.ino).unwrap().attr.mtime, mounted, "nothing has changed in it");
    b.foreign("d/y", "y").await;
    b.advance(120);
    b.ls(d.ino).await;
    assert!(b.fs.getattr(d.ino).unwrap().attr.mtime > mounted);
}

#[tokio::test]
async fn what_is_set_of_the_root_stays_over_listings_and_remounts() {
    for marker in [None, Some("listed after"), Some("listed before and after")] {
        let b = bench().await;
        b.foreign("a", "x").await;
        if let Some(text) = marker {
            b.foreign("", text).await;
        }
        if marker == Some("listed before and after") {
            b.ls(Ino::ROOT).await;
            b.foreign("", "another").await;
            b.advance(120);
        }
        b.chmod(Ino::ROOT, 0o700).await;
        assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
        let mut b = b.remount().await;
        for _ in 0..2 {
            assert_eq!(b.fs.getattr(Ino::ROOT).unwrap().attr.perm, 0o700, "{marker:?}");
            b.advance(120);
            assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
            b = b.remount().await;
        }
    }
}

#[tokio::test]
async fn times_and_extended_attributes_of_the_root_do_not_fix_its_mode() {
    let b = bench().await;
    let mtime = Some(SetTime::At(Timestamp::from_parts(1000, 0)));
    b.fs.setattr(CALLER, Ino::ROOT, SetAttr { mtime, ..SetAttr::default() }, false).await.unwrap();
    b.fs.setxattr(Ino::ROOT, b"user.note".to_vec(), b"x".to_vec(), 0).await.unwrap();
    b.fs.close();
    let Bench { memory, dir, clock, .. } = b;
    clock.advance(Duration::from_millis(1));
    let limits = crate::write::Settings::default();
    let b = mount_set(dir, memory, clock, limits, |_, defaults| defaults.dir_perm = 0o750).await;
    let root = b.fs.getattr(Ino::ROOT).unwrap().attr;
    assert_eq!((root.perm, root.mtime), (0o750, Timestamp::from_parts(1000, 0)));
    assert_eq!(b.fs.getxattr(Ino::ROOT, b"user.note").await.unwrap(), b"x");
}

#[tokio::test]
async fn chmod_of_a_directory_without_a_marker_makes_one() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.chmod(d, 0o700).await;
    assert_eq!((b.object("d/").await.as_deref(), b.user("d/", "mode").await.as_str()), (Some(""), "16832"));
    let made = b.memory.head(&key("d/")).await.unwrap().headers;
    assert_eq!(made.content_type.as_deref(), Some("application/x-directory"));
}

#[tokio::test]
async fn what_rewrites_an_object_keeps_its_other_headers() {
    let b = bench().await;
    let headers = ObjectHeaders {
        content_type: Some("text/x-poem".to_owned()),
        cache_control: Some("max-age=5".to_owned()),
        content_disposition: Some("inline".to_owned()),
        content_encoding: Some("identity".to_owned()),
        content_language: Some("de".to_owned()),
        storage_class: Some("COLD".to_owned()),
        user: [("author".to_owned(), "Ada".to_owned())].into(),
    };
    b.memory.put(&key("d/a"), Bytes::from_static(b"text"), &headers, &Condition::Always).await.unwrap();
    b.foreign("d/other", "x").await;
    let kept = async |k: &str, what: &str| {
        let now = b.memory.head(&key(k)).await.unwrap().headers;
        assert_eq!(now.user.get("author").map(String::as_str), Some("Ada"), "{what}");
        assert_eq!(ObjectHeaders { user: headers.user.clone(), ..now }, headers, "{what}");
    };
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let a = b.fs.lookup(d, &name("a")).await.unwrap().unwrap().ino;
    b.chmod(a, 0o600).await;
    kept("d/a", "chmod").await;
    let fh = b.fs.open(CALLER, a, libc::O_RDWR).await.unwrap().fh;
    b.fs.write(fh, Some(0), b"TEXT", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object("d/a").await.as_deref(), Some("TEXT"));
    kept("d/a", "a changed file").await;
    b.fs.rename((d, name("a")), (d, name("b")), false).await.unwrap();
    kept("d/b", "rename").await;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    kept("e/b", "rename of its directory").await;
}

#[tokio::test]
async fn the_times_of_a_directory_whose_entries_change_are_in_the_catalogue_only() {
    let b = bench().await;
    let d = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let stored = b.user("d/", "mtime").await;
    b.advance(50);
    let (_, opened) = b.fs.create(CALLER, d.ino, name("f"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"x", false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    b.fs.release(opened.fh).await;
    let moved = b.fs.getattr(d.ino).unwrap().attr.mtime;
    assert!(moved > d.attr.mtime);
    assert_eq!(b.user("d/", "mtime").await, stored);
    let b = b.remount().await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().attr.mtime, moved);
    let b = b.remount_without_catalogue().await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().attr.mtime, d.attr.mtime);
}

#[tokio::test]
async fn the_ctime_of_a_renamed_directory_is_in_the_catalogue_only() {
    let b = bench().await;
    b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap();
    let stored = b.user("d/", "ctime").await;
    b.advance(50);
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    let moved = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().attr.ctime;
    assert_eq!((moved, b.user("e/", "ctime").await), (b.clock.now(), stored));
}

#[tokio::test]
async fn uid_and_gid_change_what_is_shown_and_not_what_is_stored() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    let b = mount_set(dir, memory, clock, crate::write::Settings::default(), |_, defaults| {
        (defaults.uid, defaults.uid_forced) = (1000, true);
        (defaults.gid, defaults.gid_forced) = (1001, true);
    })
    .await;
    b.foreign_with("a", &OWNED).await;
    let a = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap();
    assert_eq!((a.attr.uid, a.attr.gid), (1000, 1001));
    b.chmod(a.ino, 0o600).await;
    b.write("a", "changed").await.unwrap();
    assert_eq!((b.user("a", "uid").await, b.user("a", "gid").await), ("1234".to_owned(), "77".to_owned()));
    // What is made here has no other owner.
    b.write("new", "x").await.unwrap();
    assert_eq!((b.user("new", "uid").await, b.user("new", "gid").await), ("1000".to_owned(), "1001".to_owned()));
}

#[tokio::test]
async fn attributes_that_somebody_else_has_set_before_a_rename_of_a_directory_are_shown_and_stay() {
    let b = bench().await;
    let private = |mode: &str| {
        let user = [("mode".to_owned(), mode.to_owned()), ("color".to_owned(), "blue".to_owned())];
        ObjectHeaders { user: user.into_iter().collect(), ..ObjectHeaders::default() }
    };
    let put = async |mode: &str| {
        let body = Bytes::from_static(b"content");
        b.memory.put(&key("d/f"), body, &private(mode), &Condition::Always).await.unwrap();
    };
    put("33188").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let f = b.fs.lookup(d, &name("f")).await.unwrap().unwrap();
    assert_eq!(f.attr.perm, 0o644);
    // The store tells seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put("33152").await;
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    assert_eq!(b.fs.getattr(f.ino).unwrap().attr.perm, 0o600);
    let set = SetAttr { mtime: Some(SetTime::At(Timestamp::from_parts(5, 0))), ..SetAttr::default() };
    b.fs.setattr(CALLER, f.ino, set, false).await.unwrap();
    let headers = b.memory.head(&key("e/f")).await.unwrap().headers;
    assert_eq!((headers.user["mode"].as_str(), headers.user["color"].as_str()), ("33152", "blue"));
}
