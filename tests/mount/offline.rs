//! Without a network, and with answers that are asked for at once.

use crate::common::{Store, errno, eventually, names, objfs, stdout_of};
use objfs::devserver::Effect;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

fn refresh(path: &std::path::Path) {
    stdout_of(objfs().arg("refresh").arg(path));
}

#[test]
fn a_known_bucket_is_mounted_and_shown_without_network() {
    let store = Store::dev();
    store.put("books/a.epub", "a");
    store.put("books/b.epub", "b");
    let mut mount = store.mount_with(&["poll_interval=600s"]);
    // The number of links is told once all names in a directory are known.
    let list = "find . -printf '%P %M %U %G %s %T@\\n' | sort";
    let before = mount.sh(list);
    assert_eq!(mount.status()["offline"], false);
    mount.unmount();
    store.fault_on(Effect::ResetBefore, &[]);
    mount.mount_again();
    let start = Instant::now();
    assert_eq!(mount.sh(list), before);
    mount.sh("df . > /dev/null");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    eventually("status says so", || (mount.status()["offline"] == true).then_some(()));
    let health = mount.status()["health"].as_str().unwrap().to_owned();
    assert!(health.contains("offline"), "{health}");
    assert_eq!(errno(fs::metadata(mount.at("books/c.epub"))), libc_errno_of_a_silent_server());
    store.heal();
    store.put("books/c.epub", "c");
    refresh(&mount.at("books"));
    assert_eq!(fs::read_to_string(mount.at("books/c.epub")).unwrap(), "c");
    assert_eq!((mount.status()["offline"].clone(), mount.status()["health"].clone()), (false.into(), "ok".into()));
}

#[test]
fn what_was_read_is_read_without_network_and_the_rest_fails_in_time() {
    let store = Store::dev();
    let film: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put("film", film.clone());
    store.put("other", vec![7; 1 << 20]);
    let mut mount = store.mount_with(&["poll_interval=600s"]);
    mount.sh("ls > /dev/null");
    assert!(fs::read(mount.at("film")).unwrap() == film);
    eventually("it is on the disk", || (mount.status()["cached_bytes"].as_u64() > Some(11 << 20)).then_some(()));
    mount.unmount();
    store.fault_on(Effect::ResetBefore, &[]);
    mount.mount_again();
    assert!(fs::read(mount.at("film")).unwrap() == film, "from the disk");
    let start = Instant::now();
    assert_eq!(errno(fs::read(mount.at("other"))), libc_errno_of_a_silent_server());
    // Its retries end after 20 s, and the kernel asks twice: ahead, and for the page that is wanted.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// A broken connection, after all retries.
fn libc_errno_of_a_silent_server() -> i32 {
    nix::libc::EIO
}

/// It would refuse at once, were it not slow.
#[test]
fn a_known_bucket_that_refuses_late_is_mounted_and_it_is_said_why_nothing_new_comes() {
    let store = Store::dev();
    store.put("a", "x");
    let mut mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(names(mount.root()), ["a"]);
    mount.unmount();
    store.fault_on(Effect::Latency { ms: 2000 }, &[]);
    store.fault_on(Effect::AccessDenied, &[]);
    let start = Instant::now();
    mount.mount_again();
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!(names(mount.root()), ["a"]);
    eventually("status says why", || {
        let health = mount.status()["health"].as_str().unwrap().to_owned();
        health.contains("may not list the bucket").then_some(())
    });
    assert!(mount.log().contains("the bucket cannot be used"), "{}", mount.log());
    store.heal();
}

#[test]
fn an_unknown_bucket_is_not_mounted_without_network() {
    let store = Store::dev();
    store.fault_on(Effect::ResetBefore, &[]);
    let mount = store.prepare(&[]);
    let output = mount.try_mount();
    assert_eq!(output.status.code(), Some(43), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn refresh_asks_at_once() {
    let store = Store::dev();
    store.put("d/a", "one");
    let mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(mount.sh("cat d/a; ls d"), "onea\n");
    store.put("d/b", "b");
    store.put("d/a", "other");
    store.put("new/deep/file", "x");
    assert_eq!(names(mount.at("d")), ["a"], "fresh for ten minutes");
    refresh(&mount.at("d"));
    assert_eq!(names(mount.at("d")), ["a", "b"]);
    refresh(&mount.at("d/a"));
    assert_eq!(fs::metadata(mount.at("d/a")).unwrap().len(), 5);
    refresh(&mount.at("new/deep/file"));
    assert_eq!(fs::read_to_string(mount.at("new/deep/file")).unwrap(), "x");
    store.put("d/c", "c");
    let set = Command::new("python3")
        .args(["-c", "import os,sys; os.setxattr(sys.argv[1], 'user.objfs.refresh', b'1')"])
        .arg(mount.at("d"))
        .status()
        .unwrap();
    assert!(set.success());
    assert_eq!(names(mount.at("d")), ["a", "b", "c"]);
    let output = objfs().arg("refresh").arg(mount.at("no/such")).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no such file"));
    let output = objfs().args(["refresh", "/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(60));
}

#[test]
fn only_books_are_shown() {
    let store = Store::dev();
    for key in ["a.pdf", "b.EPUB", "cover.jpg", "sub/c.epub", "sub/c.opf", "tmp/d.pdf"] {
        store.put(key, key);
    }
    let mut mount = store.mount_with(&["include=*.{pdf,epub}", "exclude=tmp"]);
    let shown = |mount: &crate::common::Mount<'_>| mount.sh("find . -mindepth 1 | sort");
    assert_eq!(shown(&mount), "./a.pdf\n./b.EPUB\n./sub\n./sub/c.epub\n");
    assert_eq!(errno(fs::metadata(mount.at("cover.jpg"))), nix::libc::ENOENT);
    assert_eq!(errno(fs::write(mount.at("x.jpg"), "x")), nix::libc::EACCES);
    assert_eq!(errno(fs::create_dir(mount.at("tmp"))), nix::libc::EACCES);
    assert_eq!(errno(fs::rename(mount.at("a.pdf"), mount.at("a.txt"))), nix::libc::EACCES);
    mount.sh("mkdir new; cp a.pdf new/e.pdf; rm b.EPUB");
    assert_eq!(errno(fs::remove_dir(mount.at("sub"))), nix::libc::ENOTEMPTY);
    assert!(store.keys().contains(&"sub/c.opf".to_owned()));
    mount.unmount();
    mount.set_options(&[]);
    mount.mount_again();
    assert_eq!(names(mount.root()), ["a.pdf", "cover.jpg", "new", "sub", "tmp"]);
}
