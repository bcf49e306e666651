//! Directories of many entries: removed as a whole, and read while names in them come and go.

use crate::common::{PROGRAM_MAX, Store, is_full_run, names, output_of};
use objfs::devserver::{Settings, Synthetic};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keys in a page of a LIST.
const PAGE: u64 = 1000;
/// For so long after somebody has read a directory, lookups in it tell for a few names only what their headers say.
const UNREAD: Duration = Duration::from_secs(25);

/// A bucket with so many objects below `big/`. The server makes them up: to put them there would take longer than the test.
fn store_of(count: u64) -> Store {
    let synthetic = Synthetic::parse_list(&format!("count={count},fanout=0,size=1,prefix=big/")).unwrap();
    Store::dev_with(Settings { synthetic, ..Settings::default() })
}

/// `rm -rf` of a directory with so many entries: nothing is left, and it costs a DELETE for each, and the pages of a listing.
fn remove_recursively(count: u64, limit: Duration) {
    let store = store_of(count);
    // Longer than the test: what was listed once is not asked for again, name by name.
    let mut mount = store.mount_with(&["poll_interval=600s"]);
    // Writes are probed before that.
    fs::write(mount.at("probe"), "x").unwrap();
    assert_eq!(names(mount.root()), ["big", "probe"]);
    store.server().reset_counters();
    let began = Instant::now();
    let output = output_of(Command::new("rm").args(["-rf", "big"]).current_dir(mount.root()), limit);
    let took = began.elapsed();
    let counts = store.server().counters();
    println!("{count} entries were removed in {took:?} with {counts:?}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(mount.root()), ["probe"]);
    assert!((count..=count + 1).contains(&counts.of("DeleteObject")), "{counts:?}");
    // The name itself, whether the directory is empty, and some that are cut short.
    assert!(counts.of("ListObjectsV2") <= count.div_ceil(PAGE) + 6, "{counts:?}");
    if took < UNREAD {
        assert!(counts.of("HeadObject") <= 20 && counts.total() <= count + count.div_ceil(PAGE) + 27, "{counts:?}");
    }
    mount.unmount();
    assert_eq!(store.list_everything().into_keys().collect::<Vec<String>>(), ["probe"]);
}

#[test]
fn removing_a_directory_of_three_thousand_entries_leaves_nothing() {
    remove_recursively(3_000, PROGRAM_MAX);
}

#[test]
fn full_removing_a_directory_of_a_hundred_thousand_entries_leaves_nothing() {
    if is_full_run() {
        remove_recursively(100_000, Duration::from_secs(540));
    }
}

/// At first while it is listed for the first time, and then as it is known.
#[test]
fn what_is_there_all_the_time_is_read_once_while_names_are_made_renamed_and_removed() {
    let store = store_of(3_000);
    let mount = store.mount_with(&["poll_interval=600s"]);
    // What goes lies before and behind the place that is being read.
    let said = mount.py(
        "import random\n\
         goes = [f'f{i:06}' for i in range(3000) if i % 10 == 9]\n\
         stays = {f'f{i:06}' for i in range(3000)} - set(goes)\n\
         random.Random(7).shuffle(goes)\n\
         for turn in range(2):\n\
         \x20   read, renamed = [], []\n\
         \x20   with os.scandir('big') as entries:\n\
         \x20       for entry in entries:\n\
         \x20           read.append(entry.name)\n\
         \x20           if len(read) % 100: continue\n\
         \x20           with open(f'big/new-{turn}-{len(read)}', 'x') as f: f.write('new')\n\
         \x20           os.unlink('big/' + goes.pop())\n\
         \x20           renamed.append((goes.pop(), f'moved-{turn}-{len(read)}'))\n\
         \x20           os.rename('big/' + renamed[-1][0], 'big/' + renamed[-1][1])\n\
         \x20   known = set(read)\n\
         \x20   print(len(read) - len(known), sorted(stays - known), [p for p in renamed if known.issuperset(p)])\n\
         print(len(os.listdir('big')) - (3000 - 300 + len(goes)))",
        &[],
    );
    // New names and renamed ones are there as well, one of each for a hundred that were read.
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["0 [] []", "0 [] []"], "read twice, missed, read under both names");
    let added: u64 = lines[2].parse().unwrap();
    let objects = store.keys().len() as u64;
    assert_eq!(names(mount.at("big")).len() as u64, objects, "as many as the bucket has");
    assert!((100..=130).contains(&added) && added.is_multiple_of(2), "{added}");
}
