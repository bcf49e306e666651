//! One daemon per bucket and prefix on a machine.
//!
//! Owns: the lock on a state folder, and waiting for a predecessor that is unmounted but still uploads.
//! Does not own: what is in the folder.

use super::failure::{FailureKind, MountFailure};
use super::mounts;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a new mount waits for its predecessor to finish uploading.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(30);

/// The lock on a state folder, held for the life of a mount.
#[derive(Debug)]
pub(super) struct StateLock(Flock<File>);

impl StateLock {
    /// Takes the lock of `folder` for a mount at `mountpoint`.
    pub(super) fn take(folder: &Path, mountpoint: &Path) -> Result<StateLock, MountFailure> {
        let path = folder.join("lock");
        let deadline = Instant::now() + PREDECESSOR_WAIT;
        let mut file = open(&path)?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return StateLock(lock).note(&path, mountpoint),
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
                Err((_, e)) => return Err(MountFailure::state(&path, e.desc())),
            };
            let holder = holder_of(&mut file);
            if let Some(other) = holder.as_ref().filter(|m| mounts::is_mounted(m)) {
                let message = format!("this bucket and prefix is mounted at {} already", other.display());
                return Err(MountFailure::new(FailureKind::Busy, message));
            }
            if Instant::now() >= deadline {
                let message = "an earlier mount of this bucket still uploads: wait until it is done, or see its log";
                return Err(MountFailure::new(FailureKind::Busy, message));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn note(mut self, path: &Path, mountpoint: &Path) -> Result<StateLock, MountFailure> {
        let fail = |e: std::io::Error| MountFailure::state(path, e);
        self.0.set_len(0).map_err(fail)?;
        self.0.rewind().map_err(fail)?;
        use std::os::unix::ffi::OsStrExt;
        self.0.write_all(mountpoint.as_os_str().as_bytes()).map_err(fail)?;
        Ok(self)
    }
}

fn open(path: &Path) -> Result<File, MountFailure> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| MountFailure::state(path, e))
}

fn holder_of(file: &mut File) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    file.rewind().ok()?;
    file.read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}
