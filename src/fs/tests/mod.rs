//! Tests of the file system without a kernel: the real rooms over the in-memory store. Owns nothing else.

mod access;
mod ahead;
mod allocate;
mod attributes;
mod conflicts;
mod copies;
mod databases;
mod delta;
mod durability;
mod freshness;
mod gated;
mod interrupted;
mod large;
mod links;
mod listed;
mod model;
mod names;
mod nometa;
mod promises;
mod races;
mod readers;
mod readonly;
mod recovered;
mod replaced;
mod resumed;
mod scans;
mod spelling;
mod torn;
mod watched;
mod xattrs;

use super::*;
use crate::meta::Defaults;
use crate::read;
use crate::store::open::{StackSettings, wrap};
use crate::store::{Condition, ErrorKind, FaultStore, MemoryStore, ObjectHeaders, Op, fault, retry};
use crate::types::{Fh, FileKind, ManualClock, Name, Pos, Timestamp, WallClock};
use crate::write::{DirDisk, Disk, Journal};
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
    mount_with(dir, memory, clock, Writes::default()).await
}

async fn mount_with(
    dir: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    writes: Writes,
) -> Bench {
    mount_limited(dir, memory, clock, writes, crate::write::Settings::default()).await
}

async fn mount_limited(
    dir: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    writes: Writes,
    limits: crate::write::Settings,
) -> Bench {
    mount_set(dir, memory, clock, limits, |settings, _| settings.writes = writes).await
}

/// The same, with what the mount's options make of both.
async fn mount_set(
    dir: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    limits: crate::write::Settings,
    set: impl FnOnce(&mut Settings, &mut Defaults),
) -> Bench {
    mount_on(dir, memory, clock, limits, set, |disk| Arc::new(disk) as Arc<dyn Disk>).await
}

/// The same, with the staging files on the disk that `on` makes of theirs.
async fn mount_on(
    dir: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    limits: crate::write::Settings,
    set: impl FnOnce(&mut Settings, &mut Defaults),
    on: impl FnOnce(DirDisk) -> Arc<dyn Disk>,
) -> Bench {
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
    let mut defaults = Defaults {
        uid: 0,
        gid: 0,
        uid_forced: false,
        gid_forced: false,
        file_perm: 0o644,
        dir_perm: 0o755,
        file_mode: None,
        dir_mode: None,
        kept: crate::meta::headers::Kept::InObjects,
        mounted_at: clock.now(),
    };
    let mut settings = Settings {
        read_only: false,
        noatime: false,
        poll_interval: Duration::from_secs(60),
        poll_budget: 0,
        events: Events::Off,
        filter: Filter::default(),
        writes: Writes::default(),
        host: "desk".to_owned(),
        patience: Duration::from_secs(1),
        prefix_len: 0,
    };
    set(&mut settings, &mut defaults);
    let wall: Arc<dyn WallClock> = Arc::<ManualClock>::clone(&clock);
    let meta = Meta::open(&dir.path().join("catalogue.db"), defaults, wall).await.unwrap();
    let reader = Reader::new(Arc::clone(&store), read::Settings::default());
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    let disk = on(DirDisk::new(&dir.path().join("staging")).unwrap());
    let writer = Writer::new(Arc::clone(&store), reader.clone(), disk, journal, limits);
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

/// What the kernel was told to forget.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl KernelCache for Told {
    fn forget_entry(&self, parent: Ino, name: &Name) {
        self.0.lock().unwrap().push(format!("{parent}/{name}"));
    }

    fn forget_content(&self, ino: Ino) {
        self.0.lock().unwrap().push(format!("pages {ino}"));
    }

    fn forget_attr(&self, ino: Ino) {
        self.0.lock().unwrap().push(format!("attr {ino}"));
    }

    fn replay(&self, _replay: Replay) {}

    fn watched(&self) -> std::collections::HashSet<Ino> {
        std::collections::HashSet::new()
    }
}

impl Bench {
    /// A kernel, which tells what it is told from now on.
    fn kernel(&self) -> Arc<Told> {
        let told = Arc::new(Told::default());
        self.fs.set_kernel(Arc::<Told>::clone(&told));
        told
    }

    async fn remount(self) -> Bench {
        self.fs.close();
        let Bench { memory, dir, clock, .. } = self;
        clock.advance(Duration::from_millis(1));
        mount(dir, memory, clock).await
    }

    /// The next mount, after somebody removed the catalogue.
    async fn remount_without_catalogue(self) -> Bench {
        self.fs.close();
        self.remove_catalogue();
        let Bench { memory, dir, clock, .. } = self;
        mount(dir, memory, clock).await
    }

    fn remove_catalogue(&self) {
        for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
            let _ = std::fs::remove_file(self.dir.path().join(file));
        }
    }

    /// A new daemon over what one left that was killed. Its threads cannot be: what it has sent is done.
    async fn crash(self) -> Bench {
        self.crash_with(Writes::default()).await
    }

    /// The same with other options.
    async fn crash_with(self, writes: Writes) -> Bench {
        let Bench { fs, memory, dir, clock, .. } = self;
        clock.advance(Duration::from_millis(1));
        fs.meta.close();
        fs.writer.close();
        drop(fs);
        mount_with(dir, memory, clock, writes).await
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
        self.fs.write(fh, Some(0), bytes.as_bytes(), false).await.unwrap();
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

    async fn bytes(&self, k: &str) -> Option<Vec<u8>> {
        use futures::TryStreamExt;
        let got = self.memory.get(&key(k), None, None).await.ok()?;
        let parts: Vec<Bytes> = got.body.try_collect().await.unwrap();
        Some(parts.concat())
    }

    async fn object(&self, k: &str) -> Option<String> {
        self.bytes(k).await.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    async fn ls(&self, dir: Ino) -> Vec<String> {
        if !self.fs.opendir(dir).await.unwrap() {
            while self.fs.follow(dir).goes_on().await.unwrap() {}
        }
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
