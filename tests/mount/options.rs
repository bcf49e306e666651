//! Mount options as they act: what is remembered of them, who may look inside, what is kept on the disk.

use crate::common::{Mount, PROGRAM_MAX, Store, eventually, is_root, output_of};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

#[test]
fn defaults_of_umask_are_remembered_until_the_object_changes() {
    let store = Store::dev();
    store.put("a", "x");
    store.put("b", "x");
    let mode = |mount: &Mount<'_>, name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o7777;
    let mut mount = store.mount_with(&["umask=077"]);
    assert_eq!((mode(&mount, "a"), mode(&mount, "b")), (0o600, 0o600));
    mount.unmount();
    store.put("b", "other");
    mount.set_options(&["umask=022"]);
    mount.mount_again();
    eventually("the other version has what this mount gives", || (mode(&mount, "b") == 0o644).then_some(()));
    assert_eq!(mode(&mount, "a"), 0o600);
}

#[test]
fn others_look_inside_only_where_they_are_allowed_to() {
    if !is_root() {
        println!("needs root, to be somebody else");
        return;
    }
    let store = Store::dev();
    store.put("a", "x");
    for (options, is_let_in) in [(&[][..], false), (&["allow_other"][..], true)] {
        let mount = store.mount_with(options);
        // The way into the test's folder is root's alone.
        fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
        let mut other = Command::new("setpriv");
        other.args(["--reuid", "65534", "--clear-groups", "cat"]).arg(mount.at("a"));
        let output = output_of(&mut other, PROGRAM_MAX);
        assert_eq!(output.status.success(), is_let_in, "{options:?}: {output:?}");
    }
}

#[test]
fn without_a_disk_cache_what_was_read_is_fetched_again_by_the_next_mount() {
    let store = Store::dev();
    store.put("film", vec![7; 2 << 20]);
    let mut mount = store.mount_with(&["cache_size=0"]);
    mount.sh("cat film > /dev/null");
    assert_eq!(mount.status()["cached_bytes"], 0);
    mount.remount();
    store.server().reset_counters();
    mount.sh("cat film > /dev/null");
    let counters = store.server().counters();
    assert!(counters.bytes_out >= 2 << 20, "{counters:?}");
    assert_eq!(mount.sh("find ../cache -type f 2> /dev/null | wc -l").trim(), "0");
}
