//! Kernels that lack a feature: each has an off-switch that stands for them.

use crate::common::{Store, names, noise};
use objfs::daemon::FEATURES;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};

/// A little of everything.
fn smoke(disabled: &str) {
    let store = Store::dev();
    let bytes = noise(1, 3 << 20);
    store.put("foreign/file", &bytes);
    for i in 0..300 {
        store.put(&format!("many/{i:03}"), "x");
    }
    let option = format!("disable={disabled}");
    let mut mount = store.mount_with(&[&option]);
    assert!(fs::read(mount.at("foreign/file")).unwrap() == bytes);
    assert_eq!(names(mount.at("many")).len(), 300);
    assert_eq!(mount.sh("ls -l many | wc -l").trim(), "301");
    mount.sh("echo one > f; echo two >> f; chmod 640 f; mkdir d; mv f d/g; cp d/g d/h; : > d/h; echo three > d/h; truncate -s 2 d/h");
    symlink("d/g", mount.at("link")).unwrap();
    assert_eq!(fs::read_to_string(mount.at("link")).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(mount.at("d/h")).unwrap(), "th");
    let file = File::options().read(true).write(true).open(mount.at("foreign/file")).unwrap();
    file.write_all_at(b"patch", 1 << 20).unwrap();
    drop(file);
    let mut wanted = bytes;
    wanted[1 << 20..(1 << 20) + 5].copy_from_slice(b"patch");
    assert!(store.get("foreign/file") == wanted);
    let mut read = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(fs::read(mount.at("foreign/file")).unwrap() == wanted));
        }
        File::open(mount.at("foreign/file")).unwrap().read_to_end(&mut read).unwrap();
    });
    assert!(read == wanted);
    mount.sh(
        "dd if=foreign/file of=direct bs=64k iflag=direct oflag=direct status=none; cmp foreign/file direct; rm direct",
    );
    mount.sh("echo x > suid; chmod 6755 suid; rm -r many; rm suid");
    mount.remount();
    assert_eq!(names(mount.root()), ["d", "foreign", "link"]);
    assert_eq!(store.keys(), ["d/", "d/g", "d/h", "foreign/file", "link"]);
}

macro_rules! without {
    ($($test:ident: $feature:literal,)*) => {
        $(#[test]
        fn $test() {
            smoke($feature);
        })*

        #[test]
        fn every_feature_has_its_test() {
            let tested = [$($feature),*];
            assert!(FEATURES.iter().all(|f| tested.contains(&f.name)), "{FEATURES:?}");
        }
    };
}

without! {
    it_works_without_async_read: "async_read",
    it_works_without_async_dio: "async_dio",
    it_works_without_atomic_o_trunc: "atomic_o_trunc",
    it_works_without_parallel_dirops: "parallel_dirops",
    it_works_without_readdirplus: "readdirplus",
    it_works_without_killpriv_v2: "killpriv_v2",
    it_works_without_cache_symlinks: "cache_symlinks",
    it_works_without_noflush: "noflush",
}

#[test]
fn it_works_on_a_kernel_that_has_none_of_them() {
    let all: Vec<&str> = FEATURES.iter().map(|f| f.name).collect();
    smoke(&all.join("+"));
}
