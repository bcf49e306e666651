//! What close and fsync mean when the server fails, and what a killed daemon leaves.

use crate::common::{Store, errno, eventually, noise};
use objfs::devserver::{Effect, Rule};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;

/// close(2), whose answer `drop` throws away.
fn close(file: File) -> nix::Result<()> {
    nix::unistd::close(file.into_raw_fd())
}

#[test]
fn a_close_that_the_server_refuses_says_so_and_loses_nothing() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut file = File::create(mount.at("file")).unwrap();
    file.write_all(b"precious").unwrap();
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert_eq!(close(file), Err(nix::errno::Errno::EIO));
    let words = ["PutObject of", "file", "[InternalError]", "(request "];
    let told = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(mount.log().lines().any(told), "{}", mount.log());
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "precious", "it is kept here");
    let failed = &mount.status()["pending"]["failed"];
    assert_eq!((failed[0]["path"].as_str(), failed[0]["retried"].as_bool()), (Some("file"), Some(true)), "{failed}");
    assert_eq!(store.try_get("file"), None);
    store.heal();
    eventually("it is tried again", || store.try_get("file"));
    assert_eq!(store.text("file"), "precious");
    mount.settle();
    assert_eq!(mount.status()["health"], "ok");
}

#[test]
fn an_fsync_that_the_server_refuses_says_so() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut file = File::create(mount.at("file")).unwrap();
    file.write_all(b"precious").unwrap();
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert_eq!(errno(file.sync_all()), libc::EIO);
    store.heal();
    file.sync_all().unwrap();
    assert_eq!(store.text("file"), "precious");
}

#[test]
fn a_few_failures_are_retried_unnoticed() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    for effect in [Effect::InternalError, Effect::SlowDown, Effect::ResetBefore] {
        store.fault(Rule::new(effect).times(2));
        fs::write(mount.at("file"), format!("{effect:?}")).unwrap();
        assert_eq!(store.text("file"), format!("{effect:?}"));
        store.fault(Rule::new(effect).times(1).on("GetObject"));
        store.put("read", format!("{effect:?}"));
        assert_eq!(fs::read_to_string(mount.at("read")).unwrap(), format!("{effect:?}"));
        fs::remove_file(mount.at("read")).unwrap();
        store.heal();
    }
    store.fault(Rule::new(Effect::Truncate).times(2).on("GetObject"));
    let bytes = noise(5, 3 << 20);
    store.put("large", &bytes);
    assert!(fs::read(mount.at("large")).unwrap() == bytes, "bodies that break off are asked for again");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let store = Store::dev();
    let mut mount = store.mount();
    fs::write(mount.at("committed"), "in the bucket").unwrap();
    let mut file = File::create(mount.at("journaled")).unwrap();
    let bytes = noise(6, 3 << 20);
    file.write_all(&bytes).unwrap();
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert_eq!(close(file), Err(nix::errno::Errno::EIO));
    mount.kill();
    assert_eq!(mount.staged_files().len(), 1);
    store.heal();
    mount.mount_again();
    assert!(fs::read(mount.at("journaled")).unwrap() == bytes, "readable at once");
    eventually("it is committed by itself", || store.try_get("journaled"));
    assert!(store.get("journaled") == bytes);
    mount.unmount();
    assert_eq!(store.keys(), ["committed", "journaled"]);
}

#[test]
fn a_change_to_an_object_survives_kill_9() {
    let store = Store::dev();
    let mut bytes = noise(7, 2 << 20);
    store.put("dir/file", &bytes);
    let mut mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let file = OpenOptions::new().write(true).open(mount.at("dir/file")).unwrap();
    file.write_all_at(b"changed", 1_000_000).unwrap();
    bytes[1_000_000..1_000_007].copy_from_slice(b"changed");
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert_eq!(close(file), Err(nix::errno::Errno::EIO));
    mount.kill();
    store.heal();
    mount.mount_again();
    assert!(fs::read(mount.at("dir/file")).unwrap() == bytes);
    mount.settle();
    assert!(store.get("dir/file") == bytes);
    mount.unmount();
    assert_eq!(store.keys(), ["dir/file", "probe"]);
}

#[test]
fn what_nobody_acknowledged_leaves_no_trace_after_kill_9() {
    let store = Store::dev();
    store.put("old", "old");
    let mut mount = store.mount();
    let mut new = File::create(mount.at("new")).unwrap();
    new.write_all(b"never closed").unwrap();
    let changed = OpenOptions::new().write(true).open(mount.at("old")).unwrap();
    changed.write_all_at(b"NEW AND LONGER", 0).unwrap();
    mount.kill();
    drop((new, changed));
    mount.mount_again();
    assert_eq!(crate::common::names(mount.root()), ["old"]);
    assert_eq!(fs::read_to_string(mount.at("old")).unwrap(), "old");
    mount.unmount();
    assert_eq!((store.keys(), store.text("old")), (vec!["old".to_owned()], "old".to_owned()));
}

#[test]
fn a_dead_daemon_is_noticed_and_its_mount_can_be_replaced() {
    let store = Store::dev();
    store.put("file", "x");
    let mut mount = store.mount();
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "x");
    mount.kill();
    assert_eq!(errno(fs::metadata(mount.at("file"))), libc::ENOENT);
    mount.mount_again();
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "x");
}

#[test]
fn unmounting_waits_until_everything_is_in_the_bucket() {
    let store = Store::dev();
    let mut mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.fault_on(Effect::Latency { ms: 700 }, &["PutObject"]);
    // The opener's child closes last: journaled, committed after RELEASE.
    mount.sh("(sleep 0.1; echo late) > file &\n wait");
    mount.py("f = os.open('mapped', os.O_RDWR | os.O_CREAT)\nos.ftruncate(f, 4096)\nm = mmap.mmap(f, 0)\nos.close(f)\nm[0:4] = b'page'\nm.close()", &[]);
    mount.unmount();
    assert_eq!(store.text("file"), "late\n");
    assert_eq!(&store.get("mapped")[..4], b"page");
}

#[test]
fn a_mount_that_cannot_commit_is_kept_unless_forced_and_the_next_goes_on() {
    let store = Store::dev();
    let mut mount = store.mount_with(&["drain_timeout=1s"]);
    fs::write(mount.at("probe"), "x").unwrap();
    let mut file = File::create(mount.at("file")).unwrap();
    file.write_all(b"precious").unwrap();
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert!(close(file).is_err());
    let mut umount = crate::common::objfs();
    umount.args(["umount", "--timeout", "1"]).arg(mount.root());
    let refused = crate::common::output_of(&mut umount, crate::common::PROGRAM_MAX);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(61), "{said}");
    assert!(said.contains("file") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "precious", "it is still mounted");
    let mut umount = crate::common::objfs();
    crate::common::stdout_of(umount.args(["umount", "--timeout", "1", "--force"]).arg(mount.root()));
    store.heal();
    mount.mount_again();
    mount.settle();
    assert_eq!(store.text("file"), "precious");
}

#[test]
fn known_directories_and_cached_files_are_shown_while_the_server_is_down() {
    let store = Store::dev();
    store.put("dir/file", "cached");
    store.put("dir/other", "x");
    let mount = store.mount();
    assert_eq!(mount.sh("ls dir; cat dir/file"), "file\nother\ncached");
    store.fault(Rule::new(Effect::ResetBefore));
    assert_eq!(crate::common::names(mount.at("dir")), ["file", "other"]);
    assert_eq!(fs::read_to_string(mount.at("dir/file")).unwrap(), "cached");
    assert_eq!(fs::metadata(mount.at("dir/other")).unwrap().len(), 1);
    store.heal();
}

#[test]
fn a_failed_rename_of_a_directory_leaves_it_whole() {
    let store = Store::dev();
    for i in 0..30 {
        store.put(&format!("d/{i}"), format!("{i}"));
    }
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    mount.sh("ls d > /dev/null");
    store.fault(Rule::new(Effect::InternalError).on("CopyObject"));
    assert_eq!(errno(fs::rename(mount.at("d"), mount.at("e"))), libc::EIO);
    store.heal();
    assert_eq!(store.keys().iter().filter(|k| k.starts_with("d/")).count(), 30);
    assert_eq!(store.keys().iter().filter(|k| k.starts_with("e/")).count(), 0);
    assert_eq!(crate::common::names(mount.at("d")).len(), 30);
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    assert_eq!(store.keys().iter().filter(|k| k.starts_with("e/")).count(), 30);
}

#[test]
fn abandoned_uploads_are_aborted() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.fault_on(Effect::InternalError, &["UploadPart"]);
    let mut file = File::create(mount.at("large")).unwrap();
    let bytes = noise(8, 20 << 20);
    file.write_all(&bytes).unwrap();
    assert!(close(file).is_err());
    store.heal();
    mount.settle();
    assert!(store.get("large") == bytes);
    eventually("no upload is left open", || (store.open_uploads() == 0).then_some(()));
}

#[test]
fn what_others_close_and_what_nobody_has_written_waits_in_the_journal_for_the_last_close() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.server().reset_counters();
    let said = mount.py(
        "state = lambda name: print(os.getxattr(name, 'user.objfs.state').decode())\n\
         f = os.open('inherited', os.O_CREAT | os.O_WRONLY)\n\
         os.write(f, b'x')\n\
         child = os.fork()\n\
         if child == 0:\n\
         \x20   os.close(f)\n\
         \x20   os._exit(0)\n\
         os.waitpid(child, 0)\n\
         state('inherited')\n\
         os.close(f)\n\
         state('inherited')\n\
         f = os.open('empty', os.O_CREAT | os.O_WRONLY)\n\
         g = os.dup(f)\n\
         os.close(f)\n\
         state('empty')\n\
         os.close(g)",
        &[],
    );
    assert_eq!(said, "journaled\nclean\njournaled\n");
    mount.settle();
    assert_eq!(
        (store.keys(), store.text("empty")),
        (["empty", "inherited", "probe"].map(String::from).into(), "".into())
    );
    assert_eq!(store.server().counters().of("PutObject"), 2);
}

#[test]
fn closes_by_parent_and_child_at_once_leave_nothing_behind() {
    let store = Store::dev();
    let mut mount = store.mount();
    mount.py(
        "for i in range(150):\n\
         \x20   f = os.open(f'f{i}', os.O_CREAT | os.O_WRONLY)\n\
         \x20   os.write(f, b'x')\n\
         \x20   child = os.fork()\n\
         \x20   os.close(f)\n\
         \x20   if child == 0: os._exit(0)\n\
         \x20   os.waitpid(child, 0)",
        &[],
    );
    // Nothing may be staged or journaled any more; the unmount looks.
    mount.unmount();
    assert_eq!(store.keys().len(), 150);
    mount.mount_again();
    assert_eq!(mount.status()["pending"]["files"], 0);
}

#[test]
fn staging_that_is_full_waits_for_uploads_and_then_says_so() {
    let store = Store::dev();
    let mount = store.mount_with(&["staging_size=8M", "write=back", "upload_delay=1h"]);
    let (a, b) = (noise(1, 6 << 20), noise(2, 6 << 20));
    fs::write(mount.at("a"), &a).unwrap();
    assert!(store.try_get("a").is_none(), "it waits");
    fs::write(mount.at("b"), &b).unwrap();
    assert!(store.get("a") == a, "uploaded, so that there is room");
    // A clean file that is open gives its room back.
    let held = File::open(mount.at("a")).unwrap();
    let full = fs::write(mount.at("c"), noise(3, 9 << 20)).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    fs::remove_file(mount.at("c")).unwrap();
    fs::write(mount.at("d"), &a).unwrap();
    assert!(fs::read(mount.at("b")).unwrap() == b && fs::read(mount.at("a")).unwrap() == a);
    drop(held);
    drop(mount);
    assert!(store.get("b") == b && store.get("d") == a);
}

#[test]
fn an_fsync_of_a_directory_returns_when_the_bucket_has_its_marker_and_its_files() {
    let store = Store::dev();
    store.put("emptied/last", "x");
    let mount = store.mount_with(&["write=back", "upload_delay=1h"]);
    fs::create_dir(mount.at("dir")).unwrap();
    let sync = |dir: &str| File::open(mount.at(dir)).unwrap().sync_all();
    let files: Vec<String> = (0..5).map(|i| format!("dir/{i}")).collect();
    for name in &files {
        fs::write(mount.at(name), name).unwrap();
    }
    fs::write(mount.at("elsewhere"), "x").unwrap();
    assert_eq!(store.keys(), ["dir/", "emptied/last"], "closes waited for the journal only");
    // The bucket refuses, and so does fsync.
    store.fault_on(Effect::AccessDenied, &["PutObject"]);
    assert_eq!(errno(sync("dir")), libc::EACCES);
    store.heal();
    store.fault_on(Effect::Latency { ms: 100 }, &["PutObject"]);
    sync("dir").unwrap();
    for name in &files {
        assert_eq!(store.text(name), *name);
    }
    assert_eq!(store.try_get("elsewhere"), None, "what is in other directories waits on");
    // A marker is owed for two seconds, unless somebody asks for it.
    fs::remove_file(mount.at("emptied/last")).unwrap();
    sync("emptied").unwrap();
    assert!(store.keys().contains(&"emptied/".to_owned()), "{:?}", store.keys());
    store.heal();
    sync("").unwrap();
    assert_eq!(store.text("elsewhere"), "x");
}

#[test]
fn an_fsync_of_a_directory_leaves_temporary_names_and_what_the_journal_suffices_for() {
    let store = Store::dev();
    let mut mount = store.mount_with(&["write=back", "upload_delay=1h"]);
    fs::create_dir(mount.at("dir")).unwrap();
    fs::write(mount.at("dir/film.part"), "x").unwrap();
    fs::write(mount.at("dir/film"), "x").unwrap();
    File::open(mount.at("dir")).unwrap().sync_all().unwrap();
    assert_eq!(store.keys(), ["dir/", "dir/film"]);
    mount.set_options(&["write=back", "upload_delay=1h", "fsync=local"]);
    mount.remount();
    fs::write(mount.at("dir/local"), "x").unwrap();
    File::open(mount.at("dir")).unwrap().sync_all().unwrap();
    assert_eq!(store.try_get("dir/local"), None, "fsync=local");
    mount.unmount();
    assert_eq!(store.text("dir/local"), "x");
}
