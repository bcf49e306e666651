//! Locks between processes: flock(2), and fcntl(2) by process and by open file description. They are those of this kernel, and
//! a mount keeps them as a local disk does.

use crate::common::{Store, eventually, is_alive, kill, python};
use nix::sys::stat::{major, minor};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The kinds of locks, as [`TAKES_LOCKS`] calls them.
const KINDS: [&str; 3] = ["flock", "posix", "ofd"];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A process that evaluates what it is told, line by line, and says what came of it. `f` is the file.
const TAKES_LOCKS: &str = r"
import errno, fcntl, os, struct, sys
from fcntl import LOCK_EX as EX, LOCK_SH as SH, LOCK_UN as UN
FLOCK = 'hhqqi4x'
def flock(f, how, wait=False):
    fcntl.flock(f, how if wait else how | fcntl.LOCK_NB)
def posix(f, how, first=0, count=0, wait=False):
    fcntl.lockf(f, how if wait or how == UN else how | fcntl.LOCK_NB, count, first)
def ofd(f, how, first=0, count=0, wait=False):
    kind = {EX: fcntl.F_WRLCK, SH: fcntl.F_RDLCK, UN: fcntl.F_UNLCK}[how]
    lock = struct.pack(FLOCK, kind, os.SEEK_SET, first, count, 0)
    fcntl.fcntl(f, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, lock)
def holder(f):
    lock = fcntl.fcntl(f, fcntl.F_GETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return struct.unpack(FLOCK, lock)[4]
f = os.open('file', os.O_RDWR)
for line in sys.stdin:
    try: print(eval(line), flush=True)
    except OSError as e: print(errno.errorcode[e.errno], flush=True)
";

struct Process {
    child: Child,
    answers: mpsc::Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Process {
    /// One that has opened `file` in this directory.
    fn start(dir: &Path) -> Process {
        let mut command = Command::new(python());
        command.args(["-c", TAKES_LOCKS]).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (said, answers) = mpsc::channel();
        thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let mut process = Process { child, answers };
        assert_eq!(process.ask("f > 0"), "True");
        process
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(PATIENCE).expect("it still waits, or is gone")
    }

    fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.answer()
    }

    #[track_caller]
    fn may(&mut self, what: &str) {
        assert_eq!(self.ask(what), "None", "{what}");
    }

    #[track_caller]
    fn may_not(&mut self, what: &str) {
        assert_eq!(self.ask(what), "EAGAIN", "{what}");
    }
}

/// A mount with a file, and a directory of this machine with the same: both must do the same.
fn places(mount: &crate::common::Mount<'_>) -> [PathBuf; 2] {
    let local = mount.outside("local");
    fs::create_dir(&local).unwrap();
    fs::write(local.join("file"), "0123456789").unwrap();
    [local, mount.root()]
}

/// The locks on a file, as /proc/locks shows them: kind, mode, process, first and last byte.
fn shown_locks(path: &Path) -> Vec<String> {
    let meta = fs::metadata(path).unwrap();
    let id = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let all = fs::read_to_string("/proc/locks").unwrap();
    let each = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_file = each.filter(|fields| fields.get(5) == Some(&id.as_str()));
    let mut found: Vec<String> = of_file.map(|f| [f[1], f[3], f[4], f[6], f[7]].join(" ")).collect();
    found.sort();
    found
}

#[test]
fn an_exclusive_lock_keeps_others_out_and_a_shared_one_lets_sharers_in() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    for dir in places(&mount) {
        let (mut a, mut b) = (Process::start(&dir), Process::start(&dir));
        for lock in KINDS {
            a.may(&format!("{lock}(f, EX)"));
            b.may_not(&format!("{lock}(f, EX)"));
            b.may_not(&format!("{lock}(f, SH)"));
            a.may(&format!("{lock}(f, SH)"));
            b.may(&format!("{lock}(f, SH)"));
            a.may_not(&format!("{lock}(f, EX)"));
            a.may(&format!("{lock}(f, UN)"));
            b.may(&format!("{lock}(f, EX)"));
            a.may_not(&format!("{lock}(f, SH)"));
            b.may(&format!("{lock}(f, UN)"));
            a.may(&format!("{lock}(f, EX)"));
            a.may(&format!("{lock}(f, UN)"));
        }
    }
}

#[test]
fn a_lock_ends_with_its_descriptor_and_with_its_process() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    for dir in places(&mount) {
        let mut other = Process::start(&dir);
        for lock in KINDS {
            let (take, leave) = (format!("{lock}(f, EX)"), format!("{lock}(f, UN)"));
            let mut closes = Process::start(&dir);
            closes.may(&take);
            other.may_not(&take);
            // Those of a process end with the first descriptor that it closes (fcntl(2)), the others with the last one.
            closes.may("os.close(os.dup(f))");
            if lock == "posix" {
                other.may(&take);
                other.may(&leave);
            } else {
                other.may_not(&take);
            }
            closes.may("os.close(f)");
            other.may(&take);
            other.may(&leave);
            let mut dies = Process::start(&dir);
            dies.may(&take);
            other.may_not(&take);
            kill(dies.pid());
            eventually("its lock is free", || (other.ask(&take) == "None").then_some(()));
            other.may(&leave);
        }
    }
}

#[test]
fn locks_of_fcntl_are_about_bytes() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    for dir in places(&mount) {
        for (own, other) in [("posix", "posix"), ("ofd", "ofd"), ("posix", "ofd")] {
            let (mut a, mut b) = (Process::start(&dir), Process::start(&dir));
            a.may(&format!("{own}(f, EX, 0, 10)"));
            let holder = if own == "posix" { a.pid() } else { -1 };
            assert_eq!(b.ask("holder(f)"), holder.to_string());
            b.may(&format!("{other}(f, EX, 10, 10)"));
            b.may_not(&format!("{other}(f, SH, 5, 3)"));
            a.may_not(&format!("{own}(f, EX, 15, 100)"));
            a.may(&format!("{own}(f, UN, 0, 5)"));
            b.may(&format!("{other}(f, EX, 0, 5)"));
            b.may_not(&format!("{other}(f, EX, 4, 2)"));
            // To the end, wherever that will be.
            a.may(&format!("{own}(f, EX, 1 << 40, 0)"));
            b.may_not(&format!("{other}(f, SH, (1 << 40) + 7, 1)"));
        }
    }
}

#[test]
fn who_waits_for_a_lock_gets_it_when_its_holder_dies_and_can_be_killed() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    for dir in places(&mount) {
        for lock in KINDS {
            let (take, wait) = (format!("{lock}(f, EX)"), format!("{lock}(f, EX, wait=True)"));
            let mut processes = [(); 3].map(|()| Process::start(&dir));
            let [holder, waits, gives_up] = &mut processes;
            holder.may(&take);
            waits.tell(&wait);
            gives_up.tell(&wait);
            thread::sleep(Duration::from_millis(50));
            assert_eq!(waits.answers.try_recv(), Err(mpsc::TryRecvError::Empty), "{lock}: it waits");
            kill(gives_up.pid());
            eventually("it dies", || (!is_alive(gives_up.pid())).then_some(()));
            kill(holder.pid());
            assert_eq!(waits.answer(), "None", "{lock}");
        }
    }
}

#[test]
fn locks_of_a_mount_are_shown_with_those_of_the_machine() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    let (mut a, mut b) = (Process::start(&mount.root()), Process::start(&mount.root()));
    a.may("flock(f, EX)");
    b.may("posix(f, SH, 0, 10)");
    a.may("ofd(f, EX, 100, 50)");
    let mut wanted = vec![
        format!("FLOCK WRITE {} 0 EOF", a.pid()),
        format!("POSIX READ {} 0 9", b.pid()),
        "OFDLCK WRITE -1 100 149".to_owned(),
    ];
    wanted.sort();
    assert_eq!(shown_locks(&mount.at("file")), wanted);
    a.may("os.close(f)");
    b.may("posix(f, UN)");
    assert_eq!(shown_locks(&mount.at("file")), [] as [String; 0]);
}

#[test]
fn locks_stay_when_the_file_is_uploaded() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    let (mut a, mut b) = (Process::start(&mount.root()), Process::start(&mount.root()));
    // A lock of a process and one of a descriptor exclude each other, whoever has them.
    let all = ["flock(f, EX)", "posix(f, EX, 0, 5)", "ofd(f, EX, 5, 5)"];
    all.iter().for_each(|lock| a.may(lock));
    assert_eq!(a.ask("os.pwrite(f, b'changed', 0)"), "7");
    a.may("os.fsync(f)");
    assert_eq!(store.text("file"), "changed789");
    mount.sh("echo more >> file");
    assert_eq!(store.text("file"), "changed789more\n");
    all.iter().for_each(|lock| b.may_not(lock));
}

#[test]
fn processes_that_take_turns_by_flock_count_right() {
    let store = Store::dev();
    let mount = store.mount();
    let turn = "flock lock sh -c 'n=$(cat counter); echo $((n + 1)) > counter'";
    let count = mount.sh(&format!(
        "echo 0 > counter; : > lock\n\
         for process in 1 2 3 4; do (for i in 1 2 3 4 5; do {turn}; done) & done\n\
         wait; cat counter"
    ));
    assert_eq!(count.trim(), "20");
    assert_eq!(store.text("counter"), "20\n");
}
