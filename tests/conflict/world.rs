//! A dev server, mounts of its bucket by the real program, and their end whatever happens.
//!
//! Owns: starting and ending all of that, deadlines on it.
//! Does not own: the independent client (`client`), what is tested.

use crate::client::Client;
use crate::programs::{PROGRAM_MAX, eventually, is_alive, kill, output_of, stdout_of};
use crate::sdk::Place;
use objfs::devserver::{FaultSettings, Rule, Server, Settings};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A server with an empty bucket, and a folder for everything that belongs to the test.
pub(crate) struct World {
    place: Place,
    server: Server,
    runtime: tokio::runtime::Runtime,
    dir: Option<TempDir>,
}

impl World {
    pub(crate) fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let settings = Settings::default();
        let (access_key, secret_key) = (settings.access_key.clone(), settings.secret_key.clone());
        let bucket = settings.buckets[0].clone();
        let server = runtime.block_on(Server::start(settings)).unwrap();
        let region = "us-east-1".to_owned();
        let place = Place { endpoint: server.endpoint(), region, access_key, secret_key, bucket };
        World { place, server, runtime, dir: Some(tempfile::Builder::new().prefix("c").tempdir().unwrap()) }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// An independent client that signs for this region, by which the server's log knows it.
    pub(crate) fn client(&self, region: &str) -> Client {
        let place = Place { region: region.to_owned(), ..self.place.clone() };
        Client::new(&place, self.runtime.handle().clone())
    }

    /// These faults and no others.
    pub(crate) fn faults(&self, rules: Vec<Rule>) {
        self.server.faults().set(FaultSettings { seed: 7, rules });
    }

    /// No faults any more.
    pub(crate) fn heal(&self) {
        self.faults(Vec::new());
    }

    /// A path in the world's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(name)
    }

    /// Mounts the bucket with folders named `name`, signing for `region`. After `limit` the daemon is killed, and
    /// whoever waits for it is freed.
    pub(crate) fn mount(&self, name: &str, region: &str, options: &[&str], limit: Duration) -> Mount {
        let folder = self.path(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(folder.join("mnt")).unwrap();
        let place = Place { region: region.to_owned(), ..self.place.clone() };
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut mount = Mount { place, folder, options, limit, daemon: None };
        mount.mount_again();
        mount
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dir = self.dir.take().unwrap();
        let here = |point: &str| Path::new(point).starts_with(dir.path());
        if mounts.lines().filter_map(|line| line.split(' ').nth(1)).any(here) {
            // Removing the folder would remove what is in the bucket.
            eprintln!("left behind, because something is still mounted there: {}", dir.keep().display());
        }
    }
}

struct Daemon {
    pid: i32,
    /// Dropped when the mount is gone: the watchdog then leaves it alone.
    _watchdog: mpsc::Sender<()>,
}

/// A mount of the real program. It is unmounted when dropped.
pub(crate) struct Mount {
    place: Place,
    folder: PathBuf,
    options: Vec<String>,
    limit: Duration,
    daemon: Option<Daemon>,
}

impl Mount {
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// A path in the mount.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Mounts, with the state that an earlier mount left.
    pub(crate) fn mount_again(&mut self) {
        let mut options = vec![format!("endpoint={},region={}", self.place.endpoint, self.place.region)];
        options.extend(self.options.iter().cloned());
        let defaults = [
            format!("state_dir={}", self.state_dir().display()),
            format!("cache_dir={}", self.folder.join("cache").display()),
            "poll_interval=1s".to_owned(),
            "drain_timeout=20s".to_owned(),
        ];
        for default in defaults {
            let name = default.split_once('=').unwrap().0;
            if !self.options.iter().any(|option| option.split('=').next() == Some(name)) {
                options.push(default);
            }
        }
        let mut command = objfs();
        command.arg("mount").arg(format!("s3://{}", self.place.bucket)).arg(self.root());
        command.args(["-o", &options.join(",")]);
        command.env("S3_ACCESS_KEY_ID", &self.place.access_key).env("S3_SECRET_ACCESS_KEY", &self.place.secret_key);
        let output = output_of(&mut command, PROGRAM_MAX);
        assert!(output.status.success(), "not mounted: {}{}", String::from_utf8_lossy(&output.stderr), self.log());
        let pid = i32::try_from(self.status()["pid"].as_i64().unwrap()).unwrap();
        self.daemon = Some(Daemon { pid, _watchdog: watch(pid, self.root(), self.limit) });
    }

    fn umount(&self, options: &[&str]) -> Output {
        let mut command = objfs();
        command.arg("umount").args(options).arg(self.root());
        output_of(&mut command, Duration::from_secs(60))
    }

    /// Unmounts in order: everything is in the bucket.
    pub(crate) fn unmount(&mut self) {
        let output = self.umount(&[]);
        assert!(output.status.success(), "not unmounted: {}{}", String::from_utf8_lossy(&output.stderr), self.log());
        let daemon = self.daemon.take().unwrap();
        eventually("the daemon ends", || (!is_alive(daemon.pid)).then_some(()));
    }

    /// What `objfs status --json` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut command = objfs();
        serde_json::from_str(&stdout_of(command.args(["status", "--json"]).arg(self.root()))).unwrap()
    }

    /// Writes a file and closes it: what close(2) answers.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = File::create(self.at(path))?;
        file.write_all(bytes)?;
        Ok(nix::unistd::close(file)?)
    }

    fn state_dir(&self) -> PathBuf {
        let given = self.options.iter().find_map(|option| option.strip_prefix("state_dir="));
        given.map_or_else(|| self.folder.join("state"), PathBuf::from)
    }

    /// The end of the daemon's log.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let Ok(folders) = std::fs::read_dir(self.state_dir()) else { return text };
        for folder in folders.flatten() {
            let log = std::fs::read_to_string(folder.path().join("objfs.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&lines[lines.len().saturating_sub(60)..].join("\n"));
            text.push('\n');
        }
        text
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        if thread::panicking() {
            eprintln!("--- log of the daemon at {}\n{}---", self.folder.display(), self.log());
        } else {
            // It may have to give up something that a test left broken on purpose.
            let output = self.umount(&["--force", "--timeout", "20"]);
            if output.status.success() {
                return;
            }
            eprintln!("not unmounted: {}{}", String::from_utf8_lossy(&output.stderr), self.log());
        }
        kill(daemon.pid);
        unmount_lazily(&self.root());
    }
}

fn watch(pid: i32, root: PathBuf, limit: Duration) -> mpsc::Sender<()> {
    let (gone, left) = mpsc::channel();
    thread::spawn(move || {
        if left.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the mount at {} is {limit:?} old: its daemon {pid} is killed", root.display());
            kill(pid);
            unmount_lazily(&root);
        }
    });
    gone
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn unmount_lazily(path: &Path) {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    command.args(if is_root() { &["-l"][..] } else { &["-uz"][..] }).arg(path);
    _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// The program with nothing of the caller's in its environment that could decide anything.
fn objfs() -> Command {
    let program = std::env::var("OBJFS_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_objfs").to_owned());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("AWS_") || name.starts_with("S3_") {
            command.env_remove(&*name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// Whether the long tests run.
pub(crate) fn is_full_run() -> bool {
    std::env::var_os("OBJFS_TEST_FULL").is_some_and(|value| !value.is_empty())
}
