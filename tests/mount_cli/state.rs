//! State on this machine that cannot be used: refused, named, and left as it is.
//!
//! Owns: catalogues and journals of newer versions, and files that are none. Does not own: other failures (`failures`).

use crate::failures::assert_refused;
use crate::world::World;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A world with the state of an earlier mount, and the path of one file of it.
fn used(file: &str) -> (World, PathBuf) {
    let world = World::new();
    world.mount("");
    world.write("a", b"a").unwrap();
    world.umount();
    world.assert_over();
    let path = world.state_folder().join(file);
    assert!(path.exists());
    (world, path)
}

fn refused_and_untouched(file: &str, words: &[&str], spoil: impl FnOnce(&PathBuf)) {
    let (world, path) = used(file);
    spoil(&path);
    let before = std::fs::read(&path).unwrap();
    let outcome = world.try_mount("s3://demo", "");
    assert_refused(&world, &outcome, 55, &[words, &[file]].concat());
    world.assert_over();
    assert!(std::fs::read(&path).unwrap() == before, "{} was changed", path.display());
}

/// SQLite keeps user_version at byte 60 of the file (file format, section 1.3).
fn set_version(path: &PathBuf) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&999u32.to_be_bytes(), 60).unwrap();
}

fn scribble(path: &PathBuf) {
    std::fs::write(path, "somebody's notes, and no database at all\n".repeat(300)).unwrap();
}

#[test]
fn a_catalogue_of_a_newer_version() {
    refused_and_untouched("catalogue.db", &["999", "use a newer objfs"], set_version);
}

#[test]
fn a_journal_of_a_newer_version() {
    refused_and_untouched("journal.db", &["999", "use a newer objfs"], set_version);
}

#[test]
fn a_catalogue_that_is_none() {
    refused_and_untouched("catalogue.db", &["not a database"], scribble);
}

#[test]
fn a_journal_that_is_none() {
    refused_and_untouched("journal.db", &["not a database"], scribble);
}
