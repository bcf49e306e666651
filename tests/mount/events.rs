//! Changes made elsewhere as inotify events for programs that watch.

use crate::common::{Mount, Store, eventually, is_root, names, objfs, python, stdout_of};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Changes of each kind.
const COUNT: usize = 200;
/// What the mounts here poll with.
const INTERVAL: Duration = Duration::from_secs(2);
/// An event comes within a poll period and this.
const SLACK: Duration = Duration::from_secs(2);

/// A program that watches directories, and those that appear in them, as `inotifywait -m -r` does.
struct Watcher {
    inotify: Inotify,
    dirs: HashMap<WatchDescriptor, String>,
    root: std::path::PathBuf,
    seen: BTreeMap<String, usize>,
}

impl Watcher {
    fn new(mount: &Mount<'_>, dirs: &[&str]) -> Watcher {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let mut watcher = Watcher { inotify, dirs: HashMap::new(), root: mount.root(), seen: BTreeMap::new() };
        dirs.iter().for_each(|dir| watcher.watch(dir));
        eventually("the mount knows that it is watched", || {
            (mount.status()["watched_directories"].as_u64() >= Some(dirs.len() as u64)).then_some(())
        });
        watcher
    }

    fn watch(&mut self, dir: &str) {
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE;
        let wd = self.inotify.add_watch(&self.root.join(dir), events).unwrap();
        self.dirs.insert(wd, dir.to_owned());
    }

    fn read(&mut self) {
        for event in self.inotify.read_events().unwrap_or_default() {
            let Some(dir) = self.dirs.get(&event.wd).cloned() else { continue };
            let Some(name) = event.name else { continue };
            let path =
                if dir.is_empty() { name.into_string().unwrap() } else { format!("{dir}/{}", name.to_str().unwrap()) };
            let mask = event.mask;
            let kinds = [
                (AddWatchFlags::IN_CREATE, "CREATE"),
                (AddWatchFlags::IN_CLOSE_WRITE, "CLOSE_WRITE"),
                (AddWatchFlags::IN_MODIFY, "MODIFY"),
                (AddWatchFlags::IN_DELETE, "DELETE"),
                (AddWatchFlags::IN_MOVED_FROM, "MOVED_FROM"),
                (AddWatchFlags::IN_MOVED_TO, "MOVED_TO"),
            ];
            let is_dir = mask.contains(AddWatchFlags::IN_ISDIR);
            for (flag, word) in kinds {
                if mask.contains(flag) {
                    let text = format!("{word}{} {path}", if is_dir { ",ISDIR" } else { "" });
                    *self.seen.entry(text).or_default() += 1;
                }
            }
            if is_dir && mask.contains(AddWatchFlags::IN_CREATE) {
                self.watch(&path);
            }
        }
    }

    /// These events come in time, each once, and no others, also not with the next poll.
    fn expect(&mut self, what: &str, wanted: &[String]) {
        let deadline = Instant::now() + INTERVAL + SLACK;
        while self.seen.len() < wanted.len() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
            self.read();
        }
        let in_time = self.seen.len();
        let later = Instant::now() + INTERVAL + Duration::from_millis(500);
        while Instant::now() < later {
            thread::sleep(Duration::from_millis(50));
            self.read();
        }
        let wanted: BTreeMap<String, usize> = wanted.iter().map(|event| (event.clone(), 1)).collect();
        let seen = std::mem::take(&mut self.seen);
        let missing: Vec<_> = wanted.keys().filter(|event| !seen.contains_key(*event)).take(5).collect();
        let other: Vec<_> = seen.iter().filter(|(event, n)| wanted.get(*event) != Some(n)).take(5).collect();
        assert!(
            seen == wanted,
            "{what}: {} of {} in time; missing {missing:?}, wrong {other:?}",
            in_time,
            wanted.len()
        );
    }
}

/// Just after a poll, so that what `work` does lies between two.
fn between_polls(store: &Store, work: impl FnOnce()) {
    let lists = || store.server().counters().of("ListObjectsV2");
    let before = lists();
    eventually("the next poll", || (lists() > before).then_some(()));
    thread::sleep(Duration::from_millis(100));
    work();
}

fn each(words: &[&str], path: impl Fn(usize) -> String) -> Vec<String> {
    (0..COUNT).flat_map(|i| words.iter().map(|word| format!("{word} {}", path(i))).collect::<Vec<_>>()).collect()
}

fn two_hundred_of_each_kind(options: &[&str]) {
    let store = Store::dev();
    for i in 0..COUNT {
        store.put(&format!("lib/old{i:03}"), format!("content of {i}"));
    }
    store.put("other/book", "b");
    let options: Vec<&str> = options.iter().copied().chain(["poll_interval=2s"]).collect();
    let mount = store.mount_with(&options);
    mount.sh("ls -lR > /dev/null");
    let mut watcher = Watcher::new(&mount, &["", "lib", "other"]);

    (0..COUNT).for_each(|i| store.put(&format!("lib/new{i:03}"), format!("news of {i}")));
    watcher.expect("new files", &each(&["CREATE", "CLOSE_WRITE"], |i| format!("lib/new{i:03}")));
    assert_eq!(fs::read_to_string(mount.at("lib/new007")).unwrap(), "news of 7");

    (0..COUNT).for_each(|i| store.put(&format!("lib/old{i:03}"), format!("other content of {i}")));
    watcher.expect("changed files", &each(&["MODIFY", "CLOSE_WRITE"], |i| format!("lib/old{i:03}")));
    assert_eq!(fs::read_to_string(mount.at("lib/old007")).unwrap(), "other content of 7");

    let ino = |path: &str| fs::metadata(mount.at(path)).unwrap().ino();
    let (here, there) = (ino("lib/new001"), ino("lib/new002"));
    between_polls(&store, || {
        for i in 0..COUNT {
            // Half within the directory, half into another.
            let to = if i % 2 == 0 { "other" } else { "lib" };
            store.copy(&format!("lib/new{i:03}"), &format!("{to}/moved{i:03}"));
            store.delete(&format!("lib/new{i:03}"));
        }
    });
    let to = |i| format!("{}/moved{i:03}", if i % 2 == 0 { "other" } else { "lib" });
    let mut wanted = each(&["MOVED_FROM"], |i| format!("lib/new{i:03}"));
    wanted.extend(each(&["MOVED_TO"], to));
    watcher.expect("moved files", &wanted);
    assert_eq!((ino("lib/moved001"), ino("other/moved002")), (here, there), "the same files");
    assert_eq!(fs::read_to_string(mount.at("other/moved004")).unwrap(), "news of 4");

    (0..COUNT).for_each(|i| store.delete(&format!("lib/old{i:03}")));
    watcher.expect("deleted files", &each(&["DELETE"], |i| format!("lib/old{i:03}")));
    assert!(!mount.at("lib/old007").exists());

    (0..COUNT).for_each(|i| store.put(&format!("lib/dir{i:03}/"), ""));
    watcher.expect("new directories", &each(&["CREATE,ISDIR"], |i| format!("lib/dir{i:03}")));
    (0..COUNT).for_each(|i| store.delete(&format!("lib/dir{i:03}/")));
    watcher.expect("deleted directories", &each(&["DELETE,ISDIR"], |i| format!("lib/dir{i:03}")));
}

#[test]
fn two_hundred_changes_of_each_kind_are_events() {
    two_hundred_of_each_kind(&[]);
}

#[test]
fn a_read_only_mount_raises_them_as_well() {
    two_hundred_of_each_kind(&["ro"]);
}

#[test]
fn a_new_tree_comes_from_the_top() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount_with(&["poll_interval=2s"]);
    mount.sh("ls -lR > /dev/null");
    let mut watcher = Watcher::new(&mount, &["", "lib"]);
    for i in 0..5 {
        store.put(&format!("lib/Author/Book/part{i}"), format!("{i}"));
    }
    let mut wanted = vec!["CREATE,ISDIR lib/Author".to_owned(), "CREATE,ISDIR lib/Author/Book".to_owned()];
    for i in 0..5 {
        wanted.extend(["CREATE", "CLOSE_WRITE"].map(|word| format!("{word} lib/Author/Book/part{i}")));
    }
    watcher.expect("a new tree", &wanted);
    (0..5).for_each(|i| store.delete(&format!("lib/Author/Book/part{i}")));
    let mut wanted = vec!["DELETE,ISDIR lib/Author".to_owned(), "DELETE,ISDIR lib/Author/Book".to_owned()];
    wanted.extend((0..5).map(|i| format!("DELETE lib/Author/Book/part{i}")));
    watcher.expect("the tree is gone", &wanted);
}

#[test]
fn what_is_done_through_the_mount_is_told_once() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount_with(&["poll_interval=2s"]);
    mount.sh("ls -lR > /dev/null");
    let mut watcher = Watcher::new(&mount, &["", "lib"]);
    mount.sh("echo x > lib/own; mkdir lib/d; mv lib/own lib/mine; rm lib/a");
    let wanted = [
        "CREATE lib/own",
        "MODIFY lib/own",
        "CLOSE_WRITE lib/own",
        "CREATE,ISDIR lib/d",
        "MOVED_FROM lib/own",
        "MOVED_TO lib/mine",
        "DELETE lib/a",
    ];
    watcher.expect("our own changes", &wanted.map(str::to_owned));
}

#[test]
fn a_name_that_somebody_asked_for_first_is_shown_at_once_and_modified() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount_with(&["poll_interval=2s"]);
    mount.sh("ls -lR > /dev/null");
    let mut watcher = Watcher::new(&mount, &["", "lib"]);
    store.put("lib/b", "b");
    eventually("the name is asked for until it is there", || mount.at("lib/b").exists().then_some(()));
    thread::sleep(INTERVAL + SLACK);
    watcher.read();
    let closed = watcher.seen.get("CLOSE_WRITE lib/b").copied();
    assert_eq!(closed, Some(1), "one way or the other: {:?}", watcher.seen);
    assert!(watcher.seen.len() == 2, "{:?}", watcher.seen);
}

#[test]
fn who_looks_into_a_new_directory_finds_what_is_in_it() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount_with(&["poll_interval=1s"]);
    mount.sh("ls -lR > /dev/null");
    // One that does not watch what is below.
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    inotify.add_watch(&mount.at("lib"), AddWatchFlags::IN_CREATE).unwrap();
    eventually("watched", || (mount.status()["watched_directories"].as_u64() >= Some(1)).then_some(()));
    for new in ["one", "two"] {
        store.put(&format!("lib/{new}/book"), "b");
        eventually("the directory's event", || inotify.read_events().ok());
        if new == "two" {
            // Long after its event.
            thread::sleep(Duration::from_millis(300));
        }
        let names: Vec<_> = fs::read_dir(mount.at("lib").join(new)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["book"], "{new}");
    }
}

#[test]
fn directories_times_move_when_a_child_appears_or_goes() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount();
    mount.sh("ls -lR > /dev/null");
    let mtime = || {
        let meta = fs::metadata(mount.at("lib")).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    let before = mtime();
    store.put("lib/b", "b");
    let after = eventually("mtime moves", || Some(mtime()).filter(|now| *now > before));
    store.put("lib/b", "other");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(mtime(), after, "other content is no change of the directory");
    store.delete("lib/a");
    eventually("mtime moves again", || (mtime() > after).then_some(()));
}

/// Everything that can happen in a directory, as it happens.
struct Sequence(Inotify);

impl Sequence {
    const KINDS: [(AddWatchFlags, &str); 7] = [
        (AddWatchFlags::IN_CREATE, "CREATE"),
        (AddWatchFlags::IN_OPEN, "OPEN"),
        (AddWatchFlags::IN_MODIFY, "MODIFY"),
        (AddWatchFlags::IN_CLOSE_WRITE, "CLOSE_WRITE"),
        (AddWatchFlags::IN_DELETE, "DELETE"),
        (AddWatchFlags::IN_MOVED_FROM, "MOVED_FROM"),
        (AddWatchFlags::IN_MOVED_TO, "MOVED_TO"),
    ];

    fn of(dir: &Path) -> Sequence {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let all = Sequence::KINDS.iter().fold(AddWatchFlags::empty(), |all, (kind, _)| all | *kind);
        inotify.add_watch(dir, all).unwrap();
        Sequence(inotify)
    }

    /// As many events as are wanted, and those that come in the moment after.
    fn told(&self, wanted: usize) -> Vec<String> {
        let mut told = Vec::new();
        let (deadline, mut is_last) = (Instant::now() + INTERVAL + SLACK, false);
        while Instant::now() < deadline {
            for event in self.0.read_events().unwrap_or_default() {
                let Some(name) = event.name else { continue };
                let kind = Sequence::KINDS.iter().find(|(kind, _)| event.mask.contains(*kind)).map(|(_, word)| *word);
                told.extend(kind.map(|word| format!("{word} {}", name.to_string_lossy())));
            }
            if is_last {
                break;
            }
            is_last = told.len() >= wanted;
            thread::sleep(Duration::from_millis(if is_last { 200 } else { 20 }));
        }
        told
    }
}

/// Asks the bucket at once, so that nothing waits for a poll.
fn refresh(mount: &Mount<'_>, dir: &str) {
    stdout_of(objfs().arg("refresh").arg(mount.at(dir)));
}

fn until_watched(mount: &Mount<'_>) {
    eventually("the mount knows that it is watched", || {
        (mount.status()["watched_directories"].as_u64() >= Some(1)).then_some(())
    });
}

#[test]
fn each_change_is_told_by_its_events_in_their_order() {
    let store = Store::dev();
    store.put("lib/a", "a");
    store.put("lib/empty", "");
    let mount = store.mount_with(&["poll_interval=600s"]);
    mount.sh("ls -lR > /dev/null");
    let sequence = Sequence::of(&mount.at("lib"));
    until_watched(&mount);
    store.put("lib/b", "b");
    refresh(&mount, "lib");
    assert_eq!(sequence.told(3), ["CREATE b", "OPEN b", "CLOSE_WRITE b"]);
    store.put("lib/b", "another");
    refresh(&mount, "lib");
    assert_eq!(sequence.told(3), ["OPEN b", "MODIFY b", "CLOSE_WRITE b"]);
    store.copy("lib/b", "lib/c");
    store.delete("lib/b");
    refresh(&mount, "lib");
    assert_eq!(sequence.told(2), ["MOVED_FROM b", "MOVED_TO c"]);
    // One empty file is like any other: that is no move.
    store.copy("lib/empty", "lib/new");
    store.delete("lib/empty");
    refresh(&mount, "lib");
    assert_eq!(sequence.told(4), ["CREATE new", "OPEN new", "CLOSE_WRITE new", "DELETE empty"]);
}

#[test]
fn all_is_told_without_looking_for_watchers_or_nothing_as_the_mount_is_told() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let new = ["CREATE new", "OPEN new", "CLOSE_WRITE new"];
    for (option, wanted) in [("events=all", &new[..]), ("events=off", &[])] {
        let mut mount = store.mount_with(&["poll_interval=600s", option]);
        mount.sh("ls -lR > /dev/null");
        let sequence = Sequence::of(&mount.at("lib"));
        if wanted.is_empty() {
            // As long as it would take to find who watches.
            thread::sleep(Duration::from_millis(1100));
        }
        store.put("lib/new", "new");
        refresh(&mount, "lib");
        assert_eq!(sequence.told(wanted.len()), wanted, "{option}");
        assert_eq!(names(mount.at("lib")), ["a", "new"], "{option}");
        drop(sequence);
        mount.unmount();
        store.delete("lib/new");
    }
}

#[test]
fn where_the_daemon_may_not_write_names_come_without_events() {
    if is_root() {
        println!("needs a user who may not write everywhere");
        return;
    }
    let store = Store::dev();
    store.put_with("lib/", "", &[("mode", "16749")]);
    store.put("lib/a", "a");
    let mount = store.mount_with(&["poll_interval=600s"]);
    eventually("its mode is known", || (fs::metadata(mount.at("lib")).unwrap().mode() & 0o777 == 0o555).then_some(()));
    mount.sh("ls -lR > /dev/null");
    let sequence = Sequence::of(&mount.at("lib"));
    until_watched(&mount);
    store.put("lib/new", "new");
    refresh(&mount, "lib");
    eventually("the name is shown", || (names(mount.at("lib")) == ["a", "new"]).then_some(()));
    assert_eq!(sequence.told(0), [] as [String; 0]);
}

/// A program that watches a directory for a while.
const WATCH: &str = "import ctypes, sys, time\n\
    libc = ctypes.CDLL(None)\n\
    assert libc.inotify_add_watch(libc.inotify_init(), sys.argv[1].encode(), 0x100) > 0\n\
    time.sleep(20)";

/// As root those of another user as well.
#[test]
fn watches_of_other_processes_are_found() {
    let store = Store::dev();
    store.put("lib/a", "a");
    let mount = store.mount_with(if is_root() { &["allow_other"] } else { &[] });
    mount.sh("ls -lR > /dev/null");
    assert_eq!(mount.status()["watched_directories"], 0);
    // One that everybody may run: root's own may be below its home.
    let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let mut command = Command::new(if is_root() { "setpriv" } else { python });
    if is_root() {
        // The way into the test's folder is root's alone.
        fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
        command.args(["--reuid", "65534", "--clear-groups", python]);
    }
    command.args(["-I", "-c", WATCH]).arg(mount.at("lib")).stdin(Stdio::null());
    let mut watcher = command.spawn().unwrap();
    until_watched(&mount);
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[test]
fn the_notify_crate_sees_a_book_arrive() {
    use notify::{RecursiveMode, Watcher as _};
    let store = Store::dev();
    store.put("books/a.epub", "a");
    let mount = store.mount_with(&["poll_interval=2s"]);
    let (sender, events) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(sender).unwrap();
    watcher.watch(&mount.root(), RecursiveMode::Recursive).unwrap();
    eventually("watched", || (mount.status()["watched_directories"].as_u64() >= Some(2)).then_some(()));
    store.put("books/Author/b.epub", "b");
    let wanted = mount.at("books/Author/b.epub");
    let deadline = Instant::now() + INTERVAL + SLACK;
    let is_it = |e: notify::Event| {
        matches!(e.kind, notify::EventKind::Access(notify::event::AccessKind::Close(notify::event::AccessMode::Write)))
            && e.paths.contains(&wanted)
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).expect("closed after writing").unwrap();
        if is_it(event) {
            break;
        }
    }
    assert_eq!(fs::read_to_string(&wanted).unwrap(), "b");
}

#[test]
fn pythons_watchdog_sees_a_book_arrive() {
    let store = Store::dev();
    store.put("books/a.epub", "a");
    let mount = store.mount_with(&["poll_interval=2s"]);
    let script = "
import sys, time
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler
class Print(FileSystemEventHandler):
    def on_any_event(self, event):
        print(event.event_type, event.src_path, event.dest_path, flush=True)
observer = Observer()
observer.schedule(Print(), sys.argv[1], recursive=True)
observer.start()
time.sleep(20)
";
    let mut python = Command::new(python());
    python.arg("-c").arg(script).arg(mount.root()).stdin(Stdio::null());
    let out = mount.outside("events");
    let mut child = python.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    eventually("watched", || (mount.status()["watched_directories"].as_u64() >= Some(2)).then_some(()));
    store.put("books/b.epub", "b");
    let seen = |wanted: String| fs::read_to_string(&out).unwrap().contains(&wanted).then_some(());
    let path = |name: &str| mount.at(name).display().to_string();
    eventually("created", || seen(format!("created {}", path("books/b.epub"))));
    eventually("closed", || seen(format!("closed {}", path("books/b.epub"))));
    between_polls(&store, || {
        store.copy("books/b.epub", "books/c.epub");
        store.delete("books/b.epub");
    });
    eventually("moved", || seen(format!("moved {} {}", path("books/b.epub"), path("books/c.epub"))));
    store.delete("books/c.epub");
    eventually("deleted", || seen(format!("deleted {}", path("books/c.epub"))));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_unmount_in_the_midst_of_events_is_orderly() {
    let store = Store::dev();
    for i in 0..COUNT {
        store.put(&format!("lib/{i:03}"), "x");
    }
    let mut mount = store.mount_with(&["poll_interval=1s"]);
    mount.sh("ls -lR > /dev/null");
    let watcher = Watcher::new(&mount, &["", "lib"]);
    (0..COUNT).for_each(|i| store.put(&format!("lib/new{i:03}"), "y"));
    thread::sleep(Duration::from_millis(if is_root() { 900 } else { 700 }));
    drop(watcher);
    mount.unmount();
    assert_eq!(fs::read_dir(mount.root()).unwrap().count(), 0, "nothing was made beside the mount");
}
