//! Servers that go away and daemons that are killed: nothing that was kept is lost.
//!
//! Owns: what the next mount finds. Does not own: what is left in a mount that goes on.

use crate::lifecycle::{body, with_upload_under_way};
use crate::world::{LONG, World, eventually, is_alive, signal};
use nix::sys::signal::Signal;
use std::time::Duration;

/// A mount with a file that the server, which is gone, never got. Its close said so.
fn with_something_owed(more: &str) -> World {
    let mut world = World::new();
    world.mount(more);
    world.write("owed", b"what the bucket has").unwrap();
    world.stop_server();
    world.write("owed", b"what the bucket lacks").unwrap_err();
    world
}

#[track_caller]
fn next_mount_commits(mut world: World) {
    world.start_server();
    world.mount("");
    assert_eq!(world.read("owed").unwrap(), b"what the bucket lacks");
    let is_there = || world.object("owed").is_some_and(|body| body == b"what the bucket lacks");
    assert!(eventually(LONG, is_there), "{}", world.logs());
    world.umount();
    world.assert_over();
    assert!(world.staged().is_empty(), "{:?}", world.staged());
}

#[test]
fn umount_without_a_server_says_what_is_left() {
    let mut world = with_something_owed("");
    let mnt = world.mnt();
    let outcome = world.run(world.objfs(["umount", "--timeout", "1", mnt.to_str().unwrap()]));
    assert_eq!(outcome.code, Some(61), "{outcome:?}");
    for words in ["1 files", "not committed", "owed", "--force"] {
        assert!(outcome.err.contains(words), "{words:?} is not in {outcome:?}");
    }
    assert_eq!(world.status()["state"], "mounted");
    assert_eq!(world.read("owed").unwrap(), b"what the bucket lacks");
    world.start_server();
    world.umount();
    assert_eq!(world.object("owed").unwrap(), b"what the bucket lacks");
    world.assert_over();
}

#[test]
fn umount_by_force_leaves_it_to_the_next_mount() {
    let world = with_something_owed("drain_timeout=1s");
    let mnt = world.mnt();
    let outcome = world.run(world.objfs(["umount", "--force", "--timeout", "1", mnt.to_str().unwrap()])).good();
    assert!(outcome.took < Duration::from_secs(15), "{outcome:?}");
    world.assert_over();
    next_mount_commits(world);
}

#[test]
fn a_server_gone_at_unmount_is_waited_for_no_longer_than_drain_timeout() {
    let world = with_something_owed("drain_timeout=2s");
    let daemon = world.daemon();
    world.unmount_foreign();
    assert!(eventually(Duration::from_secs(15), || !is_alive(daemon)), "{}", world.logs());
    assert!(world.logs().contains("the next mount goes on with what is left"), "{}", world.logs());
    world.assert_over();
    next_mount_commits(world);
}

/// Kills the daemon as a crash would, and takes its dead mount away.
#[track_caller]
fn crash(world: &World) {
    let daemon = world.daemon();
    signal(daemon, Signal::SIGKILL);
    assert!(eventually(LONG, || !is_alive(daemon)));
    world.unmount_foreign();
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_refused() {
    let world = with_something_owed("");
    crash(&world);
    next_mount_commits(world);
}

/// The writer is gone, nobody could be told of a failure: the bytes are kept all the same.
#[test]
fn a_daemon_killed_during_an_upload_goes_on_with_it() {
    let world = with_upload_under_way("");
    crash(&world);
    world.faults(&[]);
    world.mount("");
    assert!(world.read("film").unwrap() == body());
    assert!(eventually(LONG, || world.object("film").is_some_and(|object| object == body())), "{}", world.logs());
    world.umount();
    world.assert_over();
    assert!(world.staged().is_empty(), "{:?}", world.staged());
}

#[test]
fn a_killed_daemon_loses_nothing_that_was_acknowledged() {
    let world = World::new();
    world.mount("");
    let body: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 241) as u8).collect();
    world.write("closed", &body).unwrap();
    world.write("renamed", b"under its old name").unwrap();
    let mnt = world.mnt();
    let open = world.within("changing", move || {
        std::fs::create_dir_all(mnt.join("empty/inner")).unwrap();
        std::fs::rename(mnt.join("renamed"), mnt.join("empty/moved")).unwrap();
        std::os::unix::fs::symlink("closed", mnt.join("link")).unwrap();
        use std::io::Write;
        let mut synced = std::fs::File::create(mnt.join("synced")).unwrap();
        synced.write_all(b"synced").unwrap();
        synced.sync_all().unwrap();
        synced
    });
    crash_with(&world, open);
    world.mount("");
    assert_eq!(world.names(), ["closed", "empty", "link", "synced"]);
    assert!(world.read("closed").unwrap() == body && world.read("link").unwrap() == body);
    assert_eq!(world.read("synced").unwrap(), b"synced");
    assert_eq!(world.read("empty/moved").unwrap(), b"under its old name");
    let inner = world.in_mnt("empty/inner");
    assert!(world.within("stat", move || inner.is_dir()));
    world.umount();
    world.assert_over();
    assert_eq!(world.object("empty/moved").unwrap(), b"under its old name");
    assert!(world.object("renamed").is_none() && world.object("empty/inner/").is_some());
    assert!(world.staged().is_empty(), "{:?}", world.staged());
}

/// The same with a file held open, which a dead mount lets go of.
#[track_caller]
fn crash_with(world: &World, open: std::fs::File) {
    let daemon = world.daemon();
    signal(daemon, Signal::SIGKILL);
    assert!(eventually(LONG, || !is_alive(daemon)));
    world.within("closing", move || drop(open));
    world.unmount_foreign();
}
