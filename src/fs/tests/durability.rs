//! What was acknowledged outlives failures, daemons and the catalogue. Owns nothing else.

use super::promises::bench_with;
use super::*;
use crate::meta::Refusal;

#[tokio::test]
async fn a_failed_close_is_told_and_outlives_the_daemon() {
    let b = bench().await;
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 99);
    let error = b.write("a", "precious").await.unwrap_err();
    assert_eq!(error.errno(), libc::EACCES);
    assert_eq!(b.object("a").await, None);
    assert_eq!(b.read("a").await, "precious");
    let b = b.remount().await;
    assert_eq!(b.read("a").await, "precious", "before it is in the bucket");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a").await.as_deref(), Some("precious"));
}

#[tokio::test]
async fn whoever_waits_for_ever_waits_until_it_is_done() {
    let b = bench().await;
    let for_ever = Duration::from_secs(u64::MAX);
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"text", false).await.unwrap();
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    assert_eq!(b.fs.sync_path(&[], for_ever).await.unwrap(), []);
    assert_eq!(b.object("a").await.as_deref(), Some("text"));
    b.fs.write(fh, Some(0), b"TEXT", false).await.unwrap();
    assert_eq!(b.fs.drain(for_ever).await.unwrap(), Drained::Clean);
    assert_eq!(b.object("a").await.as_deref(), Some("TEXT"));
    background.abort();
    b.fs.release(fh).await;
}

#[tokio::test]
async fn whoever_waits_is_told_of_markers_that_are_still_owed() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.foreign("up/d/x", "x").await;
    let up = b.fs.lookup(Ino::ROOT, &name("up")).await.unwrap().unwrap().ino;
    let d = b.fs.lookup(up, &name("d")).await.unwrap().unwrap().ino;
    b.fs.opendir(d).await.unwrap();
    b.fs.unlink(d, name("x")).await.unwrap();
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(20));
    for path in ["", "up", "up/d"] {
        let _held = b.faults.hold_next(Op::Put);
        let owed = Unsaved { path: "up/d/".to_owned(), reason: None, is_retried: true };
        assert_eq!(b.left_by_sync(path, short).await, [owed], "{path:?}");
    }
    assert_eq!((b.left_by_sync("probe", long).await, b.object("up/d/").await), (vec![], None));
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    let began = std::time::Instant::now();
    let refused = b.left_by_sync("up", long).await;
    assert!(began.elapsed() < long, "what was refused is not waited for");
    assert!(refused.len() == 1 && refused[0].path == "up/d/" && refused[0].is_retried, "{refused:?}");
    assert!(refused[0].reason.as_ref().is_some_and(|reason| reason.contains("injected fault")), "{refused:?}");
    assert_eq!((b.left_by_sync("", long).await, b.object("up/d/").await.as_deref()), (vec![], Some("")));
}

impl Bench {
    /// What the bucket does not have at and below a path, once that was waited for.
    async fn left_by_sync(&self, path: &str, wait: Duration) -> Vec<Unsaved> {
        let names: Vec<Name> = path.split('/').filter(|n| !n.is_empty()).map(name).collect();
        self.fs.sync_path(&names, wait).await.unwrap()
    }
}

#[tokio::test]
async fn what_the_bucket_has_stored_otherwise_is_told_and_sent_again() {
    let b = bench().await;
    b.write("probe", "x").await.unwrap();
    b.write("old", "before").await.unwrap();
    for n in ["new", "old"] {
        let sent = b.count(Op::Put);
        b.faults.damage_next(Op::Put, 1);
        assert_eq!(b.write(n, "precious").await.unwrap_err().errno(), libc::EIO);
        assert_eq!(b.count(Op::Put), sent + 1, "{n}");
        assert!(b.object(n).await.is_some_and(|there| there != "precious"), "{n}");
        assert_eq!(b.read(n).await, "precious");
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.object(n).await.as_deref(), Some("precious"));
    }
    // The next mount knows as well that it is ours.
    b.faults.damage_next(Op::Put, 1);
    b.write("kept", "precious").await.unwrap_err();
    let b = b.remount().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("kept").await.as_deref(), Some("precious"));
    assert_eq!(b.ls(Ino::ROOT).await, ["kept", "new", "old", "probe"], "no conflict copies");
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_journaled_file_survives_the_loss_of_the_catalogue() {
    let b = bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, dir, name("f"), 0o640, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"precious", false).await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::Server, 99);
    assert!(b.fs.flush(CALLER, opened.fh).await.is_err());
    let b = b.remount_without_catalogue().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/f").await.as_deref(), Some("precious"));
    let mode = b.memory.head(&key("d/f")).await.unwrap().headers.user["mode"].clone();
    assert_eq!(mode, (libc::S_IFREG | 0o640).to_string());
    assert!(std::fs::read_dir(b.dir.path().join("staging")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_deleted_file_does_not_come_back_from_the_journal() {
    let b = bench().await;
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 99);
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"x", false).await.unwrap();
    assert!(b.fs.flush(CALLER, fh).await.is_err());
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    let b = b.remount().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a").await, None);
    assert!(b.ls(Ino::ROOT).await.is_empty());
}

#[tokio::test]
async fn a_running_upload_counts_as_pending_and_is_journaled_by_the_last_close() {
    let b = bench().await;
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"precious", false).await.unwrap();
    b.faults.set(fault::Settings { latency_max: Duration::from_secs(1), ..fault::Settings::default() });
    let (fs, ours) = (Arc::clone(&b.fs), fh);
    let closing = tokio::spawn(async move { fs.flush(CALLER, ours).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(b.fs.pending().unwrap().files, 1);
    b.fs.release(fh).await;
    assert_eq!(b.fs.writer.inodes().len(), 1, "its bytes stay on this disk until the bucket has them");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a").await.as_deref(), Some("precious"));
    closing.await.unwrap().unwrap();
    assert!(b.fs.writer.inodes().is_empty());
    let b = b.remount().await;
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
    assert_eq!(b.fs.pending().unwrap().files, 0, "no row was left in the journal");
}

#[tokio::test]
async fn two_journaled_files_survive_the_loss_of_the_catalogue_in_any_order() {
    let b = bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let mut open = Vec::new();
    for n in ["f1", "f2"] {
        let (_, opened) = b.fs.create(CALLER, dir, name(n), 0o644, CREATE).await.unwrap();
        b.fs.write(opened.fh, Some(0), n.as_bytes(), false).await.unwrap();
        open.push(opened.fh);
    }
    b.faults.fail_next(Op::Put, ErrorKind::Server, 99);
    for fh in open.into_iter().rev() {
        assert!(b.fs.flush(CALLER, fh).await.is_err());
        b.advance(1);
    }
    let b = b.remount_without_catalogue().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/f1").await.as_deref(), Some("f1"));
    assert_eq!(b.object("d/f2").await.as_deref(), Some("f2"));
}

#[tokio::test]
async fn known_directories_answer_while_the_bucket_does_not() {
    let b = bench().await;
    b.foreign("a", "x").await;
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
    b.advance(120);
    b.faults.fail_next(Op::List, ErrorKind::Unreachable, 99);
    b.faults.fail_next(Op::Head, ErrorKind::Unreachable, 99);
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
    assert!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().is_some());
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("nope")).await.unwrap_err().errno(), libc::EIO, "not known is not absent");
}

/// Written in the moment in which a commit ended: the row does not say that it is ours.
#[tokio::test]
async fn what_is_journaled_does_not_go_with_the_object_that_somebody_else_deletes() {
    let b = bench().await;
    b.write("a", "before").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDWR | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"ours", false).await.unwrap();
    b.fs.meta.change(ino, |row| row.local = false).await.unwrap();
    b.fs.journal(ino).await.unwrap();
    b.foreign_delete("a").await;
    b.advance(120);
    b.fs.refresh(Ino::ROOT).await.unwrap();
    assert_eq!(b.fs.getattr(ino).unwrap().attr.size, 4);
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.object("a").await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn an_open_that_was_given_up_after_it_emptied_the_file_is_committed() {
    let b = bench().await;
    b.write("a", "before").await.unwrap();
    let row = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap();
    let row = b.fs.meta.get(row.ino).unwrap().unwrap();
    let pin = crate::fs::open::PinGuard::new(&b.fs, row.ino);
    b.fs.stage_for_write(&row).await.unwrap().truncate(0).unwrap();
    drop(pin);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..2000 {
        if b.object("a").await.as_deref() == Some("") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    background.abort();
    assert_eq!(b.object("a").await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_file_that_was_parked_and_then_committed_by_a_rename_is_read_from_the_bucket_again() {
    let b = bench().await;
    b.write("a", "before").await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    b.write("a", "ours").await.unwrap_err();
    b.faults.set(fault::Settings::default());
    b.fs.rename((Ino::ROOT, name("a")), (Ino::ROOT, name("b")), false).await.unwrap();
    assert_eq!(b.object("b").await.as_deref(), Some("ours"));
    b.foreign("b", "theirs").await;
    b.advance(120);
    assert_eq!(b.read("b").await, "theirs");
    b.write("b", "newest").await.unwrap();
    assert_eq!((b.object("b").await.as_deref(), b.fs.pending().unwrap().conflicts), (Some("newest"), 0));
}

#[tokio::test]
async fn a_close_of_what_the_bucket_has_leaves_no_row_of_an_earlier_moment_behind() {
    for is_synced in [false, true] {
        let b = bench_with(Writes { mode: WriteMode::Back, fsync_local: true, ..Writes::default() }).await;
        let (ino, fh) = b.create("f").await;
        b.fs.write(fh, Some(0), b"acknowledged", false).await.unwrap();
        b.fs.fsync(fh).await.unwrap();
        let has_row = || b.fs.writer.journal().row(ino).unwrap().is_some();
        assert!(has_row());
        // A commit that has come as far as that, and not to the row.
        let staged = b.fs.writer.get(ino).unwrap();
        b.fs.upload(&staged, &key("f"), ObjectHeaders::default(), Condition::IfAbsent).await.unwrap();
        assert!(!staged.is_changed() && has_row());
        if is_synced {
            b.fs.fsync(fh).await.unwrap()
        } else {
            b.fs.flush(CALLER, fh).await.unwrap()
        }
        assert!(!has_row());
        b.fs.release(fh).await;
    }
}

#[tokio::test]
async fn whoever_reads_a_file_whose_upload_failed_does_not_have_it_sent_again() {
    let b = bench().await;
    b.write("other", "x").await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    b.write("a", "ours").await.unwrap_err();
    let is_parked = |b: &Bench| b.fs.pending().unwrap().failed.iter().all(|(_, _, is_retried)| !is_retried);
    let failed = |b: &Bench| b.fs.pending().unwrap().failed.len();
    assert!(failed(&b) == 1 && is_parked(&b));
    assert_eq!(b.read("a").await, "ours");
    assert!(failed(&b) == 1 && is_parked(&b), "it waits for somebody");
    b.write("a", "again").await.unwrap();
    assert_eq!((failed(&b), b.object("a").await.as_deref()), (0, Some("again")));
}

impl Bench {
    pub(super) fn refusing(&self, file: &str, event: &str) -> Refusal {
        Refusal::begin(&self.dir.path().join(file), event).unwrap()
    }
}

#[tokio::test]
async fn what_was_uploaded_and_could_not_be_noted_is_noted_later() {
    for is_new in [true, false] {
        let b = bench().await;
        b.write("other", "x").await.unwrap();
        if !is_new {
            b.write("f", "before").await.unwrap();
        }
        let catalogue = b.refusing("catalogue.db", "UPDATE ON inode WHEN NEW.etag IS NOT OLD.etag");
        b.write("f", "uploaded").await.unwrap_err();
        assert_eq!(b.object("f").await.as_deref(), Some("uploaded"));
        catalogue.end().unwrap();
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!(b.read("f").await, "uploaded", "new: {is_new}");
        b.write("f", "again").await.unwrap();
        assert_eq!((b.object("f").await.as_deref(), b.fs.pending().unwrap().conflicts), (Some("again"), 0));
    }
}

#[tokio::test]
async fn a_file_that_was_removed_does_not_come_back_because_the_journal_could_not_forget_it() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    b.write("f", "acknowledged").await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("f")).await.unwrap().unwrap().ino;
    let journal = b.refusing("journal.db", "DELETE ON staged");
    b.fs.unlink(Ino::ROOT, name("f")).await.unwrap_err();
    journal.end().unwrap();
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    for _ in 0..500 {
        b.advance(1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        if b.fs.writer.journal().row(ino).unwrap().is_none() {
            break;
        }
    }
    background.abort();
    let b = b.crash().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!((b.object("f").await, b.ls(Ino::ROOT).await), (None, vec!["known".to_owned()]));
}

#[tokio::test]
async fn a_large_file_is_uploaded_although_the_journal_takes_nothing() {
    let b = bench().await;
    b.write("other", "x").await.unwrap();
    let (_journal, before) = (b.refusing("journal.db", "INSERT ON upload"), b.count(Op::CompleteUpload));
    let (_, fh) = b.create("f").await;
    let body = vec![7; 24 << 20];
    b.fs.write(fh, Some(0), &body, false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert!(b.bytes("f").await == Some(body) && b.count(Op::CompleteUpload) == before + 1);
}
