//! How far the kernel reads ahead in the mount.
//!
//! Owns: raising it where we may. Does not own: what the kernel is offered at INIT (`session`).
//!
//! The kernel takes no more than 128 KiB from INIT (fs/fuse/inode.c, process_init_reply), and READs are not larger than that
//! then. Root may say more afterwards: READs of 1 MiB take half the time of the processor for the same bytes.

use std::fs;

/// The largest READ. More makes the faults of mapped files read too much.
pub const KIB: u32 = 1024;

/// Raises the read-ahead of the mount on device `dev`, once the kernel has taken our answer to INIT.
pub(super) fn raise(dev: u64) {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", libc::major(dev), libc::minor(dev));
    match fs::write(&path, KIB.to_string()) {
        Ok(()) => tracing::debug!(path, KIB, "the kernel reads ahead"),
        Err(e) => {
            tracing::info!(path, error = %e, "the kernel reads ahead by 128 KiB only: root may write {KIB} there");
        }
    }
}
