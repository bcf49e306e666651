//! What the program says about itself.
//!
//! Owns: help and version of every command, as a person sees them. Does not own: what the options do.

use crate::world::{Outcome, World, binary};
use std::os::unix::fs::symlink;

const WIDTH_MAX: usize = 100;

const OPTIONS: [&str; 47] = [
    "ro",
    "rw",
    "allow_other",
    "nonempty",
    "uid=N",
    "gid=N",
    "umask=OCTAL",
    "file_mode=OCTAL",
    "dir_mode=OCTAL",
    "nometa",
    "endpoint=URL",
    "region=NAME",
    "profile=NAME",
    "path_style",
    "virtual_host",
    "ca_bundle=FILE",
    "anonymous",
    "storage_class=NAME",
    "sse=AES256|aws:kms|aws:kms:dsse",
    "sse_kms_key=ID",
    "sse_c_key_file=FILE",
    "acl=CANNED",
    "tags=K=V[&K=V]",
    "requester_pays",
    "bucket_owner=ACCOUNT",
    "state_dir=DIR",
    "cache_dir=DIR",
    "cache_size=SIZE",
    "staging_size=SIZE",
    "memory=SIZE",
    "requests=N",
    "poll_interval=TIME",
    "poll_budget=N",
    "events=auto|all|off",
    "include=GLOB",
    "exclude=GLOB",
    "write=through|back",
    "fsync=bucket|local",
    "temp_names=GLOB[:GLOB]",
    "upload_delay=TIME",
    "uploads=N",
    "upload_queue=N",
    "conflict=keep-both|theirs|ours",
    "sqlite=consistent|through",
    "drain_timeout=TIME",
    "disable=NAME[+NAME]",
    "log=FILTER",
];

const VARIABLES: [&str; 8] = [
    "S3_BUCKET",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "S3_ENDPOINT",
    "S3_REGION",
    "S3_PREFIX",
    "S3_POLL_INTERVAL",
    "OBJFS_LOG",
];

#[track_caller]
fn printed(outcome: Outcome) -> String {
    let text = outcome.good().out;
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH_MAX, "too wide: {line}");
        assert_eq!(line.trim_end(), line, "spaces at the end");
    }
    text
}

#[track_caller]
fn lists_mount_options(text: &str) {
    for option in OPTIONS {
        let listed = text.lines().any(|line| line.strip_prefix("  ").and_then(|l| l.split(' ').next()) == Some(option));
        assert!(listed, "{option} is not listed in\n{text}");
    }
    let table = text.lines().skip_while(|l| !l.starts_with("Options for -o")).skip(1);
    let wrapped = table
        .take_while(|l| !l.starts_with("  Kernel"))
        .find(|l| !OPTIONS.contains(&l.trim_start().split(' ').next().unwrap()));
    assert_eq!(wrapped, None, "a line of the table is too long");
    for word in VARIABLES.iter().chain(&["-f, --foreground", "-o <OPTIONS>", "_netdev", "noatime", "readdirplus"]) {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    assert!(text.contains("Exit codes:") && text.contains("  53  no /dev/fuse"), "{text}");
}

#[test]
fn objfs() {
    let world = World::new();
    let text = printed(world.run(world.objfs(["--help"])));
    for command in [
        "mount",
        "umount",
        "status",
        "refresh",
        "sync",
        "retry",
        "export",
        "discard",
        "uploads",
        "ls",
        "doctor",
        "demo",
        "dev-server",
    ] {
        assert!(
            text.lines().any(|l| l.trim_start().starts_with(&format!("{command} "))),
            "{command} is not in\n{text}"
        );
    }
    assert!(text.starts_with("Mounts an S3-compatible bucket as a local directory"), "{text}");
    for word in VARIABLES {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let short = printed(world.run(world.objfs(["-h"])));
    assert!(short.contains("Usage: objfs"), "{short}");
}

#[test]
fn mount() {
    let world = World::new();
    let text = printed(world.run(world.objfs(["mount", "--help"])));
    assert!(text.contains("Usage: objfs mount"), "{text}");
    lists_mount_options(&text);
}

#[test]
fn mount_objfs() {
    let world = World::new();
    let link = world.path("mount.objfs");
    symlink(binary(), &link).unwrap();
    let mut help = world.command(&link);
    help.arg("--help");
    let text = printed(world.run(help));
    assert!(text.contains("Usage: mount.objfs"), "{text}");
    lists_mount_options(&text);
    let mut version = world.command(&link);
    version.arg("--version");
    assert_eq!(printed(world.run(version)), format!("mount.objfs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_other_command() {
    let world = World::new();
    let cases: [(&str, &[&str]); 6] = [
        ("umount", &["--timeout", "--force", "<MOUNTPOINT>"]),
        ("status", &["--json", "<MOUNTPOINT>"]),
        ("refresh", &["<PATH>"]),
        ("ls", &["--unmappable", "<MOUNTPOINT>"]),
        ("demo", &["--dir", "--foreground", "<MOUNTPOINT>"]),
        ("dev-server", &["--listen", "--dir", "--bucket", "--synthetic", "--faults", "--allow-remote"]),
    ];
    for (command, words) in cases {
        let text = printed(world.run(world.objfs([command, "--help"])));
        assert!(text.contains(&format!("Usage: objfs {command}")), "{text}");
        for word in words {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }
}

#[test]
fn version() {
    let world = World::new();
    assert_eq!(printed(world.run(world.objfs(["--version"]))), format!("objfs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_arguments_and_unknown_ones() {
    let world = World::new();
    for args in [&[][..], &["fly"], &["mount"], &["mount", "a", "b", "c"], &["status"], &["mount", "--colour", "/x"]] {
        let outcome = world.run(world.objfs(args));
        assert_eq!(outcome.code, Some(1), "{args:?}: {outcome:?}");
        assert!(outcome.out.is_empty() && outcome.err.contains("Usage:"), "{args:?}: {outcome:?}");
    }
}
