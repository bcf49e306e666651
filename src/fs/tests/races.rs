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
    for (n, op) in [("a", Op::Copy), ("d", Op::Put)] {
        let target = ino_of(&b, Ino::ROOT, n).await.unwrap();
        b.advance(2);
        let hold = b.faults.hold_next_answer(op);
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
    b.fs.write(fh, 0, b"TEXT", false).await.unwrap();
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
