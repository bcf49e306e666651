//! When the files of a SQLite database reach the bucket, and in which order. Owns nothing else.

use super::promises::bench_with;
use super::*;
use crate::store::fault::Hold;
use tokio::task::JoinHandle;

/// How a database begins, and a page of it.
const DATABASE: &[u8] = b"SQLite format 3\0pages";
/// The same after another transaction.
const CHANGED: &[u8] = b"SQLite format 3\0other";
/// How a rollback journal begins that has to be played back.
const HOT: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// How a log begins.
const LOG: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];
/// What a transaction adds to it.
const FRAME: &[u8] = b"frame";

impl Bench {
    /// A new file that was written and synced, and is open.
    async fn synced(&self, n: &str, bytes: &[u8]) -> Fh {
        let (_, fh) = self.create(n).await;
        self.rewrite(fh, 0, bytes).await;
        fh
    }

    /// Writes to a file and syncs it.
    async fn rewrite(&self, fh: Fh, offset: u64, bytes: &[u8]) {
        self.fs.write(fh, Some(offset), bytes, false).await.unwrap();
        self.fs.fsync(fh).await.unwrap();
    }

    /// The database and its log as the bucket has them.
    async fn pair(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        (self.bytes("books.db").await, self.bytes("books.db-wal").await)
    }

    /// The same when a request that is held has come. It goes on.
    async fn pair_at(&self, held: &Hold) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        held.reached().await;
        let pair = self.pair().await;
        held.release();
        pair
    }

    /// Waits until the bucket has both so.
    async fn uploaded(&self, database: &[u8], log: &[u8]) {
        let wanted = (Some(database.to_vec()), Some(log.to_vec()));
        until(async || self.pair().await == wanted).await;
    }

    /// The object, once the bucket has one.
    async fn appeared(&self, k: &str) -> Vec<u8> {
        until(async || self.bytes(k).await.is_some()).await;
        self.bytes(k).await.unwrap()
    }

    /// One frame more in a log that was begun.
    async fn add_frame(&self, log: Fh) {
        self.rewrite(log, begun(1).len() as u64, FRAME).await;
    }

    /// The background, of a mount on whose database no lock of this machine is.
    fn run(&self) -> JoinHandle<()> {
        self.fs.set_device(0xfff, 0xfff);
        tokio::spawn(Arc::clone(&self.fs).run_background())
    }

    async fn end(&self, background: JoinHandle<()>, files: &[Fh]) {
        background.abort();
        for fh in files {
            self.fs.release(*fh).await;
        }
    }
}

/// Waits until it is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

/// A database and its log, both open and in the bucket, with the background running.
async fn with_log() -> (Bench, Fh, Fh, JoinHandle<()>) {
    let b = bench_with(Writes::default()).await;
    let background = b.run();
    let database = b.synced("books.db", DATABASE).await;
    let log = b.synced("books.db-wal", &begun(1)).await;
    b.advance(6);
    b.uploaded(DATABASE, &begun(1)).await;
    // What is synced from now on is not taken for a part of that.
    until(async || b.fs.queue().active() == 0).await;
    (b, database, log, background)
}

/// A log of this generation, with a frame.
fn begun(generation: u8) -> Vec<u8> {
    [&LOG[..], &[generation; 28], FRAME].concat()
}

/// The same with one frame more.
fn longer(generation: u8) -> Vec<u8> {
    [&begun(generation)[..], FRAME].concat()
}

#[tokio::test]
async fn a_database_is_uploaded_between_two_transactions_and_before_its_first_log() {
    let b = bench_with(Writes::default()).await;
    let background = b.run();
    let puts = b.count(Op::Put);
    let database = b.synced("books.db", DATABASE).await;
    let journal = b.synced("books.db-journal", HOT).await;
    assert_eq!((b.count(Op::Put), b.fs.pending().unwrap().files), (puts, 2), "in the journal");
    b.advance(6);
    // The background looks twice in a second.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(b.count(Op::Put), puts, "in the midst of a transaction");
    b.close(journal).await;
    b.fs.unlink(Ino::ROOT, name("books.db-journal")).await.unwrap();
    b.advance(6);
    assert_eq!(b.appeared("books.db").await, DATABASE);
    // What is written before that has ended is uploaded right after it.
    until(async || b.fs.pending().unwrap().files == 0).await;
    let log = b.synced("books.db-wal", b"log").await;
    b.rewrite(database, 16, b"other").await;
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    b.advance(6);
    b.pair_at(&first).await;
    assert_eq!(b.pair_at(&second).await, (Some(CHANGED.to_vec()), None));
    b.appeared("books.db-wal").await;
    b.end(background, &[database, log]).await;
}

/// A program that goes from one transaction to the next.
#[tokio::test]
async fn a_database_is_uploaded_in_the_pause_after_the_transaction_in_which_it_is_due() {
    let b = bench_with(Writes::default()).await;
    b.fs.set_device(0xfff, 0xfff);
    let database = b.synced("books.db", DATABASE).await;
    let journal = b.synced("books.db-journal", HOT).await;
    b.advance(6);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(b.object("books.db").await, None);
    b.rewrite(journal, 0, &[0; 8]).await;
    // By this mount's clock no time passes.
    assert_eq!(b.appeared("books.db").await, DATABASE);
    b.end(background, &[database, journal]).await;
}

#[tokio::test]
async fn what_a_transaction_has_synced_is_there_after_a_loss_of_power() {
    let b = bench_with(Writes::default()).await;
    b.synced("books.db", DATABASE).await;
    b.synced("books.db-journal", HOT).await;
    // What nobody has synced is lost: small files are in the journal's row.
    for entry in std::fs::read_dir(b.dir.path().join("staging")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let b = b.crash().await;
    assert_eq!(b.read("books.db").await, "SQLite format 3\0pages");
    let (_, journal) = b.open("books.db-journal", libc::O_RDONLY).await;
    assert_eq!(b.fs.read(journal, 0, 100).await.unwrap(), HOT);
    b.fs.release(journal).await;
}

#[tokio::test]
async fn a_mount_may_treat_databases_as_other_files() {
    let b = bench_with(Writes { databases: Databases::Through, ..Writes::default() }).await;
    let database = b.synced("books.db", DATABASE).await;
    assert!(b.object("books.db").await.is_some());
    let journal = b.synced("books.db-journal", HOT).await;
    assert_eq!(b.fs.pending().unwrap().files, 0);
    b.fs.release(database).await;
    b.fs.release(journal).await;
}

#[tokio::test]
async fn a_log_that_goes_on_is_uploaded_before_its_database() {
    let (b, database, log, background) = with_log().await;
    b.add_frame(log).await;
    b.rewrite(database, 0, CHANGED).await;
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    b.advance(6);
    assert_eq!(b.pair_at(&first).await, (Some(DATABASE.to_vec()), Some(begun(1))));
    assert_eq!(b.pair_at(&second).await, (Some(DATABASE.to_vec()), Some(longer(1))));
    b.uploaded(CHANGED, &longer(1)).await;
    b.end(background, &[database, log]).await;
}

#[tokio::test]
async fn a_log_that_is_begun_anew_is_out_of_the_bucket_while_its_database_is_uploaded() {
    let (b, database, log, background) = with_log().await;
    b.rewrite(database, 0, CHANGED).await;
    b.rewrite(log, 0, &begun(2)).await;
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    b.advance(6);
    assert_eq!(b.pair_at(&first).await, (Some(DATABASE.to_vec()), None));
    second.reached().await;
    assert_eq!(b.pair().await, (Some(CHANGED.to_vec()), None));
    assert_eq!(b.fs.read(log, 0, 100).await.unwrap(), begun(2), "here it is still");
    second.release();
    b.uploaded(CHANGED, &begun(2)).await;
    assert_eq!(b.fs.pending().unwrap().conflicts, 0);
    // It is a file like others again.
    b.add_frame(log).await;
    b.advance(6);
    b.uploaded(CHANGED, &longer(2)).await;
    b.end(background, &[database, log]).await;
}

#[tokio::test]
async fn a_log_that_is_begun_anew_during_an_upload_waits_for_the_database_that_belongs_to_it() {
    let (b, database, log, background) = with_log().await;
    b.rewrite(database, 0, CHANGED).await;
    b.rewrite(log, 0, &begun(2)).await;
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    b.advance(6);
    first.reached().await;
    // A checkpoint, and the next transaction.
    b.rewrite(database, 16, b"third").await;
    b.rewrite(log, 0, &begun(3)).await;
    let third = b.faults.hold_next(Op::Put);
    first.release();
    until(async || b.bytes("books.db").await.as_deref() == Some(CHANGED)).await;
    b.advance(12);
    assert_eq!(b.pair_at(&second).await, (Some(CHANGED.to_vec()), None));
    assert_eq!(b.pair_at(&third).await, (Some(b"SQLite format 3\0third".to_vec()), None));
    b.uploaded(b"SQLite format 3\0third", &begun(3)).await;
    b.end(background, &[database, log]).await;
}

#[tokio::test]
async fn the_close_of_one_connection_uploads_the_log_as_well_and_before_the_database() {
    let (b, database, log, background) = with_log().await;
    background.abort();
    let (_, other) = b.open("books.db", libc::O_RDWR).await;
    b.add_frame(log).await;
    b.rewrite(database, 0, CHANGED).await;
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    let closing = b.spawn(move |fs| async move { fs.flush(CALLER, other).await });
    b.pair_at(&first).await;
    assert_eq!(b.pair_at(&second).await, (Some(DATABASE.to_vec()), Some(longer(1))));
    closing.await.unwrap().unwrap();
    assert_eq!(b.pair().await, (Some(CHANGED.to_vec()), Some(longer(1))));
    assert_eq!(b.fs.pending().unwrap().files, 0);
    b.end(background, &[other, database, log]).await;
}

#[tokio::test]
async fn a_log_leaves_the_bucket_only_once_the_journal_has_what_comes_after_it() {
    let (b, database, log, background) = with_log().await;
    background.abort();
    // Nobody syncs anything.
    b.fs.write(database, Some(0), CHANGED, false).await.unwrap();
    b.fs.write(log, Some(0), &begun(2), false).await.unwrap();
    let held = b.faults.hold_next(Op::Put);
    let closing = b.spawn(move |fs| async move { fs.flush(CALLER, database).await });
    held.reached().await;
    assert_eq!(b.pair().await, (Some(DATABASE.to_vec()), None));
    closing.abort();
    let b = b.crash().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    b.uploaded(CHANGED, &begun(2)).await;
}

#[tokio::test]
async fn the_close_of_a_database_whose_log_is_refused_says_so_and_keeps_both() {
    let (b, database, log, background) = with_log().await;
    background.abort();
    b.add_frame(log).await;
    b.fs.write(database, Some(0), CHANGED, false).await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::AccessDenied, 1);
    assert_eq!(b.fs.flush(CALLER, database).await.unwrap_err().errno(), libc::EACCES);
    assert_eq!(b.pair().await, (Some(DATABASE.to_vec()), Some(begun(1))));
    b.fs.release(log).await;
    let b = b.crash().await;
    assert_eq!(b.read("books.db").await, "SQLite format 3\0other");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    b.uploaded(CHANGED, &longer(1)).await;
}

#[tokio::test]
async fn a_hot_journal_that_a_crash_has_left_keeps_its_database_from_being_uploaded() {
    let b = bench_with(Writes::default()).await;
    b.synced("books.db", CHANGED).await;
    b.synced("books.db-journal", HOT).await;
    let b = b.crash().await;
    let background = b.run();
    for _ in 0..2 {
        // The background looks twice in a second.
        tokio::time::sleep(Duration::from_millis(700)).await;
        b.advance(6);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((b.object("books.db").await, b.bytes("books.db-journal").await), (None, None));
    // The program plays it back.
    let (_, database) = b.open("books.db", libc::O_RDWR).await;
    b.rewrite(database, 0, DATABASE).await;
    b.fs.unlink(Ino::ROOT, name("books.db-journal")).await.unwrap();
    b.advance(6);
    assert_eq!(b.appeared("books.db").await, DATABASE);
    b.end(background, &[database]).await;
}

#[tokio::test]
async fn whoever_unmounts_gets_a_database_and_its_log_into_the_bucket_in_order() {
    let (b, database, log, background) = with_log().await;
    background.abort();
    b.rewrite(database, 0, CHANGED).await;
    b.rewrite(log, 0, &begun(2)).await;
    b.end(background, &[database, log]).await;
    // A program was killed in the midst of a transaction.
    b.synced("books.db-journal", HOT).await;
    let first = b.faults.hold_next(Op::Put);
    let draining = tokio::spawn(Arc::clone(&b.fs).drain_with_background());
    assert_eq!(b.pair_at(&first).await, (Some(DATABASE.to_vec()), None));
    assert_eq!(draining.await.unwrap(), Drained::Clean);
    b.uploaded(CHANGED, &begun(2)).await;
    assert_eq!(b.bytes("books.db-journal").await.as_deref(), Some(HOT));
}

#[tokio::test]
async fn a_log_or_journal_leaves_the_bucket_once_that_has_the_database_that_needs_it_no_more() {
    let (b, database, log, background) = with_log().await;
    b.add_frame(log).await;
    b.advance(6);
    b.uploaded(DATABASE, &longer(1)).await;
    until(async || b.fs.queue().active() == 0).await;
    // The last connection moves the log into the database, and removes it.
    b.rewrite(database, 0, CHANGED).await;
    b.fs.release(log).await;
    let held = b.faults.hold_next(Op::Put);
    let removing = b.spawn(|fs| async move { fs.unlink(Ino::ROOT, name("books.db-wal")).await });
    assert_eq!(b.pair_at(&held).await, (Some(DATABASE.to_vec()), Some(longer(1))));
    removing.await.unwrap().unwrap();
    assert_eq!(b.pair().await, (Some(CHANGED.to_vec()), None));
    // Somebody unmounts in the midst of a transaction, which is taken back later.
    background.abort();
    b.rewrite(database, 0, DATABASE).await;
    let journal = b.synced("books.db-journal", HOT).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.bytes("books.db-journal").await.as_deref(), Some(HOT));
    b.rewrite(database, 0, CHANGED).await;
    b.fs.release(journal).await;
    let held = b.faults.hold_next(Op::Put);
    let removing = b.spawn(|fs| async move { fs.unlink(Ino::ROOT, name("books.db-journal")).await });
    held.reached().await;
    let there = (b.bytes("books.db").await, b.bytes("books.db-journal").await);
    assert_eq!(there, (Some(DATABASE.to_vec()), Some(HOT.to_vec())));
    held.release();
    removing.await.unwrap().unwrap();
    assert_eq!((b.bytes("books.db").await, b.bytes("books.db-journal").await), (Some(CHANGED.to_vec()), None));
    b.fs.release(database).await;
}
