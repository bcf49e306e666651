//! The same work on a mount and in a directory of this machine, and the comparison of what it leaves there.
//!
//! Owns: running it in both places; files as a directory, the bucket and this machine have them, with modes and times;
//! files that many tests start from.
//! Does not own: the work (the files beside this one, by kinds of programs), servers and mounts (`world`).

use crate::world::{Mount, Store, noise, objfs, stdout_of};
use objfs::devserver::Counts;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Close waits for the bucket.
pub(crate) const THROUGH: &[&str] = &[];
/// Close waits for the journal, and what is written again soon is uploaded once.
pub(crate) const BACK: &[&str] = &["write=back", "upload_delay=200ms"];

/// Files and links, by path; a link's bytes are its target, as in the bucket.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

pub(crate) fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                left.push(path);
                continue;
            }
            let bytes = if kind.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), bytes);
        }
    }
    found
}

/// What stat tells of everything below a directory: kind and mode, size but for directories, and the time of the last
/// change if `times`.
pub(crate) fn listing(dir: &Path, times: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let time = if times { format!(" {}.{:09}", meta.mtime(), meta.mtime_nsec()) } else { String::new() };
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            found.insert(name, format!("{:06o} {size}{time}", meta.mode()));
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// What the independent client sees.
fn bucket(store: &Store) -> Tree {
    let files = store.keys().into_iter().filter(|key| !key.ends_with('/'));
    files.map(|key| (key.clone(), store.get(&key))).collect()
}

/// The bucket as directories and files of this machine.
pub(crate) fn download(store: &Store, to: &Path) {
    fs::create_dir(to).unwrap();
    for key in store.keys() {
        let path = to.join(&key);
        if key.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, store.get(&key)).unwrap();
        }
    }
}

#[track_caller]
pub(crate) fn assert_same(what: &str, mut found: Tree, mut wanted: Tree, except: &[&str]) {
    for tree in [&mut found, &mut wanted] {
        tree.retain(|name, _| !except.contains(&name.as_str()));
    }
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&found), names(&wanted), "{what}");
    for (name, bytes) in &found {
        assert!(*bytes == wanted[name], "{what}: {name}: {} bytes, of {}", bytes.len(), wanted[name].len());
    }
}

/// Both hold the same files with the same modes and times, as a program leaves them that sets times.
#[track_caller]
pub(crate) fn assert_copied(copy: &Path, original: &Path) {
    assert_same("copied", tree(copy), tree(original), &[]);
    assert_eq!(listing(copy, true), listing(original, true), "modes and times");
}

/// `objfs sync`: everything is in the bucket.
pub(crate) fn sync(mount: &Mount<'_>) {
    stdout_of(objfs().arg("sync").arg(mount.root()));
}

/// Runs a shell script in the mount and in `../local`, and answers what it prints: the same in both.
#[track_caller]
pub(crate) fn both(mount: &Mount<'_>, script: &str) -> String {
    let local = mount.outside("local");
    fs::create_dir_all(&local).unwrap();
    let wanted = stdout_of(Command::new("sh").arg("-euc").arg(script).current_dir(&local));
    let printed = mount.sh(script);
    assert_eq!(printed, wanted, "{script}");
    printed
}

/// The mount and the bucket hold what `../local` holds; in the mount it has the same modes.
#[track_caller]
pub(crate) fn assert_agrees(store: &Store, mount: &Mount<'_>, except: &[&str]) {
    let local = mount.outside("local");
    assert_same("through the mount", tree(&mount.root()), tree(&local), except);
    let modes = |dir: &Path| {
        let mut found = listing(dir, false);
        found.retain(|name, _| !except.contains(&name.as_str()));
        found
    };
    assert_eq!(modes(&mount.root()), modes(&local), "modes");
    sync(mount);
    assert_same("in the bucket", bucket(store), tree(&local), except);
}

/// What `work` costs in requests, until everything is in the bucket.
pub(crate) fn cost<T>(store: &Store, mount: &Mount<'_>, work: impl FnOnce() -> T) -> Counts {
    sync(mount);
    store.server().reset_counters();
    work();
    sync(mount);
    store.server().counters()
}

/// PUTs, copies and deletes.
pub(crate) fn writes(counts: &Counts) -> (u64, u64, u64) {
    (counts.of("PutObject"), counts.of("CopyObject"), counts.of("DeleteObject"))
}

/// 40 files, a link and an empty directory in `../source`, all of them old: rsync leaves times alone that are of the
/// same second.
pub(crate) fn make_source(mount: &Mount<'_>) {
    let source = mount.outside("source");
    fs::create_dir_all(source.join("sub dir/empty")).unwrap();
    for i in 0..30 {
        fs::write(source.join(format!("f{i}")), noise(i, 700 * i as usize)).unwrap();
    }
    for i in 0..10 {
        fs::write(source.join(format!("sub dir/\u{e4} {i}")), format!("{i}\n")).unwrap();
    }
    let rest =
        "ln -s f1 link; chmod 600 f2; chmod 750 f4; find . -exec touch -h -d '2019-09-09 09:09:09.123456789Z' {} +";
    stdout_of(Command::new("sh").arg("-euc").arg(rest).current_dir(source));
}

/// There was no conflict, and after the unmount nothing is left over in the bucket.
pub(crate) fn finish(store: &Store, mount: &mut Mount<'_>) {
    assert_eq!(mount.status()["pending"]["conflicts"], 0);
    mount.unmount();
    let left: Vec<String> = store.list_everything().into_keys().filter(|k| k.starts_with(".objfs/")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(store.open_uploads(), 0);
}
