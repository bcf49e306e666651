//! The log of a mount.
//!
//! Owns: which lines are in it, and when it is put aside. Does not own: secrets, which are in none (`secrets`).

use crate::world::World;

#[test]
fn it_has_what_was_asked_for() {
    let world = World::new();
    let lines = |option: &str| {
        world.mount(option);
        world.umount();
        let log = world.state_folder().join("objfs.log");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        text
    };
    let begin = "mounted source=s3://demo";
    assert!(lines("").contains(begin));
    for (option, is_there) in [("log=error", false), ("log=objfs::daemon=info", true), ("log=objfs::fs=debug", false)] {
        let text = lines(option);
        assert_eq!(text.contains(begin), is_there, "{option}: {text}");
    }
    let text = lines("log=debug");
    assert!(text.contains(begin) && text.contains(" DEBUG "), "{text}");
}

#[test]
fn one_that_has_grown_large_is_put_aside_by_the_next_mount() {
    let world = World::new();
    world.mount("");
    world.umount();
    let log = world.state_folder().join("objfs.log");
    let aside = log.with_extension("log.1");
    let large = vec![b'\n'; (8 << 20) + 1];
    for (text, is_large) in [(&large[1..], false), (&large[..], true)] {
        std::fs::write(&log, text).unwrap();
        world.mount("");
        world.umount();
        assert_eq!(aside.exists(), is_large);
    }
    assert_eq!(std::fs::metadata(&aside).unwrap().len(), large.len() as u64);
    let new = std::fs::read_to_string(&log).unwrap();
    assert!(new.len() < 1 << 20 && new.contains("mounted source=s3://demo"), "{new}");
}
