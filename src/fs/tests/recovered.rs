//! Names that change hands shortly before a crash: what was acknowledged has one of them afterwards. Owns nothing else.

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
