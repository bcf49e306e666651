//! Processes: steps that are ended at the cap, daemons that are watched, pages that are dropped.
//!
//! Owns: /proc, signals, mounts that hang. Does not own: what the processes do.

use crate::step::{Order, Report};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a step may take beyond its cap: a read or a close that was begun before it is waited for.
const GRACE: Duration = Duration::from_secs(20);
/// Memory that is touched after a drop: what a step reads, and what the server and the daemon hold of it.
const TOUCHED: usize = 3 << 30;
/// How long a killed process may take to die.
const DEATH: Duration = Duration::from_secs(5);

/// Set by Ctrl-C: the step under way is ended, and no other begins. Mounts and servers are ended in order.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Sets [`is_interrupted`] at Ctrl-C.
pub(crate) async fn watch_for_interrupt() {
    if tokio::signal::ctrl_c().await.is_ok() {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody pressed Ctrl-C.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Why a step gave no figures.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It was told an error.
    Refused(String),
    /// It did not end within this time and had to be killed: it hung, or a single call takes that long.
    Endless(Duration),
}

/// Runs a step in a process of its own. If it hangs, the mount is taken away.
pub(crate) fn run_step(order: &Order) -> Result<Report, Trouble> {
    let refused = |e: &dyn std::fmt::Display| Trouble::Refused(e.to_string());
    let json = serde_json::to_string(order).map_err(|e| refused(&e))?;
    let program = std::env::current_exe().map_err(|e| refused(&e))?;
    let mut child = Command::new(program)
        .args(["--step", &json])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| refused(&e))?;
    let limit = Duration::from_secs_f64(order.cap) + GRACE;
    if !wait_for_step(&mut child, limit) {
        _ = killpg(pid_of(&child), Signal::SIGKILL);
        if !wait(&mut child, DEATH) {
            // It sleeps in the kernel until the file system answers.
            abort(&order.root);
            wait(&mut child, DEATH);
        }
        return Err(Trouble::Endless(limit));
    }
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(|e| refused(&e))?;
    }
    let report: Report = serde_json::from_str(&text).map_err(|_| refused(&"the step ended without a report"))?;
    match report.error {
        Some(error) => Err(Trouble::Refused(error)),
        None => Ok(report),
    }
}

fn wait_for_step(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit && !is_interrupted() {
        if wait(child, Duration::from_millis(100)) {
            return true;
        }
    }
    false
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Whether the child ended within the time.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
            Ok(None) => return false,
            _ => return true,
        }
    }
}

/// Ends a child that we started: politely, then not.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    _ = kill(pid_of(child), Signal::SIGTERM);
    if !wait(child, patience) {
        _ = kill(pid_of(child), Signal::SIGKILL);
        wait(child, DEATH);
    }
}

/// Whether something is mounted at the path.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

/// Unmounts in order, as a user does. False if it is busy or hangs.
pub(crate) fn unmount(root: &Path) -> bool {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    if !is_root() {
        command.arg("-u");
    }
    run_quietly(command.arg(root))
}

/// Aborts the connection of a FUSE mount and takes it away.
pub(crate) fn abort(root: &Path) {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    // -f aborts what waits; -l takes away what is still busy.
    if is_root() {
        run_quietly(command.arg("-f").arg(root));
        run_quietly(Command::new("umount").arg("-l").arg(root));
    } else {
        run_quietly(command.arg("-uz").arg(root));
    }
}

fn run_quietly(command: &mut Command) -> bool {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    if !wait(&mut child, Duration::from_secs(20)) {
        _ = child.kill();
        return false;
    }
    child.wait().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Drops clean pages, dentries and inodes. Only root may; says whether it was done.
pub(crate) fn drop_pages() -> bool {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// The same right before something is measured.
pub(crate) fn make_cold() {
    if drop_pages() {
        touch_memory();
    }
}

/// Uses memory and gives it back. A virtual machine returns pages that were dropped to its host, and gets them again one
/// fault at a time: without this, the first reads after a drop measure the host (a third of the speed was seen).
fn touch_memory() {
    let mut memory = vec![0_u8; TOUCHED];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

/// CPU seconds that a process has used so far.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces; utime and stime are fields 14 and 15 of proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(ticks / per_second as f64)
}

/// Makes the peak of a process' memory its present size.
pub(crate) fn reset_peak(pid: u32) {
    // 5 of proc_pid_clear_refs(5). Where it is refused, the peak counts from the start of the process.
    _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The peak of a process' resident memory, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
