//! Programs that work a file system hard: fio, and in the full run stress-ng and dbench.
//!
//! Owns: that they find no fault, that nothing stays pending afterwards, and that the daemon keeps to its memory.
//! Does not own: speed (`scripts/bench`).

use crate::compare::{finish, sync};
use crate::running::need;
use crate::world::{DAEMON_MEMORY, Mount, Store, is_full, is_full_run, output_of};
use objfs::devserver::{Settings, Storage};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// `memory=`, in MiB.
const MEMORY: u64 = 128;
/// How long each of them works: in the full run, and in others.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(10);
/// What they may take to begin and to remove what they made.
const AROUND: Duration = Duration::from_secs(180);

/// Does the work on a mount of a server that keeps its objects on the disk, and looks whether all is well then.
fn stress(work: impl FnOnce(&mut Mount<'_>)) {
    let objects = tempfile::tempdir().unwrap();
    let storage = Storage::Directory(objects.path().join("objects"));
    let store = Store::dev_with(Settings { storage, ..Settings::default() });
    let mut mount = store.mount_with(&[&format!("memory={MEMORY}M")]);
    work(&mut mount);
    sync(&mount);
    mount.settle();
    let status = mount.status();
    assert_eq!(status["pending"]["failed"], serde_json::json!([]), "{status:#}");
    keeps_to_its_memory(&mount);
    finish(&store, &mut mount);
}

fn keeps_to_its_memory(mount: &Mount<'_>) {
    let peak = mount.peak_memory();
    println!("peak of the daemon's memory: {peak} MiB");
    assert!(peak <= MEMORY + DAEMON_MEMORY, "{peak} MiB");
}

/// Runs a program that must end well in time, and answers what it printed.
fn run(command: &mut Command, length: Duration) -> String {
    let output = output_of(command, length + AROUND);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

/// Files of 16 MiB: job, how it writes, in what sizes, and what else it is told.
const JOBS: [(&str, &str, &str, &[&str]); 4] = [
    ("sequential", "write", "128k", &[]),
    ("random", "randwrite", "16k", &[]),
    ("mapped", "randwrite", "16k", &["--ioengine=mmap"]),
    ("synced", "randwrite", "64k", &["--fsync=64"]),
];

/// fio with all jobs at once. Each block carries its sum; what is written is read again and compared by it. The seed
/// says what is written; without one, what is there is read only.
fn fio(mount: &Mount<'_>, seed: Option<u32>) {
    let mut fio = Command::new(need("fio", "fio"));
    fio.args(["--name=global", "--size=16m", "--fallocate=none", "--verify=crc32c", "--verify_fatal=1"]);
    fio.arg(format!("--directory={}", mount.at("fio").display()));
    if let Some(seed) = seed {
        fio.args(["--do_verify=1", "--end_fsync=1"]).arg(format!("--randseed={seed}"));
    }
    for (name, how, size, more) in JOBS {
        let how = if seed.is_some() { how } else { "read" };
        fio.args([format!("--name={name}"), format!("--rw={how}"), format!("--bs={size}")]);
        if seed.is_some() {
            fio.args(more);
        }
    }
    // Where it may leave notes.
    run(fio.current_dir(mount.outside("")), Duration::ZERO);
}

#[test]
fn fio_reads_what_it_wrote() {
    stress(|mount| {
        let length = if is_full() { LONG } else { SHORT };
        fs::create_dir(mount.at("fio")).unwrap();
        let (start, mut times) = (Instant::now(), 0);
        while times == 0 || start.elapsed() < length {
            times += 1;
            fio(mount, Some(times));
        }
        println!("{times} times");
        keeps_to_its_memory(mount);
        // From the bucket.
        mount.remount();
        fio(mount, None);
    });
}

#[test]
fn full_stress_ng_finds_no_fault() {
    if !is_full_run() {
        return;
    }
    stress(|mount| {
        let mut command = Command::new(need("stress-ng", "stress-ng"));
        command.arg("--temp-path").arg(mount.root()).args(["--timeout", &format!("{}s", LONG.as_secs()), "--verify"]);
        for stressor in
            ["chmod", "dir", "dirmany", "fallocate", "filename", "hdd", "iomix", "rename", "seek", "symlink", "utime"]
        {
            command.arg(format!("--{stressor}")).arg("1");
        }
        // Its own defaults are a gigabyte each, and names that are no UTF-8.
        command.args(["--dir-dirs", "256", "--filename-opts", "posix"]);
        for size in ["fallocate", "hdd", "iomix"] {
            command.arg(format!("--{size}-bytes")).arg("16M");
        }
        command.args(["--seek-size", "16M"]);
        println!("{}", run(command.current_dir(mount.outside("")), LONG));
    });
}

#[test]
fn full_dbench_runs_eight_clients() {
    if !is_full_run() {
        return;
    }
    stress(|mount| {
        fs::create_dir(mount.at("dbench")).unwrap();
        let mut command = Command::new(need("dbench", "dbench"));
        command.args(["-t", &LONG.as_secs().to_string(), "-D"]).arg(mount.at("dbench")).arg("8");
        let said = run(&mut command, LONG);
        println!("{said}");
        assert!(said.contains("Throughput"), "{said}");
    });
}
