//! Tests of the file system without a kernel: the real rooms over the in-memory store. Owns nothing else.

mod conflicts;
mod model;
mod races;

use super::*;
use crate::meta::Defaults;
use crate::read;
use crate::store::open::{StackSettings, wrap};
use crate::store::{Condition, ErrorKind, FaultStore, MemoryStore, ObjectHeaders, Op, fault, retry};
use crate::types::{Fh, FileKind, ManualClock, Name, Timestamp, WallClock};
use crate::write::{DirDisk, Journal};
use bytes::Bytes;

const CALLER: Caller = Caller { uid: 0, gid: 0, tid: 0 };
const CREATE: i32 = libc::O_RDWR | libc::O_CREAT;

struct Bench {
    fs: Arc<Fs>,
    memory: Arc<MemoryStore>,
    faults: Arc<FaultStore>,
    clock: Arc<ManualClock>,
    counters: Arc<crate::store::observe::Counters>,
    dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::new(Timestamp::from_system(std::time::SystemTime::now())));
    mount(dir, memory, clock).await
}

/// The rooms over a state directory and a bucket, as a mount builds them.
async fn mount(dir: tempfile::TempDir, memory: Arc<MemoryStore>, clock: Arc<ManualClock>) -> Bench {
    let faults = Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default()));
    let fast = retry::Settings {
        attempts: 2,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(2),
        deadline: Duration::from_secs(1),
    };
    let stack = StackSettings { retry: fast, ..StackSettings::default() };
    let opened = wrap(Arc::<FaultStore>::clone(&faults), &stack, None, Box::new(|_| {})).unwrap();
    let (store, counters) = (opened.store, opened.counters);
    let defaults = Defaults {
        uid: 0,
        gid: 0,
        uid_forced: false,
        gid_forced: false,
        file_perm: 0o644,
        dir_perm: 0o755,
        mounted_at: clock.now(),
    };
    let wall: Arc<dyn WallClock> = Arc::<ManualClock>::clone(&clock);
    let meta = Meta::open(&dir.path().join("catalogue.db"), defaults, wall).await.unwrap();
    let reader = Reader::new(Arc::clone(&store), read::Settings::default());
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    let disk = Arc::new(DirDisk::new(&dir.path().join("staging")).unwrap());
    let writer = Writer::new(Arc::clone(&store), reader.clone(), disk, journal, crate::write::Settings::default());
    let settings = Settings {
        read_only: false,
        poll_interval: Duration::from_secs(60),
        poll_budget: 0,
        events: Events::Off,
        filter: Filter::default(),
        host: "desk".to_owned(),
        patience: Duration::from_secs(1),
        prefix_len: 0,
    };
    let fs = Fs::new(meta, store, reader, writer, settings);
    fs.recover().await.unwrap();
    Bench { fs, memory, faults, clock, counters, dir }
}

fn name(n: &str) -> Name {
    Name::parse(n).unwrap()
}

fn key(k: &str) -> Key {
    Key::parse(k).unwrap()
}

impl Bench {
    async fn remount(self) -> Bench {
        self.fs.close();
        let Bench { memory, dir, clock, .. } = self;
        clock.advance(Duration::from_millis(1));
        mount(dir, memory, clock).await
    }

    /// A new daemon over what one left that was killed. Its threads cannot be: what it has sent is done.
    async fn crash(self) -> Bench {
        let Bench { fs, memory, dir, clock, .. } = self;
        clock.advance(Duration::from_millis(1));
        fs.meta.close();
        fs.writer.close();
        drop(fs);
        mount(dir, memory, clock).await
    }

    async fn create(&self, n: &str) -> (Ino, Fh) {
        let (entry, opened) = self.fs.create(CALLER, Ino::ROOT, name(n), 0o644, CREATE).await.unwrap();
        (entry.ino, opened.fh)
    }

    async fn open(&self, n: &str, flags: i32) -> (Ino, Fh) {
        let entry = self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap();
        (entry.ino, self.fs.open(CALLER, entry.ino, flags).await.unwrap().fh)
    }

    async fn write(&self, n: &str, bytes: &str) -> Result<()> {
        let (_, fh) = match self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap() {
            Some(_) => self.open(n, libc::O_RDWR | libc::O_TRUNC).await,
            None => self.create(n).await,
        };
        self.fs.write(fh, 0, bytes.as_bytes(), false).await.unwrap();
        let flushed = self.fs.flush(CALLER, fh).await;
        self.fs.release(fh).await;
        flushed
    }

    async fn read(&self, n: &str) -> String {
        let (_, fh) = self.open(n, libc::O_RDONLY).await;
        let bytes = self.fs.read(fh, 0, 1 << 20).await.unwrap();
        self.fs.release(fh).await;
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// What another client puts into the bucket.
    async fn foreign(&self, k: &str, bytes: &'static str) {
        let body = Bytes::from_static(bytes.as_bytes());
        self.memory.put(&key(k), body, &ObjectHeaders::default(), &Condition::Always).await.unwrap();
    }

    async fn foreign_delete(&self, k: &str) {
        match self.memory.delete(&key(k), None).await {
            Err(e) if e.kind != ErrorKind::NotFound => panic!("{e}"),
            _ => {}
        }
    }

    async fn object(&self, k: &str) -> Option<String> {
        use futures::TryStreamExt;
        let got = self.memory.get(&key(k), None, None).await.ok()?;
        let parts: Vec<Bytes> = got.body.try_collect().await.unwrap();
        Some(String::from_utf8(parts.concat()).unwrap())
    }

    async fn ls(&self, dir: Ino) -> Vec<String> {
        self.fs.opendir(dir).await.unwrap();
        let mut names = Vec::new();
        let mut add = |entry: DirEntry<'_>| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            false
        };
        self.fs.readdir(dir, 2, &mut add).unwrap();
        names.sort();
        names
    }

    fn count(&self, op: Op) -> u64 {
        self.counters.of(op).requests
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }
}

#[tokio::test]
async fn what_is_written_is_an_ordinary_object_at_close() {
    let b = bench().await;
    b.write("a.txt", "hello").await.unwrap();
    assert_eq!(b.object("a.txt").await.as_deref(), Some("hello"));
    let meta = b.memory.head(&key("a.txt")).await.unwrap();
    assert_eq!(meta.headers.content_type.as_deref(), Some("text/plain"));
    assert_eq!(meta.headers.user.get("mode").map(String::as_str), Some("33188"));
    assert_eq!(b.read("a.txt").await, "hello");
    assert_eq!(b.fs.pending().unwrap().files, 0);
}

impl Fs {
    /// Drains with the background running, as a mount has it.
    async fn drain_with_background(self: Arc<Self>) -> Drained {
        let background = tokio::spawn(Arc::clone(&self).run_background());
        let drained = self.drain(Duration::from_secs(20)).await.unwrap();
        background.abort();
        drained
    }
}

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
async fn a_journaled_file_survives_the_loss_of_the_catalogue() {
    let b = bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, dir, name("f"), 0o640, CREATE).await.unwrap();
    b.fs.write(opened.fh, 0, b"precious", false).await.unwrap();
    b.faults.fail_next(Op::Put, ErrorKind::Server, 99);
    assert!(b.fs.flush(CALLER, opened.fh).await.is_err());
    b.fs.close();
    let Bench { memory, dir, clock, .. } = b;
    for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    let b = mount(dir, memory, clock).await;
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
    b.fs.write(fh, 0, b"x", false).await.unwrap();
    assert!(b.fs.flush(CALLER, fh).await.is_err());
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    let b = b.remount().await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("a").await, None);
    assert!(b.ls(Ino::ROOT).await.is_empty());
}

#[tokio::test]
async fn saving_by_rename_is_one_put_when_the_new_file_is_not_uploaded_yet() {
    let b = bench().await;
    b.write("a", "old").await.unwrap();
    let (_, fh) = b.create("a.tmp").await;
    b.fs.write(fh, 0, b"new", false).await.unwrap();
    let (puts, copies) = (b.count(Op::Put), b.count(Op::Copy));
    b.fs.rename((Ino::ROOT, name("a.tmp")), (Ino::ROOT, name("a")), false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    assert_eq!(b.count(Op::Put) - puts, 1);
    assert_eq!(b.count(Op::Copy), copies);
    assert_eq!(b.object("a").await.as_deref(), Some("new"));
    assert_eq!(b.ls(Ino::ROOT).await, ["a"]);
}

#[tokio::test]
async fn a_renamed_directory_takes_everything_along_or_nothing() {
    let b = bench().await;
    for k in ["d/a", "d/s/b", "d/s/", "d/unseen/c"] {
        b.foreign(k, "x").await;
    }
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    let (_, opened) = b.fs.create(CALLER, dir, name("new"), 0o644, CREATE).await.unwrap();
    b.fs.write(opened.fh, 0, b"staged", false).await.unwrap();
    b.faults.fail_next(Op::Copy, ErrorKind::AccessDenied, 1);
    assert!(b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.is_err());
    assert_eq!(b.object("d/s/b").await.as_deref(), Some("x"));
    assert_eq!(b.object("e/a").await.or(b.object("e/s/b").await), None, "copies that were made are taken back");
    b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap();
    b.fs.flush(CALLER, opened.fh).await.unwrap();
    for k in ["e/a", "e/s/b", "e/unseen/c"] {
        assert_eq!(b.object(k).await.as_deref(), Some("x"), "{k}");
    }
    assert_eq!(b.object("e/new").await.as_deref(), Some("staged"));
    assert_eq!(b.object("d/a").await, None);
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino, dir, "the same inode");
}

#[tokio::test]
async fn a_directory_is_not_renamed_over_one_with_entries() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    b.foreign("e/b", "y").await;
    let over = b.fs.rename((Ino::ROOT, name("d")), (Ino::ROOT, name("e")), false).await.unwrap_err();
    assert_eq!(over.errno(), libc::ENOTEMPTY);
    let into_itself = {
        let d = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
        b.fs.rename((Ino::ROOT, name("d")), (d, name("x")), false).await.unwrap_err()
    };
    assert_eq!(into_itself.errno(), libc::EINVAL);
}

#[tokio::test]
async fn a_deleted_open_file_is_read_on() {
    let b = bench().await;
    b.write("a", "still here").await.unwrap();
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.object("a").await, None);
    assert!(b.ls(Ino::ROOT).await.is_empty(), "neither the file nor the copy shows");
    assert_eq!(b.fs.read(fh, 0, 100).await.unwrap(), "still here");
    b.fs.release(fh).await;
    assert_eq!(b.fs.getattr(ino).unwrap_err().errno(), libc::ESTALE);
    let all = crate::store::ListRequest { prefix: key(""), delimited: false, continuation: None, max_keys: 10 };
    assert_eq!(b.memory.list(&all).await.unwrap().objects, [], "the copy is gone with its last reader");
}

#[tokio::test]
async fn an_open_reader_never_sees_a_mixture() {
    let b = bench().await;
    b.foreign("a", "first").await;
    let (ino, fh) = b.open("a", libc::O_RDONLY).await;
    b.foreign("a", "other").await;
    b.advance(2);
    let (new, fh2) = b.open_again("a").await;
    assert_ne!(ino, new);
    let read = b.fs.read(fh, 0, 100).await;
    assert!(matches!(&read, Ok(bytes) if bytes == "first") || read.unwrap_err().errno() == libc::ESTALE);
    assert_eq!(b.fs.read(fh2, 0, 100).await.unwrap(), "other");
}

impl Bench {
    /// Opens as the kernel does: after ESTALE, once more from the name.
    async fn open_again(&self, n: &str) -> (Ino, Fh) {
        let entry = self.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap();
        match self.fs.open(CALLER, entry.ino, libc::O_RDONLY).await {
            Ok(opened) => (entry.ino, opened.fh),
            Err(e) => {
                assert_eq!(e.errno(), libc::ESTALE);
                self.open(n, libc::O_RDONLY).await
            }
        }
    }
}

#[tokio::test]
async fn an_emptied_directory_stays_and_rm_r_makes_no_marker() {
    let b = bench().await;
    b.foreign("d/a", "x").await;
    let dir = b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().unwrap().ino;
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.advance(120);
    assert_eq!(b.ls(Ino::ROOT).await, ["d"], "nothing in the bucket implies it any more");
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/").await.as_deref(), Some(""));
    b.fs.rmdir(Ino::ROOT, name("d")).await.unwrap();
    assert_eq!(b.object("d/").await, None);
    b.foreign("e/a", "x").await;
    b.advance(120);
    let dir = b.fs.lookup(Ino::ROOT, &name("e")).await.unwrap().unwrap().ino;
    let puts = b.count(Op::Put);
    b.fs.opendir(dir).await.unwrap();
    b.fs.unlink(dir, name("a")).await.unwrap();
    b.fs.rmdir(Ino::ROOT, name("e")).await.unwrap();
    assert_eq!(b.count(Op::Put), puts);
}

#[tokio::test]
async fn attributes_travel_with_the_object_and_foreign_headers_stay() {
    let b = bench().await;
    let headers = ObjectHeaders {
        content_type: Some("application/epub+zip".to_owned()),
        cache_control: Some("max-age=5".to_owned()),
        user: [("author".to_owned(), "Ada".to_owned())].into(),
        ..ObjectHeaders::default()
    };
    b.memory.put(&key("a"), Bytes::from_static(b"x"), &headers, &Condition::Always).await.unwrap();
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let mtime = Timestamp::from_nanos(1_000_000_123);
    let set = SetAttr { mode: Some(0o600), mtime: Some(SetTime::At(mtime)), ..SetAttr::default() };
    b.fs.setattr(CALLER, ino, set, false).await.unwrap();
    let kept = b.memory.head(&key("a")).await.unwrap().headers;
    assert_eq!((kept.content_type, kept.cache_control), (headers.content_type, headers.cache_control));
    assert_eq!(kept.user["author"], "Ada");
    let b = b.remount().await;
    b.advance(120);
    let entry = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap();
    assert_eq!((entry.ino, entry.attr.perm, entry.attr.mtime), (ino, 0o600, mtime));
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

#[tokio::test]
async fn names_of_ours_are_nobodys() {
    let b = bench().await;
    assert!(b.fs.lookup(Ino::ROOT, &name(".objfs")).await.unwrap().is_none());
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name(".objfs"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EACCES);
    assert!(b.fs.create(CALLER, Ino::ROOT, name(".objfs"), 0o644, CREATE).await.is_err());
    let link = b.fs.symlink(CALLER, Ino::ROOT, name("l"), Bytes::from_static(b"target")).await.unwrap();
    assert_eq!(link.attr.kind, FileKind::Symlink);
    let b = b.remount().await;
    b.advance(120);
    let link = b.fs.lookup(Ino::ROOT, &name("l")).await.unwrap().unwrap();
    assert_eq!(b.fs.readlink(link.ino).await.unwrap(), "target");
}

#[tokio::test]
async fn a_running_upload_counts_as_pending_and_is_journaled_by_the_last_close() {
    let b = bench().await;
    let (_, fh) = b.create("a").await;
    b.fs.write(fh, 0, b"precious", false).await.unwrap();
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
async fn what_is_written_after_a_foreign_change_to_an_open_file_is_refused_and_not_swallowed() {
    let b = bench().await;
    b.write("log", "one").await.unwrap();
    let (_, fh) = b.open("log", libc::O_RDWR).await;
    b.foreign("log", "theirs").await;
    b.advance(120);
    b.fs.lookup(Ino::ROOT, &name("log")).await.unwrap().unwrap();
    let refused = b.fs.write(fh, 3, b" two", false).await.unwrap_err();
    assert_eq!(refused.errno(), libc::ESTALE);
    b.fs.release(fh).await;
    assert_eq!(b.object("log").await.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn two_journaled_files_survive_the_loss_of_the_catalogue_in_any_order() {
    let b = bench().await;
    let dir = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap().ino;
    let mut open = Vec::new();
    for n in ["f1", "f2"] {
        let (_, opened) = b.fs.create(CALLER, dir, name(n), 0o644, CREATE).await.unwrap();
        b.fs.write(opened.fh, 0, n.as_bytes(), false).await.unwrap();
        open.push(opened.fh);
    }
    b.faults.fail_next(Op::Put, ErrorKind::Server, 99);
    for fh in open.into_iter().rev() {
        assert!(b.fs.flush(CALLER, fh).await.is_err());
        b.advance(1);
    }
    b.fs.close();
    let Bench { memory, dir, clock, .. } = b;
    for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    let b = mount(dir, memory, clock).await;
    assert_eq!(Arc::clone(&b.fs).drain_with_background().await, Drained::Clean);
    assert_eq!(b.object("d/f1").await.as_deref(), Some("f1"));
    assert_eq!(b.object("d/f2").await.as_deref(), Some("f2"));
}

#[tokio::test]
async fn a_changed_file_that_was_changed_elsewhere_can_be_removed_and_replaced() {
    let b = bench().await;
    for n in ["a", "b"] {
        b.write(n, "base").await.unwrap();
        let (_, fh) = b.open(n, libc::O_RDWR).await;
        b.fs.write(fh, 0, b"ours", false).await.unwrap();
        b.foreign(n, "theirs").await;
    }
    b.fs.unlink(Ino::ROOT, name("a")).await.unwrap();
    assert_eq!(b.object("a").await.as_deref(), Some("theirs"), "nobody here has seen it");
    assert_eq!(b.read("a").await, "theirs");
    b.write("new", "new").await.unwrap();
    b.fs.rename((Ino::ROOT, name("new")), (Ino::ROOT, name("b")), false).await.unwrap();
    assert_eq!(b.object("b").await.as_deref(), Some("new"));
    let names = b.ls(Ino::ROOT).await;
    let copy = names.iter().find(|n| n.starts_with("b (conflict")).unwrap();
    assert_eq!(b.object(copy).await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn emptying_an_empty_file_leaves_nothing_behind_that_blinds_the_mount() {
    let b = bench().await;
    b.foreign("e", "").await;
    let (_, fh) = b.open("e", libc::O_WRONLY | libc::O_TRUNC).await;
    b.fs.flush(CALLER, fh).await.unwrap();
    b.fs.release(fh).await;
    b.foreign("e", "theirs").await;
    b.advance(120);
    assert_eq!(b.read("e").await, "theirs");
}

#[tokio::test]
async fn a_name_that_appeared_elsewhere_is_seen_after_it_was_in_the_way() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.foreign("d/x", "x").await;
    b.foreign("d/", "").await;
    let made = b.fs.mkdir(CALLER, Ino::ROOT, name("d"), 0o755).await.unwrap_err();
    assert_eq!(made.errno(), libc::EEXIST);
    assert!(b.fs.lookup(Ino::ROOT, &name("d")).await.unwrap().is_some(), "EEXIST and ENOENT would contradict");
}

#[tokio::test]
async fn keys_too_long_are_told_at_create_and_not_at_close() {
    let b = bench().await;
    let mut dir = Ino::ROOT;
    for _ in 0..5 {
        dir = b.fs.mkdir(CALLER, dir, name(&"d".repeat(190)), 0o755).await.unwrap().ino;
    }
    let error = b.fs.create(CALLER, dir, name(&"f".repeat(100)), 0o644, CREATE).await.unwrap_err();
    assert_eq!(error.errno(), libc::ENAMETOOLONG);
    assert!(b.fs.create(CALLER, dir, name(&"f".repeat(60)), 0o644, CREATE).await.is_ok());
}

#[tokio::test]
async fn appending_to_a_name_that_appeared_elsewhere_does_not_create_it_anew() {
    let b = bench().await;
    b.ls(Ino::ROOT).await;
    b.advance(10);
    b.foreign("log", "theirs").await;
    let append = CREATE | libc::O_APPEND;
    let create = b.fs.create(CALLER, Ino::ROOT, name("log"), 0o644, append).await.unwrap_err();
    assert_eq!(create.errno(), libc::ESTALE, "the kernel looks again, and opens what is there");
    let (_, fh) = b.open("log", libc::O_WRONLY | libc::O_APPEND).await;
    b.fs.write(fh, 0, b" ours", false).await.unwrap();
    b.fs.flush(CALLER, fh).await.unwrap();
    assert_eq!(b.object("log").await.as_deref(), Some("theirs ours"));
}

#[tokio::test]
async fn the_kernels_pages_are_kept_unless_they_are_of_another_version() {
    let b = bench().await;
    b.foreign("a", "first").await;
    let ino = b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino;
    let first = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap();
    assert!(first.keep_cache, "there are none, and dropping them would wait for other readers");
    b.fs.release(first.fh).await;
    b.foreign("a", "other").await;
    b.advance(2);
    let (same, again) = (ino, b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap());
    assert_eq!(b.fs.lookup(Ino::ROOT, &name("a")).await.unwrap().unwrap().ino, same);
    assert!(!again.keep_cache, "the pages are of the first version");
    let third = b.fs.open(CALLER, ino, libc::O_RDONLY).await.unwrap();
    assert!(third.keep_cache);
}

/// `ls -l` makes no HEAD, but once anything shows that the bucket's objects carry attributes, what was listed is read.
#[tokio::test]
async fn headers_of_a_listed_directory_are_read_in_the_background_if_the_bucket_has_any() {
    let b = bench().await;
    let put = |n: String, mode: Option<&'static str>| {
        let mut headers = ObjectHeaders::default();
        headers.user.extend(mode.map(|m| ("mode".to_owned(), m.to_owned())));
        let memory = Arc::clone(&b.memory);
        async move { memory.put(&key(&n), Bytes::from_static(b"x"), &headers, &Condition::Always).await.map(drop).unwrap() }
    };
    for i in 0..150 {
        put(format!("plain/{i:03}"), None).await;
        put(format!("rich/{i:03}"), Some("33152")).await;
    }
    let dir = |n: &'static str| async { b.fs.lookup(Ino::ROOT, &name(n)).await.unwrap().unwrap().ino };
    let (plain, rich) = (dir("plain").await, dir("rich").await);
    b.ls(plain).await;
    b.fs.lookup(plain, &name("007")).await.unwrap().unwrap();
    b.ls(plain).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        b.fs.meta.unread(plain, Ino(0), 1000).unwrap().len(),
        149,
        "one shows nothing: the others are left alone"
    );
    b.ls(rich).await;
    b.fs.lookup(rich, &name("007")).await.unwrap().unwrap();
    b.ls(rich).await;
    for _ in 0..500 {
        if b.fs.meta.unread(rich, Ino(0), 1000).unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let heads = b.count(Op::Head);
    assert_eq!(b.fs.meta.unread(rich, Ino(0), 1000).unwrap(), vec![]);
    assert_eq!(b.fs.meta.child(rich, &name("100")).unwrap().unwrap().attr.perm, 0o600);
    b.advance(61);
    b.ls(rich).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(b.count(Op::Head), heads, "once for each version, ever");
}
