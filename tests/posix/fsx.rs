//! fsx: one file under random operations, each read compared with what must be there. The same dice are thrown on the
//! machine's own disk, so what is in the bucket in the end is compared as well.
//!
//! Owns: which operations, how large and how many. Does not own: where the program is (`tools`), mounts (`mounts`).

use crate::mounts::{Store, is_full_run, output_of};
use crate::tools;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

/// How large a file gets, and what one operation does to it.
struct Shape {
    /// Bytes.
    size_max: u32,
    /// Bytes.
    operation_max: u32,
}

/// One PUT each time.
const SMALL: Shape = Shape { size_max: 256 << 10, operation_max: 64 << 10 };
/// More than a PUT takes: parts, some of which the server copies.
const LARGE: Shape = Shape { size_max: 20 << 20, operation_max: 2 << 20 };

impl Shape {
    /// The file that fsx is given, with a weight for each of its operations: without one some are off.
    fn config(&self, seed: u64) -> String {
        // A synced store is a commit. So one half of the seeds stores seldom and syncs; the other stores often, and
        // leaves the pages to the kernel.
        let is_synced = seed.is_multiple_of(2);
        // No operation is empty: posix_fallocate(3) refuses that, and fsx takes it for a failure.
        format!(
            "flen = {size_max}\nnomsyncafterwrite = {leave_pages}\n\
             [opsize]\nmin = 1\nmax = {operation_max}\n\
             [weights]\nread = 10\nwrite = 10\nmapread = 8\nmapwrite = {mapwrite}\nsendfile = 5\ntruncate = 4\n\
             copy_file_range = 4\nposix_fadvise = 3\npunch_hole = 2\nposix_fallocate = 1\ninvalidate = 1\n\
             close_open = 0.3\nfsync = 0.2\nfdatasync = 0.2\n",
            size_max = self.size_max,
            operation_max = self.operation_max,
            leave_pages = !is_synced,
            mapwrite = if is_synced { 1 } else { 8 },
        )
    }
}

/// The seed of the first run.
fn seed() -> u64 {
    let given = std::env::var("OBJFS_FSX_SEED").ok().filter(|text| !text.is_empty());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    given.map_or_else(
        || u64::try_from(now() % 1_000_000_007).unwrap(),
        |text| text.parse().unwrap_or_else(|_| panic!("OBJFS_FSX_SEED={text} is no number")),
    )
}

/// What fsx says of a failure: what differs, and the last of the 1,024 steps that it remembers.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let (what, steps) = text.split_once("LOG DUMP").unwrap_or((&*text, ""));
    let steps: Vec<&str> = steps.lines().collect();
    format!("{}\n{what}\n{}", output.status, steps[steps.len().saturating_sub(80)..].join("\n"))
}

/// Runs fsx on a file, beside whose configuration it may leave what it has found.
fn run(config: &Path, seed: u64, operations: u64, file: &Path) {
    let mut command = Command::new(tools::find("fsx"));
    command.arg("-f").arg(config).args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    command.arg("-P").arg(config.parent().unwrap()).arg(file).env_remove("RUST_LOG");
    let output = output_of(&mut command, tools::time_max());
    assert!(output.status.success(), "fsx with seed {seed} on {}: {}", file.display(), told(&output));
}

fn assert_same(what: &str, seed: u64, found: &[u8], expected: &[u8]) {
    let first = || found.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        found == expected,
        "seed {seed}: {what} has {} bytes, and should have {}; the first that differs: {:?}",
        found.len(),
        expected.len(),
        first()
    );
}

/// So many operations on a file in a mount, and on one on the machine's own disk.
fn exercise(store: &Store, shape: &Shape, operations: u64, seed: u64) {
    let own = tools::own_disk();
    let mut mount = store.mount();
    println!("fsx: seed {seed}, {operations} operations on {} bytes", shape.size_max);
    let config = own.path().join("fsx.toml");
    fs::write(&config, shape.config(seed)).unwrap();
    let (here, there) = (mount.at("file"), own.path().join("file"));
    run(&config, seed, operations, &here);
    // The last close has waited for the bucket.
    let object = store.get("file");
    run(&config, seed, operations, &there);
    let expected = fs::read(&there).unwrap();
    assert_same("the object after the last close", seed, &object, &expected);
    assert_same("the file", seed, &fs::read(&here).unwrap(), &expected);
    mount.remount();
    assert_same("the object after an unmount", seed, &store.get("file"), &expected);
    assert_same("the file in the next mount", seed, &fs::read(&here).unwrap(), &expected);
}

#[test]
fn a_file_holds_what_random_operations_make_of_it() {
    let (runs, operations) = if tools::is_full() { (10, 20_000) } else { (1, 3_000) };
    let first = seed();
    for seed in first..first + runs {
        exercise(&Store::dev(), &SMALL, operations, seed);
    }
}

#[test]
fn a_large_file_holds_what_random_operations_make_of_it() {
    exercise(&Store::dev(), &LARGE, if tools::is_full() { 3_000 } else { 300 }, seed());
}

#[test]
fn garage_full_a_file_holds_what_random_operations_make_of_it_on_garage() {
    if is_full_run() {
        exercise(&Store::garage(), &SMALL, 20_000, seed());
    }
}
