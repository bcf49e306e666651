//! Users, groups and the bits beyond rwx: what others may do in a mount is what they may do on the machine's own disk.

use crate::common::{Mount, Store, is_root, stdout_of};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Who may do what. 54321, 54322 and 54323 are users, each with a group of that number; 54400 is a group.
const WHO_MAY: &str = r#"
umask 022
try() {
    if setpriv --reuid "$1" --regid "$1" $2 sh -c "$3" 2>/dev/null; then echo "$1 may: $3"; else echo "$1 may not: $3"; fi
}
as() { try "$1" --clear-groups "$2"; }
member() { try "$1" '--groups 54400' "$2"; }
"#;

/// Runs a script as root in a new directory, of the mount and of this machine. What it prints must be the same.
#[track_caller]
fn both(mount: &Mount<'_>, script: &str) -> Vec<String> {
    // Other users have to come by.
    fs::set_permissions(mount.outside("."), fs::Permissions::from_mode(0o711)).unwrap();
    let [here, local] = [mount.at("work"), mount.outside("local")].map(|dir| {
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        stdout_of(Command::new("sh").arg("-euc").arg(format!("{WHO_MAY}{script}")).current_dir(dir))
    });
    assert_eq!(here, local, "the mount is unlike the disk of this machine");
    here.lines().map(str::to_owned).collect()
}

/// A mount that others may use, if whoever runs the tests can become others.
fn open_mount(store: &Store) -> Option<Mount<'_>> {
    is_root().then(|| store.mount_with(&["allow_other"]))
}

#[test]
fn in_a_sticky_directory_everybody_removes_only_what_is_theirs() {
    let store = Store::dev();
    let Some(mount) = open_mount(&store) else { return };
    let said = both(
        &mount,
        "mkdir all; chmod 1777 all\n\
         as 54321 'echo mine > all/file && mkdir all/dir && ln -s x all/link'\n\
         as 54322 'rm -f all/file'\n\
         as 54322 'mv all/file all/taken'\n\
         as 54322 'echo theirs > all/new'\n\
         as 54322 'mv -f all/new all/file'\n\
         as 54322 'rmdir all/dir'\n\
         as 54322 'rm -f all/link'\n\
         as 54321 'rm -f all/new'\n\
         as 54321 'mv all/file all/moved'\n\
         as 54321 'rmdir all/dir && rm all/link'\n\
         find all -mindepth 1 -printf '%P %y %m %U %G\\n' | sort\n\
         chown 54323 all\n\
         as 54323 'rm -f all/moved'\n\
         chmod 777 all\n\
         as 54321 'rm -f all/new'\n\
         find all -mindepth 1",
    );
    let wanted = [
        "54321 may: echo mine > all/file && mkdir all/dir && ln -s x all/link",
        "54322 may not: rm -f all/file",
        "54322 may not: mv all/file all/taken",
        "54322 may: echo theirs > all/new",
        "54322 may not: mv -f all/new all/file",
        "54322 may not: rmdir all/dir",
        "54322 may not: rm -f all/link",
        "54321 may not: rm -f all/new",
        "54321 may: mv all/file all/moved",
        "54321 may: rmdir all/dir && rm all/link",
        "moved f 644 54321 54321",
        "new f 644 54322 54322",
        "54323 may: rm -f all/moved",
        "54321 may: rm -f all/new",
    ];
    assert_eq!(said, wanted);
}

#[test]
fn a_setgid_directory_hands_on_its_group_and_to_directories_the_bit() {
    let store = Store::dev();
    let Some(mount) = open_mount(&store) else { return };
    let said = both(
        &mount,
        "mkdir shared plain; chgrp 54400 shared; chmod 2777 shared; chmod 777 plain\n\
         as 54321 'cd shared && echo x > file && mkdir dir && mkfifo pipe && ln -s file link && mkdir dir/deep && echo y > dir/deep/file'\n\
         as 54321 'echo x > plain/file && mkdir plain/dir'\n\
         as 54321 'chgrp 54400 plain/file'\n\
         member 54321 'chgrp 54400 plain/file'\n\
         as 54321 'chmod 2755 shared/file'\n\
         member 54321 'chmod 2755 plain/file'\n\
         find plain shared -printf '%p %y %m %U %G\\n' | sort",
    );
    let wanted = [
        "54321 may: cd shared && echo x > file && mkdir dir && mkfifo pipe && ln -s file link && mkdir dir/deep && echo y > dir/deep/file",
        "54321 may: echo x > plain/file && mkdir plain/dir",
        "54321 may not: chgrp 54400 plain/file",
        "54321 may: chgrp 54400 plain/file",
        // Who is no member of the group may ask for the bit, and does not get it.
        "54321 may: chmod 2755 shared/file",
        "54321 may: chmod 2755 plain/file",
        "plain d 777 0 0",
        "plain/dir d 755 54321 54321",
        "plain/file f 2755 54321 54400",
        "shared d 2777 0 54400",
        "shared/dir d 2755 54321 54400",
        "shared/dir/deep d 2755 54321 54400",
        "shared/dir/deep/file f 644 54321 54400",
        "shared/file f 755 54321 54400",
        "shared/link l 777 54321 54400",
        "shared/pipe p 644 54321 54400",
    ];
    assert_eq!(said, wanted);
    assert_eq!(store.metadata("work/shared/dir/deep/file")["gid"], "54400");
    assert_eq!(store.metadata("work/shared/dir/")["mode"], format!("{}", 0o042_755));
}

#[test]
fn supplementary_groups_count() {
    let store = Store::dev();
    let Some(mount) = open_mount(&store) else { return };
    let said = both(
        &mount,
        "echo x > read; chmod 640 read; echo x > write; chmod 660 write; mkdir dir; chmod 770 dir\n\
         chown 54321:54400 read write dir\n\
         as 54322 'cat read > /dev/null'\n\
         as 54322 'echo y >> write'\n\
         as 54322 'ls dir'\n\
         as 54322 'echo x > dir/file'\n\
         member 54322 'cat read > /dev/null'\n\
         member 54322 'echo y >> read'\n\
         member 54322 'cat write > /dev/null && echo y >> write'\n\
         member 54322 'echo x > dir/file && ls dir > /dev/null'\n\
         member 54322 'chmod 666 write'\n\
         cat read write; find . -mindepth 1 -printf '%P %m %U %G\\n' | sort",
    );
    let wanted = [
        "54322 may not: cat read > /dev/null",
        "54322 may not: echo y >> write",
        "54322 may not: ls dir",
        "54322 may not: echo x > dir/file",
        "54322 may: cat read > /dev/null",
        "54322 may not: echo y >> read",
        "54322 may: cat write > /dev/null && echo y >> write",
        "54322 may: echo x > dir/file && ls dir > /dev/null",
        "54322 may not: chmod 666 write",
        "x",
        "x",
        "y",
        "dir 770 54321 54400",
        "dir/file 644 54322 54322",
        "read 640 54321 54400",
        "write 660 54321 54400",
    ];
    assert_eq!(said, wanted);
}

#[test]
fn set_user_id_does_not_outlive_a_write_or_another_owner() {
    let store = Store::dev();
    let Some(mount) = open_mount(&store) else { return };
    let said = both(
        &mount,
        "is() { stat -c \"$1: %a %u %g %s\" exec; }\n\
         new() { rm -f exec; echo x > exec; chown 54321:54321 exec; chmod 6777 exec; }\n\
         new; is new\n\
         echo y >> exec; is 'written by root'\n\
         new; as 54321 'echo y >> exec'; is 'written by the owner'\n\
         new; as 54322 'echo y >> exec'; is 'written by another'\n\
         new; as 54322 'echo long > exec'; is 'replaced by another'\n\
         new; as 54322 'truncate -s 1 exec'; is 'cut by another'\n\
         new; as 54322 'cat exec > /dev/null'; is 'read by another'\n\
         new; as 54322 'chown 54322 exec'; is 'not given away'\n\
         new; member 54321 'chgrp 54400 exec'; is 'given to a group'\n\
         new; as 54321 'chgrp 54321 exec'; is 'given to the group that it has'\n\
         new; chown 54322 exec; is 'given away by root'\n\
         chmod 4755 exec; is 'set again'",
    );
    let wanted = [
        "new: 6777 54321 54321 2",
        "written by root: 6777 54321 54321 4",
        "54321 may: echo y >> exec",
        "written by the owner: 777 54321 54321 4",
        "54322 may: echo y >> exec",
        "written by another: 777 54321 54321 4",
        "54322 may: echo long > exec",
        "replaced by another: 777 54321 54321 5",
        "54322 may: truncate -s 1 exec",
        "cut by another: 777 54321 54321 1",
        "54322 may: cat exec > /dev/null",
        "read by another: 6777 54321 54321 2",
        "54322 may not: chown 54322 exec",
        "not given away: 6777 54321 54321 2",
        "54321 may: chgrp 54400 exec",
        "given to a group: 777 54321 54400 2",
        "54321 may: chgrp 54321 exec",
        "given to the group that it has: 777 54321 54321 2",
        "given away by root: 777 54322 54321 2",
        "set again: 4755 54322 54321 2",
    ];
    assert_eq!(said, wanted);
    assert_eq!(store.metadata("work/exec")["mode"], format!("{}", 0o104_755));
}

#[test]
fn owners_and_groups_of_others_survive_a_remount() {
    let store = Store::dev();
    let Some(mut mount) = open_mount(&store) else { return };
    both(
        &mount,
        "chmod 777 .\nas 54321 'echo x > file && mkdir dir'\nmember 54322 'echo y > other && chgrp 54400 other'",
    );
    let look = "find work -mindepth 1 -printf '%P %m %U %G\\n' | sort";
    let wanted = "dir 755 54321 54321\nfile 644 54321 54321\nother 644 54322 54400\n";
    assert_eq!(mount.sh(look), wanted);
    mount.remount();
    assert_eq!(mount.sh(look), wanted);
    assert_eq!((&*store.metadata("work/other")["uid"], &*store.metadata("work/file")["gid"]), ("54322", "54321"));
}
