//! Copies within the mount. Owns nothing else.

use super::large::{MIB, noise, probed};
use super::*;

impl Bench {
    /// As cp(1) does it: all of `from` into a new file `to`, which stays open.
    async fn copy_range(&self, from: &str, to: &str) -> (Fh, Option<u64>) {
        let (_, source) = self.open(from, libc::O_RDONLY).await;
        let (_, target) = self.create(to).await;
        let copied = self.fs.copy_range((source, 0), (target, 0), u64::MAX >> 1).await.unwrap();
        self.fs.release(source).await;
        (target, copied)
    }
}

#[tokio::test]
async fn a_copy_within_the_mount_is_made_by_the_bucket() {
    let b = probed().await;
    let mut body = noise(3 * MIB);
    b.put_large("a", &body).await;
    let before = (b.count(Op::Get), b.count(Op::Put), b.count(Op::Copy));
    let (fh, copied) = b.copy_range("a", "b.mkv").await;
    assert_eq!(copied, Some(3 * MIB as u64));
    b.close(fh).await;
    let now = (b.count(Op::Get), b.count(Op::Put), b.count(Op::Copy));
    assert_eq!(now, (before.0, before.1, before.2 + 1), "no byte has come or gone");
    assert!(b.bytes_of("b.mkv").await == body);
    let meta = b.memory.head(&key("b.mkv")).await.unwrap();
    assert_eq!(meta.headers.content_type.as_deref(), Some("video/x-matroska"));
    // Read and written to before its close, it is a file like others.
    let (fh, _) = b.copy_range("a", "c").await;
    assert!(b.read_through(fh).await == body);
    b.fs.write(fh, Some(5), b"changed", false).await.unwrap();
    body[5..12].copy_from_slice(b"changed");
    b.close(fh).await;
    assert!(b.bytes_of("c").await == body);
    // Over a file that is there, in two calls, and cut.
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, target) = b.open("c", libc::O_WRONLY | libc::O_TRUNC).await;
    let mib = MIB as u64;
    assert_eq!(b.fs.copy_range((source, 0), (target, 0), 2 * mib).await.unwrap(), Some(2 * mib));
    assert_eq!(b.fs.copy_range((source, 2 * mib), (target, 2 * mib), 9 * mib).await.unwrap(), Some(mib));
    assert_eq!(b.fs.copy_range((source, 0), (target, mib), mib).await.unwrap(), None, "elsewhere");
    b.close(target).await;
    assert!(b.bytes_of("c").await == b.bytes_of("a").await);
    let (_, target) = b.open("c", libc::O_WRONLY | libc::O_TRUNC).await;
    assert_eq!(b.fs.copy_range((source, 0), (target, 0), mib).await.unwrap(), Some(mib));
    b.close(target).await;
    assert!(b.bytes_of("c").await == b.bytes_of("a").await[..MIB]);
    b.fs.release(source).await;
}

#[tokio::test]
async fn a_copy_whose_source_was_replaced_is_no_mixture() {
    let b = probed().await;
    b.put_large("a", &noise(3 * MIB)).await;
    let (fh, _) = b.copy_range("a", "b").await;
    b.put_large("a", &noise(3 * MIB + 1)).await;
    assert_eq!(b.fs.flush(CALLER, fh).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.memory.head(&key("b")).await.unwrap_err().kind, ErrorKind::NotFound);
    b.fs.unlink(Ino::ROOT, name("b")).await.unwrap();
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

#[tokio::test]
async fn no_copy_begins_in_the_midst_of_a_commit() {
    let b = probed().await;
    b.put_large("src", &noise(2 * MIB)).await;
    let (ino, fh) = b.create("dst").await;
    let held = b.faults.hold_next(Op::Put);
    let fs = Arc::clone(&b.fs);
    let committing = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    let (_, source) = b.open("src", libc::O_RDONLY).await;
    assert_eq!(b.fs.copy_range((source, 0), (fh, 0), 2 * MIB as u64).await.unwrap(), None, "the kernel writes it");
    held.release();
    committing.await.unwrap().unwrap();
    assert_eq!(b.fs.copy_range((source, 0), (fh, 0), 2 * MIB as u64).await.unwrap(), Some(2 * MIB as u64));
    b.close(fh).await;
    b.fs.release(source).await;
    assert!(b.bytes_of("dst").await == noise(2 * MIB));
}

#[tokio::test]
async fn a_copy_that_was_acknowledged_does_without_its_source() {
    let b = probed().await;
    b.put_large("a", &noise(2 * MIB)).await;
    b.put_large("a~", b"an older copy").await;
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, new) = b.create("b.tmp").await;
    let (_, old) = b.open("a~", libc::O_WRONLY | libc::O_TRUNC).await;
    for target in [new, old] {
        assert!(b.fs.copy_range((source, 0), (target, 0), u64::MAX >> 1).await.unwrap().is_some());
        b.close(target).await;
    }
    b.fs.release(source).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert!(b.bytes_of("b.tmp").await == noise(2 * MIB) && b.bytes_of("a~").await == noise(2 * MIB));
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_copy_over_a_file_whose_source_was_replaced_is_no_conflict() {
    let b = probed().await;
    b.put_large("a", &noise(3 * MIB)).await;
    b.put_large("b", b"before").await;
    let (_, source) = b.open("a", libc::O_RDONLY).await;
    let (_, target) = b.open("b", libc::O_WRONLY | libc::O_TRUNC).await;
    assert!(b.fs.copy_range((source, 0), (target, 0), u64::MAX >> 1).await.unwrap().is_some());
    b.fs.release(source).await;
    b.put_large("a", &noise(3 * MIB + 1)).await;
    assert_eq!(b.fs.flush(CALLER, target).await.unwrap_err().errno(), libc::ESTALE);
    b.fs.release(target).await;
    assert_eq!((b.object("b").await.as_deref(), b.fs.pending().unwrap().conflicts), (Some("before"), 0));
    assert_eq!(b.ls(Ino::ROOT).await, ["a", "b"]);
    b.fs.discard_path(&[name("b")]).await.unwrap();
    assert_eq!(b.read("b").await, "before");
}

/// What becomes of the file that is copied, before its copy is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Removed,
    RemovedWhileOpen,
    Renamed,
    DirRenamed,
    Replaced,
    Overwritten,
    Attributes,
}

#[tokio::test]
async fn a_copy_keeps_its_bytes_whatever_becomes_of_its_source_here() {
    use Fate::*;
    for fate in [Removed, RemovedWhileOpen, Renamed, DirRenamed, Replaced, Overwritten, Attributes] {
        let b = probed().await;
        let (root, body) = (Ino::ROOT, noise(2 * MIB));
        b.put_large("d/a", &body).await;
        let dir = b.fs.lookup(root, &name("d")).await.unwrap().unwrap().ino;
        let source = b.fs.lookup(dir, &name("a")).await.unwrap().unwrap().ino;
        let opened = b.fs.open(CALLER, source, libc::O_RDONLY).await.unwrap().fh;
        let (_, copy) = b.create("copy").await;
        assert_eq!(b.fs.copy_range((opened, 0), (copy, 0), u64::MAX >> 1).await.unwrap(), Some(2 * MIB as u64));
        if fate != RemovedWhileOpen {
            b.fs.release(opened).await;
        }
        match fate {
            Removed | RemovedWhileOpen => b.fs.unlink(dir, name("a")).await.unwrap(),
            Renamed => b.fs.rename((dir, name("a")), (root, name("b")), false).await.unwrap(),
            DirRenamed => b.fs.rename((root, name("d")), (root, name("e")), false).await.unwrap(),
            Replaced => {
                b.write("new", "new").await.unwrap();
                b.fs.rename((root, name("new")), (dir, name("a")), false).await.unwrap();
            }
            Overwritten => {
                let fh = b.fs.open(CALLER, source, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh;
                b.fs.write(fh, Some(0), b"new", false).await.unwrap();
                b.close(fh).await;
            }
            Attributes => {
                let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
                b.fs.setattr(CALLER, source, mode, false).await.unwrap();
            }
        }
        if fate == RemovedWhileOpen {
            b.fs.release(opened).await;
        }
        assert!(b.bytes("d/a").await.is_none_or(|now| now != body) || fate == Attributes, "{fate:?}");
        b.close(copy).await;
        assert!(b.bytes_of("copy").await == body, "{fate:?}");
    }
}

#[tokio::test]
async fn a_copy_that_the_bucket_does_not_make_is_read_and_written_or_kept() {
    for (kind, is_made) in [(ErrorKind::AccessDenied, true), (ErrorKind::Server, false)] {
        let b = probed().await;
        b.put_large("a", &noise(2 * MIB)).await;
        let (fh, _) = b.copy_range("a", "b").await;
        b.faults.fail_next(Op::Copy, kind, 9);
        assert_eq!(b.fs.flush(CALLER, fh).await.is_ok(), is_made, "{kind:?}");
        b.foreign_delete("a").await;
        let b = b.crash().await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert!(b.bytes_of("b").await == noise(2 * MIB), "{kind:?}");
    }
}

#[tokio::test]
async fn whoever_asks_for_all_gets_a_copy_that_is_not_closed_yet() {
    let b = probed().await;
    b.put_large("a", &noise(2 * MIB)).await;
    let (fh, _) = b.copy_range("a", "b").await;
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    let left = b.fs.sync_path(&[name("b")], Duration::from_secs(20)).await.unwrap();
    background.abort();
    assert!(left.is_empty() && b.bytes_of("b").await == noise(2 * MIB));
    b.close(fh).await;
}

#[tokio::test]
async fn what_is_here_and_nowhere_else_is_read_and_written() {
    let b = probed().await;
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), &noise(2 * MIB), false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    let (_, copy) = b.create("b").await;
    assert_eq!(b.fs.copy_range((fh, 0), (copy, 0), 2 * MIB as u64).await.unwrap(), None);
    b.fs.release(fh).await;
    b.close(copy).await;
}
