//! Names: directories, renames, removal, links, what a name may be.

use crate::common::{Store, errno, eventually, is_root, names};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
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
    assert_eq!(errno(fs::read_link(mount.at("dir/target"))), libc::EINVAL);
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

/// Names of the tests below: bytes that are no text at all, Latin-1, both in one name, and a character that stands for a byte in keys.
const NOT_UTF8: &str = "import subprocess\n\
    files = [b'\\xff\\xfe', b'caf\\xe9', b'mix \\xc3\\xbc\\xe9.txt', b'\\xee\\x83\\xa9']\n\
    def below(top):\n\
    \x20   found = subprocess.run(['find', top, '-mindepth', '1', '-print0'], stdout=subprocess.PIPE, check=True)\n\
    \x20   return sorted(found.stdout.split(b'\\0')[:-1])\n";

#[test]
fn names_that_are_not_utf8_are_kept_and_have_the_keys_that_s3fs_gives_them() {
    let store = Store::dev();
    let mut mount = store.mount();
    let make = format!(
        "{NOT_UTF8}\
         for name in files:\n\
         \x20   with open(os.fsdecode(name), 'xb') as f: f.write(name)\n\
         os.mkdir(b'd\\xe9')\n\
         with open(b'd\\xe9/in\\xff', 'xb') as f: f.write(b'inside')\n\
         print(len(os.listdir('.')))"
    );
    assert_eq!(mount.py(&make, &[]).trim(), "5");
    let mut wanted = [
        "\u{e0ff}\u{e0fe}",
        "caf\u{e0e9}",
        "mix ü\u{e0e9}.txt",
        // s3fs would leave this one as it is, and show it as a byte.
        "\u{e0ee}\u{e083}\u{e0a9}",
        "d\u{e0e9}/",
        "d\u{e0e9}/in\u{e0ff}",
    ];
    wanted.sort_unstable();
    assert_eq!(store.keys(), wanted);
    assert_eq!(store.get("caf\u{e0e9}"), b"caf\xe9");
    let look = format!(
        "{NOT_UTF8}\
         assert sorted(os.listdir(b'.')) == sorted(files + [b'd\\xe9']), os.listdir(b'.')\n\
         assert below(b'.') == sorted(b'./' + n for n in files + [b'd\\xe9', b'd\\xe9/in\\xff']), below(b'.')\n\
         for name in files:\n\
         \x20   with open(name, 'rb') as f: assert f.read() == name, name\n\
         assert os.listdir(b'd\\xe9') == [b'in\\xff']\n\
         with open(b'd\\xe9/in\\xff', 'rb') as f: assert f.read() == b'inside'\n\
         print('same')"
    );
    assert_eq!(mount.py(&look, &[]).trim(), "same");
    mount.remount();
    assert_eq!(mount.py(&look, &[]).trim(), "same", "after a remount");
    mount.unmount();
    assert_eq!(store.mount().py(&look, &[]).trim(), "same", "on another machine");
    assert_eq!(store.keys(), wanted);
}

#[test]
fn names_that_are_not_utf8_are_renamed_and_removed() {
    let store = Store::dev();
    let mount = store.mount();
    let script = format!(
        "{NOT_UTF8}\
         for name in files:\n\
         \x20   with open(name, 'xb') as f: f.write(b'x')\n\
         os.mkdir(b'd\\xe9')\n\
         os.rename(b'caf\\xe9', b'd\\xe9/\\xe9tude')\n\
         os.rename(b'd\\xe9', b'\\x80')\n\
         os.rename(b'\\xff\\xfe', b'plain')\n\
         assert below(b'.') == sorted(b'./' + n for n in files[2:] + [b'plain', b'\\x80', b'\\x80/\\xe9tude']), below(b'.')\n\
         os.unlink(b'\\x80/\\xe9tude')\n\
         os.rmdir(b'\\x80')\n\
         os.unlink(files[2])\n\
         os.unlink(files[3])\n\
         print(os.listdir(b'.'))"
    );
    assert_eq!(mount.py(&script, &[]).trim(), "[b'plain']");
    assert_eq!(store.keys(), ["plain"]);
}

#[test]
fn what_another_program_has_escaped_is_shown_and_other_spellings_are_counted() {
    let store = Store::dev();
    for key in ["caf\u{e0e9}", "d\u{e0ff}/x", "\u{e0c3}\u{e0bc}", "d\u{e0ff}/\u{e061}"] {
        store.put(key, "theirs");
    }
    let mount = store.mount();
    let look = format!("{NOT_UTF8}print(below(b'.'))\nwith open(b'caf\\xe9') as f: print(f.read())");
    assert_eq!(mount.py(&look, &[]), "[b'./caf\\xe9', b'./d\\xff', b'./d\\xff/x']\ntheirs\n");
    assert_eq!(mount.status()["unmappable_keys"], 2);
    assert_eq!(store.keys().len(), 4);
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
         print(code(lambda: os.setxattr('file', 'system.a', b'x')), code(lambda: os.getxattr('file', 'system.a')))\n\
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
    // Nothing was asked of what the server keeps.
    assert!(mount.status()["conditional_writes"].is_null());
    assert_eq!(store.server().counters().of("PutObject"), 1, "the test's own");
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

/// The kernel asks us once with FUSE_TMPFILE, which fuser answers with ENOSYS (src/ll/fuse_abi.rs of 0.18 does not know it), and
/// remembers that (fs/fuse/dir.c, fuse_tmpfile).
#[test]
fn files_without_a_name_are_not_supported_and_programs_do_without() {
    let store = Store::dev();
    let mount = store.mount();
    for _ in 0..2 {
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(mount.root());
        assert_eq!(errno(open), libc::EOPNOTSUPP);
    }
    mount.py(
        "import tempfile\n\
         with tempfile.TemporaryFile(dir='.') as f:\n\
         \x20   f.write(b'text')\n\
         \x20   f.seek(0)\n\
         \x20   assert f.read() == b'text' and os.fstat(f.fileno()).st_nlink == 0",
        &[],
    );
    assert!(names(mount.root()).is_empty());
    mount.settle();
    assert!(store.keys().is_empty());
}
