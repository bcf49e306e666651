//! A mount of a contestant: its daemon in the foreground, as a child of ours.
//!
//! Owns: start, end, and figures of the daemon. Does not own: how it is started (`contestant`), /proc (`process`).

use crate::contestant::{Contestant, Mounting};
use crate::process;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a mount may take.
const MOUNT_MAX: Duration = Duration::from_secs(20);
/// How long a daemon may take to bring its uploads to the end once it is unmounted.
const END_MAX: Duration = Duration::from_secs(60);

/// A mount. It is taken away, whatever state it is in, when this is dropped.
pub(crate) struct Mounted {
    daemon: Child,
    root: PathBuf,
    log: PathBuf,
}

impl Mounted {
    /// Starts the daemon and waits until something is mounted.
    pub(crate) fn start(contestant: &Contestant, mounting: &Mounting<'_>) -> Result<Mounted, String> {
        let text = |e: std::io::Error| format!("mount: {e}");
        std::fs::create_dir_all(mounting.root).map_err(text)?;
        let log = mounting.folder.join("log");
        let file = File::options().create(true).append(true).open(&log).map_err(text)?;
        let mut command = contestant.command(mounting).map_err(text)?;
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(text)?).stderr(file);
        let daemon = command.current_dir("/").spawn().map_err(text)?;
        let mut mounted = Mounted { daemon, root: mounting.root.to_owned(), log };
        let start = Instant::now();
        while !process::is_mounted(&mounted.root) {
            if !mounted.is_alive() || start.elapsed() > MOUNT_MAX {
                return Err(format!("not mounted: {}", mounted.last_words()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(mounted)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.daemon.try_wait(), Ok(None))
    }

    /// The last line that it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        process::cpu_seconds(self.daemon.id())
    }

    pub(crate) fn reset_peak(&self) {
        process::reset_peak(self.daemon.id());
    }

    pub(crate) fn peak_mib(&self) -> Option<f64> {
        process::peak_mib(self.daemon.id())
    }

    /// Unmounts as a user does, and waits for the daemon to end. Says what did not go well.
    pub(crate) fn end(mut self) -> Result<(), String> {
        if !process::unmount(&self.root) {
            return Err("it could not be unmounted".to_owned());
        }
        if process::wait(&mut self.daemon, END_MAX) { Ok(()) } else { Err("the daemon did not end".to_owned()) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if process::is_mounted(&self.root) {
            process::abort(&self.root);
        }
        if self.is_alive() {
            process::end(&mut self.daemon, Duration::from_secs(2));
        }
        // What a daemon in the kernel held may only be free now.
        if process::is_mounted(&self.root) {
            process::abort(&self.root);
        }
    }
}
