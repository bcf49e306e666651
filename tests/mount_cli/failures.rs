//! Every way in which a mount is refused: exit code, one sentence, nothing left behind.
//!
//! Owns: what can be provoked without touching state files. Does not own: bad state (`state`).

use crate::world::{Outcome, SECRET, World, is_root};
use objfs::daemon::mounts;
use objfs::devserver::Effect;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One sentence on standard error with these words, the exit code, soon, and neither process nor mount.
#[track_caller]
pub(crate) fn assert_refused(world: &World, outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "one sentence, once: {outcome:?}");
    assert!(outcome.err.starts_with("objfs: ") && outcome.out.is_empty(), "{outcome:?}");
    for word in words {
        assert!(outcome.err.contains(word), "{word:?} is not in {outcome:?}");
    }
    assert!(!outcome.err.contains(SECRET), "{outcome:?}");
    assert!(outcome.took < Duration::from_secs(10), "{outcome:?}");
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

/// The same, and nothing is mounted.
#[track_caller]
fn refused(world: &World, outcome: &Outcome, code: i32, words: &[&str]) {
    assert_refused(world, outcome, code, words);
    world.assert_over();
}

fn mount_of(world: &World) -> Command {
    world.objfs(["mount", "s3://demo", world.mnt().to_str().unwrap(), "-o", &world.options("")])
}

#[test]
fn unknown_access_key() {
    let world = World::new();
    let mut command = mount_of(&world);
    command.env("S3_ACCESS_KEY_ID", "nobody");
    refused(&world, &world.run(command), 41, &["credentials", "wrong", &world.endpoint()]);
}

#[test]
fn wrong_secret() {
    let world = World::new();
    let mut command = mount_of(&world);
    command.env("S3_SECRET_ACCESS_KEY", "another-secret-that-is-wrong");
    let outcome = world.run(command);
    refused(&world, &outcome, 41, &["credentials", "wrong", &world.endpoint()]);
    assert!(!outcome.err.contains("another-secret-that-is-wrong"), "{outcome:?}");
}

#[test]
fn no_credentials_at_all() {
    let world = World::new();
    let mut command = mount_of(&world);
    command.env_remove("S3_ACCESS_KEY_ID").env_remove("S3_SECRET_ACCESS_KEY");
    refused(&world, &world.run(command), 41, &["credentials", "missing"]);
}

#[test]
fn no_such_bucket() {
    let world = World::new();
    let outcome = world.try_mount("s3://nowhere", "");
    refused(&world, &outcome, 40, &["bucket \"nowhere\" does not exist", &world.endpoint()]);
}

#[test]
fn keys_that_may_not_list_the_bucket() {
    let world = World::new();
    world.faults(&[(Effect::AccessDenied, "ListObjectsV2")]);
    let outcome = world.try_mount("s3://demo", "");
    refused(&world, &outcome, 42, &["may not list the bucket \"demo\""]);
}

#[test]
fn endpoint_that_refuses_connections() {
    let mut world = World::new();
    world.stop_server();
    let outcome = world.try_mount("s3://demo", "");
    refused(&world, &outcome, 43, &["cannot be reached", &world.endpoint()]);
}

#[test]
fn endpoint_whose_name_is_unknown() {
    let world = World::new();
    let outcome = world.try_mount("s3://demo", "endpoint=http://no-such-host.invalid");
    refused(&world, &outcome, 43, &["http://no-such-host.invalid cannot be reached"]);
}

#[test]
fn mountpoint_missing() {
    let world = World::new();
    std::fs::remove_dir(world.mnt()).unwrap();
    let outcome = world.try_mount("s3://demo", "");
    refused(&world, &outcome, 50, &["mnt does not exist", "mkdir"]);
    std::fs::write(world.mnt(), "").unwrap();
    let outcome = world.try_mount("s3://demo", "");
    refused(&world, &outcome, 50, &["mnt is not a directory"]);
}

#[test]
fn mountpoint_not_empty() {
    let world = World::new();
    std::fs::write(world.in_mnt("a file"), "x").unwrap();
    let outcome = world.try_mount("s3://demo", "");
    refused(&world, &outcome, 51, &["mnt is not empty", "nonempty"]);
    world.mount("nonempty");
    assert!(world.names().is_empty());
    world.umount();
    world.assert_over();
    assert_eq!(std::fs::read_to_string(world.in_mnt("a file")).unwrap(), "x");
}

#[test]
fn already_mounted() {
    let world = World::new();
    world.mount("");
    let again = world.try_mount("s3://demo/elsewhere", "");
    assert_eq!((again.code, again.err.lines().count()), (Some(52), 1), "{again:?}");
    assert!(again.err.contains("is a mount of type fuse.objfs already"), "{again:?}");
    assert_eq!(world.processes().len(), 1, "{:?}", world.processes());
    world.write("works", b"on").unwrap();
    world.umount();
    world.assert_over();
}

#[test]
fn over_another_mount_if_told_so() {
    if !is_root() {
        println!("needs root, to mount something else");
        return;
    }
    let world = World::new();
    let run = |words: &[&str]| {
        let mut command = world.command(words[0]);
        command.args(&words[1..]).arg(world.mnt());
        world.run(command).good();
    };
    run(&["mount", "-t", "tmpfs", "tmpfs"]);
    let refused = world.try_mount("s3://demo", "");
    assert_eq!(refused.code, Some(52), "{refused:?}");
    assert!(refused.err.contains("is a mount of type tmpfs already"), "{refused:?}");
    world.mount("nonempty");
    assert_eq!(mounts::type_at(&world.mnt()).as_deref(), Some("fuse.objfs"));
    world.write("a", b"a").unwrap();
    assert_eq!(world.object("a").unwrap(), b"a");
    world.try_umount().good();
    assert_eq!(mounts::type_at(&world.mnt()).as_deref(), Some("tmpfs"));
    run(&["umount"]);
    world.assert_over();
}

#[test]
fn bucket_and_prefix_mounted_elsewhere() {
    let world = World::new();
    world.mount("");
    let elsewhere = world.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let options = world.options("");
    let second = world.run(world.objfs(["mount", "s3://demo", elsewhere.to_str().unwrap(), "-o", &options]));
    assert_eq!((second.code, second.err.lines().count()), (Some(54), 1), "{second:?}");
    assert!(second.err.contains(&format!("mounted at {} already", world.mnt().display())), "{second:?}");
    assert!(second.took < Duration::from_secs(5), "{second:?}");
    assert_eq!((world.mounts().len(), world.processes().len()), (1, 1));
    let other = world.run(world.objfs(["mount", "s3://demo/p", elsewhere.to_str().unwrap(), "-o", &options])).good();
    assert!(other.out.is_empty());
    world.run(world.objfs(["umount", elsewhere.to_str().unwrap()])).good();
    world.umount();
    world.assert_over();
}

/// A /dev as in a container that was not given the device.
const DEV_WITHOUT_FUSE: &str = r#"
set -e
dev=$1; shift
mount -t tmpfs tmpfs "$dev"
for name in null zero urandom; do : > "$dev/$name"; mount --bind "/dev/$name" "$dev/$name"; done
mount --rbind "$dev" /dev
"#;

#[test]
fn no_dev_fuse() {
    let world = World::new();
    let dev = world.path("dev");
    std::fs::create_dir(&dev).unwrap();
    // An ordinary user is root in a user namespace of its own, makes /dev there, and becomes itself again in another one.
    let (outer, inner) = if is_root() {
        (vec!["--mount".to_owned()], String::new())
    } else {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let inner = format!("unshare --user --map-user={uid} --map-group={gid} ");
        (vec!["--mount".to_owned(), "--map-root-user".to_owned()], inner)
    };
    let mut command = world.command("unshare");
    command.args(outer).args(["sh", "-c", &format!("{DEV_WITHOUT_FUSE}\nexec {inner}\"$@\""), "sh"]).arg(&dev);
    let mount = mount_of(&world);
    command.arg(mount.get_program()).args(mount.get_args());
    refused(&world, &world.run(command), 53, &["/dev/fuse does not exist", "modprobe fuse"]);
}

/// Ordinary users mount by fusermount3; root does without it.
#[test]
fn no_fusermount3() {
    let world = World::new();
    let mut command = mount_of(&world);
    command.env("PATH", world.path("out"));
    let outcome = world.run(command);
    if is_root() {
        outcome.good();
        let mut umount = world.objfs(["umount", world.mnt().to_str().unwrap()]);
        umount.env("PATH", world.path("out"));
        world.run(umount).good();
        world.assert_over();
    } else {
        refused(&world, &outcome, 53, &["fusermount3 was not found", "fuse3"]);
    }
}

#[test]
fn allow_other_is_refused_by_fuse_conf_and_not_for_root() {
    let world = World::new();
    let allowed = std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|conf| conf.lines().any(|line| line.trim() == "user_allow_other"));
    let outcome = world.try_mount("s3://demo", "allow_other");
    if is_root() || allowed {
        outcome.good();
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = table.lines().find(|line| line.contains(world.mnt().to_str().unwrap())).unwrap();
        assert!(line.contains("allow_other"), "{line}");
        world.umount();
        world.assert_over();
    } else {
        refused(&world, &outcome, 32, &["allow_other", "user_allow_other", "/etc/fuse.conf"]);
    }
}

#[test]
fn options_that_make_no_sense() {
    let world = World::new();
    let cases = [
        ("colour=red", "unknown mount option \"colour\""),
        ("uid=me", "uid=me is not a number"),
        ("umask=9", "umask=9 is not an octal number"),
        ("file_mode=644x", "file_mode=644x is not an octal number up to 7777"),
        ("dir_mode=17777", "dir_mode=17777 is not an octal number up to 7777"),
        ("nometa=1", "nometa takes no value"),
        ("memory=lots", "memory=lots is not a size"),
        ("poll_interval=soon", "poll_interval=soon is not a time"),
        ("requests=0", "requests=0 is not a number from 1"),
        ("disable=magic", "disable=magic is not made of kernel features"),
        ("endpoint=s3.example.com", "endpoint= is not a URL such as https://"),
        ("ro=1", "ro takes no value"),
        ("region", "region=NAME needs its value"),
    ];
    for (option, words) in cases {
        refused(&world, &world.try_mount("s3://demo", option), 1, &[words]);
    }
    let mut command = mount_of(&world);
    command.env("S3_POLL_INTERVAL", "now and then");
    refused(&world, &world.run(command), 1, &["S3_POLL_INTERVAL"]);
}

#[test]
fn sources_that_make_no_sense() {
    let world = World::new();
    for (source, words) in [
        ("demo", "not of the form s3://BUCKET[/PREFIX]"),
        ("s3://", "the bucket has no name"),
        ("s3:///prefix", "the bucket has no name"),
        ("s3://demo/a/../b", "cannot be a directory"),
    ] {
        refused(&world, &world.try_mount(source, ""), 1, &[words]);
    }
    let no_bucket = world.run(world.objfs(["mount", world.mnt().to_str().unwrap()]));
    refused(&world, &no_bucket, 1, &["name the bucket", "S3_BUCKET"]);
}

#[test]
fn state_that_cannot_be_written() {
    let world = World::new();
    std::fs::write(world.path("file"), "").unwrap();
    let below_a_file = format!("state_dir={}", world.path("file/state").display());
    refused(&world, &world.try_mount("s3://demo", &below_a_file), 55, &["file/state", "Not a directory"]);
    if !is_root() {
        let mode = |mode| std::fs::set_permissions(world.path("state"), PermissionsExt::from_mode(mode)).unwrap();
        mode(0o500);
        let outcome = world.try_mount("s3://demo", "");
        mode(0o700);
        refused(&world, &outcome, 55, &["state", "Permission denied"]);
    }
}

#[test]
fn asking_where_nothing_is_mounted() {
    let world = World::new();
    let at = world.mnt();
    for command in [&["status"][..], &["status", "--json"], &["umount"], &["ls", "--unmappable"]] {
        let outcome = world.run(world.objfs(command.iter().map(Path::new).chain([at.as_path()])));
        refused(&world, &outcome, 60, &["is mounted at", "mnt"]);
    }
}
