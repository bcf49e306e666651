//! Bytes of objects on the disk, for the next mount and for reads without network.
//!
//! Owns: the folder of the cache, which objects it has, writing what was fetched without making a reader wait, making room. Does
//! not own: the layout of a file (`file`), what goes first (`usage`), what is fetched (`read`).
//!
//! Nothing here is missed if it is lost: a file that cannot be read, written or trusted is not there, and the bucket is asked.

mod file;
mod usage;

use super::in_flight::VersionId;
use crate::types::ByteRange;
use bytes::Bytes;
pub(in crate::read) use file::CacheFile;
use nix::fcntl::{Flock, FlockArg};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use usage::Usage;

/// Files that are open at once.
const OPEN_MAX: u64 = 256;
/// How long nothing is written after the disk refused.
const PAUSE: Duration = Duration::from_secs(60);
/// How often the free space is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The file that says whose the folder is.
const LOCK: &str = "lock";
/// What a file takes beside its cells, about: its sums, and what the last page is filled up with.
const OVERHEAD: u64 = 8 << 10;
/// What a file ends in whose object was read through.
const STREAM: &str = ".stream";

/// What the disk cache may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// Its folder, which is made if it is not there.
    pub dir: PathBuf,
    /// Bytes in it, at most.
    pub size: u64,
    /// Bytes that are left free on its file system, at least.
    pub keep_free: u64,
}

impl DiskSettings {
    /// What the cache takes where nobody says otherwise: 10 GiB or a tenth of what is free, whichever is less, and it leaves a
    /// twentieth of the file system free, 1 GiB at most.
    pub fn default_in(dir: PathBuf) -> DiskSettings {
        const GIB: u64 = 1 << 30;
        // The folder itself may not be there yet.
        let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(&dir);
        let total = nix::sys::statvfs::statvfs(there).map_or(0, |fs| fs.blocks().saturating_mul(fs.fragment_size()));
        let (size, keep_free) = ((free_space(there) / 10).min(10 * GIB), (total / 20).min(GIB));
        DiskSettings { dir, size, keep_free }
    }
}

/// The disk cache of a mount.
#[derive(Debug)]
pub(super) struct DiskCache {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    /// Held as long as the cache is ours: another daemon would not know of what this one removes.
    _lock: Flock<File>,
}

#[derive(Debug)]
struct Shared {
    settings: DiskSettings,
    usage: Mutex<Usage>,
    /// Files that stay open.
    open: moka::sync::Cache<VersionId, Arc<CacheFile>>,
    files: Mutex<Files>,
    /// Until the folder was looked through, every object may be there.
    is_known: AtomicBool,
    queued: AtomicU64,
    /// Bytes that wait to be written, at most: they count as memory. What comes beyond is not kept.
    queued_max: u64,
}

/// What the thread does.
#[derive(Debug)]
enum Job {
    /// Keeps what was fetched.
    Keep(Fetched),
    /// Remembers that the object is read through, and that what was kept for a look with this number was not.
    Stream(VersionId, u32),
    /// What there is of the first object is of the second one now.
    Carry(VersionId, VersionId),
}

/// What was fetched.
#[derive(Debug)]
struct Fetched {
    id: VersionId,
    size: u64,
    range: ByteRange,
    bytes: Bytes,
    keep_for: KeepFor,
}

/// What bytes are kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::read) enum KeepFor {
    /// Somebody looked into the object there.
    Look,
    /// Somebody did who may turn out to read it through: the number says who.
    LookOf(u32),
    /// The object is read through.
    Stream,
}

/// Files that somebody has open, each once: what one takes away of a file, all others must know.
#[derive(Debug, Default)]
struct Files(HashMap<VersionId, Weak<CacheFile>>);

impl Files {
    /// The file of an object: that which is open, or the one that `open` opens.
    fn only(&mut self, id: VersionId, open: impl FnOnce() -> io::Result<CacheFile>) -> io::Result<Arc<CacheFile>> {
        if let Some(file) = self.0.get(&id).and_then(Weak::upgrade) {
            return Ok(file);
        }
        if self.0.len() as u64 > 2 * OPEN_MAX {
            self.0.retain(|_, file| file.strong_count() > 0);
        }
        let file = Arc::new(open()?);
        self.0.insert(id, Arc::downgrade(&file));
        Ok(file)
    }
}

impl DiskCache {
    /// The cache in a folder. Looks through it in a thread, which writes afterwards and ends with the cache.
    ///
    /// # Errors
    /// The folder cannot be made, another daemon uses it, or no thread.
    pub(super) fn open(settings: DiskSettings, queued_max: u64) -> io::Result<DiskCache> {
        DirBuilder::new().recursive(true).mode(0o700).create(&settings.dir)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(settings.dir.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, _)| io::Error::other("another mount uses it"))?;
        let shared = Arc::new(Shared {
            settings,
            usage: Mutex::default(),
            open: moka::sync::Cache::new(OPEN_MAX),
            files: Mutex::default(),
            is_known: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            queued_max,
        });
        let (jobs, queue) = mpsc::channel();
        let own = Arc::clone(&shared);
        thread::Builder::new().name("cache".to_owned()).spawn(move || Keeper::new(own).run(&queue))?;
        Ok(DiskCache { shared, jobs, _lock: lock })
    }

    /// The file of an object, if the cache has one. Waits for the disk only where it was not open.
    pub(super) async fn file(&self, id: VersionId, size: u64) -> Option<Arc<CacheFile>> {
        if let Some(file) = self.shared.open.get(&id) {
            return Some(file);
        }
        if self.shared.is_known.load(Ordering::Acquire) && !self.shared.usage().has(id) {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.open_file(id, size)).await.ok().flatten()
    }

    /// Reads `range`, which `file` has, into `buffer`, and answers it. `None` if it cannot be read or trusted. `is_look`: somebody
    /// looks into the object there.
    pub(super) async fn read(
        file: Arc<CacheFile>,
        range: ByteRange,
        mut buffer: super::budget::Buffer,
        is_look: bool,
    ) -> Option<Bytes> {
        let reading = tokio::task::spawn_blocking(move || {
            if is_look && let Err(e) = file.look(range) {
                tracing::debug!(error = %e, "what is looked into cannot be remembered");
            }
            (file.read(range, &mut buffer), buffer)
        });
        match reading.await {
            Ok((Ok(Some(has)), buffer)) => {
                let at = usize::try_from(range.start() - has.start()).unwrap_or(usize::MAX);
                let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
                Some(Bytes::from_owner(buffer).slice(at..at + len))
            }
            // Damaged, or taken away a moment ago.
            Ok((Ok(None), _)) => None,
            Ok((Err(e), _)) => {
                tracing::warn!(error = %e, "the disk cache cannot be read: the bucket is asked");
                None
            }
            Err(_) => None,
        }
    }

    /// Keeps bytes of an object of `size` bytes, if there is time.
    pub(super) fn keep(&self, id: VersionId, size: u64, range: ByteRange, bytes: &Bytes, keep_for: KeepFor) {
        let len = range.len();
        if size > file::OBJECT_MAX || self.shared.queued.load(Ordering::Relaxed) + len > self.shared.queued_max {
            return;
        }
        self.shared.queued.fetch_add(len, Ordering::Relaxed);
        let fetched = Fetched { id, size, range, bytes: bytes.clone(), keep_for };
        if self.jobs.send(Job::Keep(fetched)).is_err() {
            self.shared.queued.fetch_sub(len, Ordering::Relaxed);
        }
    }

    /// The object is read through, and not only looked into: it goes first, but for what others looked into. What was kept for the
    /// looks with this number was not.
    pub(super) fn is_read_through(&self, id: VersionId, number: u32) {
        if self.jobs.send(Job::Stream(id, number)).is_err() {
            tracing::debug!("the thread of the disk cache has ended");
        }
    }

    /// The bytes of one object are those of another one now: what there is of it is kept as that.
    pub(super) fn carry(&self, from: VersionId, to: VersionId) {
        // It counts as a byte, so that it is waited for.
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        if self.jobs.send(Job::Carry(from, to)).is_err() {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Bytes in the cache.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.usage().bytes()
    }

    /// Waits until what was given to it is on the disk.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        while self.shared.queued.load(Ordering::Acquire) > 0 || !self.shared.is_known.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Shared {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever changes which files there are.
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: VersionId, is_stream: bool) -> PathBuf {
        self.settings.dir.join(format!("{id}{}", if is_stream { STREAM } else { "" }))
    }

    fn open_file(&self, id: VersionId, size: u64) -> Option<Arc<CacheFile>> {
        let mut files = self.files();
        let open = || match CacheFile::open(&self.path(id, false), size) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => CacheFile::open(&self.path(id, true), size),
            opened => opened,
        };
        let file = match files.only(id, open) {
            Ok(file) => file,
            // Out of descriptors, say: it may be there the next time.
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                tracing::debug!(error = %e, "a file of the cache cannot be opened now");
                return None;
            }
            Err(_) => {
                if self.is_known.load(Ordering::Acquire) {
                    self.remove(&mut files, id);
                }
                return None;
            }
        };
        // Once for each time that it is opened: what is used is known to the next mount.
        if let Err(e) = file.touch() {
            tracing::debug!(error = %e, "a file of the cache looks older than it is");
        }
        self.usage().touch(id, now());
        self.open.insert(id, Arc::clone(&file));
        Some(file)
    }

    /// Makes room: of an object that was read through, what was looked into stays; another goes. Answers how many bytes went.
    fn shrink(&self, id: VersionId) -> u64 {
        let mut files = self.files();
        let Some(before) = self.usage().stream_bytes(id) else { return self.remove(&mut files, id) };
        let path = self.path(id, true);
        let trimmed = files.only(id, || CacheFile::open_any(&path)).and_then(|file| file.trim());
        match trimmed {
            Ok(left) if left > 0 && fs::rename(&path, self.path(id, false)).is_ok() => {
                self.usage().look_again(id, left);
                before.saturating_sub(left)
            }
            _ => self.remove(&mut files, id),
        }
    }

    /// Removes what there is of an object, and answers how many bytes that was. Who reads it goes on with the open file.
    fn remove(&self, files: &mut Files, id: VersionId) -> u64 {
        let bytes = self.usage().forget(id);
        files.0.remove(&id);
        self.open.invalidate(&id);
        self.open.run_pending_tasks();
        for is_stream in [false, true] {
            match fs::remove_file(self.path(id, is_stream)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(error = %e, "a file of the cache could not be removed");
                }
                _ => {}
            }
        }
        bytes
    }
}

/// Writes, and makes room.
struct Keeper {
    shared: Arc<Shared>,
    paused_until: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Keeper {
    fn new(shared: Arc<Shared>) -> Keeper {
        Keeper { shared, paused_until: None, looked_at: None }
    }

    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        if let Err(e) = self.look_through() {
            tracing::warn!(dir = %self.shared.settings.dir.display(), error = %e, "the disk cache could not be looked through");
        }
        self.shared.is_known.store(true, Ordering::Release);
        while let Ok(job) = queue.recv() {
            let (len, done) = match job {
                Job::Stream(id, number) => (0, self.read_through(id, number)),
                Job::Carry(from, to) => (1, self.carry(from, to)),
                Job::Keep(fetched) => {
                    let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
                    (fetched.range.len(), if is_paused { Ok(()) } else { self.keep(&fetched) })
                }
            };
            if let Err(e) = done {
                tracing::warn!(error = %e, "the disk cache cannot be written: nothing is kept for a minute");
                self.paused_until = Some(Instant::now() + PAUSE);
            }
            self.shared.queued.fetch_sub(len, Ordering::Release);
        }
    }

    fn look_through(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.shared.settings.dir)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let (Some(name), Ok(known)) = (name.to_str(), entry.metadata()) else { continue };
            let (digits, is_stream) = name.strip_suffix(STREAM).map_or((name, false), |digits| (digits, true));
            match VersionId::parse(digits) {
                Some(id) => {
                    let used = known.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    self.shared.usage().add(id, known.blocks() * 512, is_stream, stamp(used));
                }
                None if name == LOCK => {}
                None => tracing::debug!(path = %path.display(), "no file of the cache: left alone"),
            }
        }
        Ok(())
    }

    fn keep(&mut self, job: &Fetched) -> io::Result<()> {
        if !self.make_room(job) {
            return Ok(());
        }
        let is_stream = job.keep_for == KeepFor::Stream;
        let known = self.shared.open.get(&job.id).or_else(|| self.shared.open_file(job.id, job.size));
        let (file, overhead) = match known {
            Some(file) => (file, 0),
            None => {
                let create = || CacheFile::create(&self.shared.path(job.id, is_stream), job.size);
                (self.shared.files().only(job.id, create)?, OVERHEAD)
            }
        };
        let written = match file.write(job.range, &job.bytes, job.keep_for) {
            Ok(written) => written + overhead,
            Err(e) => {
                // What is there of it by now would not be counted.
                self.shared.remove(&mut self.shared.files(), job.id);
                return Err(e);
            }
        };
        self.shared.open.insert(job.id, file);
        self.add(job.id, written, is_stream)
    }

    fn read_through(&self, id: VersionId, number: u32) -> io::Result<()> {
        if let Some(file) = self.shared.open.get(&id) {
            file.look_away(number)?;
        }
        self.add(id, 0, true)
    }

    fn carry(&self, from: VersionId, to: VersionId) -> io::Result<()> {
        let mut files = self.shared.files();
        if !self.shared.usage().has(from) {
            return Ok(());
        }
        self.shared.remove(&mut files, to);
        for is_stream in [false, true] {
            match fs::rename(self.shared.path(from, is_stream), self.shared.path(to, is_stream)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.shared.usage().carry(from, to);
        if let Some(file) = self.shared.open.remove(&from) {
            self.shared.open.insert(to, file);
        }
        if let Some(file) = files.0.remove(&from) {
            files.0.insert(to, file);
        }
        Ok(())
    }

    /// So many bytes more of an object are there.
    fn add(&self, id: VersionId, bytes: u64, is_stream: bool) -> io::Result<()> {
        if bytes == 0 && !self.shared.usage().has(id) {
            return Ok(());
        }
        let _names_change = self.shared.files();
        if self.shared.usage().add(id, bytes, is_stream, now()) {
            let (from, to) = (self.shared.path(id, false), self.shared.path(id, true));
            match fs::rename(from, to) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what goes first until the job fits. `false` if it does not fit.
    fn make_room(&mut self, job: &Fetched) -> bool {
        let (more, size) = (job.range.len(), self.shared.settings.size);
        loop {
            let usage = self.shared.usage();
            let next = usage.next_to_go(more, size, job.id);
            let fits = usage.bytes() + more <= size;
            drop(usage);
            match next {
                Some(id) => drop(self.shared.shrink(id)),
                None if fits => return self.leaves_enough_free(job.id),
                None => return false,
            }
        }
    }

    /// Whether the file system has room left, if need be after removing some.
    fn leaves_enough_free(&mut self, keep: VersionId) -> bool {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now < at + LOOK) {
            return true;
        }
        let size = self.shared.settings.size;
        // Counted once: what is removed may be open still, and is free only later.
        let mut missing = self.shared.settings.keep_free.saturating_sub(free_space(&self.shared.settings.dir));
        let is_enough = missing == 0;
        self.looked_at = Some(now);
        while missing > 0 {
            let next = self.shared.usage().first_to_go(size, keep);
            let Some(id) = next else { break };
            missing = missing.saturating_sub(self.shared.shrink(id).max(1));
        }
        is_enough
    }
}

/// Bytes that are free for us on a file system; as many as can be if that cannot be told.
fn free_space(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()))
}

fn now() -> u64 {
    stamp(SystemTime::now())
}

/// Nanoseconds since the epoch: later is larger.
fn stamp(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use futures::FutureExt;

    #[test]
    fn unless_somebody_says_otherwise_it_is_ten_gib_or_a_tenth_of_what_is_free() {
        const GIB: u64 = 1 << 30;
        let dir = tempfile::tempdir().unwrap();
        let (fit, free) = (DiskSettings::default_in(dir.path().join("cache")), free_space(dir.path()));
        // Others use that disk as well.
        assert!(fit.size.abs_diff((free / 10).min(10 * GIB)) <= free / 20, "{} of {free}", fit.size);
        assert!(fit.size <= 10 * GIB && fit.keep_free <= GIB);
    }

    /// What is taken away of a file is taken away for all who have it open, whoever has opened it when.
    #[tokio::test]
    async fn nobody_reads_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let settings = DiskSettings { dir: dir.path().to_owned(), size: 10 << 20, keep_free: 0 };
        let cache = DiskCache::open(settings, 10 << 20).unwrap();
        let (id, size) = (VersionId::from_number(7), 3 << 20);
        let (all, body) = (ByteRange::new(0, size).unwrap(), Bytes::from(vec![7; 3 << 20]));
        cache.keep(id, size, all, &body, KeepFor::Stream);
        cache.settle();
        let file = cache.file(id, size).await.unwrap();
        let read = async |file: &Arc<CacheFile>, at: u64| {
            let buffer = Budget::new(0).reserve(0).now_or_never().unwrap().buffer(1 << 20);
            DiskCache::read(Arc::clone(file), ByteRange::at(at, 1 << 16).unwrap(), buffer, at == 0).await
        };
        assert_eq!((read(&file, 0).await.unwrap().len(), read(&file, 1 << 20).await.unwrap()[5]), (1 << 16, 7));
        // As if many others had been opened since.
        cache.shared.open.invalidate_all();
        cache.shared.open.run_pending_tasks();
        assert!(cache.shared.shrink(id) >= 2 << 20);
        assert_eq!((read(&file, 0).await.unwrap()[5], read(&file, 1 << 20).await), (7, None));
        let again = cache.file(id, size).await.unwrap();
        assert_eq!((read(&again, 0).await.unwrap()[5], read(&again, 1 << 20).await), (7, None));
        assert!(cache.bytes() < 1 << 20 && cache.bytes() >= 1 << 16);
        let before = cache.bytes();
        cache.keep(id, size, all, &body, KeepFor::Look);
        cache.settle();
        assert_eq!(read(&file, 1 << 20).await.unwrap()[5], 7);
        assert!(cache.bytes() > before + (2 << 20));
    }
}
