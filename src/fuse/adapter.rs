//! `impl fuser::Filesystem`: each request becomes one call on `Fs`.
//!
//! Owns: decoding and replying. Does not own: tasks (`task`), decisions; nothing here is longer than a line of thought.

use super::interrupt::InFlight;
use super::readdir::{LISTED_STILL, Plus, WHOLE};
use super::reply;
use super::session::SessionSettings;
use super::walkers::Walkers;
use crate::fs::{Caller, Fs, FsError, Looked, SetAttr, SetTime};
use crate::types::{Fh, Ino, Name, Timestamp};
use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    settings: SessionSettings,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) walkers: Walkers,
}

impl Adapter {
    pub(super) fn new(fs: Arc<Fs>, settings: SessionSettings, runtime: tokio::runtime::Handle) -> io::Result<Adapter> {
        Ok(Adapter { fs, settings, runtime, in_flight: InFlight::start()?, walkers: Walkers::default() })
    }
}

impl Adapter {
    /// The file system, if our own thread asks that does changes made elsewhere again.
    fn replayed(&self, request: &Request) -> Option<&Fs> {
        self.fs.is_replay(request.pid()).then_some(&*self.fs)
    }

    fn replayed_creation(
        &self,
        request: &Request,
        parent: INodeNo,
        file: &OsStr,
    ) -> Option<Result<crate::fs::Entry, FsError>> {
        let fs = self.replayed(request)?;
        Some(name(file).and_then(|file| fs.replayed_creation(ino(parent), &file)))
    }

    fn replayed_removal(&self, request: &Request, parent: INodeNo, file: &OsStr) -> Option<Result<(), FsError>> {
        let fs = self.replayed(request)?;
        Some(name(file).and_then(|file| fs.replayed_removal(ino(parent), &file)))
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), tid: request.pid() }
}

pub(super) fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

fn name(name: &OsStr) -> Result<Name, FsError> {
    Ok(Name::parse(name.as_bytes())?)
}

fn time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(Timestamp::from_system(at)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.settings.configure(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, file: &OsStr, reply: ReplyEntry) {
        if let Some(fs) = self.replayed(request) {
            let found = name(file).and_then(|file| fs.replayed_lookup(ino(parent), &file)?.ok_or(FsError::NotFound));
            return reply::to_entry("lookup", reply)(found);
        }
        self.walkers.on_lookup(request.pid(), ino(parent));
        // A task costs more than the catalogue takes to answer.
        let _within = self.runtime.enter();
        match name(file).and_then(|file| self.fs.lookup_known(ino(parent), &file)) {
            Ok(Looked::Known(entry)) => reply::to_entry("lookup", reply)(entry.ok_or(FsError::NotFound)),
            Ok(Looked::Asks(question)) => {
                let fs = Arc::clone(&self.fs);
                let work = async move { fs.lookup_asking(question).await?.ok_or(FsError::NotFound) };
                self.spawn(request, work, reply::to_entry("lookup", reply));
            }
            Err(e) => reply::to_entry("lookup", reply)(Err(e)),
        }
    }

    fn forget(&self, _request: &Request, inode: INodeNo, _lookups: u64) {
        // Counts do not matter: what we remember of an inode only spares work.
        self.fs.forget(ino(inode));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let known = match self.replayed(request) {
            Some(fs) => fs.replayed_attr(ino(inode)),
            None => self.fs.getattr(ino(inode)),
        };
        reply::to_attr("getattr", reply)(known);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(fs) = self.replayed(request) {
            return reply::to_attr("setattr", reply)(fs.replayed_attr(ino(inode)));
        }
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let work = async move { fs.setattr(caller, ino(inode), set, fh.is_some()).await };
        self.spawn(request, work, reply::to_attr("setattr", reply));
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.readlink(ino(inode)).await };
        self.spawn(request, work, move |outcome| match outcome {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(reply::errno("readlink", &e)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        file: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        if let Some(made) = self.replayed_creation(request, parent, file) {
            return reply::to_entry("mknod", reply)(made);
        }
        let (fs, caller, file) = (Arc::clone(&self.fs), caller(request), name(file));
        let work = async move { fs.mknod(caller, ino(parent), file?, mode, rdev).await };
        self.spawn(request, work, reply::to_entry("mknod", reply));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, dir: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        if let Some(made) = self.replayed_creation(request, parent, dir) {
            return reply::to_entry("mkdir", reply)(made);
        }
        let (fs, caller, dir) = (Arc::clone(&self.fs), caller(request), name(dir));
        let work = async move { fs.mkdir(caller, ino(parent), dir?, mode).await };
        self.spawn(request, work, reply::to_entry("mkdir", reply));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, file: &OsStr, reply: ReplyEmpty) {
        if let Some(gone) = self.replayed_removal(request, parent, file) {
            return reply::to_empty("unlink", reply)(gone);
        }
        let (fs, file) = (Arc::clone(&self.fs), name(file));
        let work = async move { fs.unlink(ino(parent), file?).await };
        self.spawn(request, work, reply::to_empty("unlink", reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, dir: &OsStr, reply: ReplyEmpty) {
        if let Some(gone) = self.replayed_removal(request, parent, dir) {
            return reply::to_empty("rmdir", reply)(gone);
        }
        let (fs, dir) = (Arc::clone(&self.fs), name(dir));
        let work = async move { fs.rmdir(ino(parent), dir?).await };
        self.spawn(request, work, reply::to_empty("rmdir", reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link: &OsStr, target: &Path, reply: ReplyEntry) {
        if let Some(made) = self.replayed_creation(request, parent, link) {
            return reply::to_entry("symlink", reply)(made);
        }
        let (fs, caller, link) = (Arc::clone(&self.fs), caller(request), name(link));
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        let work = async move { fs.symlink(caller, ino(parent), link?, target).await };
        self.spawn(request, work, reply::to_entry("symlink", reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        from: &OsStr,
        new_parent: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if let Some(gone) = self.replayed_removal(request, parent, from) {
            return reply::to_empty("rename", reply)(gone);
        }
        let (fs, from, to) = (Arc::clone(&self.fs), name(from), name(to));
        let work = async move {
            if flags.bits() & !libc::RENAME_NOREPLACE != 0 {
                return Err(FsError::Invalid);
            }
            let no_replace = flags.bits() & libc::RENAME_NOREPLACE != 0;
            fs.rename((ino(parent), from?), (ino(new_parent), to?), no_replace).await
        };
        self.spawn(request, work, reply::to_empty("rename", reply));
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(reply::errno("link", &FsError::Impossible));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Some(fs) = self.replayed(request) {
            let opened = fs.replayed_open();
            return reply.opened(FileHandle(opened.fh.0), reply::open_flags(opened, false));
        }
        let (fs, caller, flags) = (Arc::clone(&self.fs), caller(request), flags.0);
        let noflush = self.settings.allows("noflush");
        let work = async move { fs.open(caller, ino(inode), flags).await };
        self.spawn(request, work, move |outcome| match outcome {
            Ok(opened) => reply.opened(FileHandle(opened.fh.0), reply::open_flags(opened, noflush)),
            Err(e) => reply.error(reply::errno("open", &e)),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        file: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if let Some(made) = self.replayed_creation(request, parent, file) {
            return reply::to_created(reply, made.map(|entry| (entry, self.fs.replayed_open())), false);
        }
        let (fs, caller, parent) = (Arc::clone(&self.fs), caller(request), ino(parent));
        let noflush = self.settings.allows("noflush");
        let answer = move |outcome| reply::to_created(reply, outcome, noflush);
        let file = match name(file) {
            Ok(file) => file,
            Err(e) => return answer(Err(e)),
        };
        let (looks, looked_for) = (Arc::clone(&self.fs), file.clone());
        let look = async move { looks.look_before_create(parent, &looked_for, flags).await };
        // Not interrupted: a handle that nobody was told of would never be released.
        let work = async move { fs.create(caller, parent, file, mode, flags).await };
        self.spawn_after(request, look, work, answer);
    }

    fn read(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.read(Fh(fh.0), offset, size).await };
        self.spawn_read(request, flags.0, work, move |outcome| match outcome {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(reply::errno("read", &e)),
        });
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let answer = move |outcome: Result<(), FsError>| match outcome {
            Ok(()) => reply.written(len),
            Err(e) => reply.error(reply::errno("write", &e)),
        };
        // Pages of a mapping come by the handle that was mapped, whatever it was opened with, and know their place
        // (fs/fuse/file.c, fuse_writepages).
        let is_from_pages = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let at_end = flags.0 & libc::O_APPEND != 0 && !is_from_pages;
        let offset = if at_end { None } else { Some(offset) };
        let kill_suid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if let Some(outcome) = self.fs.write_staged(Fh(fh.0), offset, data, kill_suid) {
            return answer(outcome);
        }
        let (fs, data) = (Arc::clone(&self.fs), Bytes::copy_from_slice(data));
        let work = async move { fs.write(Fh(fh.0), offset, &data, kill_suid).await };
        self.spawn(request, work, answer);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.copy_range((Fh(fh_in.0), offset_in), (Fh(fh_out.0), offset_out), len).await };
        self.spawn(request, work, move |outcome| match outcome {
            Ok(Some(len)) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
            // The kernel then reads and writes (fs/fuse/file.c, fuse_copy_file_range).
            Ok(None) => reply.error(Errno::EOPNOTSUPP),
            Err(e) => reply.error(reply::errno("copy_file_range", &e)),
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let work = async move { fs.fallocate(caller, Fh(fh.0), offset, length, mode).await };
        // What the journal counts on may have to be copied first.
        self.spawn_waiting(request, work, reply::to_empty("fallocate", reply));
    }

    fn lseek(&self, request: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.seek(Fh(fh.0), offset, whence).await };
        self.spawn(request, work, move |outcome| match outcome {
            Ok(place) => reply.offset(i64::try_from(place).unwrap_or(i64::MAX)),
            Err(e) => reply.error(reply::errno("lseek", &e)),
        });
    }

    fn flush(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if self.replayed(request).is_some() {
            return reply.ok();
        }
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let work = async move { fs.flush(caller, Fh(fh.0)).await };
        self.spawn(request, work, reply::to_empty("close", reply));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let fs = Arc::clone(&self.fs);
        let work = async move {
            fs.release(Fh(fh.0)).await;
            Ok(())
        };
        self.spawn_whole(work, reply::to_empty("release", reply));
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.fsync(Fh(fh.0)).await };
        self.spawn(request, work, reply::to_empty("fsync", reply));
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.opendir(ino(inode)).await };
        self.spawn(request, work, move |outcome| match outcome {
            Ok(is_whole) => reply.opened(if is_whole { WHOLE } else { LISTED_STILL }, FopenFlags::empty()),
            Err(e) => reply.error(reply::errno("opendir", &e)),
        });
    }

    fn readdir(&self, request: &Request, inode: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.read_dir(request, inode, fh, offset, reply);
    }

    fn readdirplus(&self, request: &Request, inode: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let buffer = Plus::new(reply, self, request.pid(), ino(inode), offset);
        self.read_dir(request, inode, fh, offset, buffer);
    }

    fn fsyncdir(&self, request: &Request, inode: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.fsyncdir(ino(inode)).await };
        self.spawn(request, work, reply::to_empty("fsyncdir", reply));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        // A bucket has no end; this is what df shows of one.
        const TOTAL: u64 = (1 << 50) / BLOCK as u64;
        match self.fs.statfs() {
            Ok(now) => {
                let free = TOTAL.saturating_sub(now.used.div_ceil(u64::from(BLOCK)));
                let files = u64::from(u32::MAX);
                reply.statfs(TOTAL, free, free, files, files.saturating_sub(now.files), BLOCK, 255, BLOCK);
            }
            Err(e) => reply.error(reply::errno("statfs", &e)),
        }
    }

    fn access(&self, _request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks mode bits (default_permissions); what it cannot know is that we are read-only.
        match self.fs.getattr(ino(inode)) {
            Ok(_) if mask.contains(AccessFlags::W_OK) && self.fs.is_read_only() => reply.error(Errno::EROFS),
            Ok(_) => reply.ok(),
            Err(e) => reply.error(reply::errno("access", &e)),
        }
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, attribute: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, attribute) = (Arc::clone(&self.fs), attribute.as_bytes().to_vec());
        let work = async move { fs.getxattr(ino(inode), &attribute).await };
        self.spawn(request, work, reply::to_xattr("getxattr", size, reply));
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.listxattr(ino(inode)).await };
        self.spawn(request, work, reply::to_xattr("listxattr", size, reply));
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        attribute: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (fs, attribute, value) = (Arc::clone(&self.fs), attribute.as_bytes().to_vec(), value.to_vec());
        let work = async move { fs.setxattr(ino(inode), attribute, value, flags).await };
        self.spawn(request, work, reply::to_empty("setxattr", reply));
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        let (fs, attribute) = (Arc::clone(&self.fs), attribute.as_bytes().to_vec());
        let work = async move { fs.removexattr(ino(inode), attribute).await };
        self.spawn(request, work, reply::to_empty("removexattr", reply));
    }
}
