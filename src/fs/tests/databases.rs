//! When the files of a SQLite database reach the bucket. Owns nothing else.

use super::promises::bench_with;
use super::*;

/// How a database begins, and a page of it.
const DATABASE: &[u8] = b"SQLite format 3\0pages";
/// How a rollback journal begins that has to be played back.
const HOT: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

impl Bench {
    /// A new file that was written and synced, and is open.
    async fn synced(&self, n: &str, bytes: &[u8]) -> Fh {
        let (_, fh) = self.create(n).await;
        self.fs.write(fh, Some(0), bytes, false).await.unwrap();
        self.fs.fsync(fh).await.unwrap();
        fh
    }
}

#[tokio::test]
async fn a_database_is_uploaded_between_two_transactions_and_before_its_log() {
    let b = bench_with(Writes::default()).await;
    // One that no lock of this machine is on.
    b.fs.set_device(0xfff, 0xfff);
    let background = tokio::spawn(Arc::clone(&b.fs).run_background());
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
    while b.object("books.db").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(b.object("books.db").await.as_deref(), Some("SQLite format 3\0pages"));
    let log = b.synced("books.db-wal", b"log").await;
    b.fs.write(database, Some(16), b"other", false).await.unwrap();
    b.fs.fsync(database).await.unwrap();
    let (first, second) = (b.faults.hold_next(Op::Put), b.faults.hold_next(Op::Put));
    b.advance(6);
    first.reached().await;
    first.release();
    second.reached().await;
    assert_eq!(b.object("books.db").await.as_deref(), Some("SQLite format 3\0other"));
    assert_eq!(b.object("books.db-wal").await, None);
    second.release();
    while b.object("books.db-wal").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    background.abort();
    b.fs.release(database).await;
    b.fs.release(log).await;
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
