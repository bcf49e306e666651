//! Files far larger than memory, and buckets of many. In the full run only: they take minutes, and as much room on the disk as
//! they are large.

use crate::common::{DAEMON_MEMORY, Store, is_full_run, noise, output_of};
use objfs::devserver::{Settings, Storage, Synthetic};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

const SIZE: u64 = 20 << 30;
/// What of the file is not zero: a piece at each multiple of the step.
const STEP: u64 = 64 << 20;
const PIECE: usize = 1 << 20;
/// `memory=`, in MiB.
const MEMORY: u64 = 128;

/// As `rsync --sparse` and `cp --sparse=always` write: from the beginning to the end, and past what is zero.
#[test]
fn full_twenty_gib_are_uploaded_and_read_within_the_memory_limit() {
    if !is_full_run() {
        return;
    }
    let objects = tempfile::tempdir().unwrap();
    let storage = Storage::Directory(objects.path().join("objects"));
    let store = Store::dev_with(Settings { storage, ..Settings::default() });
    let mut mount = store.mount_with(&[&format!("memory={MEMORY}M")]);
    let piece = |at: u64| noise(at >> 20, PIECE);
    let file = File::create(mount.at("film")).unwrap();
    for at in (0..SIZE).step_by(usize::try_from(STEP).unwrap()) {
        file.write_all_at(&piece(at), at).unwrap();
    }
    file.set_len(SIZE).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let written = mount.peak_memory();
    println!("peak after the upload: {written} MiB");
    let (_, size) = &store.list()["film"];
    assert_eq!(u64::try_from(*size).unwrap(), SIZE);
    assert!(written <= MEMORY + DAEMON_MEMORY, "{written} MiB");
    assert_eq!(store.open_uploads(), 0);
    // By a mount that has nothing of it.
    mount.remount();
    let mut file = File::open(mount.at("film")).unwrap();
    let mut buffer = vec![0; usize::try_from(STEP).unwrap()];
    let zeros = vec![0; buffer.len() - PIECE];
    for at in (0..SIZE).step_by(buffer.len()) {
        file.read_exact(&mut buffer).unwrap();
        assert!(buffer[..PIECE] == piece(at)[..] && buffer[PIECE..] == zeros[..], "at {at}");
    }
    assert_eq!(file.read(&mut buffer).unwrap(), 0);
    println!("peak after reading: {} MiB", mount.peak_memory());
    assert!(mount.peak_memory() <= MEMORY + DAEMON_MEMORY);
}

/// What is known of a bucket is in a database: 300 bytes of memory for each object would be too much here.
#[test]
fn full_memory_does_not_grow_with_the_bucket() {
    if !is_full_run() {
        return;
    }
    let synthetic = Synthetic::parse_list("count=400000,fanout=1000,size=1,prefix=lib/").unwrap();
    let store = Store::dev_with(Settings { synthetic, ..Settings::default() });
    let mount = store.mount_with(&["memory=64M", "poll_interval=600s"]);
    let mut find = Command::new("sh");
    find.args(["-euc", "find lib -type f | wc -l"]).current_dir(mount.root());
    let found = output_of(&mut find, Duration::from_secs(500));
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), "400000");
    let peak = mount.peak_memory();
    println!("peak after 400,000 names: {peak} MiB");
    assert!(peak <= 64 + DAEMON_MEMORY, "{peak} MiB");
}
