//! A full disk under the state directory: whoever writes hears of it, and nobody else suffers.
//!
//! Owns: a small disk for one mount. Root only: it takes a tmpfs. Does not own: other failures (`faults`).

use crate::programs::{eventually, noise};
use crate::world::{World, is_root, unmount_lazily};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A file system of 16 MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where even root may not mount.
    fn at(path: PathBuf) -> Option<SmallDisk> {
        fs::create_dir(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=16m,mode=0755", "objfs-test"];
        let status = Command::new("mount").args(options).arg(&path).status().unwrap();
        status.success().then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount_lazily(&self.0);
    }
}

/// Writes as long as that goes; the answers of the last write and of close.
fn fill(path: PathBuf, len: usize) -> (io::Result<()>, io::Result<()>) {
    let mut file = File::create(path).unwrap();
    let piece = noise(3, 1 << 20);
    let written = (0..len / piece.len()).try_for_each(|_| file.write_all(&piece));
    (written, nix::unistd::close(file).map_err(io::Error::from))
}

#[test]
fn a_full_disk_is_told_and_passes() {
    if !is_root() {
        println!("runs as root only");
        return;
    }
    let world = World::new();
    let Some(disk) = SmallDisk::at(world.path("disk")) else {
        println!("no tmpfs can be mounted here");
        return;
    };
    let state = format!("state_dir={}", disk.0.join("state").display());
    let mount = world.mount("m", "us-east-1", &[&state, "cache_size=0"], Duration::from_secs(100));
    let client = world.client("us-east-1");
    let (before, after) = (noise(1, 2 << 20), noise(2, 3 << 20));
    mount.write("before", &before).unwrap();

    let (written, closed) = fill(mount.at("too-large"), 64 << 20);
    println!("write: {written:?}, close: {closed:?}");
    let errnos: Vec<i32> = [&written, &closed].into_iter().filter_map(|r| r.as_ref().err()?.raw_os_error()).collect();
    assert!(!errnos.is_empty(), "64 MiB went onto a disk of 16 MiB, and nobody said a word");
    assert!(errnos.iter().all(|errno| *errno == libc::ENOSPC), "{written:?} {closed:?}\n{}", mount.log());
    assert!(fs::read(mount.at("before")).unwrap() == before, "what was acknowledged before is shown");
    assert!(client.get("before") == before, "and is in the bucket");

    fs::remove_file(mount.at("too-large")).unwrap_or_else(|e| panic!("the room cannot be given back: {e}"));
    mount.write("after", &after).unwrap_or_else(|e| panic!("there is room again: {e}\n{}", mount.log()));
    assert!(client.get("after") == after && fs::read(mount.at("after")).unwrap() == after);
    assert_eq!(client.keys(), ["after", "before"]);
    eventually("nothing is pending", || (mount.status()["pending"]["files"] == 0).then_some(()));
}
