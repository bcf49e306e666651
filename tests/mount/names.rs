//! Names: directories, renames, removal, links, what a name may be.

use crate::common::{Store, errno, eventually, is_root, names, noise};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

#[test]
fn a_directory_is_a_marker_until_it_is_removed() {
    let store = Store::dev();
    let mut mount = store.mount();
    fs::create_dir(mount.at("d")).unwrap();
    assert_eq!(store.keys(), ["d/"]);
    assert_eq!(errno(fs::create_dir(mount.at("d"))), libc::EEXIST);
    fs::write(mount.at("d/f"), "x").unwrap();
    assert_eq!(errno(fs::remove_dir(mount.at("d"))), libc::ENOTEMPTY);
    fs::remove_file(mount.at("d/f")).unwrap();
    mount.remount();
    assert_eq!(names(mount.root()), ["d"]);
    fs::remove_dir(mount.at("d")).unwrap();
    assert_eq!(errno(fs::metadata(mount.at("d"))), libc::ENOENT);
    assert!(store.keys().is_empty());
}

#[test]
fn a_directory_with_entries_that_only_the_bucket_knows_is_not_removed() {
    let store = Store::dev();
    let mount = store.mount();
    fs::create_dir(mount.at("d")).unwrap();
    assert!(names(mount.at("d")).is_empty());
    store.put("d/foreign", "x");
    assert_eq!(errno(fs::remove_dir(mount.at("d"))), libc::ENOTEMPTY);
    assert_eq!(store.text("d/foreign"), "x");
}

#[test]
fn a_directory_emptied_through_the_mount_stays() {
    let store = Store::dev();
    store.put("implied/one", "x");
    store.put("implied/two", "x");
    let mut mount = store.mount();
    mount.sh("rm implied/one implied/two");
    assert!(names(mount.at("implied")).is_empty());
    mount.settle();
    assert_eq!(store.keys(), ["implied/"]);
    mount.remount();
    assert_eq!(names(mount.root()), ["implied"]);
}

#[test]
fn removing_a_tree_leaves_nothing() {
    let store = Store::dev();
    for i in 0..20 {
        store.put(&format!("tree/{}/{i}", i % 3), "x");
    }
    let mut mount = store.mount();
    mount.sh("rm -r tree");
    mount.unmount();
    assert!(store.keys().is_empty(), "{:?}", store.keys());
}

#[test]
fn a_symbolic_link_survives_a_remount() {
    let store = Store::dev();
    store.put("dir/target", "hello");
    let mut mount = store.mount();
    symlink("dir/target", mount.at("link")).unwrap();
    symlink("/no/where/ü", mount.at("dangling")).unwrap();
    for round in ["before", "after"] {
        assert_eq!(fs::read_link(mount.at("link")).unwrap(), Path::new("dir/target"), "{round}");
        assert_eq!(fs::read_link(mount.at("dangling")).unwrap(), Path::new("/no/where/ü"), "{round}");
        assert_eq!(fs::read_to_string(mount.at("link")).unwrap(), "hello", "{round}");
        assert!(fs::symlink_metadata(mount.at("link")).unwrap().file_type().is_symlink(), "{round}");
        mount.remount();
    }
    assert_eq!(store.text("link"), "dir/target");
    assert_eq!(mount.sh("ls -l link | sed 's/.*link/link/'").trim(), "link -> dir/target");
    fs::remove_file(mount.at("link")).unwrap();
    assert_eq!(store.keys(), ["dangling", "dir/target"]);
}

#[test]
fn links_found_by_a_rebuilt_catalogue_are_links() {
    let store = Store::dev();
    let first = store.mount();
    symlink("somewhere", first.at("link")).unwrap();
    drop(first);
    let mount = store.mount();
    assert_eq!(fs::read_link(mount.at("link")).unwrap(), Path::new("somewhere"));
    assert_eq!(mount.sh("find . -type l").trim(), "./link");
}

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
         r = libc.renameat2(-100, b'a', -100, b'b', 1)\n\
         print(r, errno.errorcode.get(ctypes.get_errno()))",
        &[],
    );
    assert_eq!(no_replace.trim(), "-1 EEXIST");
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

#[test]
fn a_name_can_be_used_again_at_once() {
    let store = Store::dev();
    let mount = store.mount();
    for i in 0..10 {
        fs::write(mount.at("name"), format!("{i}")).unwrap();
        assert_eq!(fs::read_to_string(mount.at("name")).unwrap(), format!("{i}"));
        fs::remove_file(mount.at("name")).unwrap();
        fs::create_dir(mount.at("name")).unwrap();
        fs::remove_dir(mount.at("name")).unwrap();
    }
    assert!(store.keys().is_empty());
}

#[test]
fn names_of_all_scripts_and_characters_make_the_same_keys() {
    let store = Store::dev();
    let mut mount = store.mount();
    let odd = [
        "with space",
        " lead",
        "trail ",
        "plus+sign",
        "per%cent",
        "%41",
        "quest?ion",
        "ha#sh",
        "new\nline",
        "tab\there",
        "ünï",
        "日本語.txt",
        "العربية",
        "ελληνικά",
        "кириллица",
        "עברית",
        "हिन्दी",
        "🎵.flac",
        "q\"uote",
        "a'b",
        "back\\slash",
        "<&>;",
        "semi;colon",
        "star*",
        "eq=ual",
        "...",
        "-dash",
        "~tilde",
        "COM1",
        "a:b",
        "e\u{301}",
        "é",
    ];
    for name in odd {
        fs::write(mount.at(name), name).unwrap();
    }
    fs::create_dir(mount.at("dir +%?#ü")).unwrap();
    fs::write(mount.at("dir +%?#ü/in\nside"), "x").unwrap();
    let mut wanted: Vec<String> = odd.iter().map(|n| (*n).to_owned()).collect();
    wanted.push("dir +%?#ü".to_owned());
    wanted.sort();
    for round in ["before", "after"] {
        assert_eq!(names(mount.root()), wanted, "{round}");
        assert_eq!(names(mount.at("dir +%?#ü")), ["in\nside"], "{round}");
        for name in odd {
            assert_eq!(fs::read_to_string(mount.at(name)).unwrap(), name, "{round}");
        }
        mount.remount();
    }
    for name in odd {
        assert_eq!(store.text(name), name);
    }
    fs::rename(mount.at("dir +%?#ü"), mount.at("plain")).unwrap();
    assert_eq!(store.text("plain/in\nside"), "x");
    fs::rename(mount.at("per%cent"), mount.at("plus+ %2B")).unwrap();
    assert_eq!(store.text("plus+ %2B"), "per%cent");
}

#[test]
fn names_and_paths_have_the_length_that_keys_allow() {
    let store = Store::dev();
    let mount = store.mount();
    let long = "n".repeat(255);
    fs::write(mount.at(&long), "x").unwrap();
    assert_eq!(store.text(&long), "x");
    assert_eq!(errno(fs::write(mount.at(&format!("{long}n")), "x")), libc::ENAMETOOLONG);
    let part = "d".repeat(250);
    let dirs = [part.as_str(); 3].join("/");
    fs::create_dir_all(mount.at(&dirs)).unwrap();
    let room = 1024 - dirs.len() - 1;
    let fits = format!("{dirs}/{}", "f".repeat(room.min(255)));
    fs::write(mount.at(&fits), "y").unwrap();
    assert_eq!(store.text(&fits), "y");
    fs::create_dir(mount.at(&format!("{dirs}/{part}"))).unwrap();
    let deep = format!("{dirs}/{part}/{}", "f".repeat(30));
    assert_eq!(errno(fs::write(mount.at(&deep), "x")), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(mount.at(&deep))), libc::ENAMETOOLONG);
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let store = Store::dev();
    let mount = store.mount();
    let path = mount.root().join(OsStr::from_bytes(b"latin\xe9"));
    assert_eq!(errno(fs::write(&path, "x")), libc::EILSEQ);
    assert!(store.keys().is_empty());
}

#[test]
fn what_a_bucket_cannot_do_is_said() {
    let store = Store::dev();
    store.put("file", "x");
    let mount = store.mount();
    assert_eq!(errno(fs::hard_link(mount.at("file"), mount.at("other"))), libc::EPERM);
    let said = mount.py(
        "def code(act):\n\
         \x20   try: act()\n\
         \x20   except OSError as e: return errno.errorcode[e.errno]\n\
         print(code(lambda: os.setxattr('file', 'user.a', b'x')), code(lambda: os.getxattr('file', 'user.a')))\n\
         print(os.listxattr('file'))",
        &[],
    );
    assert_eq!(said, "ENOTSUP ENOTSUP\n[]\n");
}

#[test]
fn a_large_directory_is_listed_exactly() {
    let store = Store::dev();
    let script = "from concurrent.futures import ThreadPoolExecutor as Pool\n\
        with Pool(8) as pool:\n\
        \x20   list(pool.map(lambda i: s3.put_object(Bucket=bucket, Key=f'big/{i:05}', Body=b''), range(3000)))";
    store.boto(script, &[]);
    let mount = store.mount();
    let wanted: Vec<String> = (0..3000).map(|i| format!("{i:05}")).collect();
    assert_eq!(names(mount.at("big")), wanted);
    assert_eq!(names(mount.at("big")), wanted, "a second time");
    assert_eq!(mount.sh("ls big | wc -l").trim(), "3000");
    assert!(store.server().counters().of("HeadObject") < 10, "one for each entry would be 3000");
}

#[test]
fn a_directory_can_be_emptied_while_it_is_read() {
    let store = Store::dev();
    let script = "from concurrent.futures import ThreadPoolExecutor as Pool\n\
        with Pool(8) as pool:\n\
        \x20   list(pool.map(lambda i: s3.put_object(Bucket=bucket, Key=f'big/{i:05}', Body=b''), range(2000)))";
    store.boto(script, &[]);
    let mut mount = store.mount();
    // Deletes each entry as it comes, which shifts offsets in naive implementations.
    let count = mount.py(
        "n = 0\n\
         with os.scandir('big') as entries:\n\
         \x20   for e in entries:\n\
         \x20       os.unlink(e.path)\n\
         \x20       n += 1\n\
         print(n)",
        &[],
    );
    assert_eq!(count.trim(), "2000");
    mount.sh("rmdir big");
    mount.unmount();
    assert!(store.keys().is_empty());
}

#[test]
fn removing_two_thousand_entries_recursively_leaves_nothing() {
    let store = Store::dev();
    let script = "from concurrent.futures import ThreadPoolExecutor as Pool\n\
        with Pool(8) as pool:\n\
        \x20   list(pool.map(lambda i: s3.put_object(Bucket=bucket, Key=f'big/{i % 2}/{i:05}', Body=b''), range(2000)))";
    store.boto(script, &[]);
    let mut mount = store.mount();
    mount.sh("rm -rf big");
    assert!(names(mount.root()).is_empty());
    mount.unmount();
    assert!(store.keys().is_empty());
}

#[test]
fn special_files_are_kept() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.sh("mkfifo pipe");
    mount.remount();
    assert_eq!(mount.sh("stat -c %F pipe").trim(), "fifo");
    let passed = mount.sh("echo through > pipe & cat pipe; wait");
    assert_eq!(passed.trim(), "through");
}

#[test]
fn the_own_directory_is_hidden() {
    let store = Store::dev();
    store.put(".objfs/orphan/x", "left");
    let mount = store.mount();
    fs::write(mount.at("a"), "x").unwrap();
    assert_eq!(names(mount.root()), ["a"]);
    assert_eq!(errno(fs::metadata(mount.at(".objfs"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(mount.at(".objfs"))), libc::EACCES);
    assert_eq!(errno(fs::write(mount.at(".objfs"), "x")), libc::EACCES);
    assert_eq!(errno(fs::rename(mount.at("a"), mount.at(".objfs"))), libc::EACCES);
}

#[test]
fn a_prefix_is_the_root_of_its_mount() {
    let store = Store::dev();
    store.put("outside", "x");
    store.put("books/here/a", "a");
    let mut mount = store.prepare(&[]);
    mount.set_prefix("books/here");
    mount.mount_again();
    assert_eq!(names(mount.root()), ["a"]);
    fs::write(mount.at("b"), "b").unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    fs::rename(mount.at("a"), mount.at("d/a")).unwrap();
    assert_eq!(store.keys(), ["books/here/b", "books/here/d/", "books/here/d/a", "outside"]);
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let store = Store::dev();
    store.put("d/file", "x");
    let before = store.list_everything();
    let mut mount = store.mount_with(&["ro"]);
    assert_eq!(fs::read_to_string(mount.at("d/file")).unwrap(), "x");
    let erofs = libc::EROFS;
    assert_eq!(errno(fs::write(mount.at("new"), "x")), erofs);
    assert_eq!(errno(fs::write(mount.at("d/file"), "y")), erofs);
    assert_eq!(errno(fs::remove_file(mount.at("d/file"))), erofs);
    assert_eq!(errno(fs::create_dir(mount.at("e"))), erofs);
    assert_eq!(errno(fs::rename(mount.at("d"), mount.at("e"))), erofs);
    assert_eq!(errno(symlink("x", mount.at("l"))), erofs);
    assert_eq!(
        errno(fs::set_permissions(mount.at("d/file"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
        erofs
    );
    assert_eq!(errno(OpenOptions::new().append(true).open(mount.at("d/file"))), erofs);
    assert_eq!(mount.status()["read_only"], true);
    mount.unmount();
    assert_eq!(store.list_everything(), before);
}

#[test]
fn df_answers_without_the_server() {
    let store = Store::dev();
    store.put("file", "x");
    let mount = store.mount();
    assert_eq!(names(mount.root()), ["file"]);
    store.server().reset_counters();
    let df = mount.sh("df --output=fstype,size,avail,iavail . | tail -n 1; stat -f -c %l .");
    let fields: Vec<&str> = df.split_whitespace().collect();
    assert!(fields[0].starts_with("fuse"), "{df}");
    assert!(fields[1..4].iter().all(|n| n.parse::<u64>().unwrap() > 1_000_000), "{df}");
    assert_eq!(fields[4], "255");
    assert_eq!(store.server().counters().total(), 0);
}

#[test]
fn nothing_of_the_mount_is_left_behind() {
    let store = Store::dev();
    let mut mount = store.mount();
    for i in 0..5 {
        fs::write(mount.at(&format!("f{i}")), "x").unwrap();
        let pid = mount.pid();
        // The way of those who know nothing of objfs: the daemon notices, drains, and ends.
        let mut command = std::process::Command::new(if is_root() { "umount" } else { "fusermount3" });
        if !is_root() {
            command.arg("-u");
        }
        crate::common::stdout_of(command.arg(mount.root()));
        eventually("the daemon ends", || (!crate::common::is_alive(pid)).then_some(()));
        assert!(mount.staged_files().is_empty());
        mount.mount_again();
    }
    assert_eq!(store.keys().len(), 5);
}
