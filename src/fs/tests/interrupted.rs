//! What is made where a rename or rmdir goes on whose caller was interrupted: the kernel keeps nobody from that any more. Owns
//! nothing else.

use super::promises::bench_with;
use super::*;

/// A bucket with these objects, known to the mount, which has asked what the server can do.
async fn bench_of(writes: Writes, objects: &[&str]) -> Bench {
    let b = bench_with(writes).await;
    for k in objects {
        b.foreign(k, "content").await;
    }
    b.advance(120);
    b.ls(Ino::ROOT).await;
    b
}

fn rename(b: &Bench, from: &str, to: (Ino, &str), no_replace: bool) -> tokio::task::JoinHandle<Result<()>> {
    let (fs, from, to) = (Arc::clone(&b.fs), (Ino::ROOT, name(from)), (to.0, name(to.1)));
    tokio::spawn(async move { fs.rename(from, to, no_replace).await })
}

fn flush(b: &Bench, fh: Fh) -> tokio::task::JoinHandle<Result<()>> {
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.flush(CALLER, fh).await })
}

async fn made_in(b: &Bench, dir: Ino, n: &str) -> Fh {
    let fh = b.fs.create(CALLER, dir, name(n), 0o644, CREATE).await.unwrap().1.fh;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    fh
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_file_that_is_made_where_a_directory_moves_to_is_not_lost() {
    for mode in [WriteMode::Through, WriteMode::Back] {
        let b = bench_of(Writes { mode, ..Writes::default() }, &["d/x"]).await;
        let hold = b.faults.hold_next(Op::Copy);
        let renaming = rename(&b, "d", (Ino::ROOT, "e"), false);
        hold.reached().await;
        let fh = made_in(&b, Ino::ROOT, "e").await;
        let closing = flush(&b, fh);
        if mode == WriteMode::Back {
            while !closing.is_finished() {
                a_moment().await;
            }
            b.fs.release(fh).await;
        }
        hold.release();
        assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE, "{mode:?}");
        closing.await.unwrap().unwrap();
        if mode == WriteMode::Through {
            b.fs.release(fh).await;
        }
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.object("e").await.as_deref(), Some("ours"), "{mode:?}");
        assert_eq!((b.object("d/x").await.as_deref(), b.object("e/x").await), (Some("content"), None));
        assert!(b.fs.writer.journal().renames().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_is_made_among_the_copies_of_a_directory_is_not_lost() {
    for is_replaced in [false, true] {
        let b = bench_of(Writes::default(), &["d/x", "d/y"]).await;
        if is_replaced {
            b.fs.mkdir(CALLER, Ino::ROOT, name("e"), 0o755).await.unwrap();
        }
        let hold = b.faults.hold_next(Op::Copy);
        let renaming = rename(&b, "d", (Ino::ROOT, "e"), false);
        hold.reached().await;
        while b.object("e/x").await.is_none() && b.object("e/y").await.is_none() {
            a_moment().await;
        }
        b.advance(1);
        // What the poller does.
        b.fs.refresh(Ino::ROOT).await.unwrap();
        let e = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
        let fh = made_in(&b, e, "f").await;
        let closing = flush(&b, fh);
        hold.release();
        assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE, "replaced: {is_replaced}");
        closing.await.unwrap().unwrap();
        b.fs.release(fh).await;
        assert_eq!(b.object("e/f").await.as_deref(), Some("ours"), "replaced: {is_replaced}");
        assert_eq!((b.object("e/x").await, b.object("e/y").await), (None, None));
        assert_eq!(b.object("e/").await.is_some(), is_replaced);
        assert!(b.object("d/x").await.is_some() && b.object("d/y").await.is_some());
        assert!(b.fs.writer.journal().renames().unwrap().is_empty());
    }
}

#[tokio::test]
async fn whoever_has_opened_one_of_the_copies_hears_that_it_is_another_file_now() {
    let b = bench_of(Writes::default(), &["d/x", "d/y"]).await;
    let hold = b.faults.hold_next(Op::Copy);
    let renaming = rename(&b, "d", (Ino::ROOT, "e"), false);
    hold.reached().await;
    while b.object("e/x").await.is_none() && b.object("e/y").await.is_none() {
        a_moment().await;
    }
    let copied = if b.object("e/x").await.is_some() { "x" } else { "y" };
    b.advance(1);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    let e = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    let copy = b.fs.lookup(e, &name(copied)).await.unwrap().unwrap().ino;
    let fh = b.fs.open(CALLER, copy, libc::O_RDWR).await.unwrap().fh;
    hold.release();
    renaming.await.unwrap().unwrap();
    assert_eq!(b.fs.write(fh, Some(0), b"ours", false).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.object(&format!("e/{copied}")).await.as_deref(), Some("content"));
}

#[tokio::test]
async fn a_copy_that_somebody_has_begun_to_change_is_his_if_the_rename_fails() {
    let b = bench_of(Writes::default(), &["d/x", "d/y"]).await;
    let hold = b.faults.hold_next(Op::Copy);
    let renaming = rename(&b, "d", (Ino::ROOT, "e"), false);
    hold.reached().await;
    while b.object("e/x").await.is_none() && b.object("e/y").await.is_none() {
        a_moment().await;
    }
    let (copied, other) = if b.object("e/x").await.is_some() { ("x", "y") } else { ("y", "x") };
    b.advance(1);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    let e = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    let copy = b.fs.lookup(e, &name(copied)).await.unwrap().unwrap().ino;
    let fh = b.fs.open(CALLER, copy, libc::O_WRONLY).await.unwrap().fh;
    b.fs.write(fh, Some(0), b"C", false).await.unwrap();
    hold.release();
    assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE);
    flush(&b, fh).await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object(&format!("e/{copied}")).await.as_deref(), Some("Content"));
    assert_eq!(b.object(&format!("e/{other}")).await, None);
    for k in ["d/x", "d/y"] {
        assert_eq!(b.object(k).await.as_deref(), Some("content"));
    }
    assert!(b.fs.writer.journal().renames().unwrap().is_empty());
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_file_that_is_made_where_another_one_moves_to_is_not_lost() {
    for no_replace in [false, true] {
        let b = bench_of(Writes::default(), &["a"]).await;
        let hold = b.faults.hold_next(Op::Copy);
        let renaming = rename(&b, "a", (Ino::ROOT, "b"), no_replace);
        hold.reached().await;
        let fh = made_in(&b, Ino::ROOT, "b").await;
        let closing = flush(&b, fh);
        hold.release();
        assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE, "{no_replace}");
        closing.await.unwrap().unwrap();
        b.fs.release(fh).await;
        assert_eq!((b.object("a").await.as_deref(), b.object("b").await.as_deref()), (Some("content"), Some("ours")));
        assert_eq!(b.ls(Ino::ROOT).await, ["a", "b", "known"], "no conflict copy");
    }
}

#[tokio::test]
async fn a_file_that_is_made_in_a_directory_that_is_being_removed_is_not_lost() {
    let b = bench_of(Writes::default(), &[]).await;
    let d = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o700).await.unwrap().ino;
    let hold = b.faults.hold_next(Op::List);
    let fs = Arc::clone(&b.fs);
    let removing = tokio::spawn(async move { fs.rmdir(Ino::ROOT, name("d")).await });
    hold.reached().await;
    let fh = made_in(&b, d, "f").await;
    let closing = flush(&b, fh);
    hold.release();
    assert_eq!(removing.await.unwrap().unwrap_err().errno(), libc::ENOTEMPTY);
    closing.await.unwrap().unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object("d/f").await.as_deref(), Some("ours"));
    // Its marker was deleted before, and has its attributes.
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    let marker = b.memory.head(&key("d/")).await.unwrap();
    assert_eq!(marker.headers.user.get("mode").map(String::as_str), Some("16832"));
}

/// The directory that it moves to goes in the bucket meanwhile.
#[tokio::test]
async fn a_rename_that_is_refused_after_its_copies_takes_them_away() {
    for (from, copy, source) in [("d", "p/e/x", "d/x"), ("known", "p/e", "known")] {
        let b = bench_of(Writes::default(), &["d/x"]).await;
        let p = b.fs.mkdir(CALLER, Ino::ROOT, name("p"), 0o755).await.unwrap().ino;
        let hold = b.faults.hold_next(Op::Copy);
        let renaming = rename(&b, from, (p, "e"), false);
        hold.reached().await;
        b.foreign_delete("p/").await;
        b.advance(120);
        b.fs.refresh(Ino::ROOT).await.unwrap();
        hold.release();
        assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE, "{from}");
        assert_eq!((b.object(copy).await, b.object(source).await.is_some()), (None, true), "{from}");
        assert!(b.fs.writer.journal().renames().unwrap().is_empty());
        let b = b.crash().await;
        let background = tokio::spawn(Arc::clone(&b.fs).run_background());
        tokio::time::sleep(Duration::from_millis(50)).await;
        background.abort();
        assert_eq!((b.object(copy).await, b.object(source).await.is_some()), (None, true), "{from}");
        assert_eq!(b.ls(Ino::ROOT).await, ["d", "known"]);
    }
}
