//! Renames of files and directories, and files that lose their name while they are open.

use crate::common::{Store, errno, names, noise};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

#[test]
fn renaming_a_file_moves_the_object() {
    let store = Store::dev();
    let bytes = noise(1, 100_000);
    store.put("a", &bytes);
    let mount = store.mount();
    fs::create_dir(mount.at("d")).unwrap();
    let ino = fs::metadata(mount.at("a")).unwrap().ino();
    fs::rename(mount.at("a"), mount.at("d/b")).unwrap();
    assert_eq!(store.keys(), ["d/", "d/b"]);
    assert!(store.get("d/b") == bytes && fs::read(mount.at("d/b")).unwrap() == bytes);
    assert_eq!(errno(fs::metadata(mount.at("a"))), libc::ENOENT);
    assert_eq!(fs::metadata(mount.at("d/b")).unwrap().ino(), ino);
}

#[test]
fn renaming_over_a_file_replaces_it_unless_told_not_to() {
    let store = Store::dev();
    store.put("a", "A");
    store.put("b", "B");
    let mount = store.mount();
    let no_replace = mount.py(
        "import ctypes\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for flag in (1, 2):\n\
         \x20   r = libc.renameat2(-100, b'a', -100, b'b', flag)\n\
         \x20   print(r, errno.errorcode.get(ctypes.get_errno()))",
        &[],
    );
    assert_eq!(no_replace, "-1 EEXIST\n-1 EINVAL\n", "RENAME_NOREPLACE, and RENAME_EXCHANGE");
    assert_eq!(store.keys(), ["a", "b"]);
    fs::rename(mount.at("a"), mount.at("b")).unwrap();
    assert_eq!((store.keys(), store.text("b")), (vec!["b".to_owned()], "A".to_owned()));
    assert_eq!(fs::read_to_string(mount.at("b")).unwrap(), "A");
}

#[test]
fn saving_by_rename_replaces_the_old_version() {
    let store = Store::dev();
    store.put("doc.txt", "old");
    let mount = store.mount();
    assert_eq!(fs::read_to_string(mount.at("doc.txt")).unwrap(), "old");
    fs::write(mount.at(".doc.txt.tmp"), "new").unwrap();
    fs::rename(mount.at(".doc.txt.tmp"), mount.at("doc.txt")).unwrap();
    assert_eq!(fs::read_to_string(mount.at("doc.txt")).unwrap(), "new");
    mount.settle();
    assert_eq!((store.keys(), store.text("doc.txt")), (vec!["doc.txt".to_owned()], "new".to_owned()));
}

#[test]
fn a_file_that_is_still_open_for_writing_can_be_renamed() {
    let store = Store::dev();
    store.put("target", "old");
    let mount = store.mount();
    let mut file = File::create(mount.at("part")).unwrap();
    file.write_all(b"first ").unwrap();
    fs::rename(mount.at("part"), mount.at("target")).unwrap();
    file.write_all(b"second").unwrap();
    assert_eq!(fs::read_to_string(mount.at("target")).unwrap(), "first second");
    drop(file);
    assert_eq!((store.keys(), store.text("target")), (vec!["target".to_owned()], "first second".to_owned()));
}

#[test]
fn an_object_that_is_being_changed_can_be_renamed() {
    let store = Store::dev();
    store.put("a", "0123456789");
    let mount = store.mount();
    let file = OpenOptions::new().read(true).write(true).open(mount.at("a")).unwrap();
    file.write_all_at(b"AB", 0).unwrap();
    fs::rename(mount.at("a"), mount.at("b")).unwrap();
    file.write_all_at(b"YZ", 8).unwrap();
    let mut read = [0; 10];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"AB234567YZ");
    drop(file);
    assert_eq!((store.keys(), store.text("b")), (vec!["b".to_owned()], "AB234567YZ".to_owned()));
}

#[test]
fn an_open_reader_follows_a_renamed_file() {
    let store = Store::dev();
    let bytes = noise(7, 4 << 20);
    store.put("a", &bytes);
    let mount = store.mount();
    let mut file = File::open(mount.at("a")).unwrap();
    let mut read = vec![0; 1000];
    file.read_exact(&mut read).unwrap();
    fs::rename(mount.at("a"), mount.at("b")).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    read.extend(rest);
    assert!(read == bytes);
}

#[test]
fn renaming_a_directory_moves_everything_below() {
    let store = Store::dev();
    for i in 0..120 {
        store.put(&format!("old/{}/file{i}", i % 4), format!("{i}"));
    }
    store.put("old/deep/er/still/x", "deep");
    let mut mount = store.mount();
    fs::create_dir(mount.at("new")).unwrap();
    let ino = fs::metadata(mount.at("old/1/file5")).unwrap().ino();
    fs::rename(mount.at("old"), mount.at("new/name")).unwrap();
    let wanted = |key: &String| key == "new/" || key.starts_with("new/name/");
    assert!(store.keys().iter().all(wanted), "{:?}", store.keys());
    assert_eq!(store.keys().len(), 122);
    assert_eq!(fs::metadata(mount.at("new/name/1/file5")).unwrap().ino(), ino);
    for i in 0..120 {
        let path = format!("new/name/{}/file{i}", i % 4);
        assert_eq!(fs::read_to_string(mount.at(&path)).unwrap(), i.to_string());
    }
    assert_eq!(errno(fs::metadata(mount.at("old"))), libc::ENOENT);
    mount.remount();
    assert_eq!(mount.sh("find new/name -type f | wc -l").trim(), "121");
}

#[test]
fn renaming_directories_follows_the_rules_of_rename() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("mkdir -p a/sub empty full; echo x > a/sub/f; echo x > full/f; echo x > file");
    assert_eq!(errno(fs::rename(mount.at("a"), mount.at("full"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(mount.at("a"), mount.at("a/sub/inside"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(mount.at("a"), mount.at("file"))), libc::ENOTDIR);
    assert_eq!(errno(fs::rename(mount.at("file"), mount.at("a"))), libc::EISDIR);
    fs::rename(mount.at("a"), mount.at("empty")).unwrap();
    assert_eq!(names(mount.root()), ["empty", "file", "full"]);
    assert_eq!(names(mount.at("empty/sub")), ["f"]);
    assert_eq!(store.keys(), ["empty/", "empty/sub/", "empty/sub/f", "file", "full/", "full/f"]);
}

#[test]
fn a_directory_with_unwritten_files_can_be_renamed() {
    let store = Store::dev();
    let mount = store.mount();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/there"), "there").unwrap();
    let mut fresh = File::create(mount.at("d/fresh")).unwrap();
    fresh.write_all(b"fresh").unwrap();
    let changed = OpenOptions::new().write(true).open(mount.at("d/there")).unwrap();
    changed.write_all_at(b"THE", 0).unwrap();
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    changed.write_all_at(b"RE", 3).unwrap();
    drop((fresh, changed));
    mount.settle();
    assert_eq!(store.keys(), ["e/", "e/fresh", "e/there"]);
    assert_eq!((store.text("e/fresh"), store.text("e/there")), ("fresh".to_owned(), "THERE".to_owned()));
}

#[test]
fn an_unlinked_file_stays_readable_for_those_who_have_it_open() {
    let store = Store::dev();
    let bytes = noise(3, 5 << 20);
    store.put("file", &bytes);
    let mut mount = store.mount();
    let mut file = File::open(mount.at("file")).unwrap();
    let mut head = vec![0; 10];
    file.read_exact(&mut head).unwrap();
    fs::remove_file(mount.at("file")).unwrap();
    assert!(names(mount.root()).is_empty());
    assert!(store.keys().is_empty());
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest == bytes[10..], "{} of {} bytes", rest.len(), bytes.len() - 10);
    assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
    drop(file);
    mount.unmount();
    assert!(store.list_everything().is_empty(), "{:?}", store.list_everything());
}

#[test]
fn an_unlinked_file_can_be_written_on_and_then_is_gone() {
    let store = Store::dev();
    let mut mount = store.mount();
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("tmp")).unwrap();
    fs::remove_file(mount.at("tmp")).unwrap();
    file.write_all(b"scratch").unwrap();
    let mut read = [0; 7];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"scratch");
    drop(file);
    mount.unmount();
    assert!(store.list_everything().is_empty());
}

#[test]
fn a_replaced_file_stays_readable_for_those_who_have_it_open() {
    let store = Store::dev();
    store.put("file", "old version");
    let mount = store.mount();
    let mut reader = File::open(mount.at("file")).unwrap();
    fs::write(mount.at("new"), "NEW").unwrap();
    fs::rename(mount.at("new"), mount.at("file")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old version");
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "NEW");
}
