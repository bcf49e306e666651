//! A small world for one test: a server, a mountpoint, state folders, and the program with an environment of its own.
//!
//! Owns: starting and ending all of that, deadlines on everything that may hang, and looking for what was left behind.
//! Does not own: what is tested.

use crate::client;
use objfs::daemon::mounts;
use objfs::devserver::{Effect, FaultSettings, Rule, Server, Settings, Storage};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The secret key of every world. Nothing but the environment and the server may hold it.
pub(crate) const SECRET: &str = "kept-to-itself-ZpQ7/x+1";
/// Marks the processes of a world in their environment.
const MARK: &str = "OBJFS_TEST_WORLD";
/// Longer than any command here may take.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// It ended well and complained about nothing.
    #[track_caller]
    pub(crate) fn good(self) -> Outcome {
        assert!(self.code == Some(0) && self.err.is_empty(), "{self:?}");
        self
    }
}

/// See the module.
pub(crate) struct World {
    server: Option<Server>,
    address: SocketAddr,
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl World {
    /// With a running server and an empty bucket `demo`.
    pub(crate) fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in ["mnt", "home", "tmp", "run", "state", "cache", "out"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = World { server: None, address: any, runtime, dir };
        world.start_server();
        world
    }

    /// Starts the server, at the same port as before, with the objects that it had.
    pub(crate) fn start_server(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let server = loop {
            let settings = Settings {
                listen: self.address,
                secret_key: SECRET.to_owned(),
                storage: Storage::Directory(self.path("objects")),
                ..Settings::default()
            };
            match self.runtime.block_on(Server::start(settings)) {
                Ok(server) => break server,
                Err(e) if Instant::now() > deadline => panic!("{e}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.address = server.address();
        self.server = Some(server);
    }

    /// Takes the server away.
    pub(crate) fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("the server runs")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// These faults from now on.
    pub(crate) fn faults(&self, effects: &[(Effect, &str)]) {
        let rules = effects.iter().map(|(effect, op)| {
            let rule = Rule::new(*effect);
            if op.is_empty() { rule } else { rule.on(op) }
        });
        self.server().faults().set(FaultSettings { seed: 1, rules: rules.collect() });
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mnt(&self) -> PathBuf {
        self.path("mnt")
    }

    /// A path within the mount.
    pub(crate) fn in_mnt(&self, name: &str) -> PathBuf {
        self.mnt().join(name)
    }

    /// The options that every mount here needs: no world shares state with another.
    pub(crate) fn options(&self, more: &str) -> String {
        let (state, cache) = (self.path("state"), self.path("cache"));
        let options =
            format!("endpoint={},state_dir={},cache_dir={}", self.endpoint(), state.display(), cache.display());
        if more.is_empty() { options } else { format!("{options},{more}") }
    }

    /// The program, with keys in its environment and nothing of the test's own.
    pub(crate) fn objfs<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(binary());
        command.args(args);
        command
    }

    /// Any program, in the same environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("home/state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("S3_ACCESS_KEY_ID", "objfs")
            .env("S3_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(MARK, self.dir.path());
        command
    }

    /// Runs a command to its end. Output goes through files: a daemon that kept a pipe open would hold the test.
    #[track_caller]
    pub(crate) fn run(&self, mut command: Command) -> Outcome {
        let out = tempfile::NamedTempFile::new_in(self.path("out")).unwrap();
        let err = tempfile::NamedTempFile::new_in(self.path("out")).unwrap();
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.reopen().unwrap())
            .stderr(err.reopen().unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let code = self.end_of(&mut child, LONG);
        let took = start.elapsed();
        let read =
            |file: &tempfile::NamedTempFile| String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned();
        Outcome { code, out: read(&out), err: read(&err), took }
    }

    /// The exit code of a child, which has to come soon.
    #[track_caller]
    pub(crate) fn end_of(&self, child: &mut Child, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                self.clean();
                let _ = child.kill();
                panic!("process {} did not end within {limit:?}\n{}", child.id(), self.logs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `objfs mount` of the bucket, with these options more.
    #[track_caller]
    pub(crate) fn mount(&self, more: &str) -> Outcome {
        let outcome = self.try_mount("s3://demo", more);
        assert!(outcome.code == Some(0) && outcome.err.is_empty(), "{outcome:?}\n{}", self.logs());
        assert!(mounts::is_mounted(&self.mnt()));
        outcome
    }

    #[track_caller]
    pub(crate) fn try_mount(&self, source: &str, more: &str) -> Outcome {
        let options = self.options(more);
        self.run(self.objfs(["mount", source, self.mnt().to_str().unwrap(), "-o", &options]))
    }

    /// `objfs umount`.
    #[track_caller]
    pub(crate) fn umount(&self) -> Outcome {
        let outcome = self.try_umount();
        assert!(outcome.code == Some(0) && outcome.err.is_empty(), "{outcome:?}\n{}", self.logs());
        assert!(!mounts::is_mounted(&self.mnt()));
        outcome
    }

    #[track_caller]
    pub(crate) fn try_umount(&self) -> Outcome {
        self.run(self.objfs(["umount", self.mnt().to_str().unwrap()]))
    }

    /// The way without objfs: fusermount3, or umount(8) for root.
    #[track_caller]
    pub(crate) fn unmount_foreign(&self) {
        let mut command = self.command(if is_root() { "umount" } else { "fusermount3" });
        if !is_root() {
            command.arg("-u");
        }
        command.arg(self.mnt());
        self.run(command).good();
    }

    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let outcome = self.run(self.objfs(["status", "--json", self.mnt().to_str().unwrap()])).good();
        serde_json::from_str(&outcome.out).unwrap()
    }

    /// The daemon's process.
    #[track_caller]
    pub(crate) fn daemon(&self) -> u32 {
        u32::try_from(self.status()["pid"].as_u64().unwrap()).unwrap()
    }

    /// Does something that touches the mount, on a thread of its own: it may not hang the test.
    #[track_caller]
    pub(crate) fn within<T: Send + 'static>(&self, what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || drop(sender.send(work())));
        match receiver.recv_timeout(LONG) {
            Ok(done) => done,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                std::panic::resume_unwind(thread.join().unwrap_err())
            }
            Err(_) => {
                let logs = self.logs();
                self.clean();
                panic!("{what} hangs\n{logs}")
            }
        }
    }

    /// Writes a file. The error of close(2) counts.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let (path, content) = (self.in_mnt(name), content.to_vec());
        self.within("writing", move || {
            let mut file = std::fs::File::create(path)?;
            file.write_all(&content)?;
            Ok(nix::unistd::close(file)?)
        })
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let path = self.in_mnt(name);
        self.within("reading", move || std::fs::read(path))
    }

    #[track_caller]
    pub(crate) fn names(&self) -> Vec<String> {
        let path = self.mnt();
        let names = move || std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = self.within("listing", move || names().collect());
        names.sort();
        names
    }

    /// The object, by an independent client; `None` if there is none.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            let client = self.client();
            let answer = client.get_object().bucket("demo").key(key).send().await.ok()?;
            Some(answer.body.collect().await.unwrap().to_vec())
        })
    }

    /// Puts an object, by an independent client.
    pub(crate) fn put(&self, key: &str, body: &[u8]) {
        self.runtime.block_on(async { client::put(&self.client(), key, body).await });
    }

    /// Begins a multipart upload, and leaves it.
    pub(crate) fn create_upload(&self, key: &str) -> String {
        self.runtime.block_on(async {
            let answer = self.client().create_multipart_upload().bucket("demo").key(key).send().await.unwrap();
            answer.upload_id().unwrap().to_owned()
        })
    }

    fn client(&self) -> aws_sdk_s3::Client {
        let checksums = aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired;
        client::client_with(&self.endpoint(), SECRET, checksums)
    }

    /// The one state folder.
    #[track_caller]
    pub(crate) fn state_folder(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.path("state")).unwrap();
        folders.next().expect("a state folder").unwrap().path()
    }

    /// Living processes of this world but for the test's own, with their command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mark = [MARK.as_bytes(), b"=", self.dir.path().as_os_str().as_bytes(), b"\0"].concat();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // Gone or somebody else's: not ours.
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
            if pid != std::process::id() && environment.windows(mark.len()).any(|w| w == mark) && is_alive(pid) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Mountpoints below this world.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let here = self.dir.path();
        let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        points.filter(|point| point.starts_with(here)).collect()
    }

    /// Control sockets of this world.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        if is_root() {
            let socket = objfs::daemon::control_socket(&self.mnt());
            return if socket.exists() { vec![socket] } else { Vec::new() };
        }
        let entries = std::fs::read_dir(self.path("run/objfs"));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// Files that wait for their upload.
    pub(crate) fn staged(&self) -> Vec<PathBuf> {
        files_below(&self.path("state")).into_iter().filter(|p| p.parent().unwrap().ends_with("staging")).collect()
    }

    /// No process and no mount, and that soon.
    #[track_caller]
    pub(crate) fn assert_over(&self) {
        let ended = eventually(LONG, || self.processes().is_empty());
        let (mounts, sockets) = (self.mounts(), self.sockets());
        assert!(ended, "processes left: {:?}\n{}", self.processes(), self.logs());
        assert!(mounts.is_empty() && sockets.is_empty(), "left: {mounts:?} {sockets:?}\n{}", self.logs());
    }

    /// All logs, for messages of failed tests.
    pub(crate) fn logs(&self) -> String {
        let logs = files_below(&self.path("state")).into_iter().filter(|p| p.extension().is_some_and(|e| e == "log"));
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect()
    }

    /// Ends what runs and takes away what is mounted, hung or not.
    pub(crate) fn clean(&self) {
        for (pid, _) in self.processes() {
            signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        for point in self.mounts() {
            let mut command = Command::new(if is_root() { "umount" } else { "fusermount3" });
            command.args(if is_root() { &["-l"][..] } else { &["-u", "-z"] }).arg(point);
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.clean();
        self.stop_server();
    }
}

/// The program under test: as it was built, or a copy that an ordinary user can run.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("OBJFS_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_objfs")), PathBuf::from)
}

/// The project's folder, or the copy of it that a test run by another user has.
pub(crate) fn project() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Neither gone nor a zombie that nobody has waited for yet.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Whether it becomes true within `limit`.
pub(crate) fn eventually(limit: Duration, is_true: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_true() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Every file below a folder that is on no mount.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}
