//! What is acknowledged before the bucket has it. Owns nothing else.

use super::*;

pub(super) async fn bench_with(writes: Writes) -> Bench {
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    let b = mount_with(tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()), clock, writes).await;
    b.foreign("known", "known").await;
    // The first write of a mount probes the bucket.
    let (_, fh) = b.open("known", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"known", false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    b.fs.release(fh).await;
    b
}

fn back() -> Writes {
    Writes { mode: WriteMode::Back, ..Writes::default() }
}

/// Writes that the bucket was asked for.
fn writes(b: &Bench) -> (u64, u64, u64) {
    (b.count(Op::Put), b.count(Op::Copy), b.count(Op::Delete))
}

#[tokio::test]
async fn a_close_in_the_journal_survives_a_kill_and_the_loss_of_what_was_not_synced() {
    let b = bench_with(back()).await;
    let before = writes(&b);
    b.write("small", "acknowledged").await.unwrap();
    let large = "large ".repeat(50_000);
    b.write("large", &large).await.unwrap();
    b.write("known", "changed").await.unwrap();
    assert_eq!((writes(&b), b.object("small").await), (before, None), "nothing is sent yet");
    assert_eq!(b.read("small").await, "acknowledged");
    assert_eq!(b.fs.pending().unwrap().files, 3);
    // What nobody has synced is lost: small files are in the journal's row.
    let staging = b.dir.path().join("staging");
    for entry in std::fs::read_dir(&staging).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::metadata(&path).unwrap().len() < 1000 {
            std::fs::remove_file(path).unwrap();
        }
    }
    let b = b.crash().await;
    assert_eq!(b.read("small").await, "acknowledged");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("small").await.as_deref(), Some("acknowledged"));
    assert_eq!(b.object("large").await.as_deref(), Some(&*large));
    assert_eq!(b.object("known").await.as_deref(), Some("changed"));
}

#[tokio::test]
async fn the_upload_waits_and_what_is_written_again_meanwhile_is_one() {
    let b = bench_with(back()).await;
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    let before = writes(&b);
    for text in ["one", "two", "three"] {
        b.write("a", text).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(writes(&b), before);
    // A file that somebody goes on writing to waits for the close.
    let (_, fh) = b.open("a", libc::O_RDWR).await;
    b.fs.write(fh, Some(0), b"T", false).await.unwrap();
    b.advance(3);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(writes(&b), before);
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    b.advance(3);
    while b.object("a").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(b.object("a").await.as_deref(), Some("Three"));
    assert_eq!(writes(&b), (before.0 + 1, before.1, before.2));
    // fsync waits for the bucket all the same.
    let (_, fh) = b.create("synced").await;
    b.fs.write(fh, Some(0), b"bytes", false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    assert_eq!(b.object("synced").await.as_deref(), Some("bytes"));
    background.abort();
}

#[tokio::test]
async fn a_save_by_rename_is_one_put() {
    for writes_so in [Writes::default(), back()] {
        let b = bench_with(writes_so).await;
        let background = tokio::spawn(Arc::clone(&b.fs).run_background());
        let before = writes(&b);
        b.write("known.tmp", "saved").await.unwrap();
        assert_eq!(writes(&b), before, "not under its temporary name");
        b.fs.rename((Ino::ROOT, name("known.tmp")), (Ino::ROOT, name("known")), false).await.unwrap();
        assert_eq!(b.read("known").await, "saved");
        // In the journal: a daemon that is killed now has lost nothing.
        b.advance(3);
        b.fs.fsyncdir(Ino::ROOT).await.unwrap();
        assert_eq!(b.object("known").await.as_deref(), Some("saved"));
        assert_eq!(writes(&b), (before.0 + 1, before.1, before.2));
        background.abort();
    }
}

#[tokio::test]
async fn a_temporary_file_that_stays_is_uploaded_and_one_that_goes_is_not() {
    let b = bench().await;
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    b.write("gone.part", "x").await.unwrap();
    b.fs.unlink(Ino::ROOT, name("gone.part")).await.unwrap();
    b.write("stays.part", "x").await.unwrap();
    let (_, fh) = b.create("synced.part").await;
    b.fs.write(fh, Some(0), b"x", false).await.unwrap();
    b.fs.fsync(fh).await.unwrap();
    assert_eq!(b.count(Op::Put), 0);
    b.fs.release(fh).await;
    b.advance(6);
    while b.object("stays.part").await.is_none() || b.object("synced.part").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(b.object("gone.part").await, None);
    background.abort();
}

#[tokio::test]
async fn a_full_queue_makes_close_wait_for_the_bucket() {
    let b = bench_with(Writes { queue_max: 2, ..back() }).await;
    for n in ["a", "b", "c"] {
        b.write(n, n).await.unwrap();
    }
    assert_eq!((b.object("a").await, b.object("c").await.as_deref()), (None, Some("c")));
}

/// `notes-journal` beside `notes`: the names alone make no database.
#[tokio::test]
async fn a_file_that_is_called_as_a_databases_journal_is_in_the_bucket_at_close_beside_a_text() {
    const HOT: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let b = bench_with(Writes::default()).await;
    for n in ["read", "unread", "books"] {
        b.foreign(n, if n == "books" { "SQLite format 3\0pages" } else { "a text, and more of it" }).await;
    }
    let role = |n: &str| {
        let row = b.fs.meta.child(Ino::ROOT, &name(n)).unwrap().unwrap();
        b.fs.role_of(&b.fs.writer.get(row.ino).unwrap(), &row).unwrap()
    };
    let is_alone = |n: &str| role(n) == sqlite::Role::None;
    b.read("read").await;
    b.read("books").await;
    // Written to, and open.
    let (_, text) = b.create("staged").await;
    b.fs.write(text, Some(0), b"a text, and more of it", false).await.unwrap();
    b.fs.lookup(Ino::ROOT, &name("unread")).await.unwrap().unwrap();
    for n in ["read", "staged", "unread", "books"] {
        for suffix in ["-journal", "-wal", "-shm"] {
            let (_, fh) = b.create(&format!("{n}{suffix}")).await;
            b.fs.write(fh, Some(0), b"another text", false).await.unwrap();
            // Of what is not here nobody knows; the index of a log may begin with anything.
            let expected = ["read", "staged"].contains(&n) || n == "unread" && suffix != "-shm";
            assert_eq!(is_alone(&format!("{n}{suffix}")), expected, "{n}{suffix}");
            b.fs.flush(CALLER, fh).await.unwrap();
            assert_eq!(b.object(&format!("{n}{suffix}")).await.is_some(), expected, "{n}{suffix}");
            b.fs.release(fh).await;
        }
    }
    b.fs.flush(CALLER, text).await.unwrap();
    assert!(b.object("staged").await.is_some());
    b.fs.release(text).await;
    // Beside what is not here, the bytes of the file itself tell.
    b.fs.unlink(Ino::ROOT, name("unread-journal")).await.unwrap();
    for begin in [HOT, &[0; 8]] {
        let (_, fh) = b.create("unread-journal").await;
        b.fs.write(fh, Some(0), begin, false).await.unwrap();
        b.fs.write(fh, Some(8), b"pages", false).await.unwrap();
        assert!(!is_alone("unread-journal"), "{begin:?}");
        b.fs.release(fh).await;
        b.fs.unlink(Ino::ROOT, name("unread-journal")).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_file_in_a_directory_that_is_known_is_one_put() {
    let b = bench().await;
    for i in 0..4 {
        b.write(&format!("f{i}"), "x").await.unwrap();
    }
    // Listed in the background by now, since files are made in it one after another.
    while b.fs.meta.get(Ino::ROOT).unwrap().unwrap().complete_at.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = |b: &Bench| Op::ALL.iter().map(|op| b.count(*op)).sum::<u64>();
    let (before, puts) = (all(&b), b.count(Op::Put));
    for i in 0..20 {
        b.write(&format!("g{i}"), "x").await.unwrap();
    }
    assert_eq!((all(&b) - before, b.count(Op::Put) - puts), (20, 20));
}

#[tokio::test]
async fn what_was_acknowledged_is_not_replaced_by_a_file_that_was_only_emptied() {
    let b = bench_with(Writes::default()).await;
    b.write("known.tmp", "acknowledged").await.unwrap();
    b.fs.rename((Ino::ROOT, name("known.tmp")), (Ino::ROOT, name("known")), false).await.unwrap();
    // Its upload is due, and somebody begins to write it anew.
    let (_, fh) = b.open("known", libc::O_WRONLY | libc::O_TRUNC).await;
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(b.object("known").await.as_deref(), Some("known"), "neither");
    background.abort();
    b.fs.handles.remove(fh);
    let b = b.crash().await;
    assert_eq!(b.read("known").await, "acknowledged");
}

#[tokio::test]
async fn a_file_that_was_emptied_by_opening_it_for_reading_is_in_the_bucket_at_close() {
    let b = bench_with(Writes::default()).await;
    let ino = b.fs.lookup(Ino::ROOT, &name("known")).await.unwrap().unwrap().ino;
    let opened = b.fs.open(CALLER, ino, libc::O_RDONLY | libc::O_TRUNC).await.unwrap();
    assert!(!opened.no_flush);
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    assert_eq!(b.object("known").await.as_deref(), Some(""));
    b.fs.release(opened.fh).await;
}

#[tokio::test]
async fn which_names_are_temporary_is_for_the_mount_to_say() {
    let ours = Writes { temp_names: TempNames::new(["*.draft", "tmp-*"]).unwrap(), ..Writes::default() };
    let none = Writes { temp_names: TempNames::new([]).unwrap(), ..Writes::default() };
    for (writes_so, waiting) in [(ours, &["a.draft", "tmp-a"][..]), (none, &[][..])] {
        let b = bench_with(writes_so).await;
        for n in ["a.draft", "tmp-a", "a.part"] {
            b.write(n, "x").await.unwrap();
            assert_eq!(b.object(n).await.is_none(), waiting.contains(&n), "{n}");
        }
    }
}

#[tokio::test]
async fn as_many_uploads_run_at_once_as_the_mount_allows() {
    for uploads in [1, 3] {
        let b = bench_with(Writes { uploads, delay: Duration::ZERO, ..back() }).await;
        let held: Vec<_> = (0..5).map(|_| b.faults.hold_next(Op::Put)).collect();
        for i in 0..5 {
            b.write(&format!("f{i}"), "x").await.unwrap();
        }
        let background = tokio::spawn(Arc::clone(&b.fs).run_background());
        for hold in &held[..uploads] {
            hold.reached().await;
        }
        let one_more = tokio::time::timeout(Duration::from_millis(100), held[uploads].reached()).await;
        assert!(one_more.is_err(), "more than {uploads} at once");
        held[..uploads].iter().for_each(|hold| hold.release());
        for hold in &held[uploads..] {
            hold.reached().await;
            hold.release();
        }
        background.abort();
    }
}

#[tokio::test]
async fn a_database_is_uploaded_at_each_fsync_if_the_mount_is_told_so() {
    for (databases, is_there) in [(Databases::Through, true), (Databases::Consistent, false)] {
        let b = bench_with(Writes { databases, ..Writes::default() }).await;
        let (_, fh) = b.create("data.db").await;
        b.fs.write(fh, Some(0), b"SQLite format 3\0 and its pages", false).await.unwrap();
        b.fs.fsync(fh).await.unwrap();
        assert_eq!(b.object("data.db").await.is_some(), is_there, "{databases:?}");
        b.fs.release(fh).await;
    }
}
