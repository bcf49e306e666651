//! Archives: tar and zip, made, changed in place and unpacked in the mount.

use crate::compare::{BACK, THROUGH, assert_agrees, assert_same, both, finish, listing, make_source, tree};
use crate::world::Store;

fn tar(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    // The format of the archive has times in whole seconds.
    let said = both(
        &mount,
        "pack='tar -c --sort=name --owner=0 --group=0 --numeric-owner'\n\
         $pack -C .. -f t.tar source; mkdir out; tar -C out -xpf t.tar; $pack -C out source | cmp - t.tar\n\
         $pack -C .. -z -f t.tar.gz source; tar -tzf t.tar.gz | wc -l; rm t.tar.gz\n\
         echo more > more; tar -r --owner=0 --group=0 --mtime='2020-02-02 00:00Z' -f t.tar more\n\
         tar -tf t.tar | tail -n 2\n\
         find out/source -printf '%p %T@ %m %y %s %l\\n' | grep -v ' d ' | sort",
    );
    assert!(said.starts_with("44\n"), "{said}");
    assert_same("unpacked", tree(&mount.at("out/source")), tree(&mount.outside("source")), &[]);
    assert_agrees(&store, &mount, &[]);
    let before = listing(&mount.at("out/source"), true);
    mount.remount();
    assert_eq!(listing(&mount.at("out/source"), true), before, "after a remount");
    mount.sh("tar -tf t.tar > /dev/null; tar -xOf t.tar more | cmp - more");
    finish(&store, &mut mount);
}

#[test]
fn tar_packs_and_unpacks_what_it_does_on_a_local_disk() {
    tar(THROUGH);
}

#[test]
fn tar_packs_and_unpacks_what_it_does_on_a_local_disk_with_write_back() {
    tar(BACK);
}

fn zip(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    make_source(&mount);
    both(
        &mount,
        "here=$PWD; cd ../source; zip -qrXy \"$here/t.zip\" .; cd \"$here\"; unzip -qt t.zip\n\
         zip -qX -j t.zip ../source/f9; zip -qd t.zip 'sub dir/*'; unzip -qt t.zip\n\
         mkdir unzipped; unzip -q t.zip -d unzipped\n\
         find unzipped -type f | sort | xargs -d '\\n' stat -c '%n %y %a %s %F'",
    );
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    mount.sh("unzip -qt t.zip; diff -r --no-dereference -x 'sub dir' ../source unzipped");
    finish(&store, &mut mount);
}

#[test]
fn zip_packs_and_unpacks_what_it_does_on_a_local_disk() {
    zip(THROUGH);
}

#[test]
fn zip_packs_and_unpacks_what_it_does_on_a_local_disk_with_write_back() {
    zip(BACK);
}
