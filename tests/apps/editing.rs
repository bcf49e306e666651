//! Files that are edited, appended to, cut and grown: vim, sed, shells, dd, and programs that save by rename.

use crate::compare::{BACK, THROUGH, assert_agrees, both, cost, finish, writes};
use crate::running::need;
use crate::world::{Store, names, noise};
use std::fs;

fn vim_and_sed(options: &[&str]) {
    need("vim", "vim");
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    // It saves by rename, in place, or as it thinks best, with a copy of the old version that stays or not.
    both(
        &mount,
        "vim='vim -N -u NONE -i NONE -es'\n\
         for how in auto yes no; do for keep in backup nobackup; do\n\
         seq 1 40 > $how-$keep; chmod 640 $how-$keep\n\
         for word in one two; do\n\
         $vim -c \"set backupskip= $keep writebackup backupcopy=$how\" -c \"%s/\\$/ $word/\" -c wq $how-$keep\n\
         done; done; done\n\
         ls -A; stat -c '%n %a %s' *; cat no-nobackup auto-backup~",
    );
    both(
        &mount,
        "for i in $(seq 10); do seq $i 200 > s$i; chmod 640 s$i; done\n\
         sed -i.bak 's/1/one/' s*; sed -i 1d s3; stat -c '%n %a %s' s*; cat s3 s10.bak",
    );
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    assert_agrees(&store, &mount, &[]);
    finish(&store, &mut mount);
}

#[test]
fn vim_and_sed_leave_what_they_leave_on_a_local_disk() {
    vim_and_sed(THROUGH);
}

#[test]
fn vim_and_sed_leave_what_they_leave_on_a_local_disk_with_write_back() {
    vim_and_sed(BACK);
}

/// Saves as editors do: GLib, KDE, Emacs and others, by turns.
const SAVE: &str = "for i in range(20):\n\
    \x20   temp = ['.goutputstream-A1B2C3', 'doc.txt.tmp', '.doc.txt.aB3dE6', 'doc.txt~'][i % 4]\n\
    \x20   f = os.open(temp, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)\n\
    \x20   os.write(f, b'save %d\\n' % i * 100)\n\
    \x20   os.fchmod(f, 0o644)\n\
    \x20   os.fsync(f)\n\
    \x20   os.close(f)\n\
    \x20   os.rename(temp, 'doc.txt')\n\
    \x20   d = os.open('.', os.O_RDONLY)\n\
    \x20   os.fsync(d)\n\
    \x20   os.close(d)\n\
    \x20   assert open('doc.txt').read() == f'save {i}\\n' * 100";

fn saves_by_rename(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    mount.sh("echo the probe > probe; ls > /dev/null");
    let counts = cost(&store, &mount, || mount.py(SAVE, &[]));
    // A save is in the bucket when the directory was synced.
    assert_eq!(writes(&counts), (20, 0, 0), "{counts:?}");
    assert_eq!(store.text("doc.txt"), "save 19\n".repeat(100));
    assert_eq!(store.metadata("doc.txt")["mode"], "33188");
    mount.remount();
    assert_eq!(names(mount.root()), ["doc.txt", "probe"]);
    finish(&store, &mut mount);
}

#[test]
fn twenty_saves_by_rename_are_twenty_puts() {
    saves_by_rename(THROUGH);
}

#[test]
fn twenty_saves_by_rename_are_twenty_puts_with_write_back() {
    saves_by_rename(BACK);
}

fn logs(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    let at_once = both(&mount, "for i in $(seq 50); do (echo \"line $i\" >> at-once) & done; wait; sort at-once");
    assert_eq!(at_once.lines().count(), 50);
    both(&mount, "for i in $(seq 50); do sh -c \"echo line $i >> in-turn\"; done; cat in-turn");
    // In which order the first fifty came is theirs.
    assert_agrees(&store, &mount, &["at-once"]);
    assert_eq!(store.text("at-once"), fs::read_to_string(mount.at("at-once")).unwrap());
    mount.remount();
    both(&mount, "echo last >> in-turn; echo last >> at-once; cat in-turn; sort at-once");
    assert_agrees(&store, &mount, &["at-once"]);
    finish(&store, &mut mount);
}

#[test]
fn fifty_programs_append_to_a_log() {
    logs(THROUGH);
}

#[test]
fn fifty_programs_append_to_a_log_with_write_back() {
    logs(BACK);
}

fn dd_and_truncate(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    fs::write(mount.outside("source"), noise(4, 70 << 20)).unwrap();
    for step in [
        "dd if=../source of=large bs=1M conv=fsync status=none",
        "truncate -s 40000001 large",
        "truncate -s 80000000 large",
        "dd if=../source of=large bs=4k seek=5000 count=300 conv=notrunc status=none",
        "dd if=../source of=large bs=1M seek=60 count=1 conv=notrunc,fsync status=none; printf end >> large",
        "truncate -s 3 large; dd if=../source of=large bs=1000 seek=20 count=1 conv=notrunc status=none",
    ] {
        both(&mount, &format!("{step}; stat -c %s large"));
        assert_agrees(&store, &mount, &[]);
    }
    mount.remount();
    assert_agrees(&store, &mount, &[]);
    finish(&store, &mut mount);
}

#[test]
fn a_large_file_is_cut_grown_and_patched() {
    dd_and_truncate(THROUGH);
}

#[test]
fn a_large_file_is_cut_grown_and_patched_with_write_back() {
    dd_and_truncate(BACK);
}
