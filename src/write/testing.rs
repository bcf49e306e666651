//! A disk for tests, whose files are written and synced while a gate is open, and what files have.
//!
//! Owns: the gate and the disk behind it. Does not own: files (`disk`).

use super::{DirDisk, Disk, DiskFile};
use crate::types::ByteRange;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Lets nobody through while it is closed, but for so long: a test that fails is to end.
const CLOSED_MAX: Duration = Duration::from_secs(30);

/// The first bytes of a file.
pub(super) fn bytes(file: &dyn DiskFile, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![1; len];
    file.read_at(&mut buffer, 0)?;
    Ok(buffer)
}

/// What writes and syncs go through. It is open until somebody closes it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
    is_reached: AtomicBool,
    is_failing: AtomicBool,
}

impl Gate {
    /// Closes or opens it.
    pub(crate) fn set_closed(&self, closed: bool) {
        self.is_reached.store(false, Ordering::SeqCst);
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        self.opened.notify_all();
    }

    /// Whether syncs fail from now on.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.is_failing.store(failing, Ordering::SeqCst);
    }

    /// Whether somebody has come to it since it was closed.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::SeqCst)
    }

    /// Waits until somebody has.
    pub(crate) async fn reached(&self) {
        while !self.is_reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn pass(&self) {
        let closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            self.is_reached.store(true, Ordering::SeqCst);
        }
        drop(self.opened.wait_timeout_while(closed, CLOSED_MAX, |closed| *closed));
    }
}

/// A directory behind a gate.
#[derive(Debug)]
pub(crate) struct Gated {
    disk: DirDisk,
    gate: Arc<Gate>,
}

impl Gated {
    /// `disk` behind `gate`.
    pub(crate) fn new(disk: DirDisk, gate: &Arc<Gate>) -> Gated {
        Gated { disk, gate: Arc::clone(gate) }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile { file, gate: Arc::clone(&self.gate), has_lost: AtomicBool::new(false) })
    }
}

impl Disk for Gated {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
    has_lost: AtomicBool,
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass();
        self.file.write_at(bytes, offset)
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.file.punch(range)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.has_lost.fetch_or(self.gate.is_failing.load(Ordering::SeqCst), Ordering::SeqCst);
        if self.has_lost() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.sync_data()
    }

    fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::SeqCst)
    }
}
