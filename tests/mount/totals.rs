//! What statfs(2) sums up: bytes and files that are used, and what is free of a bucket that has no end.

use crate::common::{Mount, Store, names};
use nix::sys::statvfs::statvfs;
use objfs::devserver::{Settings, Synthetic};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

/// What a mount shows as its size.
const TOTAL: u64 = 1 << 50;
/// What it counts in.
const BLOCK: u64 = 4096;
/// How long a change made elsewhere, or a count that is kept for a moment, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes and files that statvfs(3) shows as used.
fn used(mount: &Mount<'_>) -> (u64, u64) {
    let now = statvfs(&mount.root()).unwrap();
    assert_eq!((now.blocks() * BLOCK, now.fragment_size(), now.block_size()), (TOTAL, BLOCK, BLOCK));
    assert_eq!(now.blocks_available(), now.blocks_free());
    assert_eq!(now.files_available(), now.files_free());
    ((now.blocks() - now.blocks_free()) * BLOCK, now.files() - now.files_free())
}

/// The catalogue knows so many bytes and files, and statvfs shows them in whole blocks.
#[track_caller]
fn assert_totals(what: &str, mount: &Mount<'_>, bytes: u64, files: u64) {
    let deadline = Instant::now() + PATIENCE;
    let known = || {
        let status = mount.status();
        (status["known_bytes"].as_u64().unwrap(), status["known_files"].as_u64().unwrap())
    };
    while known() != (bytes, files) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
        names(mount.root());
    }
    assert_eq!(known(), (bytes, files), "{what}");
    assert_eq!(used(mount), (bytes.div_ceil(BLOCK) * BLOCK, files), "{what}");
}

#[test]
fn the_sums_follow_what_is_written_cut_renamed_and_deleted() {
    let store = Store::dev();
    store.put("a", "x");
    store.put("b", vec![1; 4096]);
    store.put("d/c", vec![1; 10_000]);
    store.put("d/e/f", vec![1; 100_001]);
    let mut mount = store.mount();
    assert_eq!(mount.sh("find . -type f | wc -l").trim(), "4");
    // Directories count as files, and the root is one of them.
    let (mut bytes, mut files) = (1 + 4096 + 10_000 + 100_001, 4 + 3);
    assert_totals("listed", &mount, bytes, files);
    fs::write(mount.at("new"), vec![1; 3000]).unwrap();
    (bytes, files) = (bytes + 3000, files + 1);
    assert_totals("a new file", &mount, bytes, files);
    OpenOptions::new().append(true).open(mount.at("new")).unwrap().write_all(&[1; 5000]).unwrap();
    bytes += 5000;
    assert_totals("appended", &mount, bytes, files);
    mount.sh("truncate -s 100 new");
    bytes -= 7900;
    assert_totals("cut", &mount, bytes, files);
    fs::create_dir(mount.at("made")).unwrap();
    symlink("new", mount.at("link")).unwrap();
    (bytes, files) = (bytes + 3, files + 2);
    assert_totals("a directory and a link", &mount, bytes, files);
    fs::rename(mount.at("new"), mount.at("made/new")).unwrap();
    assert_totals("renamed", &mount, bytes, files);
    fs::write(mount.at("other"), vec![1; 50]).unwrap();
    fs::rename(mount.at("other"), mount.at("made/new")).unwrap();
    bytes -= 50;
    assert_totals("replaced by a rename", &mount, bytes, files);
    mount.sh("rm a; rm -r made");
    (bytes, files) = (bytes - 1 - 50, files - 3);
    assert_totals("deleted", &mount, bytes, files);
    mount.remount();
    assert_totals("after a remount", &mount, bytes, files);
}

#[test]
fn the_sums_follow_what_others_change() {
    let store = Store::dev();
    store.put("a", "x");
    store.put("b", vec![1; 4096]);
    store.put("d/e/f", vec![1; 100_001]);
    let mount = store.mount();
    assert_eq!(mount.sh("find . -type f | wc -l").trim(), "3");
    assert_totals("listed", &mount, 1 + 4096 + 100_001, 3 + 3);
    store.put("b", vec![1; 20_000]);
    store.put("c", vec![1; 77]);
    store.delete("a");
    assert_totals("changed, new and deleted", &mount, 20_000 + 77 + 100_001, 3 + 3);
    store.delete("d/e/f");
    assert_totals("directories go with their last file", &mount, 20_000 + 77, 2 + 1);
}

#[test]
fn the_sums_are_exact_for_many_and_for_large_files() {
    let kinds = "count=2500,fanout=1000,size=4097,prefix=lib/; count=3,fanout=0,size=300000GiB,prefix=films/";
    let synthetic = Synthetic::parse_list(kinds).unwrap();
    let store = Store::dev_with(Settings { synthetic, ..Settings::default() });
    let mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(mount.sh("find . -type f | wc -l").trim(), "2503");
    // Five directories: both prefixes, and three of up to 1,000 files each; and the root.
    let bytes = 2500 * 4097 + 3 * (300_000 << 30);
    assert_totals("listed", &mount, bytes, 2503 + 5 + 1);
    let shown = bytes.div_ceil(BLOCK) * BLOCK;
    let df = mount.sh("df -B 1 --output=size,used,avail . | tail -n 1");
    let fields: Vec<u64> = df.split_whitespace().map(|field| field.parse().unwrap()).collect();
    assert_eq!(fields, [TOTAL, shown, TOTAL - shown]);
}
