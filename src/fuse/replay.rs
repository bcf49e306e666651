//! The thread that does changes made elsewhere again, on the mount, by ordinary system calls.
//!
//! Owns: the thread, its system calls, the way into the mount (also into one that is mounted read-only), looking for
//! watchers every second or so. Does not own: what is replayed and how its requests are answered (`fs::events`).
//!
//! A replay takes the same locks of the kernel as any system call on the mount, so it waits for operations under way in its
//! directory. Nobody waits for it: requests are answered without it, and it holds no lock of ours while it calls.

use super::{readahead, watchers};
use crate::fs::{Act, Events, Fs, Replay, Replayed, Step};
use crate::types::{FileKind, Ino, Name};
use fuser::{INodeNo, Notifier};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, gettid, symlinkat, unlinkat};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often watchers are looked for, at least and at most.
const SCAN_MIN: Duration = Duration::from_secs(1);
const SCAN_MAX: Duration = Duration::from_secs(30);
/// Of the time of one processor, what looking for watchers may take: one part in so many.
const SCAN_SHARE: u32 = 200;
/// How long whoever watches recursively has to watch a new directory too, before what is in it is replayed.
const TO_WATCH: Duration = Duration::from_millis(50);
/// How long the event of a new directory is waited for.
const TO_APPEAR: Duration = Duration::from_secs(1);

/// The thread's end of the queue.
struct Replayer {
    fs: Weak<Fs>,
    notifier: Notifier,
    mountpoint: PathBuf,
    dev: u64,
    queue: mpsc::Receiver<Replay>,
}

/// Starts the thread; it ends when the sender is dropped. The number is the mount's device, once that is known.
///
/// # Errors
/// No thread.
pub(super) fn start(
    fs: &Arc<Fs>,
    notifier: Notifier,
    mountpoint: &Path,
) -> io::Result<(mpsc::Sender<Replay>, Arc<OnceLock<u64>>)> {
    let (sender, queue) = mpsc::channel();
    let (fs, mountpoint) = (Arc::downgrade(fs), mountpoint.to_owned());
    let dev = Arc::new(OnceLock::new());
    let known = Arc::clone(&dev);
    thread::Builder::new().name("replay".to_owned()).spawn(move || {
        // Answered once the session runs.
        match std::fs::symlink_metadata(&mountpoint) {
            Ok(root) => {
                let dev = *known.get_or_init(|| root.dev());
                readahead::raise(dev);
                Replayer { fs, notifier, mountpoint, dev, queue }.run();
            }
            Err(e) => tracing::warn!(error = %e, "changes made elsewhere raise no events"),
        }
    })?;
    Ok((sender, dev))
}

impl Replayer {
    fn run(self) {
        let Some(events) = self.fs.upgrade().map(|fs| {
            fs.set_replaying_thread(u32::try_from(gettid().as_raw()).unwrap_or(0));
            fs.events()
        }) else {
            return;
        };
        let mut pause = SCAN_MIN;
        let mut scan_at = Instant::now();
        loop {
            match self.queue.recv_timeout(scan_at.saturating_duration_since(Instant::now())) {
                Ok(first) => self.batch(first),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if events == Events::Auto {
                        pause = self.scan(&HashSet::new());
                    }
                    scan_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Looks who watches, and answers how long that is good for.
    fn scan(&self, settled: &HashSet<Ino>) -> Duration {
        let Some(fs) = self.fs.upgrade() else { return SCAN_MAX };
        if !fs.may_be_watched() {
            return SCAN_MIN;
        }
        let began = Instant::now();
        fs.watching(watchers::watched(self.dev), settled);
        (began.elapsed() * SCAN_SHARE).clamp(SCAN_MIN, SCAN_MAX)
    }

    /// Replays until nothing is left to do. The way into the mount is kept for as long only: it keeps the mount alive.
    fn batch(&self, first: Replay) {
        let root = self.way_in();
        if let Err(e) = &root {
            tracing::debug!(error = %e, "no way into the mount: changes are told without events");
        }
        let root = root.ok();
        let mut ready = VecDeque::from([first]);
        // What is in directories that have just appeared, and when those did.
        let mut waiting: Vec<(Instant, Replay)> = Vec::new();
        let mut made: HashMap<Ino, Instant> = HashMap::new();
        loop {
            ready.extend(self.queue.try_iter());
            let Some(fs) = self.fs.upgrade() else { return };
            let Some(replay) = ready.pop_front() else {
                if waiting.is_empty() {
                    return;
                }
                ready = self.settle(&fs, &mut waiting, &made);
                continue;
            };
            if root.is_some() && fs.waits_for_watchers(&replay).is_some() {
                waiting.push((Instant::now(), replay));
                continue;
            }
            let new_dir = self.replay(&fs, root.as_ref(), replay);
            made.extend(new_dir.map(|dir| (dir, Instant::now())));
        }
    }

    /// Waits for those who watch recursively to watch the new directories that are due, and answers what is in those.
    fn settle(&self, fs: &Fs, waiting: &mut Vec<(Instant, Replay)>, made: &HashMap<Ino, Instant>) -> VecDeque<Replay> {
        let due = |since: &Instant, replay: &Replay| {
            let dir = fs.waits_for_watchers(replay)?;
            Some((dir, made.get(&dir).map_or(*since + TO_APPEAR, |at| *at + TO_WATCH)))
        };
        let now = Instant::now();
        let mut settled = HashSet::new();
        let mut next = now + TO_APPEAR;
        for (since, replay) in waiting.iter() {
            match due(since, replay) {
                Some((dir, at)) if at <= now => drop(settled.insert(dir)),
                Some((_, at)) => next = next.min(at),
                None => next = now,
            }
        }
        if settled.is_empty() {
            thread::sleep(next.saturating_duration_since(now));
        } else if fs.events() == Events::Auto {
            self.scan(&settled);
        } else {
            fs.watching(HashSet::new(), &settled);
        }
        let (ready, rest) = std::mem::take(waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, replay)| fs.waits_for_watchers(replay).is_none());
        *waiting = rest;
        ready.into_iter().map(|(_, replay)| replay).collect()
    }

    /// One replay, or what does in its place. Answers the directory that it made.
    fn replay(&self, fs: &Fs, root: Option<&OwnedFd>, replay: Replay) -> Option<Ino> {
        let step = fs.begin_replay(&replay);
        let (Some(step), Some(root)) = (step, root) else {
            fs.end_replay(&replay, Ok(()));
            self.forget(&replay);
            return None;
        };
        if let Act::Touch(ino) = step.act {
            // The pages of the old version go before anybody hears that there is a new one.
            self.told(self.notifier.inval_inode(INodeNo(ino.0), 0, 0));
        }
        let made = matches!(step.act, Act::Create(FileKind::Dir, _)).then(|| fs.ino_of(&replay)).flatten();
        match fs.end_replay(&replay, perform(root, &step).map_err(io::Error::from)) {
            Replayed::Done => {}
            Replayed::Instead(other) => return self.replay(fs, Some(root), other),
            Replayed::Not => self.forget(&replay),
        }
        made
    }

    /// Without an event: the kernel looks again.
    fn forget(&self, replay: &Replay) {
        for (parent, name) in replay.names() {
            self.told(self.notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes())));
            self.told(self.notifier.inval_inode(INodeNo(parent.0), -1, 0));
        }
    }

    /// ENOENT: the kernel knows nothing of it, which is as good.
    fn told(&self, result: io::Result<()>) {
        if let Err(e) = result
            && e.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::debug!(error = %e, "the kernel could not be told");
        }
    }

    /// The root of the mount, and of no other that may be at its place by now. Root gets a mount of its own that nobody sees,
    /// so that an unmount does not find this one in use, and that can be written to where the visible one is read-only.
    fn way_in(&self) -> io::Result<OwnedFd> {
        let root = match clone_of(&self.mountpoint) {
            Ok(root) => root,
            Err(_) => nix::fcntl::open(
                &self.mountpoint,
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?,
        };
        if fstat(root.as_fd())?.st_dev == self.dev {
            Ok(root)
        } else {
            Err(io::Error::other("it is not mounted any more"))
        }
    }
}

/// Does it.
fn perform(root: &OwnedFd, step: &Step) -> nix::Result<()> {
    let (dir, name) = (walk(root, &step.dir)?, os(&step.name));
    match &step.act {
        Act::Create(kind, perm) => create(&dir, name, *kind, Mode::from_bits_truncate(u32::from(*perm))),
        Act::Touch(_) => {
            let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = openat(&dir, name, flags, Mode::empty())?;
            // The time does not matter: the answer carries the true one.
            futimens(&file, &TimeSpec::UTIME_OMIT, &TimeSpec::UTIME_NOW)
        }
        Act::Remove(FileKind::Dir) => unlinkat(&dir, name, UnlinkatFlags::RemoveDir),
        Act::Remove(_) => unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir),
        Act::Rename { to_dir, to } => renameat(&dir, name, walk(root, to_dir)?, os(to)),
    }
}

fn create(dir: &OwnedFd, name: &OsStr, kind: FileKind, mode: Mode) -> nix::Result<()> {
    let node = |kind: SFlag| mknodat(dir, name, kind, mode, 0);
    match kind {
        FileKind::Dir => mkdirat(dir, name, mode),
        FileKind::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(dir, name, flags, mode).map(drop)
        }
        // Where it leads is answered by READLINK.
        FileKind::Symlink => symlinkat(".", dir, name),
        FileKind::Fifo => node(SFlag::S_IFIFO),
        FileKind::Socket => node(SFlag::S_IFSOCK),
        FileKind::CharDevice => node(SFlag::S_IFCHR),
        FileKind::BlockDevice => node(SFlag::S_IFBLK),
    }
}

/// The directory at `path`, name by name: together they may be longer than PATH_MAX, and none may be a symbolic link.
fn walk(root: &OwnedFd, path: &[Name]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = openat(root, ".", flags, Mode::empty())?;
    for name in path {
        dir = openat(&dir, os(name), flags, Mode::empty())?;
    }
    Ok(dir)
}

fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

/// `struct mount_attr`, include/uapi/linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_ns: u64,
}

/// A mount of the same file system that is attached nowhere, and not read-only (open_tree(2), mount_setattr(2)). Root only.
#[expect(unsafe_code, reason = "no crate here has these two system calls")]
fn clone_of(mountpoint: &Path) -> nix::Result<OwnedFd> {
    /// include/uapi/linux/mount.h
    const OPEN_TREE_CLONE: libc::c_int = 1;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let path = std::ffi::CString::new(mountpoint.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
    // SAFETY: the path is a C string that outlives the call; the kernel answers a new descriptor or an error.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    let tree = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::EBADF)?) };
    let attr = MountAttr { clear: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    // SAFETY: the descriptor is open, the path is an empty C string, and `attr` is as long as is said.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            std::os::fd::AsRawFd::as_raw_fd(&tree),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(set)?;
    Ok(tree)
}
