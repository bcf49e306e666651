//! Who watches what.
//!
//! Owns: finding inotify marks on a mount's inodes in /proc/PID/fdinfo (proc_pid_fdinfo(5)): the kernel tells a file system
//! nothing of them. Root sees every process of its namespace, others see their own.
//! Does not own: what is done about them (`fs::events`).

use crate::types::Ino;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// What a descriptor of inotify is a link to.
const INOTIFY: &str = "anon_inode:inotify";

/// The inodes of the file system `dev` (as stat(2) names it) that somebody watches.
pub(super) fn watched(dev: u64) -> HashSet<Ino> {
    let mut found = HashSet::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        if is_number(&process.file_name()) {
            add_watched_by(&process.path(), dev, &mut found);
        }
    }
    found
}

/// Processes that end meanwhile, or that we may not look at, watch nothing.
fn add_watched_by(process: &Path, dev: u64, found: &mut HashSet<Ino>) {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
    for descriptor in descriptors.flatten() {
        if !fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == INOTIFY) {
            continue;
        }
        let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()));
        found.extend(info.iter().flat_map(|text| marks(text, dev)));
    }
}

fn is_number(name: &OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The inodes of `dev` in a text of fdinfo: `inotify wd:1 ino:2 sdev:27 mask:fff ...`, numbers in hexadecimal. Pure.
fn marks(text: &str, dev: u64) -> impl Iterator<Item = Ino> + '_ {
    let sdev = kernel_dev(dev);
    text.lines().filter_map(move |line| {
        let fields = line.strip_prefix("inotify ")?;
        let field = |name: &str| {
            let value = fields.split(' ').find_map(|field| field.strip_prefix(name))?;
            u64::from_str_radix(value, 16).ok()
        };
        (field("sdev:")? == sdev).then_some(Ino(field("ino:")?))
    })
}

/// A device number as the kernel keeps it (`MKDEV`, include/linux/kdev_t.h), which fdinfo shows as it is.
fn kernel_dev(dev: u64) -> u64 {
    u64::from(libc::major(dev)) << 20 | u64::from(libc::minor(dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_other_file_systems_and_other_lines_do_not_count() {
        let text = "pos:\t0\nflags:\t02000000\ninotify wd:2 ino:1f sdev:27 mask:fc6 ignored_mask:0 fhandle-bytes:8\n\
            inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0\ninotify wd:3 ino:x sdev:27\ninotify wd:4\n";
        let dev = libc::makedev(0, 0x27);
        assert_eq!(marks(text, dev).collect::<Vec<_>>(), [Ino(0x1f)]);
        assert_eq!(marks(text, libc::makedev(8, 0x13)).collect::<Vec<_>>(), [Ino(0x9e7e)]);
    }

    #[test]
    fn our_own_watch_is_found() {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().metadata().unwrap();
        assert!(!watched(meta.dev()).contains(&Ino(meta.ino())));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        inotify.add_watch(dir.path(), AddWatchFlags::IN_CREATE).unwrap();
        assert!(watched(meta.dev()).contains(&Ino(meta.ino())));
    }
}
