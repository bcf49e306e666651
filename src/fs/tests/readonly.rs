//! Read-only mounts over what an earlier mount left. Owns nothing else.

use super::promises::bench_with;
use super::*;

impl Bench {
    /// A read-only daemon over what one left that was killed.
    async fn crash_into_read_only(self, is_catalogue_lost: bool) -> Bench {
        self.clock.advance(Duration::from_millis(1));
        self.fs.meta.close();
        self.fs.writer.close();
        if is_catalogue_lost {
            self.remove_catalogue();
        }
        let Bench { fs, memory, dir, clock, .. } = self;
        drop(fs);
        mount_set(dir, memory, clock, crate::write::Settings::default(), |settings, _| settings.read_only = true).await
    }

    /// Keys of the journal's rows, and names of staging files.
    fn left(&self) -> (Vec<String>, Vec<String>) {
        let rows = Journal::open(&self.dir.path().join("journal.db")).unwrap().rows().unwrap();
        let staging = std::fs::read_dir(self.dir.path().join("staging")).unwrap();
        let mut files: Vec<_> = staging.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        (rows.into_iter().map(|row| row.key.as_str().to_owned()).collect(), files)
    }
}

#[tokio::test]
async fn a_read_only_mount_shows_what_the_journal_has_and_leaves_it_there() {
    // In the journal's row, and in a staging file.
    let (small, large) = ("acknowledged", "acknowledged ".repeat(30_000));
    let large = large.as_str();
    let files = [("changed", small), ("longer", large), ("new", small), ("new and large", large)];
    for is_catalogue_lost in [false, true] {
        let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
        for n in ["changed", "longer"] {
            b.write(n, "in the bucket").await.unwrap();
        }
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        for (n, bytes) in files {
            b.write(n, bytes).await.unwrap();
        }
        let left = b.left();
        assert_eq!((left.0.len(), left.1.len()), (4, 2));
        let b = b.crash_into_read_only(is_catalogue_lost).await;
        for (n, bytes) in files {
            let size = b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().attr.size;
            assert_eq!(size, bytes.len() as u64, "{n}");
            assert!(b.read(n).await == bytes, "{n}");
            let (_, fh) = b.open(n, libc::O_RDONLY).await;
            b.fs.fsync(fh).await.unwrap();
            b.fs.release(fh).await;
        }
        assert_eq!(b.ls(Ino::ROOT).await, ["changed", "known", "longer", "new", "new and large"]);
        let refused = b.fs.discard_path(&[name("new")]).await.unwrap_err();
        assert_eq!((refused.errno(), b.fs.pending().unwrap().files), (libc::EROFS, 0));
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        assert_eq!((b.object("new").await, b.object("changed").await.as_deref()), (None, Some("in the bucket")));
        assert_eq!(b.left(), left);
        let b = b.crash().await;
        assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
        for (n, bytes) in files {
            assert!(b.object(n).await.is_some_and(|there| there == bytes), "{n}");
        }
        assert_eq!(b.ls(Ino::ROOT).await, ["changed", "known", "longer", "new", "new and large"]);
    }
}

#[tokio::test]
async fn a_read_only_mount_shows_the_bucket_where_nothing_was_acknowledged() {
    let b = bench_with(Writes { mode: WriteMode::Back, ..Writes::default() }).await;
    let (_, new) = b.create("new").await;
    b.fs.write(new, Some(0), b"not closed yet", false).await.unwrap();
    let (_, known) = b.open("known", libc::O_RDWR).await;
    b.fs.write(known, Some(3), b"WN, and more", false).await.unwrap();
    let b = b.crash_into_read_only(false).await;
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("new")).await.unwrap(), None);
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("known")).await.unwrap().unwrap().attr.size, 5);
    assert_eq!(b.read("known").await, "known");
}

#[tokio::test]
async fn a_read_only_mount_writes_no_marker_that_an_earlier_one_owes() {
    let b = bench().await;
    b.foreign("d/f", "x").await;
    let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.write("first", "asks what the server can do").await.unwrap();
    assert!(b.fs.lookup(d, &name("f")).await.unwrap().is_some());
    b.fs.unlink(d, name("f")).await.unwrap();
    assert_eq!(b.fs.pending().unwrap().markers, 1);
    let b = b.crash_into_read_only(false).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/").await, None);
    let b = b.crash().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/").await.as_deref(), Some(""));
}
