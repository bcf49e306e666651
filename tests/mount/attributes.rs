//! Attributes: modes, owners, times, inode numbers, and that they survive.

use crate::common::{Store, errno, eventually, is_root, names};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

#[test]
fn modes_survive_a_remount() {
    let store = Store::dev();
    store.put("foreign", "x");
    let mut mount = store.mount();
    mount.sh(
        "echo y > own; mkdir dir; echo z > exec; chmod 600 foreign; chmod 4755 exec; chmod 640 own; chmod 2770 dir",
    );
    for round in ["before", "after"] {
        let mode = |name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode("foreign"), mode("own"), mode("exec"), mode("dir")),
            (0o600, 0o640, 0o4755, 0o2770),
            "{round}"
        );
        mount.remount();
    }
    assert_eq!((store.text("foreign"), store.text("own")), ("x".to_owned(), "y\n".to_owned()));
    assert_eq!(store.metadata("own")["mode"], format!("{}", 0o100640));
}

#[test]
fn a_write_takes_set_user_id_away_at_once() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("echo x > exec; chmod 4755 exec; stat exec; echo y >> exec");
    let mode = || fs::metadata(mount.at("exec")).unwrap().mode() & 0o7777;
    if is_root() {
        assert_eq!(mode(), 0o4755, "root may write to it");
        return;
    }
    // Not only when the kernel asks again, after a minute.
    eventually("set-user-ID is gone", || (mode() == 0o755).then_some(()));
    assert_eq!(store.metadata("exec")["mode"], format!("{}", 0o100755));
}

#[test]
fn creation_keeps_mode_and_umask() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("umask 027; echo x > a; mkdir d; umask 000; echo x > b; mkdir e; umask 077; mkfifo p");
    let mode = |name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("d"), mode("b"), mode("e"), mode("p")), (0o640, 0o750, 0o666, 0o777, 0o600));
}

#[test]
fn objects_without_modes_have_those_of_the_options() {
    let store = Store::dev();
    store.put("dir/file", "x");
    let mut mount = store.mount_with(&["umask=027"]);
    let seen = |mount: &crate::common::Mount<'_>, path: &str| {
        let meta = fs::metadata(mount.at(path)).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    assert_eq!(seen(&mount, "dir/file"), (0o640, uid, gid));
    assert_eq!(seen(&mount, "dir"), (0o750, uid, gid));
    assert_eq!(seen(&mount, "."), (0o750, uid, gid));
    mount.unmount();
    drop(mount);
    store.put_with("dir/owned", "x", &[("uid", "7"), ("gid", "8"), ("mode", "33188")]);
    let mut mount = store.prepare(&["uid=1234", "gid=4321", "allow_other"]);
    if !is_root() {
        // An ordinary user may give allow_other only where /etc/fuse.conf says so.
        mount.set_options(&["uid=1234", "gid=4321"]);
    }
    mount.mount_again();
    if is_root() {
        assert_eq!(seen(&mount, "dir/file"), (0o644, 1234, 4321));
        assert_eq!(seen(&mount, "dir/owned"), (0o644, 1234, 4321));
    } else {
        assert_eq!(seen(&mount, "."), (0o755, 1234, 4321));
    }
    drop(mount);
    let mount = store.mount();
    assert_eq!(seen(&mount, "dir/owned"), (0o644, 7, 8));
}

/// As with `uid=`: what is stored is what somebody has said.
#[test]
fn modes_of_the_options_are_shown_and_not_stored() {
    let store = Store::dev();
    store.put_with("dir/script", "x", &[("mode", "33261")]);
    let mut mount = store.mount_with(&["file_mode=0640", "dir_mode=2750"]);
    mount.sh(
        "umask 022; echo x > own; mkdir made; ln -s own link; mkfifo pipe; chmod 600 own dir/script; chmod 700 made",
    );
    let mode = |mount: &crate::common::Mount<'_>, path: &str| {
        format!("{:o}", fs::symlink_metadata(mount.at(path)).unwrap().mode())
    };
    for round in ["before", "after"] {
        for (path, wanted) in [
            (".", "42750"),
            ("dir", "42750"),
            ("dir/script", "100640"),
            ("own", "100640"),
            ("made", "42750"),
            ("link", "120777"),
            ("pipe", "10640"),
        ] {
            assert_eq!(mode(&mount, path), wanted, "{path} {round}");
        }
        mount.remount();
    }
    assert_eq!(store.metadata("own")["mode"], format!("{}", 0o100600));
    assert_eq!(store.metadata("dir/script")["mode"], format!("{}", 0o100600));
    mount.unmount();
    mount.set_options(&[]);
    mount.mount_again();
    let shown = ["own", "dir/script", "pipe"].map(|path| mode(&mount, path));
    assert_eq!(shown, ["100600", "100600", "10644"], "without the options");
    assert_eq!(fs::metadata(mount.at("made")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn owners_survive_a_remount() {
    let store = Store::dev();
    store.put("file", "x");
    let mut mount = store.mount();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let wanted = if is_root() { (1234, 4321) } else { (uid, gid) };
    mount.sh("mkdir dir; ln -s file link; echo y > own");
    for name in ["file", "dir", "own", "link"] {
        std::os::unix::fs::lchown(mount.at(name), Some(wanted.0), Some(wanted.1)).unwrap();
    }
    if !is_root() {
        assert_eq!(errno(std::os::unix::fs::chown(mount.at("file"), Some(0), None)), libc::EPERM);
    }
    for _ in 0..2 {
        for name in ["file", "dir", "own", "link"] {
            let meta = fs::symlink_metadata(mount.at(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), wanted, "{name}");
        }
        mount.remount();
    }
}

#[test]
fn times_survive_a_remount_to_the_nanosecond() {
    let store = Store::dev();
    store.put("file", "x");
    let mut mount = store.mount();
    mount.sh("mkdir dir; echo y > own; ln -s file link");
    mount.sh("touch -d '2001-02-03 04:05:06.789012345 UTC' file own dir; touch -h -d '1999-01-01 00:00:00 UTC' link");
    mount.sh("touch -a -d '2010-01-01 00:00:00 UTC' own");
    let at = |s, n| SystemTime::UNIX_EPOCH + Duration::new(s, n);
    for round in ["before", "after"] {
        for name in ["file", "own", "dir"] {
            let mtime = fs::metadata(mount.at(name)).unwrap().modified().unwrap();
            assert_eq!(mtime, at(981_173_106, 789_012_345), "{name} {round}");
        }
        assert_eq!(fs::metadata(mount.at("own")).unwrap().accessed().unwrap(), at(1_262_304_000, 0), "{round}");
        assert_eq!(fs::symlink_metadata(mount.at("link")).unwrap().modified().unwrap(), at(915_148_800, 0), "{round}");
        mount.remount();
    }
}

#[test]
fn times_set_on_an_open_file_stay_after_its_close() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.py(
        "f = os.open('f', os.O_CREAT | os.O_WRONLY)\n\
         os.write(f, b'x')\n\
         os.utime(f, ns=(5_000_000_000, 7_000_000_001))\n\
         os.close(f)",
        &[],
    );
    for _ in 0..2 {
        let meta = fs::metadata(mount.at("f")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.atime()), (7, 1, 5));
        mount.remount();
    }
}

/// The kernel counts by itself, and forgets its count when it asks us.
#[test]
fn link_counts_follow_names_and_subdirectories() {
    let store = Store::dev();
    let mount = store.mount();
    let links = |path: &str| fs::metadata(mount.at(path)).unwrap().nlink();
    mount.sh("mkdir -p from/moves to; echo x > from/file; echo x > open");
    assert_eq!((links("from"), links("to"), links("from/moves"), links("open")), (3, 2, 2, 1));
    fs::rename(mount.at("from/moves"), mount.at("to/moves")).unwrap();
    assert_eq!((links("from"), links("to")), (2, 3));
    let open = File::open(mount.at("open")).unwrap();
    fs::remove_file(mount.at("open")).unwrap();
    for _ in 0..2 {
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        // Longer than the kernel keeps it.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let becomes = |count: u64| {
        eventually("the kernel shows another count", || {
            names(mount.at("to"));
            (links("to") == count).then_some(())
        });
    };
    store.put("to/new/x", "x");
    becomes(4);
    store.delete("to/new/x");
    becomes(3);
    fs::remove_dir(mount.at("to/moves")).unwrap();
    assert_eq!(links("to"), 2);
}

#[test]
fn copying_with_attributes_keeps_them() {
    let store = Store::dev();
    let mut mount = store.mount();
    let outside = mount.outside("source");
    fs::write(&outside, "content").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o751)).unwrap();
    File::options()
        .write(true)
        .open(&outside)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 42))
        .unwrap();
    mount.sh("cp -p ../source copy; cp -a copy again");
    for _ in 0..2 {
        for name in ["copy", "again"] {
            let meta = fs::metadata(mount.at(name)).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o751, 1_000_000_000, 42), "{name}");
            assert_eq!(fs::read_to_string(mount.at(name)).unwrap(), "content");
        }
        mount.remount();
    }
}

#[test]
fn a_write_moves_the_times_and_nothing_else_does() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.sh("echo x > f; chmod 640 f; touch -d '2001-01-01 UTC' f");
    let before = fs::metadata(mount.at("f")).unwrap();
    assert_eq!(before.mtime(), 978_307_200);
    assert!(before.ctime() > 1_700_000_000, "ctime is when that was said: {}", before.ctime());
    mount.remount();
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x\n");
    let after = fs::metadata(mount.at("f")).unwrap();
    assert_eq!(
        (after.mtime(), after.ctime(), after.ctime_nsec()),
        (before.mtime(), before.ctime(), before.ctime_nsec())
    );
    OpenOptions::new().append(true).open(mount.at("f")).unwrap().write_all(b"y").unwrap();
    for _ in 0..2 {
        let written = fs::metadata(mount.at("f")).unwrap();
        let age = written.modified().unwrap().elapsed().unwrap();
        assert!(age < Duration::from_secs(30), "{age:?}");
        assert_eq!(written.mode() & 0o7777, 0o640);
        mount.remount();
    }
}

/// As `relatime` says: at the first read after a change, and then once a day.
#[test]
fn reading_moves_the_atime_once() {
    let store = Store::dev();
    store.put("foreign", "x");
    let mut mount = store.mount();
    mount.sh("echo y > own; touch -a -d '2001-01-01 UTC' own");
    let accessed =
        |mount: &crate::common::Mount<'_>, name: &str| fs::metadata(mount.at(name)).unwrap().accessed().unwrap();
    let mut read = Vec::new();
    for name in ["foreign", "own"] {
        let before = accessed(&mount, name);
        let writes = store.metadata(name);
        mount.sh(&format!("cat {name}"));
        // Where the kernel answers from its own pages, it is told a moment later.
        let once = eventually("reading moves the atime", || Some(accessed(&mount, name)).filter(|at| *at > before));
        mount.sh(&format!("cat {name}; cat {name}"));
        assert_eq!(accessed(&mount, name), once, "{name}");
        assert_eq!(store.metadata(name), writes, "nothing is written for it");
        read.push(once);
    }
    mount.remount();
    assert_eq!([accessed(&mount, "foreign"), accessed(&mount, "own")], read[..]);
    for option in ["noatime", "ro"] {
        mount.unmount();
        store.put(option, "x");
        mount.set_options(&[option]);
        mount.mount_again();
        mount.sh(&format!("cat {option}; cat {option}"));
        let modified = fs::metadata(mount.at(option)).unwrap().modified().unwrap();
        assert_eq!(accessed(&mount, option), modified, "{option}");
    }
}

#[test]
fn inode_numbers_survive_remounts_and_renames() {
    let store = Store::dev();
    store.put("dir/foreign", "x");
    let mut mount = store.mount();
    mount.sh("echo x > own; mkdir made; ln -s own link; mkfifo pipe");
    let inos = |mount: &crate::common::Mount<'_>| {
        let ino = |name: &str| fs::symlink_metadata(mount.at(name)).unwrap().ino();
        [ino("."), ino("dir"), ino("dir/foreign"), ino("own"), ino("made"), ino("link"), ino("pipe")]
    };
    let before = inos(&mount);
    mount.remount();
    assert_eq!(inos(&mount), before);
    mount.sh("mv own made/; mv made/own own; echo more >> own; chmod 600 own");
    assert_eq!(inos(&mount), before);
    mount.remount();
    assert_eq!(inos(&mount), before);
    let listed = mount.sh("ls -i | sort -k 2");
    for (name, ino) in [("dir", before[1]), ("own", before[3])] {
        let said = |l: &str| l.split_whitespace().eq([ino.to_string().as_str(), name]);
        assert!(listed.lines().any(said), "{listed}");
    }
}

/// Another state directory is another machine.
#[test]
fn what_objects_carry_is_found_on_another_machine_and_what_the_root_has_is_not() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.sh("echo x > f; chmod 640 f; setfattr -n user.color -v blue f; touch -d '2001-02-03 04:05:06.5 UTC' f");
    mount.sh("ln -s f l; mkfifo p; mkdir d; chmod 750 d; chmod 700 .");
    assert_eq!(store.keys(), ["d/", "f", "l", "p"], "each is there at once");
    let seen = |mount: &crate::common::Mount<'_>| {
        let look =
            "stat -c '%n %a %F %u %g' f l p d; stat -c %.Y f; readlink l; getfattr --only-values -n user.color f";
        (mount.sh(look), mount.sh("stat -c %a ."))
    };
    let (before, root) = seen(&mount);
    for words in ["f 640 regular file", "l 777 symbolic link", " fifo ", "d 750 directory", "981173106.5", "blue"] {
        assert!(before.contains(words), "{words:?} is not in {before}");
    }
    assert_eq!(root, "700\n");
    mount.remount();
    assert_eq!(seen(&mount), (before.clone(), root));
    mount.unmount();
    assert_eq!(seen(&store.mount()), (before, "755\n".to_owned()));
}

#[test]
fn new_entries_of_a_setgid_directory_have_its_group() {
    let store = Store::dev();
    let mount = store.mount();
    let gid = if is_root() { 4321 } else { nix::unistd::getegid().as_raw() };
    fs::create_dir(mount.at("shared")).unwrap();
    std::os::unix::fs::chown(mount.at("shared"), None, Some(gid)).unwrap();
    fs::set_permissions(mount.at("shared"), fs::Permissions::from_mode(0o2775)).unwrap();
    mount.sh("cd shared; echo x > f; mkdir d; ln -s f l; echo y > d/g");
    for name in ["f", "d", "l", "d/g"] {
        let meta = fs::symlink_metadata(mount.at("shared").join(name)).unwrap();
        assert_eq!(meta.gid(), gid, "{name}");
        assert_eq!(meta.mode() & 0o2000 != 0, name == "d", "{name}");
    }
}

#[test]
fn a_write_by_somebody_else_takes_setuid_away() {
    let store = Store::dev();
    let mount = store.mount_with(if is_root() { &["allow_other"] } else { &[] });
    mount.sh("echo x > f; chmod 6777 f");
    if is_root() {
        // Root keeps the bits; another user does not.
        mount.sh("echo y >> f");
        assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7000, 0o6000);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "sh", "-c", "echo z >> \"$0\""]);
        // The way into the test's folder is root's alone, so that the file is reached through a descriptor's path.
        fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
        crate::common::stdout_of(command.arg(mount.at("f")));
    } else {
        mount.sh("echo y >> f");
    }
    assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7000, 0);
}

#[test]
fn permissions_are_the_kernels_business() {
    let store = Store::dev();
    let mount = store.mount_with(if is_root() { &["allow_other"] } else { &[] });
    mount.sh("echo secret > f; chmod 000 f; mkdir d; echo x > d/g; chmod 000 d");
    if is_root() {
        fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "sh", "-c"]);
        command.arg("cd \"$0\" && ! cat f 2>/dev/null && ! ls d 2>/dev/null && ! rm -f f 2>/dev/null && echo refused");
        assert_eq!(crate::common::stdout_of(command.arg(mount.root())).trim(), "refused");
    } else {
        assert_eq!(errno(fs::read(mount.at("f"))), libc::EACCES);
        assert_eq!(errno(fs::read_dir(mount.at("d"))), libc::EACCES);
    }
    mount.sh("chmod 755 d; chmod 644 f");
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "secret\n");
}

#[test]
fn attributes_of_other_programs_are_read_and_foreign_metadata_is_kept() {
    let store = Store::dev();
    store.put_with("s3fs", "x", &[("mode", "33152"), ("mtime", "1000000000.5"), ("uid", "77"), ("gid", "78")]);
    store.put_with("rclone", "x", &[("mtime", "1234567890.123456789"), ("color", "blue")]);
    store.put_with("link", "target", &[("mode", "41471")]);
    let rclone = [("mode", "100640"), ("mtime", "1234567890.5"), ("atime", "2009-02-13T23:31:31Z")];
    store.put_with("rclone-metadata", "x", &rclone);
    let mount = store.mount();
    let meta = fs::metadata(mount.at("s3fs")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.uid(), meta.gid()), (0o600, 1_000_000_000, 77, 78));
    let meta = fs::metadata(mount.at("rclone")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
    let meta = fs::metadata(mount.at("rclone-metadata")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.atime()), (0o640, 1_234_567_890, 1_234_567_891));
    assert_eq!(fs::read_link(mount.at("link")).unwrap().to_str(), Some("target"));
    if is_root() {
        mount.sh("echo more >> rclone");
        assert_eq!(store.metadata("rclone")["color"], "blue");
        mount.sh("chmod 600 rclone; mv rclone moved");
        assert_eq!(store.metadata("moved")["color"], "blue");
    } else {
        mount.sh("chmod 600 rclone; echo more >> rclone; mv rclone moved");
        assert_eq!(store.metadata("moved")["color"], "blue");
    }
}

#[test]
fn links_of_geesefs_lead_where_they_did() {
    let store = Store::dev();
    store.put("dir/a file", "x");
    for name in ["link", "replaced"] {
        store.put_with(name, "", &[("--symlink-target", "dir/a%20file")]);
    }
    let mut mount = store.mount();
    mount.sh("touch -h -d '2001-01-01 UTC' link; mv link moved; echo y > new.tmp; mv new.tmp replaced");
    for _ in 0..2 {
        assert_eq!(fs::read_link(mount.at("moved")).unwrap().to_str(), Some("dir/a file"));
        assert_eq!(fs::read_to_string(mount.at("moved")).unwrap(), "x");
        let link = fs::symlink_metadata(mount.at("moved")).unwrap();
        assert_eq!((link.len(), link.mtime()), (10, 978_307_200));
        assert!(fs::symlink_metadata(mount.at("replaced")).unwrap().is_file());
        mount.remount();
    }
    assert_eq!((store.text("moved"), store.text("replaced")), (String::new(), "y\n".to_owned()));
    assert_eq!(store.metadata("moved")["--symlink-target"], "dir/a%20file", "geesefs goes on to see it");
    assert!(!store.metadata("replaced").contains_key("--symlink-target"));
}

#[test]
fn kinds_are_shown_in_listings() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("echo x > f; mkdir d; mkfifo p");
    symlink("f", mount.at("l")).unwrap();
    let kinds = mount.sh("find . -mindepth 1 -printf '%f %y\\n' | sort");
    assert_eq!(kinds, "d d\nf f\nl l\np p\n");
    assert!(fs::metadata(mount.at("p")).unwrap().file_type().is_fifo());
}

#[test]
fn expires_is_not_carried_over() {
    let store = Store::dev();
    let is_there = "h = s3.head_object(Bucket=bucket, Key='a')\n\
        print('Expires' in h or 'ExpiresString' in h, h['ContentLanguage'])";
    let put = "import datetime\n\
        at = datetime.datetime(2030, 1, 1)\n\
        s3.put_object(Bucket=bucket, Key='a', Body=b'x', ContentLanguage='de', Expires=at)\n";
    assert_eq!(store.boto(&format!("{put}{is_there}"), &[]), "True de\n");
    let mount = store.mount();
    mount.sh("chmod 600 a");
    assert_eq!(store.boto(is_there, &[]), "False de\n");
}
