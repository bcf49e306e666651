//! The mount option `nometa`: what objects carry, what a machine keeps, and what that costs in requests.

use crate::common::{Mount, Store, is_root, noise, objfs, stdout_of};
use objfs::devserver::Counts;
use std::fs;
use std::os::unix::fs::MetadataExt;

const ATTRIBUTES: [&str; 8] = ["mode", "uid", "gid", "mtime", "ctime", "atime", "rdev", "xattr"];
const NOMETA: [&str; 2] = ["nometa", "poll_interval=600s"];

/// What `work` costs in requests.
fn cost<T>(store: &Store, work: impl FnOnce() -> T) -> Counts {
    store.server().reset_counters();
    work();
    store.server().counters()
}

/// No object of the bucket says anything of attributes.
fn assert_bare(store: &Store) {
    for key in store.keys() {
        let user = store.metadata(&key);
        assert!(!ATTRIBUTES.iter().any(|name| user.contains_key(*name)), "{key}: {user:?}");
    }
}

/// Mode, owner and time of a file.
fn shown(mount: &Mount<'_>, path: &str) -> String {
    mount.sh(&format!("stat -c '%a %u %g %Y' '{path}'")).trim().to_owned()
}

#[test]
fn objects_carry_no_attributes_whatever_is_done_to_a_file() {
    let store = Store::dev();
    store.put_with("foreign", "x", &[("mode", "33152"), ("mtime", "1000.5"), ("color", "blue")]);
    store.put_with("foreign-dir/", "", &[("mode", "16832")]);
    let mut mount = store.mount_with(&NOMETA);
    assert_eq!((shown(&mount, "foreign").split(' ').next(), mount.sh("cat foreign")), (Some("644"), "x".to_owned()));
    mount.sh(
        "echo text > own; mkdir dir; chmod 600 own; chmod 700 dir foreign-dir; cp -p own copy; mv copy dir/; echo more >> own
         echo y >> foreign; chmod 640 foreign; touch -d 2001-02-03 own foreign dir; echo tmp > a.tmp; chmod 600 a.tmp; mv a.tmp b
         truncate -s 3 b; fallocate -l 9 b; mknod made p 2> /dev/null || touch made; mv dir moved; rmdir foreign-dir",
    );
    mount.settle();
    assert_bare(&store);
    assert!(store.metadata("own").contains_key("objfs-write") && store.metadata("own").contains_key("objfs-sha256"));
    assert_eq!((store.metadata("foreign")["color"].as_str(), store.text("foreign")), ("blue", "xy\n".to_owned()));
    let all = ["own", "moved", "moved/copy", "b", "foreign"];
    let before = all.map(|path| shown(&mount, path));
    assert!(
        before[0].starts_with("600 ") && before[1].starts_with("700 ") && before[4].starts_with("640 "),
        "{before:?}"
    );
    mount.remount();
    assert_eq!(all.map(|path| shown(&mount, path)), before, "after a remount");
    mount.kill();
    mount.mount_again();
    assert_eq!(all.map(|path| shown(&mount, path)), before, "after kill -9");
    mount.unmount();
    assert_bare(&store);
}

#[test]
fn attributes_cost_no_request() {
    let store = Store::dev();
    for i in 0..100 {
        store.put_with(&format!("d/{i:03}"), format!("content {i}"), &[("mode", "33152"), ("mtime", "1000")]);
    }
    let mut mount = store.mount_with(&NOMETA);
    fs::write(mount.at("probe"), "x").unwrap();
    mount.sh("ls > /dev/null");
    // Once a header with attributes was read, those of a directory that is shown would be read as well.
    assert_eq!(mount.sh("cat d/001"), "content 1");
    let counts = cost(&store, || assert_eq!(mount.sh("ls -l d | wc -l").trim(), "101"));
    assert!(counts.of("HeadObject") == 0 && counts.of("ListObjectsV2") <= 2 && counts.total() <= 2, "{counts:?}");
    let owner = if is_root() { "chown -R 1234:4321 d;" } else { "" };
    let script = format!("stat d/* > /dev/null; chmod -R u=rwX,go= d; {owner} getfattr d/*");
    let times = "for name in ['d'] + ['d/' + name for name in os.listdir('d')]: os.utime(name, (981173106, 981173106))";
    let counts = cost(&store, || mount.sh(&script) + &mount.py(times, &[]));
    assert_eq!(counts.total(), 0, "{counts:?}");
    let list = "cd d; stat -c '%n %a %u %g %Y' . *";
    let before = mount.sh(list);
    assert!(before.lines().all(|line| line.ends_with(" 981173106")), "{before}");
    mount.remount();
    assert_eq!(mount.sh(list), before);
    mount.sh("cat d/* > /dev/null");
    assert_eq!(mount.sh(list), before, "after they were opened");
    store.put("d/007", "another version");
    stdout_of(objfs().arg("refresh").arg(mount.at("d")));
    let changed = fs::metadata(mount.at("d/007")).unwrap();
    assert!(changed.mode() & 0o7777 == 0o644 && changed.mtime() > 1_700_000_000, "{changed:?}");
    assert_eq!(store.metadata("d/001")["mode"], "33152", "nobody has touched the object");
}

#[test]
fn a_file_that_is_sent_while_it_is_written_carries_no_attributes_either() {
    let store = Store::dev();
    let mut mount = store.mount_with(&NOMETA);
    fs::write(mount.at("probe"), "x").unwrap();
    let script = "f = os.open('large', os.O_CREAT | os.O_WRONLY, 0o640)\n\
        for i in range(90): os.write(f, bytes([i]) * (1 << 20))\n\
        os.fchmod(f, 0o600)\n\
        os.utime(f, ns=(5_000_000_000, 7_000_000_001))\n\
        os.close(f)";
    let counts = cost(&store, || mount.py(script, &[]));
    assert!(counts.of("UploadPart") > 1 && counts.of("CopyObject") == 0, "{counts:?}");
    assert_bare(&store);
    for _ in 0..2 {
        let meta = fs::metadata(mount.at("large")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec(), meta.atime()), (0o600, 7, 1, 5));
        mount.remount();
    }
}

#[test]
fn copies_with_attributes_complain_of_nothing_and_are_not_sent_again() {
    let store = Store::dev();
    let mut mount = store.mount_with(&NOMETA);
    mount.sh(
        "mkdir -p ../source/sub/empty; cd ../source; for i in 1 2 3 4 5; do echo $i > f$i; echo $i > sub/g$i; done",
    );
    fs::write(mount.outside("source/noise"), noise(1, 300_000)).unwrap();
    mount.sh("cd ../source; chmod 600 f1; chmod 750 sub; setfattr -n user.color -v blue f2");
    mount.sh("cd ../source; find . -exec touch -d '2019-09-09 09:09:09.123456789Z' {} +");
    let said =
        mount.sh("rsync -a ../source/ synced/ 2>&1; cp -a ../source copied 2>&1; cp -p ../source/f1 single 2>&1");
    assert_eq!(said, "");
    let rsync = "for to in synced copied; do rsync -a --itemize-changes ../source/ $to/; done";
    mount.settle();
    for round in ["at once", "after a remount", "after another"] {
        let counts = cost(&store, || assert_eq!(mount.sh(rsync), "", "{round}"));
        assert_eq!((counts.of("PutObject"), counts.of("CopyObject")), (0, 0), "{round}: {counts:?}");
        assert_eq!(mount.sh("TZ=UTC0 stat -c '%a %y' single"), "600 2019-09-09 09:09:09.123456789 +0000\n", "{round}");
        mount.remount();
    }
    assert_bare(&store);
}

#[test]
fn what_an_object_could_not_tell_is_refused() {
    let store = Store::dev();
    let mount = store.mount_with(&NOMETA);
    let script = "def code(act):\n\
        \x20   try: return act()\n\
        \x20   except OSError as e: return errno.errorcode[e.errno]\n\
        open('f', 'w').write('x')\n\
        print(code(lambda: os.symlink('f', 'l')), code(lambda: os.mkfifo('p')), code(lambda: os.mknod('s', stat.S_IFSOCK | 0o600)))\n\
        print(code(lambda: os.mknod('g', stat.S_IFREG | 0o600)), os.listxattr('f'), code(lambda: os.getxattr('f', 'user.a')))\n\
        print(code(lambda: os.setxattr('f', 'user.a', b'1')), code(lambda: os.removexattr('f', 'user.a')))\n\
        print(code(lambda: os.getxattr('f', 'user.objfs.sha256')), code(lambda: os.getxattr('f', 'user.objfs.conflict')))\n\
        print(os.getxattr('f', 'user.objfs.state'), len(os.getxattr('f', 'user.objfs.etag')) > 20)\n\
        print(code(lambda: os.setxattr('f', 'user.objfs.etag', b'1')), sorted(os.listdir()))";
    let wanted = "EPERM EPERM EPERM\n\
        None [] ENODATA\n\
        ENOTSUP ENOTSUP\n\
        ENODATA ENODATA\n\
        b'clean' True\n\
        EPERM ['f', 'g']\n";
    assert_eq!(mount.py(script, &[]), wanted);
    assert_eq!(store.keys(), ["f", "g"]);
}
