//! Files that are removed or replaced while somebody opens them, or has them open. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::*;
use tokio::task::JoinHandle;

fn rename(b: &Bench, from: &str, to: &str) -> JoinHandle<Result<()>> {
    let (fs, from, to) = (Arc::clone(&b.fs), name(from), name(to));
    tokio::spawn(async move { fs.rename((Ino::ROOT, from), (Ino::ROOT, to), false).await })
}

/// Replaces `big` by `a`, or removes it.
fn take_away(b: &Bench, is_replaced: bool) -> JoinHandle<Result<()>> {
    if is_replaced {
        return rename(b, "a", "big");
    }
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.unlink(Ino::ROOT, name("big")).await })
}

fn open(b: &Bench, ino: Ino) -> JoinHandle<Result<Opened>> {
    let fs = Arc::clone(&b.fs);
    tokio::spawn(async move { fs.open(CALLER, ino, libc::O_RDONLY).await })
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A large file that nobody has read, with its bytes, and `a`.
async fn with_big() -> (Bench, Ino, Vec<u8>) {
    let (b, body) = (probed().await, noise(3 * MIB));
    b.put_large("big", &body).await;
    b.put_large("a", b"new").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("big")).await.unwrap().unwrap().ino;
    (b, ino, body)
}

/// Nobody has it open when that begins, so nothing of it is kept.
#[tokio::test]
async fn whoever_opens_a_file_that_is_just_being_removed_or_replaced_finds_what_there_is_then() {
    for is_replaced in [false, true] {
        let (b, ino, _) = with_big().await;
        let held = b.faults.hold_next(if is_replaced { Op::Copy } else { Op::Delete });
        let taking = take_away(&b, is_replaced);
        held.reached().await;
        let opening = open(&b, ino);
        a_moment().await;
        assert!(!opening.is_finished());
        held.release();
        taking.await.unwrap().unwrap();
        assert_eq!(opening.await.unwrap().unwrap_err().errno(), libc::ESTALE, "the kernel looks again");
        if is_replaced {
            assert_eq!(b.read("big").await, "new");
        } else {
            assert_eq!(b.fs.lookup(Ino::ROOT, &name("big")).await.unwrap(), None);
        }
        assert_eq!(b.fs.getattr(ino).unwrap_err().errno(), libc::ESTALE, "nothing is left of it");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_replacement_that_fails_opens_the_file_that_stays() {
    let (b, ino, body) = with_big().await;
    let held = b.faults.hold_next(Op::Copy);
    let taking = take_away(&b, true);
    held.reached().await;
    let opening = open(&b, ino);
    a_moment().await;
    assert!(!opening.is_finished());
    b.foreign_delete("a").await;
    held.release();
    assert_eq!(taking.await.unwrap().unwrap_err().errno(), libc::ESTALE);
    let fh = opening.await.unwrap().unwrap().fh;
    assert!(b.read_through(fh).await == body);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn a_file_that_is_open_is_opened_again_at_once_while_it_is_removed_or_replaced() {
    for is_replaced in [false, true] {
        let (b, ino, body) = with_big().await;
        let mut opened = vec![b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap().fh];
        let aside = b.faults.hold_next(Op::Copy);
        let deed = b.faults.hold_next(if is_replaced { Op::Copy } else { Op::Delete });
        let taking = take_away(&b, is_replaced);
        for held in [aside, deed] {
            held.reached().await;
            opened.push(b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap().fh);
            held.release();
        }
        taking.await.unwrap().unwrap();
        for fh in opened {
            assert!(b.read_through(fh).await == body, "replaced: {is_replaced}");
            b.fs.release(fh).await;
        }
        assert_eq!(b.copies().await, (0, 0));
    }
}

#[tokio::test]
async fn whoever_opens_a_file_that_is_just_being_removed_and_is_all_here_reads_it() {
    let b = probed().await;
    let (ino, fh) = b.create("big").await;
    b.fs.write(fh, Some(0), b"only here", false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    let held = b.faults.hold_next(Op::Delete);
    let taking = take_away(&b, false);
    held.reached().await;
    let opening = open(&b, ino);
    a_moment().await;
    held.release();
    taking.await.unwrap().unwrap();
    let other = opening.await.unwrap().unwrap().fh;
    b.fs.release(fh).await;
    assert_eq!(b.fs.read(other, 0, 100).await.unwrap(), "only here");
    b.fs.release(other).await;
}

/// `a`, and `b`, which is open and was not read yet.
async fn with_reader() -> (Bench, Arc<Told>, Fh) {
    let b = probed().await;
    b.foreign("a", "new").await;
    b.foreign("b", "old, and longer").await;
    let (_, fh) = b.open("b", libc::O_RDONLY).await;
    let kernel = b.kernel();
    (b, kernel, fh)
}

/// The handle reads what was replaced, and names show what there is.
async fn is_read_on(b: &Bench, kernel: &Told, fh: Fh) {
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "old, and longer");
    let told = kernel.0.lock().unwrap().clone();
    assert!(["#1/a", "#1/b"].iter().all(|n| told.iter().any(|t| t == n)), "{told:?}");
    b.fs.release(fh).await;
    assert_eq!(b.copies().await, (0, 0));
}

#[tokio::test]
async fn what_a_rename_has_replaced_that_the_catalogue_refuses_is_read_on() {
    let (b, kernel, fh) = with_reader().await;
    let catalogue = b.refusing("catalogue.db", "UPDATE ON inode WHEN NEW.name IS NOT OLD.name");
    rename(&b, "a", "b").await.unwrap().unwrap_err();
    catalogue.end().unwrap();
    assert_eq!(b.object("b").await.as_deref(), Some("new"));
    b.advance(120);
    assert_eq!(b.read("b").await, "new");
    is_read_on(&b, &kernel, fh).await;
}

#[tokio::test]
async fn what_a_rename_has_replaced_whose_source_goes_meanwhile_is_read_on() {
    let (b, kernel, fh) = with_reader().await;
    let (aside, copying) = (b.faults.hold_next(Op::Copy), b.faults.hold_next_answer(Op::Copy));
    let renaming = rename(&b, "a", "b");
    aside.reached().await;
    aside.release();
    copying.reached().await;
    b.foreign_delete("a").await;
    b.advance(120);
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap(), None);
    copying.release();
    assert_eq!(renaming.await.unwrap().unwrap_err().errno(), libc::ESTALE);
    assert_eq!(b.read("b").await, "new", "it was looked at");
    is_read_on(&b, &kernel, fh).await;
}

/// The names have changed by then.
#[tokio::test]
async fn what_a_rename_has_replaced_that_the_journal_refuses_is_read_on() {
    let (b, kernel, fh) = with_reader().await;
    let (ino, writer) = b.open("a", libc::O_RDWR).await;
    b.fs.write(writer, Some(0), b"NEW", false).await.unwrap();
    b.fs.journal(ino).await.unwrap();
    // So it goes along as it is.
    b.fs.write(writer, Some(3), b"er", false).await.unwrap();
    let journal = b.refusing("journal.db", "INSERT ON staged");
    rename(&b, "a", "b").await.unwrap().unwrap_err();
    journal.end().unwrap();
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("b")).await.unwrap().map(|entry| entry.ino), Some(ino));
    b.close(writer).await;
    assert_eq!(b.object("b").await.as_deref(), Some("NEWer"));
    is_read_on(&b, &kernel, fh).await;
}

#[tokio::test]
async fn what_was_removed_by_a_request_that_got_no_answer_is_read_on() {
    let (b, _, fh) = with_reader().await;
    b.faults.lose_next(Op::Delete, ErrorKind::Broken, 1);
    b.faults.fail_next(Op::Delete, ErrorKind::Unreachable, 1);
    b.fs.unlink(Ino::ROOT, name("b")).await.unwrap_err();
    assert_eq!(b.object("b").await, None);
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "old, and longer");
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("b")).await.unwrap(), None);
    b.fs.release(fh).await;
    assert_eq!(b.copies().await, (0, 0));
}
