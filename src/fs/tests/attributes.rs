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
