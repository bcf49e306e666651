//! Extended attributes: those that programs set, and those that tell something.

use crate::common::{Store, eventually, noise};
use sha2::{Digest, Sha256};
use std::fs;

/// What s3fs makes of `user.color` = `blue`.
const BLUE: &str = "%7B%22user.color%22%3A%22Ymx1ZQ%3D%3D%22%7D";

/// Python that says how a call ends.
const CODE: &str = "def code(act):\n\
    \x20   try: return act()\n\
    \x20   except OSError as e: return errno.errorcode[e.errno]\n";

#[test]
fn programs_set_read_list_and_remove_attributes() {
    let store = Store::dev();
    store.put("foreign", "x");
    let mut mount = store.mount();
    mount.sh("echo text > own; mkdir dir; for f in own dir foreign; do setfattr -n user.color -v blue $f; done");
    mount.sh("setfattr -n user.raw -v 0x00ff0a own; setfattr -n user.empty own");
    for round in ["before", "after"] {
        for name in ["own", "dir", "foreign"] {
            let read = mount.sh(&format!("getfattr --only-values -n user.color {name}"));
            assert_eq!(read, "blue", "{name} {round}");
        }
        let all = mount.sh("getfattr -d -e hex own");
        assert_eq!(all, "# file: own\nuser.color=0x626c7565\nuser.empty=0x\nuser.raw=0x00ff0a\n\n", "{round}");
        mount.remount();
    }
    assert_eq!((store.metadata("foreign")["xattr"].as_str(), store.metadata("dir/")["xattr"].as_str()), (BLUE, BLUE));
    mount.sh("setfattr -x user.raw own; setfattr -x user.empty own");
    assert_eq!(mount.sh("getfattr own"), "# file: own\nuser.color\n\n");
    assert_eq!((store.metadata("own")["xattr"].as_str(), store.text("own")), (BLUE, "text\n".to_owned()));
    mount.sh("mv own moved; mv dir other; chmod 600 moved; echo more >> moved");
    assert_eq!(mount.sh("getfattr --only-values -n user.color moved other"), "blueblue");
    mount.sh("setfattr -x user.color moved");
    assert_eq!((mount.sh("getfattr moved"), store.metadata("moved").contains_key("xattr")), (String::new(), false));
}

#[test]
fn flags_errors_and_sizes_are_those_of_the_manual() {
    let store = Store::dev();
    store.put("f", "x");
    let mount = store.mount();
    let script = "print(code(lambda: os.setxattr('f', 'user.a', b'1', os.XATTR_REPLACE)))\n\
        os.setxattr('f', 'user.a', b'1', os.XATTR_CREATE)\n\
        print(code(lambda: os.setxattr('f', 'user.a', b'2', os.XATTR_CREATE)), os.getxattr('f', 'user.a'))\n\
        os.setxattr('f', 'user.a', b'2', os.XATTR_REPLACE)\n\
        print(code(lambda: os.getxattr('f', 'user.b')), code(lambda: os.removexattr('f', 'user.b')))\n\
        print(code(lambda: os.setxattr('f', 'user.b', b'x' * 2000)))\n\
        print(code(lambda: os.getxattr('f', 'system.a')), code(lambda: os.setxattr('f', 'system.a', b'x')))\n\
        print(code(lambda: os.setxattr('f', 'user.objfs.etag', b'x')), code(lambda: os.removexattr('f', 'user.objfs.etag')))\n\
        print(os.listxattr('f'), os.getxattr('f', 'user.a'))\n\
        import ctypes\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        small = ctypes.create_string_buffer(8)\n\
        os.setxattr('f', 'user.a', b'123456789')\n\
        print(libc.getxattr(b'f', b'user.a', None, 0), libc.getxattr(b'f', b'user.a', small, 8), ctypes.get_errno() == errno.ERANGE)\n\
        print(libc.listxattr(b'f', None, 0), libc.listxattr(b'f', small, 8), small.value)";
    let said = mount.py(&format!("{CODE}{script}"), &[]);
    let wanted = "ENODATA\n\
        EEXIST b'1'\n\
        ENODATA ENODATA\n\
        ENOSPC\n\
        ENOTSUP ENOTSUP\n\
        EPERM EPERM\n\
        ['user.a'] b'2'\n\
        9 -1 True\n\
        7 7 b'user.a'\n";
    assert_eq!(said, wanted);
}

#[test]
fn attributes_that_are_set_before_the_close_cost_no_request() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.server().reset_counters();
    mount.py(
        "f = os.open('f', os.O_CREAT | os.O_WRONLY)\n\
         os.write(f, b'x')\n\
         os.setxattr(f, 'user.color', b'blue')\n\
         os.close(f)",
        &[],
    );
    let counters = store.server().counters();
    assert_eq!((counters.of("PutObject"), counters.of("CopyObject")), (1, 0));
    assert_eq!(store.metadata("f")["xattr"], BLUE);
    mount.sh("setfattr -n user.color -v red f");
    let counters = store.server().counters();
    assert_eq!((counters.of("PutObject"), counters.of("CopyObject")), (1, 1));
}

#[test]
fn copies_with_attributes_have_them_both_ways() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.sh("mkdir -p ../source/sub; echo one > ../source/a; echo two > ../source/sub/b");
    mount.sh("cd ../source; setfattr -n user.color -v blue a sub/b; setfattr -n user.of -v 'a directory' sub");
    mount.sh("cp -a ../source copied; rsync -aX ../source/ synced/");
    let again = "rsync -aX --itemize-changes ../source/ synced/";
    assert_eq!(mount.sh(again), "");
    mount.remount();
    assert_eq!(mount.sh(again), "", "after a remount");
    for dir in ["copied", "synced"] {
        assert_eq!(store.metadata(&format!("{dir}/a"))["xattr"], BLUE);
        assert_eq!(mount.sh(&format!("cd {dir}; getfattr --only-values -n user.of sub")), "a directory");
    }
    mount.sh(
        "cp -a copied ../back; rsync -aX synced/ ../back-too/; cp -a copied/a within; rsync -aX copied/a within-too",
    );
    for path in ["../back/a", "../back/sub/b", "../back-too/a", "../back-too/sub/b", "within", "within-too"] {
        let read = mount.sh(&format!("getfattr -d {path} | grep -v '^#' | grep ."));
        assert_eq!(read, "user.color=\"blue\"\n", "{path}");
    }
    assert_eq!(mount.sh("getfattr --only-values -n user.of ../back/sub"), "a directory");
}

#[test]
fn attributes_of_an_acknowledged_file_survive_a_kill() {
    let store = Store::dev();
    let mut mount = store.mount_with(&["write=back", "upload_delay=60s"]);
    mount.sh("echo text > f; setfattr -n user.color -v blue f");
    let state = || mount.sh("getfattr --only-values -n user.objfs.state f");
    eventually("it is in the journal", || (state() == "journaled").then_some(()));
    mount.kill();
    assert!(store.keys().is_empty());
    mount.mount_again();
    assert_eq!(mount.sh("getfattr --only-values -n user.color f"), "blue");
    mount.unmount();
    assert_eq!((store.text("f"), store.metadata("f")["xattr"].as_str()), ("text\n".to_owned(), BLUE));
}

#[test]
fn what_the_mount_knows_of_a_file_can_be_asked() {
    let store = Store::dev();
    let body = noise(1, 300_000);
    let mut mount = store.prepare(&[]);
    mount.set_prefix("books/here");
    mount.mount_again();
    fs::write(mount.at("a b+ü"), &body).unwrap();
    store.put("books/here/foreign", "x");
    eventually("the other is seen", || mount.at("foreign").exists().then_some(()));
    let told = |name: &str, what: &str| {
        let ask = format!("os.getxattr(sys.argv[1], 'user.objfs.{what}').decode()");
        mount.py(&format!("{CODE}print(code(lambda: {ask}), end='')"), &[name])
    };
    let etag = store.list()["books/here/a b+ü"].0.clone();
    assert_eq!(told("a b+ü", "etag"), etag.trim_matches('"'));
    assert_eq!((told("a b+ü", "state").as_str(), told("a b+ü", "storage-class").as_str()), ("clean", "STANDARD"));
    let sum: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((told("a b+ü", "sha256"), told("foreign", "sha256").as_str()), (sum.clone(), "ENODATA"));
    assert_eq!((told("a b+ü", "version").as_str(), told("a b+ü", "conflict").as_str()), ("ENODATA", "ENODATA"));
    assert_eq!(mount.sh("getfattr *"), "", "copies do not carry them along");
    let fetched = mount.py(
        "import hashlib, urllib.request\n\
         url = os.getxattr('a b+ü', 'user.objfs.url').decode()\n\
         assert 'X-Amz-Expires=3600' in url, url\n\
         with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:\n\
         \x20   print(hashlib.sha256(answer.read()).hexdigest(), end='')",
        &[],
    );
    assert_eq!(fetched, sum);
}

#[test]
fn a_read_only_mount_tells_attributes_and_sets_none() {
    let store = Store::dev();
    store.put_with("f", "x", &[("mode", "33188"), ("xattr", BLUE)]);
    let mount = store.mount_with(&["ro"]);
    let script = "print(os.listxattr('f'), os.getxattr('f', 'user.color'))\n\
        print(code(lambda: os.setxattr('f', 'user.color', b'red')), code(lambda: os.removexattr('f', 'user.color')))";
    assert_eq!(mount.py(&format!("{CODE}{script}"), &[]), "['user.color'] b'blue'\nEROFS EROFS\n");
}
