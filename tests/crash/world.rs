//! A server that survives, a daemon that does not, and folders for both.
//!
//! Owns: starting, killing and ending all of that, the bucket as others see it, deadlines on all that touches the
//! mount.
//! Does not own: what is done to files (`work`), what must be there afterwards (`model`).

use crate::model::Files;
use crate::sdk::{self, Place};
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use objfs::daemon::mounts;
use objfs::devserver::{FaultSettings, LogEntry, Rule, Server, Settings, Storage};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longer than anything here may take.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Lines of the daemons' log that tell of a fault: a few mounts.
const LOG_LINES: usize = 1500;
/// The one bucket.
const BUCKET: &str = "demo";

/// See the module.
pub(crate) struct World {
    server: Option<Server>,
    address: SocketAddr,
    on_disk: bool,
    runtime: Runtime,
    daemon: Option<Child>,
    dir: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    /// Objects in memory, or in the folder `objects`.
    pub(crate) fn new(on_disk: bool) -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let temporary = tempfile::Builder::new().prefix("c").tempdir().unwrap();
        // The recorder compares paths: they must be as SQLite sees them.
        let dir = temporary.path().canonicalize().unwrap();
        for name in ["mnt", "home", "tmp", "run", "state", "cache", "out"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = World { server: None, address, on_disk, runtime, daemon: None, dir, _dir: temporary };
        world.start_server();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn mnt(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Starts the server, at the same port as before: the name of the state folder follows from it.
    pub(crate) fn start_server(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let server = loop {
            let storage = if self.on_disk { Storage::Directory(self.path("objects")) } else { Storage::Memory };
            let settings = Settings { listen: self.address, storage, ..Settings::default() };
            match self.runtime.block_on(Server::start(settings)) {
                Ok(server) => break server,
                Err(e) if Instant::now() > deadline => panic!("{e}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        self.address = server.address();
        self.server = Some(server);
    }

    pub(crate) fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }

    /// These faults from now on, and no others.
    pub(crate) fn faults(&self, seed: u64, rules: Vec<Rule>) {
        self.server().faults().set(FaultSettings { seed, rules });
    }

    /// How many requests there were for these operations.
    pub(crate) fn requests(&self, operations: &[&str]) -> u64 {
        let counts = self.server().counters();
        operations.iter().map(|op| counts.of(op)).sum()
    }

    /// What was asked of objects since this was called last.
    pub(crate) fn asked(&self) -> String {
        self.server().log().start();
        let all = self.server().log().take().into_iter().filter(|entry| !entry.key.is_empty());
        let short = |etag: Option<String>| etag.map_or_else(|| "-".to_owned(), |etag| etag.chars().take(6).collect());
        let line = |e: LogEntry| {
            let LogEntry { op, key, status, changed, .. } = e;
            let (of, absent) = (short(e.if_match), e.if_none_match.is_some());
            let (before, after) = (short(e.before), short(e.after));
            format!("{op} {key} if {of} absent {absent}: {before} > {after}, changed {changed}, {status:?}\n")
        };
        all.map(line).collect()
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    fn client(&self) -> aws_sdk_s3::Client {
        let defaults = Settings::default();
        let place = Place {
            endpoint: format!("http://{}", self.address),
            region: "us-east-1".to_owned(),
            access_key: defaults.access_key,
            secret_key: defaults.secret_key,
            bucket: BUCKET.to_owned(),
        };
        sdk::client(&place, RequestChecksumCalculation::WhenRequired)
    }

    /// Puts an object, as somebody else.
    pub(crate) fn put(&self, key: &str, body: &[u8]) {
        let body = ByteStream::from(body.to_vec());
        let sent = self.client().put_object().bucket(BUCKET).key(key).body(body);
        self.runtime.block_on(async { sent.send().await.unwrap() });
    }

    /// Every object but for markers and what is objfs' own, read from the server.
    pub(crate) fn bucket(&self) -> Files {
        self.runtime.block_on(async {
            let client = self.client();
            let mut files = Files::new();
            let mut pages = client.list_objects_v2().bucket(BUCKET).into_paginator().send();
            while let Some(page) = pages.next().await {
                for object in page.unwrap().contents.unwrap_or_default() {
                    let key = object.key.unwrap();
                    if key.starts_with(".objfs/") || key.ends_with('/') {
                        continue;
                    }
                    let answer = client.get_object().bucket(BUCKET).key(&key).send().await;
                    // Gone since it was listed: whoever compares looks again.
                    let Ok(answer) = answer else { continue };
                    let body = answer.body.collect().await.unwrap().to_vec();
                    files.insert(key, Arc::new(body));
                }
            }
            files
        })
    }

    /// Keys of uploads that have parts, and were neither completed nor aborted. Those without are aborted here: a daemon that
    /// is killed while it asks for one cannot know its id. Before a part is sent the journal has it.
    pub(crate) fn open_uploads(&self) -> Vec<String> {
        self.runtime.block_on(async {
            let client = self.client();
            let listed = client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
            let mut open = Vec::new();
            for upload in listed.uploads.unwrap_or_default() {
                let (key, id) = (upload.key.unwrap(), upload.upload_id.unwrap());
                let parts = client.list_parts().bucket(BUCKET).key(&key).upload_id(&id).send().await;
                match parts.map(|parts| parts.parts.unwrap_or_default().len()) {
                    Ok(0) => {
                        // The daemon may be aborting it, too.
                        _ = client.abort_multipart_upload().bucket(BUCKET).key(&key).upload_id(&id).send().await;
                    }
                    Ok(parts) => open.push(format!("{key} with {parts} parts")),
                    Err(e) if e.as_service_error().is_some_and(|e| e.meta().code() == Some("NoSuchUpload")) => {}
                    Err(e) => panic!("ListParts: {e:?}"),
                }
            }
            open
        })
    }

    /// Deletes an object, as somebody else.
    pub(crate) fn delete(&self, key: &str) {
        let sent = self.client().delete_object().bucket(BUCKET).key(key);
        self.runtime.block_on(async { sent.send().await.unwrap() });
    }

    /// The program, with keys in its environment and nothing of the test's own.
    fn objfs(&self) -> Command {
        let program = std::env::var_os("OBJFS_BIN").unwrap_or_else(|| OsString::from(env!("CARGO_BIN_EXE_objfs")));
        let keys = Settings::default();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("S3_ACCESS_KEY_ID", keys.access_key)
            .env("S3_SECRET_ACCESS_KEY", keys.secret_key)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    /// Mounts with these options more, and these variables more in the daemon's environment.
    ///
    /// # Errors
    /// The daemon ended before that: how.
    pub(crate) fn mount(&mut self, options: &str, variables: &[(&str, OsString)]) -> Result<(), ExitStatus> {
        let (state, cache) = (self.path("state"), self.path("cache"));
        let mut all = format!(
            "endpoint=http://{},state_dir={},cache_dir={},poll_interval=1s,drain_timeout=20s",
            self.address,
            state.display(),
            cache.display()
        );
        if !options.is_empty() {
            all = format!("{all},{options}");
        }
        let log = std::fs::File::options().create(true).append(true).open(self.path("out/daemon.log")).unwrap();
        let mut command = self.objfs();
        command.args(["mount", "-f", "s3://demo"]).arg(self.mnt()).args(["-o", &all]);
        for (name, value) in variables {
            command.env(name, value);
        }
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + LONG;
        while !mounts::is_mounted(&self.mnt()) {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(status);
            }
            if Instant::now() > deadline {
                self.daemon = Some(child);
                self.kill();
                panic!("not mounted within {LONG:?}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.daemon = Some(child);
        Ok(())
    }

    /// SIGKILL, now. Whoever waits in the mount gets an error.
    pub(crate) fn strike(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // One that is dead already is just as good.
            _ = daemon.kill();
        }
    }

    /// How the daemon ended, if it did or does within `limit`.
    pub(crate) fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let daemon = self.daemon.as_mut()?;
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILL, and its dead mount is taken away.
    pub(crate) fn kill(&mut self) {
        self.strike();
        if self.daemon.is_some() && self.ended(LONG).is_none() {
            self.unmount_lazily();
            panic!("a killed daemon does not end\n{}", self.log());
        }
        self.daemon = None;
        self.unmount_lazily();
    }

    /// `objfs umount`: in order, and nothing is left.
    pub(crate) fn umount(&mut self) -> Result<(), String> {
        let mnt = self.mnt();
        self.run([OsStr::new("umount"), mnt.as_os_str()])?;
        let ended = self.ended(LONG);
        self.daemon = None;
        let is_good = ended.is_some_and(|status| status.success());
        if is_good { Ok(()) } else { Err(format!("after an unmount the daemon ended so: {ended:?}")) }
    }

    fn unmount_lazily(&self) {
        if !mounts::is_mounted(&self.mnt()) {
            return;
        }
        let is_root = nix::unistd::geteuid().is_root();
        let mut command = Command::new(if is_root { "umount" } else { "fusermount3" });
        command.args(if is_root { &["-l"][..] } else { &["-u", "-z"] }).arg(self.mnt());
        _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// Runs a command of objfs to its end; answers what it prints.
    fn run<'a>(&self, args: impl IntoIterator<Item = &'a OsStr>) -> Result<String, String> {
        let (out, err) = (self.path("out/stdout"), self.path("out/stderr"));
        let file = |path: &Path| std::fs::File::create(path).unwrap();
        let mut command = self.objfs();
        let mut child = command.args(args).stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
        let deadline = Instant::now() + LONG;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    _ = child.kill();
                    return Err(format!("{command:?} does not end"));
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        if status.success() { Ok(text(&out)) } else { Err(format!("{command:?}: {status}: {}", text(&err))) }
    }

    /// Whether `objfs status` names nothing that the bucket does not have.
    fn is_settled(&self) -> Result<bool, String> {
        let mnt = self.mnt();
        let json = self.run([OsStr::new("status"), OsStr::new("--json"), mnt.as_os_str()])?;
        let status: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        let pending = status["pending"].as_object().ok_or_else(|| format!("no \"pending\" in {status}"))?;
        // Whatever else is counted there one day counts here as well.
        let waits = pending.iter().filter(|(name, _)| !["conflicts", "open_files"].contains(&name.as_str()));
        let is_none = |value: &serde_json::Value| match value {
            serde_json::Value::Array(list) => list.is_empty(),
            value => value.as_f64().is_none_or(|n| n == 0.0),
        };
        Ok(waits.map(|(_, value)| value).all(is_none))
    }

    /// Waits until nothing is pending.
    ///
    /// # Errors
    /// It does not come to that, or the daemon is gone.
    pub(crate) fn settle(&self) -> Result<(), String> {
        let deadline = Instant::now() + LONG;
        loop {
            // A mount has its control socket a moment before it is there; a daemon that is about to die has none.
            match self.is_settled() {
                Ok(true) => return Ok(()),
                Err(e) => return Err(e),
                Ok(false) if Instant::now() > deadline => return Err(format!("still pending after {LONG:?}")),
                Ok(false) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Has the mount ask the bucket for what is in a directory now.
    pub(crate) fn refresh(&self, name: &str) -> Result<(), String> {
        let path = if name.is_empty() { self.mnt() } else { self.mnt().join(name) };
        self.run([OsStr::new("refresh"), path.as_os_str()]).map(drop)
    }

    /// Does something that touches the mount, on a thread of its own: it may not hang the test.
    #[track_caller]
    pub(crate) fn within<T: Send + 'static>(&mut self, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let worker = thread::spawn(move || drop(sender.send(work())));
        match receiver.recv_timeout(LONG) {
            Ok(done) => done,
            Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let log = self.log();
                self.kill();
                panic!("{what} hangs\n{log}")
            }
        }
    }

    /// Every file that the mount shows, in its root and one level below.
    pub(crate) fn files(&mut self) -> Result<Files, String> {
        let mnt = self.mnt();
        self.within("reading everything", move || read_all(&mnt, "").map_err(|e| format!("reading the mount: {e}")))
    }

    /// What is at the end of the daemons' log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read(self.path("out/daemon.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.strike();
        _ = self.ended(Duration::from_secs(5));
        self.unmount_lazily();
        self.stop_server();
    }
}

/// Reads what is in a directory and those in it. A file that is being replaced by the bucket's version is asked for
/// again.
fn read_all(mnt: &Path, below: &str) -> std::io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(mnt.join(below))? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files.append(&mut read_all(mnt, &format!("{name}/"))?);
            continue;
        }
        let mut attempts = 0;
        loop {
            match std::fs::read(mnt.join(&name)) {
                Ok(bytes) => drop(files.insert(name.clone(), Arc::new(bytes))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) if e.raw_os_error() == Some(libc::ESTALE) && attempts < 5 => {
                    attempts += 1;
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(e) => return Err(std::io::Error::new(e.kind(), format!("{name}: {e}"))),
            }
            break;
        }
    }
    Ok(files)
}
