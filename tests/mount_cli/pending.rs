//! What the bucket does not have: waiting for it, trying again, saving elsewhere, dropping it; uploads that others left.
//!
//! Owns: `objfs sync`, `retry`, `export`, `discard`, `uploads`. Does not own: when something fails (tests/conflict).

use crate::world::{LONG, World, eventually};
use objfs::devserver::Effect;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

fn at(world: &World, args: &[&str]) -> Command {
    let mnt = world.mnt();
    let args = args.iter().map(|arg| arg.replace("MNT", mnt.to_str().unwrap()));
    world.objfs(args.collect::<Vec<_>>())
}

/// A mount in which the bucket has refused two files, a new one and a changed one.
fn refused() -> World {
    let world = World::new();
    world.put("changed", b"what the bucket has");
    world.mount("");
    world.faults(&[(Effect::AccessDenied, "PutObject")]);
    world.write("new", b"what the bucket refused").unwrap_err();
    world.write("changed", b"what was changed here").unwrap_err();
    let is_parked = || {
        let failed = world.status()["pending"]["failed"].as_array().unwrap().clone();
        failed.len() == 2 && failed.iter().all(|file| file["retried"] == false)
    };
    assert!(eventually(LONG, is_parked), "{}", world.status());
    world
}

#[test]
fn what_was_refused_is_tried_again_when_somebody_asks() {
    let world = refused();
    let status = world.run(at(&world, &["status", "MNT"])).good().out;
    let is_named = |line: &str| line.trim_start().starts_with("new: ") && line.contains("Access Denied");
    assert!(status.lines().any(is_named), "file and reason: {status}");
    let outcome = world.run(at(&world, &["sync", "MNT"]));
    assert_eq!(outcome.code, Some(61), "{outcome:?}");
    for words in
        ["2 files are not in the bucket", "new: ", "changed: ", "Access Denied", "objfs retry, export or discard"]
    {
        assert!(outcome.err.contains(words), "{words:?} is not in {outcome:?}");
    }
    world.faults(&[]);
    let outcome = world.run(at(&world, &["retry", "MNT/new"])).good();
    assert!(outcome.out.starts_with("1 files are tried again"), "{outcome:?}");
    world.run(at(&world, &["sync", "MNT/new"])).good();
    assert_eq!(world.object("new").unwrap(), b"what the bucket refused");
    world.run(at(&world, &["retry", "MNT"])).good();
    world.run(at(&world, &["sync", "MNT"])).good();
    assert_eq!(world.object("changed").unwrap(), b"what was changed here");
    world.umount();
    world.assert_over();
}

#[test]
fn what_was_refused_is_saved_elsewhere_or_dropped() {
    let world = refused();
    let saved = world.path("out/saved");
    world.run(at(&world, &["export", "MNT/new", saved.to_str().unwrap()])).good();
    assert_eq!(std::fs::read(&saved).unwrap(), b"what the bucket refused");
    let outcome = world.run(at(&world, &["export", "MNT/new", saved.to_str().unwrap()]));
    assert!(outcome.code == Some(32) && outcome.err.contains("exists"), "nothing is overwritten: {outcome:?}");
    world.run(at(&world, &["discard", "MNT/new"])).good();
    assert_eq!(world.names(), ["changed"]);
    world.run(at(&world, &["discard", "MNT/changed"])).good();
    assert_eq!(world.read("changed").unwrap(), b"what the bucket has");
    let outcome = world.run(at(&world, &["discard", "MNT/changed"]));
    assert!(outcome.code == Some(32) && outcome.err.contains("nothing of it was changed"), "{outcome:?}");
    assert_eq!(world.status()["pending"]["files"], 0);
    world.faults(&[]);
    world.umount();
    world.assert_over();
    assert!(world.staged().is_empty());
    assert_eq!(world.object("new"), None);
}

#[test]
fn sync_waits_for_what_was_acknowledged_in_the_journal() {
    let world = World::new();
    world.mount("write=back,upload_delay=1h");
    world.write("a", b"acknowledged").unwrap();
    assert_eq!((world.object("a"), &world.status()["pending"]["files"]), (None, &serde_json::json!(1)));
    world.run(at(&world, &["sync", "MNT/a"])).good();
    assert_eq!(world.object("a").unwrap(), b"acknowledged");
    let elsewhere = world.run(at(&world, &["sync", "/"]));
    assert!(elsewhere.code == Some(60) && elsewhere.err.contains("in no mount of objfs"), "{elsewhere:?}");
    world.umount();
    world.assert_over();
}

#[test]
fn uploads_of_others_are_listed_and_aborted_when_they_are_named() {
    let world = World::new();
    let id = world.create_upload("left behind");
    world.mount("");
    let outcome = world.run(at(&world, &["uploads", "MNT"])).good();
    assert!(outcome.out.starts_with(&format!("{id}\tothers\t")) && outcome.out.contains("left behind"), "{outcome:?}");
    let unknown = world.run(at(&world, &["uploads", "MNT", "--abort", "no-such-id"]));
    assert!(unknown.code == Some(32) && unknown.err.contains("there is no upload no-such-id"), "{unknown:?}");
    world.run(at(&world, &["uploads", "MNT", "--abort", &id])).good();
    assert_eq!(world.run(at(&world, &["uploads", "MNT"])).good().out, "");
    world.umount();
    world.assert_over();
}

#[test]
fn a_name_that_is_not_utf8_is_told_as_bytes_and_a_key_as_it_is() {
    let world = World::new();
    world.mount("");
    // The first write probes the server.
    world.write("first", b"first").unwrap();
    world.faults(&[(Effect::AccessDenied, "PutObject")]);
    let path = world.mnt().join(OsStr::from_bytes(b"caf\xe9"));
    world.within("writing", move || {
        let mut file = File::create(path).unwrap();
        file.write_all(b"x").unwrap();
        nix::unistd::close(file).unwrap_err();
    });
    let is_parked = || world.status()["pending"]["failed"][0]["retried"] == false;
    assert!(eventually(LONG, is_parked), "{}", world.status());
    assert_eq!(world.status()["pending"]["failed"][0]["path"], "caf\\xe9");
    let status = world.run(at(&world, &["status", "MNT"])).good();
    assert!(status.out.contains("caf\\xe9: "), "{status:?}");
    let refused = world.run(at(&world, &["umount", "--timeout", "1", "MNT"]));
    assert!(refused.code == Some(61) && refused.err.contains("caf\\xe9: "), "{refused:?}");
    assert!(world.logs().contains("\"caf\\u{e0e9}\""), "{}", world.logs());
    world.faults(&[]);
    world.umount();
    world.assert_over();
    assert_eq!(world.object("caf\u{e0e9}").unwrap(), b"x");
}
