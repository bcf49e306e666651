//! Names that change hands shortly before a crash: what was acknowledged has one of them afterwards. Owns nothing else.

mod lacking;
mod owed;
mod renamed;

use super::promises::bench_with;
use super::*;

/// Closes are acknowledged by the journal. Nobody uploads anything before the end: no background runs.
async fn late_bench() -> Bench {
    bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await
}

impl Bench {
    async fn ino(&self, n: &str) -> Ino {
        self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino
    }

    /// What the bucket has of these names once nothing is owed any more.
    async fn drained(&self, names: &[&str]) -> Vec<String> {
        assert_eq!(Arc::clone(&self.fs).drain_with_background().await, Drained::Clean);
        let mut found = Vec::new();
        for n in names {
            found.push(self.object(n).await.unwrap_or_else(|| "nothing".to_owned()));
        }
        found
    }

    async fn mv(&self, from: &str, to: &str) -> Result<()> {
        self.fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), false).await
    }

    fn journal_keys(&self) -> Vec<String> {
        let journal = Journal::open(&self.dir.path().join("journal.db")).unwrap();
        journal.rows().unwrap().into_iter().map(|row| row.key.as_str().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_rename_that_only_the_catalogue_knows_is_undone_and_both_files_are_there() {
    for is_older in [true, false] {
        let b = late_bench().await;
        let order = if is_older { ["b", "a"] } else { ["a", "b"] };
        for n in order {
            b.write(n, n).await.unwrap();
            b.advance(1);
        }
        let a = b.ino("a").await;
        // The daemon dies between the catalogue and the journal.
        b.fs.meta.rename(a, Ino::ROOT, name("b"), Vec::new()).await.unwrap();
        let b = b.crash().await;
        assert_eq!(b.drained(&["a", "b"]).await, ["a", "b"], "b is older: {is_older}");
        assert_eq!(b.ino("a").await, a);
    }
}

#[tokio::test]
async fn a_rename_leaves_no_row_of_what_it_replaced() {
    let b = late_bench().await;
    b.write("b", "old").await.unwrap();
    b.write("a", "new").await.unwrap();
    b.mv("a", "b").await.unwrap();
    assert_eq!(b.journal_keys(), ["b"]);
    let b = b.remount_without_catalogue().await;
    assert_eq!(b.drained(&["a", "b"]).await, ["nothing", "new"]);
    assert_eq!(b.ls(Ino::ROOT).await, ["b", "known"]);
}

#[tokio::test]
async fn what_an_open_file_replaces_is_not_lost_with_it() {
    let b = late_bench().await;
    b.write("b", "acknowledged").await.unwrap();
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, Some(0), b"not closed yet", false).await.unwrap();
    b.mv("a", "b").await.unwrap();
    let b = b.crash().await;
    assert_eq!(b.drained(&["a", "b"]).await, ["nothing", "not closed yet"]);
}

#[tokio::test]
async fn a_file_is_not_committed_into_what_had_its_name_before() {
    for kind in [FileKind::Dir, FileKind::Symlink] {
        let b = late_bench().await;
        b.write("d", "a file").await.unwrap();
        // Power is lost, and the catalogue with it what was done last: it shows what was there before.
        let old = b.fs.meta.get(b.ino("d").await).unwrap().unwrap();
        b.fs.meta.remove(old.ino).await.unwrap();
        let mut row = b.fs.meta.blank(Ino::ROOT, &name("d"), crate::types::Attr { kind, ..old.attr });
        row.symlink = (kind == FileKind::Symlink).then(|| b"target".to_vec());
        b.fs.meta.create(row).await.unwrap().unwrap();
        let b = b.crash().await;
        assert_eq!(b.drained(&["d", "d/"]).await, ["a file", "nothing"], "{kind:?}");
        assert_eq!(b.read("d").await, "a file");
        let made = b.memory.head(&key("d")).await.unwrap();
        assert_eq!(made.headers.user.get("mode").map(String::as_str), Some("33188"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_file_below_a_directory_that_was_a_file_before_is_there() {
    let b = late_bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let (entry, opened) = b.fs.create(CALLER, dir, name("f"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, Some(0), b"below", false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    b.fs.release(opened.fh).await;
    let attr = b.fs.meta.get(entry.ino).unwrap().unwrap().attr;
    b.fs.meta.remove(dir).await.unwrap();
    b.fs.meta.create(b.fs.meta.blank(Ino::ROOT, &name("d"), attr)).await.unwrap().unwrap();
    let b = b.crash().await;
    assert_eq!(b.drained(&["d", "d/f"]).await, ["nothing", "below"]);
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap();
    assert_eq!(d.attr.kind, FileKind::Dir);
    assert_eq!(b.ls(d.ino).await, ["f"]);
}

#[tokio::test]
async fn a_copy_over_a_file_that_the_bucket_does_not_have_is_no_conflict_after_a_crash() {
    let b = late_bench().await;
    b.foreign("a", "in the bucket").await;
    b.write("b", "in the journal").await.unwrap();
    let held = b.faults.hold_next_answer(Op::Copy);
    let fs = Arc::clone(&b.fs);
    let renaming = tokio::spawn(async move { fs.rename((Ino::ROOT, name("a")), (Ino::ROOT, name("b")), false).await });
    held.reached().await;
    renaming.abort();
    let b = b.crash().await;
    assert_eq!(b.drained(&["b"]).await, ["in the bucket"]);
    b.advance(120);
    assert!(b.ls(Ino::ROOT).await.iter().all(|n| !n.contains("conflict")), "{:?}", b.ls(Ino::ROOT).await);
}

#[tokio::test]
async fn what_an_upload_without_an_answer_made_follows_its_file() {
    for is_renamed in [true, false] {
        let b = bench().await;
        b.write("probe", "x").await.unwrap();
        if !is_renamed {
            b.write("a", "before").await.unwrap();
        }
        b.faults.lose_next(Op::Put, ErrorKind::Unreachable, 10);
        b.write("a", "made").await.unwrap_err();
        b.faults.set(fault::Settings::default());
        assert_eq!(b.object("a").await.as_deref(), Some("made"));
        if is_renamed {
            // What became of it is known before anybody looks at the old name.
            let (first, look) = (b.faults.hold_next(Op::Head), b.faults.hold_next(Op::Head));
            first.release();
            b.mv("a", "b").await.unwrap();
            assert_eq!(b.drained(&["b"]).await, ["made"]);
            look.release();
            while b.object("a").await.is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } else {
            b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
            assert_eq!(b.drained(&["a"]).await, ["nothing"]);
        }
        b.advance(120);
        assert_eq!(b.ls(Ino::ROOT).await, if is_renamed { vec!["b", "probe"] } else { vec!["probe"] });
    }
}

#[tokio::test]
async fn a_file_whose_old_place_another_one_has_taken_is_at_its_new_one() {
    let b = late_bench().await;
    b.write("x", "first").await.unwrap();
    assert_eq!(b.drained(&["x"]).await, ["first"]);
    let x = b.ino("x").await;
    let before = b.fs.meta.get(x).unwrap().unwrap();
    b.mv("x", "x.1").await.unwrap();
    b.advance(1);
    b.write("x", "second").await.unwrap();
    b.advance(1);
    b.write("x.1", "first, and more").await.unwrap();
    // Power is lost, and with it what the catalogue was told last.
    let y = b.ino("x").await;
    b.fs.meta.remove(y).await.unwrap();
    b.fs.meta.rename(x, Ino::ROOT, name("x"), Vec::new()).await.unwrap();
    b.fs.meta.change(x, move |row| *row = before).await.unwrap();
    let b = b.crash().await;
    assert_eq!(b.drained(&["x", "x.1"]).await, ["second", "first, and more"]);
}

#[tokio::test]
async fn bytes_of_a_file_that_got_another_inode_are_not_overwritten_before_the_journal_has_newer_ones() {
    let b = late_bench().await;
    // Too large for the journal's row.
    let large = "acknowledged ".repeat(20_000);
    b.write("a", &large).await.unwrap();
    let before = b.ino("a").await;
    let b = b.remount_without_catalogue().await;
    let (ino, fh) = b.open("a", libc::O_RDWR).await;
    assert_ne!(ino, before);
    b.fs.write(fh, Some(0), b"torn", false).await.unwrap();
    let b = b.crash().await;
    assert!(b.drained(&["a"]).await == [large], "it is what was acknowledged");
}

#[tokio::test]
async fn a_hole_of_a_file_in_the_journal_is_written_without_a_copy_and_is_one_again_after_a_crash() {
    let b = late_bench().await;
    let (_, fh) = b.create("f").await;
    let (head, far) = (vec![b'h'; 3 << 20], 10 << 20);
    b.fs.write(fh, Some(0), &head, false).await.unwrap();
    b.fs.write(fh, Some(far), b"end", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    let staging = b.dir.path().join("staging");
    let count = || std::fs::read_dir(&staging).unwrap().count();
    assert!(b.fs.write_staged(fh, Some(5 << 20), b"later", false).unwrap().is_ok());
    assert!(b.fs.write_staged(fh, None, b", and more", false).unwrap().is_ok());
    assert_eq!(count(), 1);
    // What was acknowledged is copied first, and not on the thread that reads requests.
    assert!(b.fs.write_staged(fh, Some(1), b"H", false).is_none());
    b.fs.write(fh, Some(1), b"H", false).await.unwrap();
    assert_eq!(count(), 2);
    assert!(b.fs.write_staged(fh, Some(2), b"H", false).unwrap().is_ok());
    let read = (b.fs.read(fh, 5 << 20, 5).await.unwrap(), b.fs.read(fh, 0, 4).await.unwrap());
    assert_eq!(read, ("later".into(), "hHHh".into()));
    let b = b.crash().await;
    let (_, fh) = b.open("f", libc::O_RDONLY).await;
    let object = b.drained(&["f"]).await.remove(0);
    let mut wanted = head;
    wanted.resize(far as usize, 0);
    wanted.extend_from_slice(b"end");
    assert!(object.as_bytes() == wanted, "the bucket has what was acknowledged");
    // What was committed is read here, as long as somebody has it open.
    assert_eq!(b.fs.read(fh, 5 << 20, 5).await.unwrap(), &[0u8; 5][..]);
    b.fs.release(fh).await;
}

#[tokio::test]
async fn little_that_the_journal_counts_on_is_copied_at_once() {
    let b = late_bench().await;
    let (_, fh) = b.create("f").await;
    b.fs.write(fh, Some(0), &vec![b'h'; 500 << 10], false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert!(b.fs.write_staged(fh, Some(1), b"H", false).unwrap().is_ok());
    let b = b.crash().await;
    assert!(b.drained(&["f"]).await[0].bytes().all(|byte| byte == b'h'));
}

impl Bench {
    /// Staging files that this process has open.
    fn open_staging_files(&self) -> usize {
        let staging = self.dir.path().join("staging").canonicalize().unwrap();
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(&staging)).count()
    }
}

#[tokio::test]
async fn few_of_many_files_that_wait_are_open_and_all_are_sent() {
    let b = late_bench().await;
    // Larger than what stays in memory.
    let body = "acknowledged ".repeat(6000);
    let names: Vec<String> = (0..300).map(|i| format!("f{i}")).collect();
    for n in &names {
        b.write(n, &body).await.unwrap();
    }
    assert!(b.open_staging_files() <= 256, "{}", b.open_staging_files());
    let b = b.crash().await;
    assert!(b.open_staging_files() <= 256, "{}", b.open_staging_files());
    assert!(b.read("f0").await == body);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(b.drained(&all).await.iter().all(|sent| *sent == body));
}

#[tokio::test]
async fn a_staging_file_that_nobody_has_synced_counts_for_nothing_where_the_journal_has_the_bytes() {
    let b = late_bench().await;
    // Larger than what stays in memory, and small enough for the journal's row.
    let body = "acknowledged ".repeat(6000);
    b.write("a", &body).await.unwrap();
    let staging = b.dir.path().join("staging");
    let files = || std::fs::read_dir(&staging).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 1);
    std::fs::write(&files()[0], "longer than what was acknowledged ".repeat(6000)).unwrap();
    let b = b.crash().await;
    assert!(b.drained(&["a"]).await == [body]);
}

#[tokio::test]
async fn what_is_half_written_when_an_upload_ends_is_not_acknowledged_by_that() {
    for is_refused in [false, true] {
        let b = late_bench().await;
        b.write("a", "acknowledged").await.unwrap();
        let ino = b.ino("a").await;
        let held = if is_refused {
            b.faults.fail_next(Op::Put, ErrorKind::Broken, 10);
            // Was it done all the same?
            b.faults.hold_next(Op::Head)
        } else {
            b.faults.hold_next_answer(Op::Put)
        };
        let fs = Arc::clone(&b.fs);
        let uploading = tokio::spawn(async move { fs.commit(ino).await });
        held.reached().await;
        let (_, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
        b.fs.write(fh, Some(0), b"half", false).await.unwrap();
        held.release();
        assert_eq!(uploading.await.unwrap().is_err(), is_refused);
        assert_eq!(b.journal_keys(), ["a"]);
        let staged = b.fs.writer.get(ino).unwrap();
        assert_eq!(staged.is_acknowledged(), is_refused, "the bucket has what was acknowledged, or the journal");
        // Whoever syncs the directory does not wait for the other half.
        if !is_refused {
            b.fs.fsyncdir(Ino::ROOT).await.unwrap();
            assert_eq!(b.object("a").await.as_deref(), Some("acknowledged"));
        }
        drop(staged);
        let b = b.crash().await;
        assert_eq!(b.read("a").await, "acknowledged", "refused: {is_refused}");
        assert_eq!(b.drained(&["a"]).await, ["acknowledged"], "refused: {is_refused}");
    }
}

#[tokio::test]
async fn what_the_bucket_has_takes_no_disk_although_somebody_writes_the_file_anew() {
    let b = late_bench().await;
    b.write("a", &"acknowledged ".repeat(50_000)).await.unwrap();
    let ino = b.ino("a").await;
    let held = b.faults.hold_next_answer(Op::Put);
    let fs = Arc::clone(&b.fs);
    let uploading = tokio::spawn(async move { fs.commit(ino).await });
    held.reached().await;
    let (_, fh) = b.open("a", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.write(fh, Some(0), b"half", false).await.unwrap();
    // The new one is small, and in memory.
    let count = || std::fs::read_dir(b.dir.path().join("staging")).unwrap().count();
    assert_eq!(count(), 1);
    held.release();
    uploading.await.unwrap().unwrap();
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn what_is_half_written_under_a_name_that_changes_is_not_acknowledged_by_that() {
    let b = late_bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    for (parent, n) in [(Ino::ROOT, "known.new"), (dir, "f")] {
        let (entry, opened) = b.fs.create(CALLER, parent, name(n), 0o644, CREATE).await.unwrap();
        b.fs.write(opened.fh, Some(0), b"acknowledged", false).await.unwrap();
        b.fs.flush(CALLER, opened.fh).await.unwrap();
        b.fs.release(opened.fh).await;
        let fh = b.fs.open(CALLER, entry.ino, libc::O_WRONLY | libc::O_TRUNC).await.unwrap().fh;
        b.fs.write(fh, Some(0), b"half", false).await.unwrap();
    }
    b.mv("known.new", "known").await.unwrap();
    b.mv("d", "e").await.unwrap();
    assert_eq!(b.journal_keys(), ["known", "e/f"]);
    let b = b.crash().await;
    assert_eq!(b.drained(&["known.new", "known", "e/f"]).await, ["nothing", "acknowledged", "acknowledged"]);
    assert!(b.ls(Ino::ROOT).await.iter().all(|n| !n.contains("conflict")), "{:?}", b.ls(Ino::ROOT).await);
}
