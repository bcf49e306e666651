//! Processes that wait for a server that does not answer: a signal frees them, and nothing is broken afterwards.

use crate::common::{Mount, Store, eventually, is_alive, names, noise, python, stdout_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use objfs::devserver::Effect;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// From the signal to the end of the process.
const FREED_MAX: Duration = Duration::from_millis(200);
/// A busy machine is slow now and then; what takes longer by itself does so each time.
const TRIES: usize = 3;
/// A process that has not ended by then never will.
const END_MAX: Duration = Duration::from_secs(20);
const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM];

/// A program that runs in the mount by itself.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.0.kill();
    }
}

impl Program {
    fn start(mount: &Mount<'_>, script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {script}")]).current_dir(mount.root());
        Program(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Sends the signal, and says how long it took to end.
    fn end(&mut self, signal: Signal) -> Duration {
        assert!(is_alive(self.pid()), "it did not wait");
        let start = Instant::now();
        kill(Pid::from_raw(self.pid()), signal).unwrap();
        while self.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < END_MAX, "{signal} does not end it");
            thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    }
}

/// How the server leaves those waiting who ask for something.
#[derive(Clone, Copy)]
struct Silence<'a> {
    effect: Effect,
    ops: &'a [&'a str],
    /// Whether the request ends with whoever waits for it. Others may wait for a listing, and a commit has to be done anyway.
    is_given_up: bool,
}

impl<'a> Silence<'a> {
    /// The server answers these operations only after a long time.
    fn of(ops: &'a [&'a str]) -> Silence<'a> {
        Silence { effect: Effect::Latency { ms: 60_000 }, ops, is_given_up: true }
    }

    /// The same for operations that somebody waits for in the end.
    fn of_commits() -> Silence<'a> {
        Silence { effect: Effect::Latency { ms: 4_000 }, ops: &["PutObject"], is_given_up: false }
    }

    /// Starts what `script` answers for each try, which comes to wait, and sends it the signal.
    #[track_caller]
    fn assert_freed(self, store: &Store, mount: &Mount<'_>, signal: Signal, script: impl Fn(usize) -> String) {
        let mut times = Vec::new();
        for number in 0..TRIES {
            let script = script(number);
            store.fault_on(self.effect, self.ops);
            let mut program = Program::start(mount, &script);
            eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
            // Longer than a request must be in flight before anybody looks at its process.
            thread::sleep(Duration::from_millis(300));
            let given_up = || store.server().counters().given_up;
            let before = given_up();
            let taken = program.end(signal);
            if self.is_given_up {
                eventually("the request is cancelled", || (given_up() > before).then_some(()));
            }
            store.heal();
            if taken < FREED_MAX {
                return;
            }
            times.push(taken);
        }
        panic!("{signal} to {:?}: {times:?}", script(TRIES));
    }
}

fn is_freed(silence: Silence<'_>, script: &str) {
    let store = Store::dev();
    for i in 0..3 {
        store.put(&format!("dir/file{i}"), vec![1; 3 << 20]);
    }
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    for signal in SIGNALS {
        silence.assert_freed(&store, &mount, signal, |_| script.to_owned());
    }
    assert_eq!(names(mount.at("dir")), ["file0", "file1", "file2"], "it works on");
    assert_eq!(fs::read(mount.at("dir/file2")).unwrap().len(), 3 << 20);
    mount.sh("echo x > dir/new; mv dir/new dir/newer; rm dir/newer; echo y > again; cat again");
    eventually("no handle is left", || (mount.status()["pending"]["open_files"] == 0).then_some(()));
}

#[test]
fn a_reader_is_freed_and_its_request_is_cancelled() {
    is_freed(Silence::of(&["GetObject"]), "cat dir/file0");
}

#[test]
fn an_open_is_freed_and_its_request_is_cancelled() {
    is_freed(Silence::of(&["HeadObject"]), "cat dir/file1");
}

/// The kernel knows that the name is free, and we look once more.
#[test]
fn a_creation_is_freed_and_its_request_is_cancelled() {
    let store = Store::dev();
    store.put("dir/file", "x");
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    for signal in SIGNALS {
        Silence::of(&["HeadObject", "ListObjectsV2"]).assert_freed(&store, &mount, signal, |_| {
            assert!(!names(mount.at("dir")).contains(&"new".to_owned()));
            // As long as it is just confirmed that the name is free, nobody looks.
            thread::sleep(Duration::from_millis(1100));
            "sh -c 'echo x >> dir/new'".to_owned()
        });
    }
    mount.sh("echo y >> dir/new; cat dir/new");
    eventually("no handle is left", || (mount.status()["pending"]["open_files"] == 0).then_some(()));
}

#[test]
fn a_listing_is_freed() {
    is_freed(Silence { is_given_up: false, ..Silence::of(&["ListObjectsV2"]) }, "ls dir");
}

#[test]
fn a_close_is_freed_and_its_file_comes_later() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    fs::write(mount.outside("source"), vec![1; 1000]).unwrap();
    // dd copies the descriptor: killed in its first close, it closes the file once more on its way out.
    let dd = |number: usize| format!("dd if=../source of=by-dd-{number} status=none");
    Silence::of_commits().assert_freed(&store, &mount, Signal::SIGKILL, dd);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let cp = |number: usize| format!("cp ../source by-cp-{signal}-{number}");
        Silence::of_commits().assert_freed(&store, &mount, signal, cp);
        fs::write(mount.at("other"), "y").unwrap();
    }
    // Their commits run on, and end when the server answers.
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        assert_eq!(fs::read(mount.at(&format!("by-cp-{signal}-0"))).unwrap(), vec![1; 1000]);
    }
}

#[test]
fn an_fsync_is_freed_and_the_file_comes_later() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut file = File::create(mount.at("file")).unwrap();
    for signal in SIGNALS {
        file.write_all(b"more ").unwrap();
        Silence::of_commits().assert_freed(&store, &mount, signal, |_| "sync file".to_owned());
    }
    drop(file);
    assert_eq!(store.text("file"), "more more more ");
}

#[test]
fn a_body_that_stalls_is_left_and_its_request_is_cancelled() {
    let store = Store::dev();
    store.put("file", vec![1; 4 << 20]);
    let mount = store.mount();
    let stalls = Silence { effect: Effect::Stall { ms: 60_000 }, ..Silence::of(&["GetObject"]) };
    stalls.assert_freed(&store, &mount, Signal::SIGKILL, |_| "cat file".to_owned());
    assert_eq!(fs::read(mount.at("file")).unwrap().len(), 4 << 20);
}

/// The kernel writes what was stored to a mapping while the process dies, in nobody's name (fs/fuse/file.c, fuse_send_writepage):
/// nobody would hear that it was interrupted.
#[test]
fn what_a_killed_process_has_stored_to_a_mapping_waits_for_room_and_is_kept() {
    let store = Store::dev();
    store.put("mapped", vec![0; 4096]);
    let mut mount = store.mount_with(&["staging_size=64K", "write=back", "upload_delay=1h"]);
    // The first upload of a mount probes the bucket.
    mount.py("f = os.open('probe', os.O_RDWR | os.O_CREAT)\nos.write(f, b'x')\nos.fsync(f)\nos.close(f)", &[]);
    let script = "import mmap, time\n\
        f = open('mapped', 'r+b')\n\
        m = mmap.mmap(f.fileno(), 0)\n\
        m[0:4] = b'page'\n\
        open('../stored', 'w').close()\n\
        time.sleep(100)";
    fs::write(mount.outside("map.py"), script).unwrap();
    let mut program = Program::start(&mount, &format!("{} ../map.py", python()));
    eventually("it has stored", || mount.outside("stored").exists().then_some(()));
    // There is no room until this is uploaded.
    store.fault_on(Effect::Latency { ms: 1500 }, &["PutObject"]);
    fs::write(mount.at("full"), vec![1; 64 << 10]).unwrap();
    program.end(Signal::SIGKILL);
    store.heal();
    mount.unmount();
    assert_eq!(&store.get("mapped")[..4], b"page");
}

#[test]
fn a_reader_goes_on_when_another_one_of_the_same_file_is_killed() {
    let store = Store::dev();
    let body = noise(3, 3 << 20);
    store.put("file", &body);
    let mount = store.mount();
    store.fault_on(Effect::Latency { ms: 2_000 }, &["GetObject"]);
    let mut first = Program::start(&mount, "cat file");
    eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
    let mut second = Program::start(&mount, "cp file ../copy");
    thread::sleep(Duration::from_millis(300));
    first.end(Signal::SIGKILL);
    store.heal();
    let ended = eventually("the other one has read it", || second.0.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert!(fs::read(mount.outside("copy")).unwrap() == body);
}

#[test]
fn signals_that_programs_live_with_interrupt_nothing() {
    let store = Store::dev();
    store.put("file", vec![1; 300_000]);
    let mount = store.mount();
    store.fault_on(Effect::Latency { ms: 800 }, &["GetObject", "HeadObject", "ListObjectsV2", "PutObject"]);
    // Written against the calls themselves: Python's own would hide EINTR.
    let script = "import ctypes, signal, threading, time\n\
        caught = []\n\
        for s in (signal.SIGALRM, signal.SIGCHLD, signal.SIGURG, signal.SIGUSR1, signal.SIGWINCH):\n\
        \x20   signal.signal(s, lambda n, f: caught.append(n))\n\
        \x20   signal.siginterrupt(s, True)\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        main = threading.get_ident()\n\
        def shower():\n\
        \x20   while not done:\n\
        \x20       for s in (signal.SIGALRM, signal.SIGCHLD, signal.SIGURG, signal.SIGUSR1, signal.SIGWINCH):\n\
        \x20           signal.pthread_kill(main, s)\n\
        \x20       time.sleep(0.02)\n\
        done = False\n\
        t = threading.Thread(target=shower)\n\
        t.start()\n\
        try:\n\
        \x20   fd = libc.open(b'file', os.O_RDWR)\n\
        \x20   e1 = ctypes.get_errno() if fd < 0 else 0\n\
        \x20   buffer = ctypes.create_string_buffer(300000)\n\
        \x20   n = libc.pread(fd, buffer, 300000, 0)\n\
        \x20   e2 = ctypes.get_errno() if n < 0 else 0\n\
        \x20   w = libc.pwrite(fd, b'hello', 5, 0)\n\
        \x20   c = libc.close(fd)\n\
        \x20   e3 = ctypes.get_errno() if c < 0 else 0\n\
        \x20   m = libc.mkdir(b'made', 0o755)\n\
        \x20   e4 = ctypes.get_errno() if m < 0 else 0\n\
        finally:\n\
        \x20   done = True\n\
        \x20   t.join()\n\
        print(fd >= 0, n, w, c, m, e1, e2, e3, e4, len(caught) > 10)";
    let mut command = Command::new(python());
    command.arg("-c").arg(format!("import os\n{script}")).current_dir(mount.root());
    assert_eq!(stdout_of(&mut command).trim(), "True 300000 5 0 0 0 0 0 0 True");
    store.heal();
    assert_eq!(&store.get("file")[..5], b"hello");
}

#[test]
fn other_processes_work_on_while_one_waits() {
    let store = Store::dev();
    store.put("slow", vec![1; 1 << 20]);
    store.put("dir/known", "x");
    let mount = store.mount_with(&["poll_interval=600s"]);
    fs::write(mount.at("own"), "mine").unwrap();
    assert_eq!(mount.sh("ls dir; cat dir/known own"), "known\nxmine");
    store.fault_on(Effect::Latency { ms: 60_000 }, &["GetObject"]);
    let mut programs: Vec<Program> = (0..20).map(|_| Program::start(&mount, "cat slow")).collect();
    eventually("they wait for the server", || (mount.status()["in_flight"] != 0).then_some(()));
    let start = Instant::now();
    assert_eq!(
        mount.sh("ls dir; cat own; df . > /dev/null; echo new > new; mv new newer; stat -c %s newer"),
        "known\nmine4\n"
    );
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for program in &mut programs {
        program.end(Signal::SIGKILL);
    }
    store.heal();
}
