//! rsync: copies with all that it keeps, what they cost in requests, and what it goes on with.

use crate::compare::{BACK, THROUGH, assert_agrees, assert_copied, both, cost, finish, make_source, sync, writes};
use crate::world::{Store, noise, stdout_of};
use std::fs;
use std::process::Command;

fn rsync_of_a_tree(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    let rsync = "rsync -aHAX --delete --stats ../source/ copy/ | grep 'files transferred'\n\
        find copy -printf '%p %T@ %m %y %l\\n' | sort";
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 40\n"));
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"));
    let itemized = "rsync -aHAX --delete --itemize-changes ../source/ copy/";
    assert_eq!(both(&mount, itemized), "", "nothing differs");
    assert_copied(&mount.at("copy"), &mount.outside("source"));
    assert_agrees(&store, &mount, &[]);
    assert_eq!(store.metadata("copy/sub dir/\u{e4} 3")["mtime"], "1568020149.123456789", "for other machines");
    mount.remount();
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"), "after a remount");
    assert_eq!(both(&mount, itemized), "", "nothing differs after a remount");
    let source = mount.outside("source");
    fs::remove_file(source.join("f7")).unwrap();
    fs::remove_dir_all(source.join("sub dir/empty")).unwrap();
    fs::write(source.join("f8"), "changed").unwrap();
    stdout_of(Command::new("touch").args(["-d", "2020-02-02 02:02:02.5Z", ".", "sub dir", "f8"]).current_dir(source));
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 1\n"));
    assert_agrees(&store, &mount, &[]);
    assert!(both(&mount, rsync).starts_with("Number of regular files transferred: 0\n"), "f8 has its time");
    finish(&store, &mut mount);
}

#[test]
fn rsync_keeps_a_tree_with_its_times() {
    rsync_of_a_tree(THROUGH);
}

#[test]
fn rsync_keeps_a_tree_with_its_times_with_write_back() {
    rsync_of_a_tree(BACK);
}

fn rsync_costs(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    mount.sh("echo the probe > probe; mkdir first second; ls -R > /dev/null");
    let files = "--omit-dir-times --exclude=link --exclude='sub dir' ../source/";
    // Without -X, rsync sets times and modes after it has closed the file under its temporary name.
    for (rsync, to) in [("rsync -aHAX", "first"), ("rsync -a", "second")] {
        let counts = cost(&store, &mount, || mount.sh(&format!("{rsync} {files} {to}/")));
        assert_eq!(writes(&counts), (30, 0, 0), "{rsync}: a PUT for each file: {counts:?}");
        let again = cost(&store, &mount, || mount.sh(&format!("{rsync} {files} {to}/")));
        assert_eq!(writes(&again), (0, 0, 0), "{rsync}: {again:?}");
    }
    finish(&store, &mut mount);
}

#[test]
fn rsync_costs_a_put_for_each_file() {
    rsync_costs(THROUGH);
}

#[test]
fn rsync_costs_a_put_for_each_file_with_write_back() {
    rsync_costs(BACK);
}

fn rsync_in_place_and_partial(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let large = mount.outside("source/large");
    fs::create_dir(large.parent().unwrap()).unwrap();
    let mut bytes = noise(1, 20 << 20);
    fs::write(&large, &bytes).unwrap();
    both(&mount, "rsync -a --inplace ../source/ in-place/");
    bytes[9_000_000..9_100_000].copy_from_slice(&noise(2, 100_000));
    bytes.extend(noise(3, 100_000));
    fs::write(&large, &bytes).unwrap();
    both(&mount, "rsync -a --inplace --no-whole-file ../source/ in-place/");
    // It ends in the middle, and its receiver, a little later, leaves what it has under the file's own name.
    let stopped = "timeout 1 rsync -a --partial --bwlimit=4m ../source/ part/ || for i in $(seq 50); do\n\
        if [ -e part/large ]; then break; fi; sleep 0.1; done; ls -A part";
    assert_eq!(both(&mount, stopped), "large\n");
    both(&mount, "rsync -a --partial --no-whole-file ../source/ part/; ls -A part; cmp part/large ../source/large");
    assert_agrees(&store, &mount, &[]);
    assert!(store.get("in-place/large") == bytes);
    finish(&store, &mut mount);
}

#[test]
fn rsync_goes_on_with_files_in_place() {
    rsync_in_place_and_partial(THROUGH);
}

#[test]
fn rsync_goes_on_with_files_in_place_with_write_back() {
    rsync_in_place_and_partial(BACK);
}

/// As it is called most.
#[test]
fn rsync_sends_nothing_the_second_time() {
    let store = Store::dev();
    let mut mount = store.mount();
    make_source(&mount);
    let rsync = "rsync -a --itemize-changes ../source/ copy/";
    assert!(mount.sh(rsync).lines().count() >= 40);
    assert_eq!(mount.sh(rsync), "");
    mount.remount();
    assert_eq!(mount.sh(rsync), "", "after a remount");
    mount.sh("diff -r ../source copy; echo changed > ../source/f5");
    assert_eq!(mount.sh(rsync).lines().filter(|l| l.starts_with(">f")).count(), 1);
    sync(&mount);
    assert_eq!(store.text("copy/f5"), "changed\n");
    assert!(!store.keys().iter().any(|k| k.contains("/.f")), "{:?}", store.keys());
    finish(&store, &mut mount);
}
