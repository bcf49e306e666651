//! What the mount tests share.
//!
//! Owns: servers, mounts of the real program, their end whatever happens, deadlines.
//! Does not own: the independent client (`client`), what is tested.

use crate::client::Client;
use crate::garage::{self, Garage};
pub(crate) use crate::programs::{errno, eventually, is_alive, kill, names, noise, output_of, stdout_of};
use crate::sdk::Place;
use objfs::devserver::{Effect, FaultSettings, Rule, Server, Settings};
use std::net::TcpListener;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) use crate::programs::PROGRAM_MAX;
/// A daemon that is older than this is ended: whoever waits for it is freed, and the test fails where it waited.
const MOUNT_MAX: Duration = Duration::from_secs(110);
const MOUNT_MAX_FULL: Duration = Duration::from_secs(570);
/// What the daemon itself takes beside `memory=`, in MiB: program, catalogue, stacks.
pub(crate) const DAEMON_MEMORY: u64 = 96;

enum Backend {
    Dev(Server),
    Process { child: Child, _dir: TempDir },
    Garage { _server: Garage },
}

/// A server with an empty bucket. It ends with the test.
pub(crate) struct Store {
    client: Client,
    place: Place,
    backend: Backend,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Backend::Process { child, .. } = &mut self.backend {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// The bucket is used through the client.
impl Deref for Store {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Store {
    /// The dev server, in this process.
    pub(crate) fn dev() -> Store {
        Store::dev_with(Settings::default())
    }

    /// The same with other settings.
    pub(crate) fn dev_with(settings: Settings) -> Store {
        let runtime = runtime();
        let (access_key, secret_key) = (settings.access_key.clone(), settings.secret_key.clone());
        let bucket = settings.buckets[0].clone();
        let server = runtime.block_on(Server::start(settings)).unwrap();
        let place = Place { endpoint: server.endpoint(), region: "us-east-1".into(), access_key, secret_key, bucket };
        Store::new(runtime, place, Backend::Dev(server))
    }

    /// The S3 server in Python that AWS users test with. `$OBJFS_MOTO` names it where it is not on the PATH.
    pub(crate) fn moto() -> Store {
        let program = std::env::var("OBJFS_MOTO").unwrap_or_else(|_| "moto_server".to_owned());
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).current_dir(dir.path());
        let child = start_server(command, &program, port);
        let place = Place {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "us-east-1".into(),
            access_key: "AKIATEST".into(),
            secret_key: "test".into(),
            bucket: "library".into(),
        };
        let store = Store::new(runtime(), place, Backend::Process { child, _dir: dir });
        store.create_bucket();
        store
    }

    /// Garage, which ignores conditions on writes.
    pub(crate) fn garage() -> Store {
        let server = Garage::start("library").unwrap();
        let place = Place {
            endpoint: server.endpoint.clone(),
            region: garage::REGION.into(),
            access_key: server.access_key.clone(),
            secret_key: server.secret_key.clone(),
            bucket: "library".into(),
        };
        let store = Store::new(runtime(), place, Backend::Garage { _server: server });
        // The bucket comes a moment after the port.
        eventually("Garage has its bucket", || store.bucket_exists().then_some(()));
        store
    }

    fn new(runtime: tokio::runtime::Runtime, place: Place, backend: Backend) -> Store {
        let client = Client::new(&place, runtime.handle().clone());
        Store { client, place, backend, _runtime: runtime }
    }

    /// The dev server, for faults and counters.
    pub(crate) fn server(&self) -> &Server {
        match &self.backend {
            Backend::Dev(server) => server,
            Backend::Process { .. } | Backend::Garage { .. } => panic!("only the dev server has faults and counters"),
        }
    }

    /// One more fault.
    pub(crate) fn fault(&self, rule: Rule) {
        self.server().faults().add(rule);
    }

    /// A fault of these operations, always.
    pub(crate) fn fault_on(&self, effect: Effect, ops: &[&str]) {
        self.fault(ops.iter().fold(Rule::new(effect), |rule, op| rule.on(op)));
    }

    /// No faults any more.
    pub(crate) fn heal(&self) {
        self.server().faults().set(FaultSettings::default());
    }

    /// Runs Python with `s3` (boto3) and `bucket` at hand, and `args` in sys.argv[1:]. Answers what it prints.
    pub(crate) fn boto(&self, script: &str, args: &[&str]) -> String {
        let prelude = "import boto3, os, sys, hashlib\nfrom botocore.config import Config\n\
            s3 = boto3.client('s3', endpoint_url=os.environ['ENDPOINT'], region_name=os.environ['REGION'],\n\
            \x20   aws_access_key_id=os.environ['KEY'], aws_secret_access_key=os.environ['SECRET'],\n\
            \x20   config=Config(s3={'addressing_style': 'path'}))\nbucket = os.environ['BUCKET']\n";
        let mut python = Command::new(python());
        python.arg("-c").arg(format!("{prelude}{script}")).args(args);
        python.env("ENDPOINT", &self.place.endpoint).env("REGION", &self.place.region);
        python.env("KEY", &self.place.access_key).env("SECRET", &self.place.secret_key);
        python.env("BUCKET", &self.place.bucket);
        stdout_of(&mut python)
    }

    /// Mounts the bucket.
    pub(crate) fn mount(&self) -> Mount<'_> {
        self.mount_with(&[])
    }

    /// Mounts the bucket with more options.
    pub(crate) fn mount_with(&self, options: &[&str]) -> Mount<'_> {
        let mut mount = self.prepare(options);
        mount.mount_again();
        mount
    }

    /// A mount that is not mounted yet.
    pub(crate) fn prepare(&self, options: &[&str]) -> Mount<'_> {
        let folder = tempfile::Builder::new().prefix("m").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("mnt")).unwrap();
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        Mount { store: self, folder: Some(folder), options, prefix: String::new(), daemon: None }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn start_server(mut command: Command, program: &str, port: u16) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|e| panic!("{program} cannot be started: {e}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{program} does not answer on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
    child
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether the long tests run.
pub(crate) fn is_full() -> bool {
    std::env::var_os("OBJFS_TEST_FULL").is_some_and(|v| !v.is_empty())
}

/// The same; says so if not.
pub(crate) fn is_full_run() -> bool {
    let full = is_full();
    if !full {
        println!("runs with scripts/test --full (OBJFS_TEST_FULL) only");
    }
    full
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn program() -> String {
    std::env::var("OBJFS_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_objfs").to_owned())
}

pub(crate) fn python() -> String {
    std::env::var("OBJFS_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// The program with nothing of the caller's in its environment that could decide anything.
pub(crate) fn objfs() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("AWS_") || name.starts_with("S3_") {
            command.env_remove(&*name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

struct Daemon {
    pid: i32,
    /// Dropped when the mount is gone: the watchdog then leaves it alone.
    _watchdog: mpsc::Sender<()>,
}

/// A mount of the real program, with a state directory of its own. It is unmounted when dropped.
pub(crate) struct Mount<'s> {
    store: &'s Store,
    folder: Option<TempDir>,
    options: Vec<String>,
    prefix: String,
    daemon: Option<Daemon>,
}

impl Mount<'_> {
    fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// The mountpoint.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder().join("mnt")
    }

    /// A path in the mount.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A directory outside the mount that goes with it.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|o| (*o).to_owned()).collect();
    }

    /// Only what is below this prefix.
    pub(crate) fn set_prefix(&mut self, prefix: &str) {
        self.prefix = format!("/{prefix}");
    }

    /// Mounts, with the state that an earlier mount left.
    pub(crate) fn mount_again(&mut self) {
        let output = self.try_mount();
        if !output.status.success() {
            panic!("not mounted: {}{}", String::from_utf8_lossy(&output.stderr), self.log());
        }
        let status = self.status();
        let pid = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
        self.daemon = Some(Daemon { pid, _watchdog: watch(pid, self.root()) });
    }

    pub(crate) fn try_mount(&self) -> Output {
        let place = &self.store.place;
        let mut options = vec![
            format!("endpoint={},region={}", place.endpoint, place.region),
            format!("state_dir={}", self.folder().join("state").display()),
            format!("cache_dir={}", self.folder().join("cache").display()),
        ];
        for default in ["poll_interval=1s", "drain_timeout=20s"] {
            let name = default.split_once('=').unwrap().0;
            if !self.options.iter().any(|o| o.starts_with(name)) {
                options.push(default.to_owned());
            }
        }
        options.extend(self.options.iter().cloned());
        let mut command = objfs();
        command.arg("mount").arg(format!("s3://{}{}", place.bucket, self.prefix)).arg(self.root());
        command.args(["-o", &options.join(",")]);
        command.env("S3_ACCESS_KEY_ID", &place.access_key).env("S3_SECRET_ACCESS_KEY", &place.secret_key);
        output_of(&mut command, PROGRAM_MAX)
    }

    /// `objfs umount`. Where tests share a process, a program that another one starts has this one's open files until it
    /// runs: that is busy for a moment.
    fn umount(&self, options: &[&str]) -> Output {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut command = objfs();
            command.arg("umount").args(options).arg(self.root());
            let output = output_of(&mut command, Duration::from_secs(45));
            let is_busy = String::from_utf8_lossy(&output.stderr).contains("busy");
            if output.status.success() || !is_busy || Instant::now() > deadline {
                return output;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Unmounts in order: everything is in the bucket, the daemon is gone, the staging directory is empty.
    pub(crate) fn unmount(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        let output = self.umount(&[]);
        if !output.status.success() {
            self.daemon = Some(daemon);
            panic!("not unmounted: {}", String::from_utf8_lossy(&output.stderr));
        }
        eventually("the daemon ends", || (!is_alive(daemon.pid)).then_some(()));
        assert_eq!(self.staged_files(), [] as [String; 0], "in the staging directory after an unmount");
    }

    pub(crate) fn remount(&mut self) {
        self.unmount();
        self.mount_again();
    }

    /// kill -9: what was not acknowledged is lost, the rest must not be.
    pub(crate) fn kill(&mut self) {
        let daemon = self.daemon.take().unwrap();
        kill(daemon.pid);
        eventually("the daemon dies", || (!is_alive(daemon.pid)).then_some(()));
        unmount_lazily(&self.root());
    }

    /// Names in the staging directory.
    pub(crate) fn staged_files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for bucket in std::fs::read_dir(self.folder().join("state")).unwrap() {
            let Ok(entries) = std::fs::read_dir(bucket.unwrap().path().join("staging")) else { continue };
            names.extend(entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()));
        }
        names
    }

    pub(crate) fn pid(&self) -> i32 {
        self.daemon.as_ref().unwrap().pid
    }

    /// The peak of the daemon's resident memory, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
    }

    /// What `objfs status --json` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut command = objfs();
        let output = stdout_of(command.args(["status", "--json"]).arg(self.root()));
        serde_json::from_str(&output).unwrap()
    }

    /// What `objfs ls --unmappable` says: reason, size and key of each.
    pub(crate) fn unmappable(&self) -> Vec<(String, u64, String)> {
        let mut command = objfs();
        let output = stdout_of(command.args(["ls", "--unmappable"]).arg(self.root()));
        let parse = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            (fields[0].to_owned(), fields[1].parse().unwrap(), serde_json::from_str(fields[2]).unwrap())
        };
        output.lines().map(parse).collect()
    }

    /// Waits until nothing is pending.
    pub(crate) fn settle(&self) {
        eventually("nothing is pending", || {
            let pending = &self.status()["pending"];
            (pending["files"] == 0 && pending["markers"] == 0).then_some(())
        });
    }

    /// Runs a shell script in the mount.
    pub(crate) fn sh(&self, script: &str) -> String {
        stdout_of(Command::new("sh").arg("-euc").arg(script).current_dir(self.root()))
    }

    /// Runs Python in the mount.
    pub(crate) fn py(&self, script: &str, args: &[&str]) -> String {
        let script = format!("import errno, mmap, os, stat, sys\n{script}");
        stdout_of(Command::new(python()).arg("-c").arg(script).args(args).current_dir(self.root()))
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let Ok(folders) = std::fs::read_dir(self.folder().join("state")) else { return text };
        for folder in folders.flatten() {
            let log = std::fs::read_to_string(folder.path().join("objfs.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(60)..] {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the daemon\n{}---", self.log());
            if let Some(daemon) = self.daemon.take() {
                // The test's answer is known; what the daemon still holds does not count.
                kill(daemon.pid);
                unmount_lazily(&self.root());
            }
        } else {
            // It may have to give up something that a test left broken on purpose, but it must end.
            if let Some(daemon) = self.daemon.take() {
                let output = self.umount(&["--force", "--timeout", "20"]);
                if !output.status.success() {
                    let log = self.log();
                    kill(daemon.pid);
                    unmount_lazily(&self.root());
                    panic!("not unmounted: {}{log}", String::from_utf8_lossy(&output.stderr));
                }
            }
        }
        if is_mounted(&self.root()) {
            // Removing the folder would remove what is in the bucket.
            _ = self.folder.take().map(TempDir::keep);
        }
    }
}

fn watch(pid: i32, root: PathBuf) -> mpsc::Sender<()> {
    let (gone, left) = mpsc::channel();
    let limit = if is_full() { MOUNT_MAX_FULL } else { MOUNT_MAX };
    thread::spawn(move || {
        if left.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the mount at {} is {limit:?} old: its daemon {pid} is killed", root.display());
            kill(pid);
            unmount_lazily(&root);
        }
    });
    gone
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|l| l.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

fn unmount_lazily(path: &Path) {
    let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
    command.args(if is_root() { &["-l"][..] } else { &["-uz"][..] }).arg(path);
    _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
