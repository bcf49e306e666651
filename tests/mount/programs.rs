//! Programs with deadlines, waiting for what happens by itself, and short forms that many tests use.

use std::fmt::Debug;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long what is to happen by itself may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a program may run on a mount.
pub(crate) const PROGRAM_MAX: Duration = Duration::from_secs(90);

pub(crate) fn kill(pid: i32) {
    _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Whether a process is there, and not just waiting for somebody to ask how it ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Runs a program to its end, or kills it after `limit` and fails.
pub(crate) fn output_of(command: &mut Command, limit: Duration) -> Output {
    let name = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
    let pid = i32::try_from(child.id()).unwrap();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(limit) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            kill(pid);
            panic!("{name} had not ended after {limit:?}");
        }
    }
}

/// What a program prints; it must succeed.
pub(crate) fn stdout_of(command: &mut Command) -> String {
    let output = output_of(command, PROGRAM_MAX);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Waits for what is to happen by itself, and answers it.
pub(crate) fn eventually<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = is_so() {
            return found;
        }
        assert!(Instant::now() < deadline, "had not happened after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The errno of a call that must fail.
#[track_caller]
pub(crate) fn errno<T: Debug>(outcome: std::io::Result<T>) -> i32 {
    match outcome {
        Ok(value) => panic!("it succeeded: {value:?}"),
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("no errno: {e}")),
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes that look like nothing else, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    dice.fill(&mut bytes);
    bytes
}
