//! What somebody else wrote: trees of all shapes, and changes under our feet.

use crate::common::{Mount, Store, errno, eventually, names, noise, python};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// Keys that a tool may make, and the path that shows each; none for what no path can express.
const TREE: [(&str, Option<&str>); 26] = [
    ("top.txt", Some("top.txt")),
    ("implied/by/keys/only", Some("implied/by/keys/only")),
    ("marked/", Some("marked")),
    ("marked/inside", Some("marked/inside")),
    ("empty dir/", Some("empty dir")),
    ("a", None),
    ("a/b", Some("a/b")),
    ("a-", Some("a-")),
    ("a.txt", Some("a.txt")),
    ("x/a", None),
    ("x/a/", Some("x/a")),
    ("x//y", None),
    ("x/z", Some("x/z")),
    ("/leading", None),
    ("//twice", None),
    ("dots/../up", None),
    ("dots/./here", None),
    ("dots/ok", Some("dots/ok")),
    ("..", None),
    (".hidden", Some(".hidden")),
    ("日本/本.epub", Some("日本/本.epub")),
    ("عربي/كتاب", Some("عربي/كتاب")),
    ("Ünïcode/e\u{301}", Some("Ünïcode/e\u{301}")),
    ("Ünïcode/é", Some("Ünïcode/é")),
    ("sp ace/pl+us %41?#&", Some("sp ace/pl+us %41?#&")),
    ("double-slash-end//", None),
];

fn plant(store: &Store) {
    for (key, _) in TREE {
        let body = if key.ends_with('/') { "" } else { key };
        store.put(key, body);
    }
}

fn paths(mount: &Mount<'_>) -> BTreeSet<String> {
    mount
        .sh("find . -mindepth 1 -print0")
        .split_terminator('\0')
        .map(|p| p.trim_start_matches("./").to_owned())
        .collect()
}

#[test]
fn a_tree_of_all_shapes_is_listed_right_and_unharmed() {
    let store = Store::dev();
    plant(&store);
    let before = store.list_everything();
    let mut mount = store.mount();
    let mut wanted: BTreeSet<String> = TREE.iter().filter_map(|(_, path)| path.map(str::to_owned)).collect();
    let implied = ["implied", "implied/by", "implied/by/keys", "a", "x", "dots", "日本", "عربي", "Ünïcode", "sp ace"];
    wanted.extend(implied.map(str::to_owned));
    // It holds nothing but a key that no path can express, and is there all the same.
    wanted.insert("double-slash-end".to_owned());
    for round in ["first", "second", "after a remount"] {
        assert_eq!(paths(&mount), wanted, "{round}");
        if round == "second" {
            mount.remount();
        }
    }
    for (key, path) in TREE {
        let Some(path) = path else { continue };
        let meta = fs::metadata(mount.at(path)).unwrap();
        assert_eq!(meta.is_dir(), key.ends_with('/'), "{path}");
        if meta.is_file() {
            assert_eq!(fs::read_to_string(mount.at(path)).unwrap(), key);
        }
    }
    mount.unmount();
    assert_eq!(store.list_everything(), before, "the bucket as it was");
}

#[test]
fn names_are_found_without_listing_first() {
    let store = Store::dev();
    plant(&store);
    let mount = store.mount();
    for (key, path) in TREE {
        let Some(path) = path else { continue };
        assert_eq!(fs::metadata(mount.at(path)).unwrap().is_dir(), key.ends_with('/'), "{path}");
    }
    assert!(fs::metadata(mount.at("a")).unwrap().is_dir(), "the directory hides the object");
    assert_eq!(errno(fs::metadata(mount.at("implied/no"))), libc::ENOENT);
    assert_eq!(errno(fs::metadata(mount.at("top.txt/below"))), libc::ENOTDIR);
}

#[test]
fn keys_that_no_path_can_express_are_counted_and_shown() {
    let store = Store::dev();
    plant(&store);
    let mount = store.mount();
    paths(&mount);
    let shown: BTreeSet<(String, String)> = mount.unmappable().into_iter().map(|(why, _, key)| (key, why)).collect();
    let wanted: BTreeSet<(String, String)> = [
        ("a", "hidden-by-directory"),
        ("x/a", "hidden-by-directory"),
        ("x//y", "empty-component"),
        ("/leading", "empty-component"),
        ("//twice", "empty-component"),
        ("dots/../up", "dot-component"),
        ("dots/./here", "dot-component"),
        ("..", "dot-component"),
        ("double-slash-end//", "empty-component"),
    ]
    .map(|(key, why)| (key.to_owned(), why.to_owned()))
    .into();
    assert_eq!(shown, wanted);
    assert_eq!(mount.status()["unmappable_keys"], wanted.len());
    let sizes = |key: &str| mount.unmappable().iter().find(|(_, _, k)| k == key).unwrap().1;
    assert_eq!(sizes("dots/../up"), 10);
    store.delete("..");
    store.delete("/leading");
    store.delete("//twice");
    eventually("what is gone is no longer counted", || {
        names(mount.root());
        (mount.status()["unmappable_keys"] == wanted.len() - 3).then_some(())
    });
}

#[test]
fn keys_that_no_path_can_express_come_to_no_harm() {
    let store = Store::dev();
    plant(&store);
    let mut mount = store.mount();
    // With them inside, the directories are not empty, though they look it.
    mount.sh("rm x/z; rmdir x/a");
    assert_eq!(errno(fs::remove_dir(mount.at("x"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(mount.at("double-slash-end"))), libc::ENOTEMPTY);
    mount.sh("rm -r a");
    mount.unmount();
    let keys = store.keys();
    for key in ["a", "x//y", "x/a", "/leading", "//twice", "dots/../up", "dots/./here", "..", "double-slash-end//"] {
        assert!(keys.iter().any(|k| k == key), "{key} is gone: {keys:?}");
    }
}

#[test]
fn renaming_a_directory_takes_keys_along_that_no_path_can_express() {
    let store = Store::dev();
    for key in ["d/x", "d//y", "d/../z", "d/s/"] {
        store.put(key, if key.ends_with('/') { "" } else { key });
    }
    let mount = store.mount();
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    assert_eq!(store.keys(), ["e/../z", "e//y", "e/s/", "e/x"]);
    assert_eq!(store.text("e//y"), "d//y");
}

#[test]
fn a_change_elsewhere_shows_within_the_poll_interval() {
    let store = Store::dev();
    store.put("d/old", "1");
    store.put("d/gone", "1");
    let mount = store.mount();
    assert_eq!(names(mount.at("d")), ["gone", "old"]);
    store.put("d/new", "new");
    store.put("d/old", "longer than before");
    store.delete("d/gone");
    store.put("e/f", "x");
    let start = std::time::Instant::now();
    eventually("the new names are shown", || (names(mount.at("d")) == ["new", "old"]).then_some(()));
    eventually("the new directory is shown", || (names(mount.root()) == ["d", "e"]).then_some(()));
    eventually("the new size is shown", || (fs::metadata(mount.at("d/old")).unwrap().len() == 18).then_some(()));
    assert_eq!(errno(fs::metadata(mount.at("d/gone"))), libc::ENOENT);
    // A poll interval of a second, and the kernel's own memory of another.
    assert!(start.elapsed().as_secs() < 6, "{:?}", start.elapsed());
    assert_eq!(fs::read_to_string(mount.at("d/old")).unwrap(), "longer than before");
}

#[test]
fn an_open_sees_what_was_written_elsewhere_before() {
    let store = Store::dev();
    // Much longer than the test: only the open itself can notice.
    let mount = store.mount_with(&["poll_interval=600s"]);
    for i in 0..4 {
        let body = format!("version {i} {}", "x".repeat(i * 10));
        store.put("file", &body);
        if i > 0 {
            // An open a moment after a confirmation need not ask again.
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), body);
    }
}

#[test]
fn an_inode_number_stays_when_nobody_has_the_changed_file_open() {
    let store = Store::dev();
    store.put("file", "one");
    let mount = store.mount();
    let ino = fs::metadata(mount.at("file")).unwrap().ino();
    store.put("file", "three");
    eventually("the change is shown", || (fs::metadata(mount.at("file")).unwrap().len() == 5).then_some(()));
    assert_eq!(fs::metadata(mount.at("file")).unwrap().ino(), ino);
}

#[test]
fn an_open_reader_never_sees_a_mixture() {
    let store = Store::dev();
    let (old, new) = (noise(1, 24 << 20), noise(2, 24 << 20));
    store.put("file", &old);
    let mount = store.mount();
    let mut file = File::open(mount.at("file")).unwrap();
    let mut head = vec![0; 1 << 20];
    file.read_exact(&mut head).unwrap();
    assert!(head == old[..1 << 20]);
    store.put("file", &new);
    let mut offset = 1 << 20;
    let mut piece = vec![0; 1 << 20];
    let refused = loop {
        match file.read_at(&mut piece, offset as u64) {
            Ok(0) => break None,
            Ok(n) => {
                assert!(piece[..n] == old[offset..offset + n], "bytes of another version at {offset}");
                offset += n;
            }
            Err(e) => break Some(e.raw_os_error().unwrap()),
        }
    };
    assert!(refused.is_none_or(|e| e == libc::ESTALE), "{refused:?}");
    // An open a moment after a confirmation need not ask again, but then reads the old version or nothing.
    eventually("a new open reads the new version", || match fs::read(mount.at("file")) {
        Ok(bytes) if bytes == new => Some(()),
        Ok(bytes) => {
            assert!(bytes == old, "a mixture");
            None
        }
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::ESTALE));
            None
        }
    });
    match file.read_at(&mut piece, 23 << 20) {
        Ok(n) => assert!(piece[..n] == old[23 << 20..(23 << 20) + n], "the old handle shows the new version"),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ESTALE)),
    }
    drop(file);
    assert!(fs::read(mount.at("file")).unwrap() == new);
}

/// Maps a file, and reads far behind its beginning once it is told to.
const MAPPED: &str = "import mmap, os, sys
f = os.open('file', os.O_RDONLY)
m = mmap.mmap(f, 0, prot=mmap.PROT_READ)
print(m[0], flush=True)
sys.stdin.readline()
print(m[20 << 20])";

#[test]
fn what_is_gone_of_the_version_that_is_open_is_an_error_and_for_mapped_files_a_signal() {
    let store = Store::dev();
    store.put("file", noise(1, 24 << 20));
    let mount = store.mount_with(&["cache_size=0"]);
    let file = File::open(mount.at("file")).unwrap();
    let ino = file.metadata().unwrap().ino();
    let mut piece = vec![0; 4096];
    file.read_exact_at(&mut piece, 0).unwrap();
    let mut mapped = Command::new(python());
    mapped.args(["-I", "-c", MAPPED]).current_dir(mount.root()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mapped = mapped.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(mapped.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("{}\n", piece[0]));
    store.put("file", noise(2, 24 << 20));
    let is_another = || fs::metadata(mount.at("file")).is_ok_and(|now| now.ino() != ino);
    eventually("the name has another inode", || is_another().then_some(()));
    assert_eq!(errno(file.read_at(&mut piece, 20 << 20)), libc::ESTALE);
    assert_eq!(file.metadata().unwrap().ino(), ino, "the open file keeps its own");
    drop(mapped.stdin.take());
    assert_eq!(mapped.wait().unwrap().signal(), Some(libc::SIGBUS));
}

#[test]
fn a_file_that_was_deleted_elsewhere_is_gone() {
    let store = Store::dev();
    store.put("d/file", "x");
    store.put("d/other", "x");
    let mount = store.mount();
    assert_eq!(fs::read_to_string(mount.at("d/file")).unwrap(), "x");
    store.delete("d/file");
    eventually("its name is gone", || fs::metadata(mount.at("d/file")).is_err().then_some(()));
    assert_eq!(names(mount.at("d")), ["other"]);
    assert_eq!(errno(File::open(mount.at("d/file"))), libc::ENOENT);
    fs::write(mount.at("d/file"), "again").unwrap();
    assert_eq!(store.text("d/file"), "again");
}

#[test]
fn deleting_what_was_deleted_elsewhere_is_no_failure() {
    let store = Store::dev();
    store.put("a", "x");
    store.put("b", "x");
    let mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(names(mount.root()), ["a", "b"]);
    store.delete("a");
    mount.sh("rm -f a");
    assert_eq!(names(mount.root()), ["b"]);
}

#[test]
fn deleting_what_was_changed_elsewhere_deletes_what_is_there_now() {
    let store = Store::dev();
    store.put("a", "one");
    let mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(fs::read_to_string(mount.at("a")).unwrap(), "one");
    store.put("a", "two");
    mount.sh("rm a");
    assert!(store.keys().is_empty());
}

#[test]
fn a_name_that_changes_its_kind_elsewhere_does_so_here() {
    let store = Store::dev();
    store.put("name", "a file");
    let mount = store.mount();
    assert!(fs::metadata(mount.at("name")).unwrap().is_file());
    store.delete("name");
    store.put("name/below", "x");
    eventually("it is a directory", || fs::metadata(mount.at("name")).is_ok_and(|m| m.is_dir()).then_some(()));
    assert_eq!(names(mount.at("name")), ["below"]);
    store.delete("name/below");
    store.put_with("name", "elsewhere", &[("mode", "41471")]);
    eventually("it is a link", || fs::symlink_metadata(mount.at("name")).is_ok_and(|m| m.is_symlink()).then_some(()));
    assert_eq!(fs::read_link(mount.at("name")).unwrap().to_str(), Some("elsewhere"));
    store.put("name", "a file again");
    eventually("it is a file", || fs::symlink_metadata(mount.at("name")).is_ok_and(|m| m.is_file()).then_some(()));
    assert_eq!(fs::read_to_string(mount.at("name")).unwrap(), "a file again");
}

/// What a process sees whose working directory goes. It waits for that.
const WITHIN: &str = "import errno, os, time
def code(act):
    try: return str(act())
    except OSError as e: return errno.errorcode[e.errno]
def stat(): return code(lambda: os.stat('.'))
end = time.monotonic() + 30
while (code(os.getcwd), stat()) != ('ENOENT', 'ESTALE') and time.monotonic() < end: time.sleep(0.05)
acts = os.getcwd, lambda: os.listdir('.'), lambda: os.stat('x'), lambda: open('new', 'w'), lambda: os.mkdir('sub')
print(stat(), *map(code, acts))";

#[test]
fn a_directory_that_is_gone_elsewhere_is_gone_for_who_is_in_it_too() {
    let store = Store::dev();
    store.put("d/x", "x");
    let mount = store.mount();
    let before = fs::metadata(mount.at("d")).unwrap().ino();
    // It is in there once it was started.
    let mut within = Command::new(python());
    within.args(["-I", "-c", WITHIN]).current_dir(mount.at("d")).stdin(Stdio::null()).stdout(Stdio::piped());
    let within = within.spawn().unwrap();
    store.delete("d/x");
    eventually("the directory is gone", || fs::metadata(mount.at("d")).is_err().then_some(()));
    let said = within.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "ESTALE ENOENT ESTALE ESTALE ESTALE ESTALE\n");
    assert!(store.keys().is_empty(), "nothing of it reached the bucket");
    store.put("d/y", "y");
    eventually("another directory has its name", || fs::metadata(mount.at("d")).ok());
    assert_ne!(fs::metadata(mount.at("d")).unwrap().ino(), before);
    assert_eq!(names(mount.at("d")), ["y"]);
}

#[test]
fn changes_made_while_it_was_not_mounted_are_seen() {
    let store = Store::dev();
    for name in ["stays", "goes", "changes"] {
        store.put(name, "one");
    }
    let mut mount = store.mount();
    mount.sh("cat * > /dev/null");
    mount.unmount();
    store.delete("goes");
    store.put("changes", "two!");
    store.put("comes", "three");
    mount.mount_again();
    eventually("the new names are shown", || (names(mount.root()) == ["changes", "comes", "stays"]).then_some(()));
    assert_eq!(mount.sh("cat changes comes stays"), "two!threeone");
}
