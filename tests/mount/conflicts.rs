//! Somebody else wrote, and so did we: both versions survive. And what looks like that and is not.

use crate::common::{Mount, Store, eventually, names, noise};
use objfs::devserver::{Effect, Rule};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

fn close(file: File) -> nix::Result<()> {
    nix::unistd::close(file.into_raw_fd())
}

fn open(mount: &Mount<'_>, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(mount.at(name)).unwrap()
}

/// The one key besides `known`.
fn the_other(store: &Store, known: &[&str]) -> String {
    let others: Vec<String> = store.keys().into_iter().filter(|k| !known.contains(&&**k)).collect();
    assert_eq!(others.len(), 1, "{others:?}");
    others.into_iter().next().unwrap()
}

fn conflicts(mount: &Mount<'_>) -> u64 {
    mount.status()["pending"]["conflicts"].as_u64().unwrap()
}

fn both_survive(store: &Store, mount: &Mount<'_>) {
    store.put("dir/book.epub", "their first");
    let file = open(mount, "dir/book.epub");
    file.write_all_at(b"OUR OWN VERSION", 0).unwrap();
    store.put("dir/book.epub", "their second version");
    assert_eq!(close(file), Ok(()), "both are kept, so the close succeeds");
    assert_eq!(store.text("dir/book.epub"), "their second version");
    let copy = the_other(store, &["dir/book.epub", "probe"]);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert!(copy.starts_with(&format!("dir/book (conflict {host} 20")) && copy.ends_with(").epub"), "{copy}");
    assert_eq!(store.text(&copy), "OUR OWN VERSION");
    assert_eq!(conflicts(mount), 1);
    let words = ["both are kept", "dir/book.epub", copy.strip_prefix("dir/").unwrap()];
    let told = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(mount.log().lines().any(told), "{}", mount.log());
    assert_eq!(mount.sh(&format!("getfattr --only-values -n user.objfs.conflict '{copy}'")), "book.epub");
    assert_eq!(fs::read_to_string(mount.at("dir/book.epub")).unwrap(), "their second version");
    assert_eq!(fs::read_to_string(mount.at(&copy)).unwrap(), "OUR OWN VERSION");
    assert_eq!(names(mount.at("dir")).len(), 2);
}

/// How often the log says that there is a race of moments.
fn warnings(mount: &Mount<'_>) -> usize {
    mount.log().lines().filter(|line| line.contains("the server does not keep conditions on writes")).count()
}

#[test]
fn both_versions_survive_a_conflict() {
    let store = Store::dev();
    let mount = store.mount();
    both_survive(&store, &mount);
}

#[test]
fn both_versions_survive_where_conditions_are_ignored() {
    let store = Store::dev();
    store.fault(Rule::new(Effect::IgnoreConditions));
    let mut mount = store.mount();
    both_survive(&store, &mount);
    assert_eq!(warnings(&mount), 1, "{}", mount.log());
    assert_eq!(mount.status()["conditional_writes"]["put_if_match"], "ignored");
    // It has learnt to keep them, and nobody asks again.
    store.heal();
    mount.remount();
    fs::write(mount.at("probe"), "x").unwrap();
    assert_eq!(mount.status()["conditional_writes"]["put_if_match"], "ignored");
}

#[test]
fn both_versions_survive_where_conditions_are_refused() {
    let store = Store::dev();
    store.fault(Rule::new(Effect::RefuseConditions));
    let mount = store.mount();
    both_survive(&store, &mount);
    assert_eq!(warnings(&mount), 1, "{}", mount.log());
    assert_eq!(mount.status()["conditional_writes"]["put_if_match"], "refused");
}

#[test]
fn everyday_work_goes_on_where_conditions_are_ignored_or_refused() {
    for effect in [Effect::IgnoreConditions, Effect::RefuseConditions] {
        let store = Store::dev();
        store.fault(Rule::new(effect));
        let mut mount = store.mount();
        mount.sh("mkdir d; echo one > d/f; echo two >> d/f; mv d e; mv e/f e/g; cp e/g e/h; chmod 600 e/h; ln -s g e/l; rm e/g");
        fs::write(mount.at("large"), noise(1, 17 << 20)).unwrap();
        fs::write(mount.at("large2"), noise(2, 17 << 20)).unwrap();
        fs::rename(mount.at("large2"), mount.at("large")).unwrap();
        mount.remount();
        assert_eq!(store.keys(), ["e/", "e/h", "e/l", "large"], "{effect:?}");
        assert_eq!(store.text("e/h"), "one\ntwo\n");
        assert!(store.get("large") == noise(2, 17 << 20));
        assert_eq!(conflicts(&mount), 0);
    }
}

#[test]
fn a_conflict_over_a_large_file_keeps_both() {
    let store = Store::dev();
    let (theirs, mut ours) = (noise(1, 20 << 20), noise(2, 18 << 20));
    store.put("large", &ours);
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let file = open(&mount, "large");
    file.write_all_at(b"patched", 9 << 20).unwrap();
    ours[9 << 20..(9 << 20) + 7].copy_from_slice(b"patched");
    // What is kept of the base must be here when the base is gone: what was read here and there, as a program does that looks
    // into a file, is kept.
    let mut piece = vec![0; 64 << 10];
    for at in (0..ours.len()).step_by(64 << 10).rev() {
        file.read_exact_at(&mut piece, at as u64).unwrap();
    }
    file.write_all_at(b"again", 0).unwrap();
    ours[..5].copy_from_slice(b"again");
    store.put("large", &theirs);
    assert_eq!(close(file), Ok(()));
    assert!(store.get("large") == theirs);
    let copy = the_other(&store, &["large", "probe"]);
    assert!(store.get(&copy) == ours, "ours, with what was kept of the base");
}

#[test]
fn two_creators_of_one_name_both_keep_theirs() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut file = File::create(mount.at("new")).unwrap();
    file.write_all(b"ours").unwrap();
    store.put("new", "theirs");
    assert_eq!(close(file), Ok(()));
    assert_eq!(store.text("new"), "theirs");
    assert_eq!(store.text(&the_other(&store, &["new", "probe"])), "ours");
    assert_eq!(conflicts(&mount), 1);
}

#[test]
fn our_inode_and_handle_go_with_our_version() {
    let store = Store::dev();
    store.put("file", "one");
    let mount = store.mount();
    let file = open(&mount, "file");
    let ino = file.metadata().unwrap().ino();
    file.write_all_at(b"OURS", 0).unwrap();
    store.put("file", "theirs");
    file.sync_all().unwrap();
    let copy = the_other(&store, &["file"]);
    assert_eq!(fs::metadata(mount.at(&copy)).unwrap().ino(), ino);
    assert_ne!(fs::metadata(mount.at("file")).unwrap().ino(), ino);
    file.write_all_at(b" AND MORE", 4).unwrap();
    assert_eq!(close(file), Ok(()));
    assert_eq!(store.text(&copy), "OURS AND MORE");
    assert_eq!(store.text("file"), "theirs");
    assert_eq!(store.keys().len(), 2);
}

#[test]
fn a_file_that_was_deleted_elsewhere_while_it_was_changed_is_created_again() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let file = open(&mount, "file");
    file.write_all_at(b"0123456789 and more", 0).unwrap();
    store.delete("file");
    assert_eq!(close(file), Ok(()));
    assert_eq!((store.keys(), store.text("file")), (vec!["file".into(), "probe".into()], "0123456789 and more".into()));
    assert_eq!(conflicts(&mount), 1, "it is reported");
    assert!(mount.log().contains("it is created again"), "{}", mount.log());
}

#[test]
fn a_conflict_after_kill_9_keeps_both() {
    let store = Store::dev();
    store.put("file", "one");
    let mut mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let file = open(&mount, "file");
    file.write_all_at(b"OURS", 0).unwrap();
    store.fault_on(Effect::InternalError, &["PutObject"]);
    assert!(close(file).is_err());
    mount.kill();
    store.heal();
    store.put("file", "theirs");
    mount.mount_again();
    mount.settle();
    assert_eq!(store.text("file"), "theirs");
    assert_eq!(store.text(&the_other(&store, &["file", "probe"])), "OURS");
}

/// Every request of this kind is carried out, and the first two of its answers are lost.
fn with_lost_replies(op: &str, work: impl FnOnce(&Store, &Mount<'_>)) {
    let store = Store::dev();
    store.put("there", "0123456789");
    let mut mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.fault(Rule::new(Effect::ResetAfter).on(op).times(2));
    work(&store, &mount);
    assert_eq!(store.server().faults().get().rules[0].times, Some(0), "{op} was asked for");
    assert_eq!(conflicts(&mount), 0);
    mount.unmount();
    let strange: Vec<String> = store.keys().into_iter().filter(|k| k.contains("conflict")).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let own: Vec<String> = store.list_everything().into_keys().filter(|k| k.starts_with(".objfs/")).collect();
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn a_lost_reply_to_a_put_is_no_conflict() {
    with_lost_replies("PutObject", |store, mount| {
        fs::write(mount.at("new"), "ours").unwrap();
        fs::create_dir(mount.at("d")).unwrap();
        assert_eq!(
            (store.keys(), store.text("new")),
            (["d/", "new", "probe", "there"].map(String::from).into(), "ours".into())
        );
    });
    with_lost_replies("PutObject", |store, mount| {
        mount.sh("echo more >> there; echo and more >> there");
        assert_eq!(store.text("there"), "0123456789more\nand more\n");
        mount.sh("mkdir d; mkdir e; ln -s x l");
        assert_eq!(store.keys(), ["d/", "e/", "l", "probe", "there"]);
    });
}

#[test]
fn a_lost_reply_to_a_completion_is_no_conflict() {
    with_lost_replies("CompleteMultipartUpload", |store, mount| {
        let bytes = noise(1, 20 << 20);
        fs::write(mount.at("large"), &bytes).unwrap();
        assert!(store.get("large") == bytes);
        let bytes = noise(2, 21 << 20);
        fs::write(mount.at("large"), &bytes).unwrap();
        assert!(store.get("large") == bytes);
        assert_eq!(store.keys(), ["large", "probe", "there"]);
        eventually("no upload is left open", || (store.open_uploads() == 0).then_some(()));
    });
}

#[test]
fn a_lost_reply_to_a_copy_is_no_conflict() {
    with_lost_replies("CopyObject", |store, mount| {
        fs::rename(mount.at("there"), mount.at("moved")).unwrap();
        assert_eq!(
            (store.keys(), store.text("moved")),
            (["moved", "probe"].map(String::from).into(), "0123456789".into())
        );
        mount.sh("chmod 600 moved; mv moved back");
        assert_eq!(store.keys(), ["back", "probe"]);
    });
}

#[test]
fn a_lost_reply_to_a_copy_does_not_break_the_rename_of_a_directory() {
    let store = Store::dev();
    for i in 0..10 {
        store.put(&format!("d/{i}"), "x");
    }
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    store.fault(Rule::new(Effect::ResetAfter).on("CopyObject").times(3));
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    assert_eq!(store.keys().iter().filter(|k| k.starts_with("e/")).count(), 10);
    assert_eq!(store.keys().len(), 11);
}

#[test]
fn a_lost_reply_to_a_deletion_is_no_failure() {
    with_lost_replies("DeleteObject", |store, mount| {
        mount.sh("rm there; mkdir d; rmdir d");
        assert_eq!(store.keys(), ["probe"]);
    });
}

#[test]
fn a_second_close_waits_for_the_commit_that_the_first_began() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut first = File::create(mount.at("file")).unwrap();
    first.write_all(b"both").unwrap();
    let second = OpenOptions::new().append(true).open(mount.at("file")).unwrap();
    store.fault_on(Effect::Latency { ms: 1000 }, &["PutObject"]);
    std::thread::scope(|scope| {
        scope.spawn(|| close(first).unwrap());
        eventually("the commit runs", || (mount.status()["in_flight"] != 0).then_some(()));
        assert_eq!(close(second), Ok(()));
        assert_eq!(store.text("file"), "both", "what a close acknowledges is in the bucket");
    });
}

#[test]
fn a_write_during_a_commit_is_committed_next() {
    let store = Store::dev();
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let mut first = File::create(mount.at("file")).unwrap();
    first.write_all(b"first").unwrap();
    let mut second = OpenOptions::new().append(true).open(mount.at("file")).unwrap();
    store.fault(Rule::new(Effect::Latency { ms: 700 }).on("PutObject").times(1));
    std::thread::scope(|scope| {
        scope.spawn(|| close(first).unwrap());
        eventually("the commit runs", || (mount.status()["in_flight"] != 0).then_some(()));
        second.write_all(b" second").unwrap();
        assert_eq!(close(second), Ok(()));
        assert_eq!(store.text("file"), "first second");
    });
    assert_eq!(store.keys(), ["file", "probe"]);
    assert_eq!(conflicts(&mount), 0);
}
