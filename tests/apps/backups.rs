//! Backups with their repository in the mount, and restored into it: restic and borg.
//!
//! Owns: that what was saved comes back as it was, and that repositories pass their own checks here and elsewhere.
//! Does not own: a backup to a slow server (`delays`).

use crate::compare::{assert_copied, both, download, finish, make_source, sync};
use crate::running::need;
use crate::world::Store;

/// Its repository is `repo`, and nothing is kept elsewhere.
pub(crate) const RESTIC: &str = "here=$PWD; export RESTIC_PASSWORD=secret RESTIC_REPOSITORY=\"$here/repo\"\n\
    restic() { command restic --quiet --no-cache \"$@\"; }\n";

#[test]
fn restic_saves_checks_and_restores() {
    need("restic", "restic");
    let store = Store::dev();
    let mut mount = store.mount();
    make_source(&mount);
    let work = "restic init > /dev/null; (cd ..; restic backup source) > /dev/null\n\
        restic check --read-data > /dev/null\n\
        restic ls latest | grep ^/; restic restore latest --target out > /dev/null";
    let saved = both(&mount, &format!("{RESTIC}{work}"));
    assert_eq!(saved.lines().count(), 44, "{saved}");
    assert_copied(&mount.at("out/source"), &mount.outside("source"));
    mount.remount();
    mount.sh(&format!("{RESTIC}restic check --read-data; (cd ..; restic backup source); restic check"));
    assert_copied(&mount.at("out/source"), &mount.outside("source"));
    // For another machine.
    sync(&mount);
    download(&store, &mount.outside("elsewhere"));
    mount.sh(&format!("cd ../elsewhere; {RESTIC}restic check --read-data; restic restore latest --target ../out"));
    assert_copied(&mount.outside("out/source"), &mount.outside("source"));
    finish(&store, &mut mount);
}

/// Its repository is `repo`; its cache and its list of known repositories are beside the directory.
const BORG: &str = "here=$PWD; export BORG_REPO=\"$here/repo\" BORG_BASE_DIR=\"$here.borg\" LC_ALL=C.UTF-8\n\
    export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes\n";

#[test]
fn borg_saves_checks_and_extracts() {
    need("borg", "borgbackup");
    let store = Store::dev();
    let mut mount = store.mount();
    make_source(&mount);
    // To change its settings, borg asks for a hard link of the file that they are in, and goes on without.
    let work = "borg init -e none; (cd ..; borg create ::one source; borg create ::two source)\n\
        borg config \"$BORG_REPO\" append_only 0; borg check --verify-data\n\
        borg delete ::one; borg compact; borg check; borg list --format '{archive}{NL}'\n\
        borg list ::two --format '{mode} {size} {isomtime} {path} {source}{NL}'; mkdir out; cd out; borg extract ::two";
    let saved = both(&mount, &format!("{BORG}{work}"));
    assert_eq!(saved.lines().count(), 1 + 44, "{saved}");
    assert!(saved.starts_with("two\n"), "{saved}");
    assert_copied(&mount.at("out/source"), &mount.outside("source"));
    mount.remount();
    mount.sh(&format!("{BORG}borg check --verify-data; (cd ..; borg create ::three source); borg check"));
    assert_copied(&mount.at("out/source"), &mount.outside("source"));
    // For another machine.
    sync(&mount);
    download(&store, &mount.outside("elsewhere"));
    let elsewhere = "borg check --verify-data; mkdir ../out; cd ../out; borg extract ::three";
    mount.sh(&format!("cd ../elsewhere; {BORG}{elsewhere}"));
    assert_copied(&mount.outside("out/source"), &mount.outside("source"));
    finish(&store, &mut mount);
}
