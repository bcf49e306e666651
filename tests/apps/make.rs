//! make, which decides by times: what is up to date stays so, over a remount too.

use crate::compare::{BACK, THROUGH, assert_agrees, both, finish};
use crate::running::need;
use crate::world::Store;
use std::fs;

/// No compiler: its own time would be the test's.
const MAKEFILE: &str = "program: one.out two.out three.out\n\
    \tcat $^ > $@\n\
    %.out: %.txt\n\
    \ttr a-z A-Z < $< > $@\n";

/// Nothing of the caller's make, and messages in English.
const MAKE: &str = "unset MAKEFLAGS MAKELEVEL MFLAGS; export LC_ALL=C\n";

fn make(options: &[&str]) {
    need("make", "make");
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let source = mount.outside("project");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("Makefile"), MAKEFILE).unwrap();
    for name in ["one", "two", "three"] {
        fs::write(source.join(format!("{name}.txt")), format!("{name}\n").repeat(1000)).unwrap();
    }
    let first = both(&mount, &format!("{MAKE}cp ../project/* .; make"));
    assert_eq!(first.lines().count(), 4, "{first}");
    let up_to_date = "make: 'program' is up to date.\n";
    assert_eq!(both(&mount, &format!("{MAKE}make")), up_to_date);
    // Local disks take their times from a clock that ticks every few milliseconds.
    let touched = both(&mount, &format!("{MAKE}sleep 0.1; touch two.txt; make; make"));
    let rebuilt = "tr a-z A-Z < two.txt > two.out\ncat one.out two.out three.out > program\n";
    assert_eq!(touched, format!("{rebuilt}{up_to_date}"));
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    assert_eq!(both(&mount, &format!("{MAKE}make")), up_to_date, "after a remount");
    let removed = both(&mount, &format!("{MAKE}sleep 0.1; rm one.out; make; make -t; touch -r program newer; make"));
    assert_eq!(removed.lines().filter(|line| line.starts_with("tr ")).count(), 1, "{removed}");
    assert_agrees(&store, &mount, &[]);
    finish(&store, &mut mount);
}

#[test]
fn make_builds_what_is_out_of_date_and_nothing_else() {
    make(THROUGH);
}

#[test]
fn make_builds_what_is_out_of_date_and_nothing_else_with_write_back() {
    make(BACK);
}
