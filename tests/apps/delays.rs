//! A server that takes 300 ms for each answer: long enough for clocks and signals of programs to come in between.
//!
//! Owns: that no call of theirs is interrupted for that, as strace sees it.
//! Does not own: processes that are meant to be freed (`tests/mount`).

use crate::backups::RESTIC;
use crate::compare::{finish, make_source};
use crate::git::{GIT, IMPORT, history};
use crate::running::need;
use crate::world::{Mount, Store, noise, stdout_of};
use objfs::devserver::{Effect, Rule};
use std::fs;
use std::process::Command;

/// Calls on files. `?`: some machines do not have all of them.
const CALLS: &str = "trace=\
    ?open,?openat,?openat2,?creat,?close,?read,?write,?pread64,?pwrite64,?readv,?writev,?preadv,\
    ?pwritev,?fsync,?fdatasync,?mkdir,?mkdirat,?mknod,?mknodat,?rename,?renameat,?renameat2,?unlink,\
    ?unlinkat,?rmdir,?link,?linkat,?symlink,?symlinkat,?readlink,?readlinkat,?stat,?lstat,?fstat,\
    ?newfstatat,?statx,?access,?faccessat,?faccessat2,?getdents,?getdents64,?chmod,?fchmod,?fchmodat,\
    ?chown,?lchown,?fchown,?fchownat,?truncate,?ftruncate,?utimensat,?flock,?fcntl,?copy_file_range,\
    ?sendfile,?fallocate,?lseek,?statfs,?fstatfs,?getxattr,?lgetxattr,?llistxattr,?chdir";

/// The server takes its time from now on.
fn delay(store: &Store) {
    store.fault(Rule::new(Effect::Latency { ms: 300 }));
}

/// Runs a program, and answers what strace has noted of it and of all that it starts. None of its calls may have been
/// interrupted: strace tells what a file system answers before the kernel makes something else of it, and shows calls
/// that the kernel begins again as ERESTARTSYS.
fn trace(mount: &Mount<'_>, command: &[&str]) -> String {
    let log = mount.outside("trace");
    let mut strace = Command::new(need("strace", "strace"));
    strace.args(["-f", "-y", "-qq", "-e", CALLS, "-o"]).arg(&log).args(command).current_dir(mount.outside(""));
    strace.env("RESTIC_PASSWORD", "secret");
    stdout_of(&mut strace);
    let log = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    let root = mount.root();
    let in_mount = log.lines().filter(|line| line.contains(root.to_str().unwrap())).count();
    println!("{} lines, {in_mount} of them about the mount", log.lines().count());
    assert!(in_mount > 20, "strace saw {in_mount} calls only: {log}");
    let interrupted: Vec<&str> = log.lines().filter(|line| line.contains(" EINTR ")).collect();
    assert!(interrupted.is_empty(), "{interrupted:#?}");
    log
}

#[test]
fn a_clone_from_a_slow_server_is_not_interrupted_by_its_clock() {
    let store = Store::dev();
    // What was looked at a moment ago is not asked for again.
    let mut mount = store.mount_with(&["poll_interval=60s"]);
    fs::write(mount.outside("history"), history(12)).unwrap();
    mount.sh(&format!("{GIT}{IMPORT}; echo the probe > probe; ls > /dev/null"));
    delay(&store);
    // Over a pipe, as from another machine: git unpacks here what it is sent. Its progress comes by SIGALRM.
    let clone = ["git", "clone", "--progress", "--no-local", "--template=", "origin.git", "mnt/clone"];
    let log = trace(&mount, &clone);
    assert!(log.contains("--- SIGALRM "), "no signal came while it waited");
    store.heal();
    let look = "git -C mnt/clone status --short; git -C mnt/clone fsck --strict; git -C mnt/clone log --format=%s -1";
    assert_eq!(mount.sh(&format!("{GIT}cd ..; {look}")), "commit 12\n");
    finish(&store, &mut mount);
}

#[test]
fn a_backup_to_a_slow_server_is_not_interrupted_by_its_threads() {
    need("restic", "restic");
    let store = Store::dev();
    let mut mount = store.mount_with(&["poll_interval=60s"]);
    make_source(&mount);
    fs::write(mount.outside("source/large"), noise(5, 20 << 20)).unwrap();
    // A repository begins with 256 directories.
    mount.sh(&format!("{RESTIC}restic init > /dev/null; ls -R > /dev/null"));
    delay(&store);
    // Go takes threads away from their work by SIGURG.
    trace(&mount, &["restic", "--quiet", "--no-cache", "-r", "mnt/repo", "backup", "source"]);
    store.heal();
    mount.sh(&format!("{RESTIC}restic check --read-data > /dev/null"));
    finish(&store, &mut mount);
}
