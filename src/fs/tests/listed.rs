//! What a listing shows, and does not show, of what is just being done here. Owns nothing else.

use super::*;

async fn ino_of(b: &Bench, dir: Ino, n: &str) -> Option<Ino> {
    b.fs.lookup(dir, &name(n)).await.unwrap().map(|entry| entry.ino)
}

/// A chmod that has come as far as `until`, where it is held.
async fn chmod(b: &Bench, ino: Ino, until: &fault::Hold) -> tokio::task::JoinHandle<Result<Entry>> {
    let (fs, set) = (Arc::clone(&b.fs), SetAttr { mode: Some(0o700), ..SetAttr::default() });
    let changing = tokio::spawn(async move { fs.setattr(CALLER, ino, set, false).await });
    until.reached().await;
    changing
}

/// With two pages, between which a chmod fails that had begun before the first, or begins after it.
#[tokio::test]
async fn a_name_whose_headers_could_not_be_written_anew_while_it_was_listed_is_there_still() {
    let in_dir = [("f", true, false), ("f", false, false), ("s", true, false)];
    let in_tree = [("f", true, true), ("f", false, true), ("s", true, true)];
    for (n, is_before, is_whole) in in_dir.into_iter().chain(in_tree) {
        let b = bench().await;
        let others = (0..1000).map(|i| format!("d/x{i:04}"));
        for k in others.chain(["d/f".to_owned(), "d/s/x".to_owned()]) {
            b.foreign(&k, "text").await;
        }
        let dir = ino_of(&b, Ino::ROOT, "d").await.unwrap();
        let ino = ino_of(&b, dir, n).await.unwrap();
        b.advance(120);
        // The first write asks what the server can do.
        let asking = b.faults.hold_next(Op::Put);
        let begun = if is_before { Some(chmod(&b, ino, &asking).await) } else { None };
        let [first, second] = [Op::List; 2].map(|op| b.faults.hold_next(op));
        let fs = Arc::clone(&b.fs);
        let listing = tokio::spawn(async move {
            match is_whole {
                true => fs.list_whole(9).await.map(drop),
                false => fs.refresh(dir).await,
            }
        });
        first.reached().await;
        first.release();
        second.reached().await;
        let changing = match begun {
            Some(changing) => changing,
            None => chmod(&b, ino, &asking).await,
        };
        b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
        asking.release();
        assert!(changing.await.unwrap().is_err());
        second.release();
        listing.await.unwrap().unwrap();
        assert!(b.fs.meta.get(dir).unwrap().unwrap().complete_at.is_some());
        assert_eq!(ino_of(&b, dir, n).await, Some(ino), "{n}, before: {is_before}, whole: {is_whole}");
    }
}

#[tokio::test]
async fn a_directory_whose_marker_was_written_after_a_listing_began_is_there_still() {
    let b = bench().await;
    b.foreign("d/x", "x").await;
    assert_eq!(b.ls(Ino::ROOT).await, ["d"]);
    let dir = ino_of(&b, Ino::ROOT, "d").await.unwrap();
    assert_eq!(b.ls(dir).await, ["x"]);
    b.fs.unlink(dir, name("x")).await.unwrap();
    assert_eq!(b.fs.pending().unwrap().markers, 1);
    b.advance(1);
    let held = b.faults.hold_next_answer(Op::List);
    let fs = Arc::clone(&b.fs);
    let listing = tokio::spawn(async move { fs.refresh(Ino::ROOT).await });
    held.reached().await;
    b.advance(1);
    b.fs.fsyncdir(dir).await.unwrap();
    assert_eq!((b.object("d/").await.as_deref(), b.fs.pending().unwrap().markers), (Some(""), 0));
    held.release();
    listing.await.unwrap().unwrap();
    assert_eq!(ino_of(&b, Ino::ROOT, "d").await, Some(dir));
}

/// A listing shows every object as a plain file with a default mode.
#[tokio::test]
async fn what_was_just_made_is_what_was_asked_for_also_if_a_listing_has_shown_it_first() {
    for kind in [FileKind::Symlink, FileKind::Fifo, FileKind::File, FileKind::Dir] {
        let b = bench().await;
        b.write("first", "asks what the server can do").await.unwrap();
        let held = b.faults.hold_next_answer(Op::Put);
        let fs = Arc::clone(&b.fs);
        let making = tokio::spawn(async move {
            let (parent, name, mode) = (Ino::ROOT, name("n"), kind.mode_bits() | 0o750);
            match kind {
                FileKind::Dir => fs.mkdir(CALLER, parent, name, mode).await,
                FileKind::Symlink => fs.symlink(CALLER, parent, name, Bytes::from_static(b"target")).await,
                _ => fs.mknod(CALLER, parent, name, mode, 0).await,
            }
        });
        held.reached().await;
        b.advance(1);
        b.fs.refresh(Ino::ROOT).await.unwrap();
        assert!(b.fs.meta.child(Ino::ROOT, &name("n")).unwrap().is_some(), "it is listed");
        held.release();
        let made = making.await.unwrap().unwrap();
        let perm = if kind == FileKind::Symlink { 0o777 } else { 0o750 };
        assert_eq!((made.attr.kind, made.attr.perm), (kind, perm));
        if kind == FileKind::Symlink {
            assert_eq!(b.fs.readlink(made.ino).await.unwrap(), "target");
        }
        assert_eq!(ino_of(&b, Ino::ROOT, "n").await, Some(made.ino), "{kind:?}");
        assert_eq!(b.ls(Ino::ROOT).await, ["first", "n"]);
    }
}

#[tokio::test]
async fn a_clean_file_that_stayed_staged_is_not_shown_in_place_of_a_newer_version() {
    let b = bench().await;
    b.write("a", "ours").await.unwrap();
    let ino = ino_of(&b, Ino::ROOT, "a").await.unwrap();
    // As if the journal's turn had been taken at each of the moments in which it would have been dropped.
    b.fs.meta.pins().pin(ino);
    b.write("a", "ours again").await.unwrap();
    b.fs.meta.pins().unpin(ino);
    assert!(b.fs.writer.get(ino).is_some());
    b.foreign("a", "theirs, and longer").await;
    b.advance(120);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.fs.getattr(ino).unwrap().attr.size, 18);
    assert_eq!(b.read("a").await, "theirs, and longer");
    assert_eq!(ino_of(&b, Ino::ROOT, "a").await, Some(ino));
}
