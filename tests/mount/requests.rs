//! How many requests everyday work costs, counted by the server.

use crate::common::{Mount, Store, eventually};
use crate::programs::noise;
use objfs::devserver::{Counts, Effect, Rule};
use std::fs;

/// What `work` costs in requests.
fn cost<T>(store: &Store, work: impl FnOnce() -> T) -> Counts {
    store.server().reset_counters();
    work();
    store.server().counters()
}

/// Writes were probed, and the root is known and fresh.
fn warm(mount: &Mount<'_>) {
    fs::write(mount.at("probe"), "x").unwrap();
    mount.sh("ls > /dev/null");
}

fn tree(store: &Store) {
    for i in 0..100 {
        store.put(&format!("d/{i:03}"), format!("content {i}"));
    }
}

#[test]
fn listing_a_directory_is_one_request() {
    let store = Store::dev();
    tree(&store);
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    let counts = cost(&store, || assert_eq!(mount.sh("ls -f d | wc -l").trim(), "102"));
    // The name itself was not known: HEAD of `d` and LIST of what is below `d/`.
    assert!(counts.of("ListObjectsV2") <= 2 && counts.of("HeadObject") <= 1 && counts.total() <= 3, "{counts:?}");
    let counts = cost(&store, || assert_eq!(mount.sh("ls -l d | wc -l").trim(), "101"));
    assert!(counts.of("HeadObject") <= 2, "no HEAD for each file: {counts:?}");
    assert!(counts.of("ListObjectsV2") <= 1, "{counts:?}");
}

#[test]
fn an_ls_l_of_a_new_directory_asks_for_few_single_files() {
    let store = Store::dev();
    tree(&store);
    let mount = store.mount_with(&["poll_interval=600s"]);
    let counts = cost(&store, || assert_eq!(mount.sh("ls -l d | wc -l").trim(), "101"));
    // With READDIRPLUS_AUTO the kernel decides buffer by buffer whether it wants attributes; what came without them, and is
    // not advised in time, is looked up, and its headers are read: a handful of the 100.
    assert!(counts.of("ListObjectsV2") <= 2 && counts.of("HeadObject") <= 20, "{counts:?}");
}

#[test]
fn a_small_file_is_written_with_one_request() {
    let store = Store::dev();
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    let counts = cost(&store, || fs::write(mount.at("new"), "hello").unwrap());
    assert_eq!((counts.of("PutObject"), counts.total()), (1, 1), "{counts:?}");
    let counts = cost(&store, || mount.sh("cat new; stat new; ls -l new"));
    assert!(counts.of("GetObject") <= 1 && counts.total() <= 2, "{counts:?}");
    fs::write(mount.outside("source"), "x").unwrap();
    let counts = cost(&store, || mount.sh("mkdir e; cp ../source e/f"));
    assert_eq!((counts.of("PutObject"), counts.total()), (2, 2), "{counts:?}");
}

#[test]
fn the_probe_comes_with_the_first_write_and_once() {
    let store = Store::dev();
    store.put("a", "x");
    let mut mount = store.mount();
    let counts = cost(&store, || mount.sh("cat a; ls -l"));
    assert_eq!(counts.of("PutObject"), 0, "{counts:?}");
    let first = cost(&store, || mount.sh("echo x > b"));
    assert!(first.total() > 5 && first.total() < 40, "{first:?}");
    mount.remount();
    let later = cost(&store, || fs::write(mount.at("c"), "x").unwrap());
    assert_eq!(later.of("PutObject"), 1, "the result is remembered: {later:?}");
}

#[test]
fn a_small_file_is_read_with_one_get() {
    let store = Store::dev();
    tree(&store);
    let mount = store.mount_with(&["poll_interval=600s"]);
    mount.sh("ls d > /dev/null");
    let counts = cost(&store, || assert_eq!(mount.sh("cat d/007"), "content 7"));
    // A HEAD of the file, and perhaps one of the marker that the directory might have: each once.
    assert!(counts.of("GetObject") == 1 && counts.of("HeadObject") <= 2 && counts.total() <= 3, "{counts:?}");
    let counts = cost(&store, || assert_eq!(mount.sh("cat d/007"), "content 7"));
    assert_eq!(counts.of("GetObject"), 0, "cached: {counts:?}");
}

#[test]
fn a_large_file_is_fetched_once() {
    let store = Store::dev();
    store.put("large", vec![7; 32 << 20]);
    let mount = store.mount_with(&["poll_interval=600s"]);
    let counts = cost(&store, || mount.sh("cat large > /dev/null"));
    // Each byte once, but for one request where READs of the kernel have overtaken each other, in one run of thirty.
    assert!(counts.bytes_out < (34 << 20) + (64 << 10), "{counts:?}");
    assert!(counts.of("GetObject") <= 40, "{counts:?}");
    let counts = cost(&store, || mount.sh("cat large > /dev/null"));
    // But for single pages that it has given to others since.
    assert!(counts.bytes_out < 1 << 20, "the kernel has it: {counts:?}");
}

#[test]
fn a_small_piece_of_a_large_file_costs_little() {
    let store = Store::dev();
    store.put("large", vec![7; 64 << 20]);
    let mount = store.mount_with(&["poll_interval=600s"]);
    let counts = cost(&store, || mount.sh("tail -c 1000 large > /dev/null"));
    assert!(counts.bytes_out <= (4 << 20), "{counts:?}");
}

#[test]
fn copying_a_tree_costs_a_put_for_each_file() {
    let store = Store::dev();
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    fs::create_dir(mount.outside("source")).unwrap();
    for i in 0..50 {
        fs::write(mount.outside(&format!("source/{i}")), "x").unwrap();
    }
    let counts = cost(&store, || mount.sh("cp -r ../source copy"));
    assert_eq!(counts.of("PutObject"), 51, "{counts:?}");
    assert!(counts.total() <= 56, "{counts:?}");
}

#[test]
fn removing_a_tree_costs_a_delete_for_each_key() {
    let store = Store::dev();
    tree(&store);
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    let counts = cost(&store, || mount.sh("rm -r d"));
    assert!((100..=102).contains(&counts.of("DeleteObject")), "{counts:?}");
    assert_eq!(counts.of("PutObject"), 0, "no marker for a directory that goes too: {counts:?}");
    assert!(counts.total() <= 112, "{counts:?}");
}

#[test]
fn saving_by_rename_costs_one_put() {
    let store = Store::dev();
    store.put("doc", "old");
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    mount.sh("cat doc > /dev/null");
    let script = "f = os.open('.doc.tmp', os.O_CREAT | os.O_WRONLY)\n\
        os.write(f, b'new')\nos.rename('.doc.tmp', 'doc')\nos.close(f)";
    let counts = cost(&store, || mount.py(script, &[]));
    assert_eq!((counts.of("PutObject"), counts.of("CopyObject"), counts.of("DeleteObject")), (1, 0, 0), "{counts:?}");
    assert_eq!(store.text("doc"), "new");
}

#[test]
fn a_shell_redirection_of_several_programs_is_one_upload() {
    let store = Store::dev();
    let mount = store.mount_with(&["poll_interval=600s"]);
    warm(&mount);
    let counts = cost(&store, || {
        mount.sh("(echo a; /bin/echo b; /bin/echo c; /bin/echo d) > out");
        mount.settle();
    });
    assert_eq!(store.text("out"), "a\nb\nc\nd\n");
    assert_eq!(counts.of("PutObject"), 1, "{counts:?}");
}

#[test]
fn an_idle_mount_asks_for_what_is_in_use_once_in_an_interval_and_within_its_budget() {
    let pause = |millis| std::thread::sleep(std::time::Duration::from_millis(millis));
    let store = Store::dev();
    tree(&store);
    for (options, max) in [("poll_interval=600s", 0), ("poll_interval=1s,poll_budget=0", 0), ("poll_interval=1s", 3)] {
        let mut mount = store.mount_with(&[options]);
        mount.sh("ls -l d > /dev/null; cat d/001 > /dev/null");
        let counts = cost(&store, || pause(2500));
        // Two directories, and one LIST that shows both.
        assert!(counts.total() <= max && counts.of("ListObjectsV2") == counts.total(), "{options}: {counts:?}");
        mount.unmount();
    }
    (0..30).for_each(|i| store.put(&format!("many/{i}/{}", "x".repeat(i)), "x"));
    (0..2100).for_each(|i| store.put(&format!("large/{i}"), "x"));
    let mount = store.mount_with(&["poll_interval=1s,poll_budget=2"]);
    mount.sh("ls -R > /dev/null");
    let counts = cost(&store, || pause(5000));
    assert!(counts.of("ListObjectsV2") <= 2 * 5 + 3, "{counts:?}");
    assert_eq!(counts.of("ListObjectsV2"), counts.total(), "{counts:?}");
    let status = mount.status();
    assert!(status["poll_period"].as_f64() > Some(10.0), "33 directories in 35 pages: {status}");
}

#[test]
fn a_tree_of_small_directories_costs_few_requests() {
    let store = Store::dev();
    for author in 0..20 {
        (0..10).for_each(|book| store.put(&format!("a{author:02}/b{book}/text.epub"), "x"));
    }
    let mount = store.mount_with(&["poll_interval=600s"]);
    let counts = cost(&store, || assert_eq!(mount.sh("find . -type f | wc -l").trim(), "200"));
    // The root, the first author and its books one by one until it is clear that somebody walks; then each author at once.
    assert!(counts.total() <= 40, "{counts:?}");
    let counts = cost(&store, || assert_eq!(mount.sh("find . -type f | wc -l").trim(), "200"));
    assert_eq!(counts.total(), 0, "{counts:?}");
}

#[test]
fn after_a_remount_find_waits_for_nothing_and_changes_show_within_an_interval() {
    let store = Store::dev();
    for i in 0..300 {
        store.put(&format!("d{:02}/f{i:03}", i % 30), format!("content {i}"));
    }
    let mut mount = store.mount_with(&["poll_interval=2s"]);
    assert_eq!(mount.sh("find . -type f | wc -l").trim(), "300");
    let before = mount.sh("find . -printf '%i %p %T@ %m\\n' | sort");
    mount.unmount();
    (0..200).for_each(|i| store.put(&format!("d{:02}/new{i:03}", i % 30), "new"));
    // Nobody who waited for an answer would be done before.
    store.fault(Rule::new(Effect::Latency { ms: 3000 }));
    mount.mount_again();
    let start = std::time::Instant::now();
    let after = mount.sh("find . -printf '%i %p %T@ %m\\n' | sort");
    assert!(start.elapsed() < std::time::Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(after, before);
    store.heal();
    eventually("200 changes show", || (mount.sh("find . -name 'new*' | wc -l").trim() == "200").then_some(()));
}

#[test]
fn ten_thousand_files_are_the_same_after_a_remount_and_after_a_crash() {
    let store = Store::dev();
    (0..10_000).for_each(|i| store.put(&format!("d{:02}/f{i:05}", i % 50), "x"));
    let mut mount = store.mount_with(&["poll_interval=600s"]);
    assert_eq!(mount.sh("find . -type f | wc -l").trim(), "10000");
    mount.sh("chmod 600 d07/*; touch -d 2001-02-03T04:05:06.789 d08/*; mv d09 moved; mkdir empty; rm d10/*");
    let tree = |mount: &Mount<'_>| {
        mount.sh("find . -type f -printf '%i %p %T@ %m %U %G %s\\n' -o -printf '%i %p %m\\n' | sort")
    };
    let before = tree(&mount);
    assert_eq!(before.lines().count(), 10_000 - 200 + 52);
    mount.remount();
    assert_eq!(tree(&mount), before, "after a remount");
    mount.kill();
    mount.mount_again();
    assert_eq!(tree(&mount), before, "after kill -9");
}

#[test]
fn an_ls_l_of_a_large_directory_makes_no_request_for_each_file() {
    let store = Store::dev();
    (0..3000).for_each(|i| store.put(&format!("d/{i:04}"), "x"));
    let mount = store.mount_with(&["poll_interval=600s"]);
    let counts = cost(&store, || assert_eq!(mount.sh("ls -l d | wc -l").trim(), "3001"));
    assert!(counts.of("HeadObject") <= 12 && counts.of("ListObjectsV2") <= 5, "{counts:?}");
    let counts = cost(&store, || assert_eq!(mount.sh("find . -size +0 | wc -l").trim(), "3000"));
    assert!(counts.total() <= 8, "{counts:?}");
}

#[test]
fn cp_within_the_mount_moves_no_bytes() {
    let store = Store::dev();
    let body = noise(7, 5 << 20);
    store.put("film.mkv", &body);
    let mount = store.mount();
    fs::write(mount.at("probe"), "x").unwrap();
    let counts = cost(&store, || mount.sh("cp film.mkv copy.mkv"));
    assert_eq!((counts.of("GetObject"), counts.of("PutObject"), counts.of("CopyObject")), (0, 0, 1), "{counts:?}");
    assert!(store.get("copy.mkv") == body);
}
