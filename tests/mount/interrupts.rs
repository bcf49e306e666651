//! Processes that wait for a server that does not answer: a signal frees them, and nothing is broken afterwards.

use crate::common::{Mount, Store, eventually, is_alive, names, python, stdout_of};
use objfs::devserver::Effect;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From the signal to the end of the process. Usually 0.2 s; the bound leaves room for a busy machine.
const FREED_MAX: Duration = Duration::from_secs(2);

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
    fn end(&mut self, signal: &str) -> Duration {
        assert!(is_alive(self.pid()), "it did not wait");
        let start = Instant::now();
        stdout_of(Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]));
        eventually("it ends", || (!is_alive(self.pid())).then_some(()));
        let taken = start.elapsed();
        self.0.wait().unwrap();
        taken
    }
}

/// The server answers these operations only after a long time.
fn silence(store: &Store, ops: &[&str]) {
    store.fault_on(Effect::Latency { ms: 60_000 }, ops);
}

fn is_freed(ops: &[&str], script: &str) {
    let store = Store::dev();
    for i in 0..3 {
        store.put(&format!("dir/file{i}"), vec![1; 3 << 20]);
    }
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    for signal in ["KILL", "INT", "TERM"] {
        silence(&store, ops);
        let mut program = Program::start(&mount, script);
        eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
        // Longer than a request must be in flight before anybody looks at its process.
        std::thread::sleep(Duration::from_millis(300));
        let taken = program.end(signal);
        assert!(taken < FREED_MAX, "SIG{signal}: {taken:?}");
        store.heal();
    }
    assert_eq!(names(mount.at("dir")), ["file0", "file1", "file2"], "it works on");
    assert_eq!(fs::read(mount.at("dir/file2")).unwrap().len(), 3 << 20);
    mount.sh("echo x > dir/new; mv dir/new dir/newer; rm dir/newer; echo y > again; cat again");
    eventually("no handle is left", || (mount.status()["pending"]["open_files"] == 0).then_some(()));
}

#[test]
fn a_reader_is_freed() {
    is_freed(&["GetObject"], "cat dir/file0");
}

#[test]
fn an_open_is_freed() {
    is_freed(&["HeadObject"], "cat dir/file1");
}

/// The kernel knows that the name is free, and we look once more.
#[test]
fn a_creation_is_freed() {
    let store = Store::dev();
    store.put("dir/file", "x");
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    for signal in ["KILL", "INT", "TERM"] {
        assert!(!names(mount.at("dir")).contains(&"new".to_owned()));
        // As long as it is just confirmed that the name is free, nobody looks.
        std::thread::sleep(Duration::from_millis(1100));
        silence(&store, &["HeadObject", "ListObjectsV2"]);
        let mut program = Program::start(&mount, "sh -c 'echo x >> dir/new'");
        eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        let taken = program.end(signal);
        assert!(taken < FREED_MAX, "SIG{signal}: {taken:?}");
        store.heal();
    }
    mount.sh("echo y >> dir/new; cat dir/new");
    eventually("no handle is left", || (mount.status()["pending"]["open_files"] == 0).then_some(()));
}

#[test]
fn a_listing_is_freed() {
    is_freed(&["ListObjectsV2"], "ls dir");
}

#[test]
fn a_close_is_freed_and_its_file_comes_later() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    fs::write(mount.outside("source"), vec![1; 1000]).unwrap();
    // dd copies the descriptor: killed in its first close, it closes the file once more on its way out.
    let dd = "dd if=../source of=by-dd status=none";
    for (signal, script) in [("KILL", dd), ("INT", "cp ../source by-cp"), ("TERM", "cp ../source by-cp2")] {
        silence(&store, &["PutObject"]);
        let mut program = Program::start(&mount, script);
        eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
        // Longer than a request must be in flight before anybody looks at its process.
        std::thread::sleep(Duration::from_millis(300));
        let taken = program.end(signal);
        assert!(taken < FREED_MAX, "SIG{signal} to {script}: {taken:?}");
        store.heal();
        fs::write(mount.at("other"), "y").unwrap();
    }
    // Their commits run on, and end when the server answers.
    for name in ["by-cp", "by-cp2"] {
        assert_eq!(fs::read(mount.at(name)).unwrap(), vec![1; 1000]);
    }
}

#[test]
fn a_body_that_stalls_is_left() {
    let store = Store::dev();
    store.put("file", vec![1; 4 << 20]);
    let mount = store.mount();
    store.fault_on(Effect::Stall { ms: 60_000 }, &["GetObject"]);
    let mut program = Program::start(&mount, "cat file");
    eventually("it waits for the server", || (mount.status()["in_flight"] != 0).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    let taken = program.end("KILL");
    assert!(taken < FREED_MAX, "{taken:?}");
    store.heal();
    assert_eq!(fs::read(mount.at("file")).unwrap().len(), 4 << 20);
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
    silence(&store, &["GetObject"]);
    let mut programs: Vec<Program> = (0..20).map(|_| Program::start(&mount, "cat slow")).collect();
    eventually("they wait for the server", || (mount.status()["in_flight"] != 0).then_some(()));
    let start = Instant::now();
    assert_eq!(
        mount.sh("ls dir; cat own; df . > /dev/null; echo new > new; mv new newer; stat -c %s newer"),
        "known\nmine4\n"
    );
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for program in &mut programs {
        program.end("KILL");
    }
    store.heal();
}
