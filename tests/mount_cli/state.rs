//! State on this machine that cannot be used: a journal is refused, named, and left as it is; a catalogue is named, kept
//! aside, and rebuilt from the bucket.
//!
//! Owns: catalogues and journals of newer versions, damaged ones, and files that are none; a full disk. Does not own: other
//! failures (`failures`).

use crate::failures::assert_refused;
use crate::world::{World, is_root};
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

/// Mounted all the same, with what the bucket has; the old file is kept.
fn rebuilt(words: &[&str], spoil: impl FnOnce(&PathBuf)) {
    let (world, path) = used("catalogue.db");
    spoil(&path);
    let before = std::fs::read(&path).unwrap();
    let outcome = world.try_mount("s3://demo", "");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!((world.names(), world.read("a").unwrap()), (vec!["a".to_owned()], b"a".to_vec()));
    world.write("b", b"b").unwrap();
    let notice = world.status()["notices"][0].as_str().unwrap_or_default().to_owned();
    for word in words.iter().chain(&["rebuilt from the bucket", "catalogue.db"]) {
        assert!(notice.contains(word), "{word:?} is not in {notice:?}");
    }
    assert!(world.logs().contains("rebuilt from the bucket"));
    world.umount();
    let is_aside = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.starts_with("catalogue.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    let aside = crate::world::files_below(&world.state_folder()).into_iter().find(is_aside).unwrap();
    assert!(std::fs::read(&aside).unwrap() == before, "{} was changed", aside.display());
    world.mount("");
    assert_eq!(
        (world.names().len(), world.status()["notices"].as_array().unwrap().len()),
        (2, 0),
        "the new one is good"
    );
    world.umount();
}

#[test]
fn a_catalogue_of_a_newer_version() {
    rebuilt(&["999"], set_version);
}

#[test]
fn a_catalogue_that_is_none() {
    rebuilt(&["not a database"], scribble);
}

#[test]
fn a_truncated_catalogue() {
    rebuilt(&["is damaged"], |path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
}

#[test]
fn a_catalogue_with_random_bytes() {
    rebuilt(&["is damaged"], |path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let mut dice = fastrand::Rng::with_seed(7);
        for at in (8192..len).step_by(512) {
            file.write_all_at(&dice.u64(..).to_ne_bytes(), at).unwrap();
        }
    });
}

/// Damage that is found only while somebody reads there: the next mount rebuilds.
#[test]
fn a_catalogue_that_was_found_damaged_before() {
    rebuilt(&["malformed"], |path| {
        std::fs::write(path.with_extension("db.is-damaged"), "database disk image is malformed").unwrap();
    });
}

/// Nothing can be written into the catalogue: what cannot be shown says so, and all is well once there is room.
#[test]
fn a_full_disk() {
    if !is_root() {
        println!("needs root, for a file system of its own");
        return;
    }
    let world = World::new();
    let state = world.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let tmpfs = Tmpfs::mount(&state, "2m");
    (0..600).for_each(|i| world.put(&format!("{}-{i}", "long-name".repeat(20)), b"x"));
    world.mount("");
    std::fs::write(state.join("filler"), vec![1; 4 << 20]).unwrap_err();
    let refused = std::fs::read_dir(world.mnt()).map(|entries| entries.count());
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(nix::libc::ENOSPC));
    assert!(world.logs().contains("disk is full") || world.logs().contains("disk image"), "{}", world.logs());
    std::fs::remove_file(state.join("filler")).unwrap();
    assert_eq!(world.names().len(), 600);
    world.umount();
    drop(tmpfs);
}

/// A small file system in memory; unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &std::path::Path, size: &str) -> Tmpfs {
        let options = format!("size={size}");
        let none: Option<&str> = None;
        nix::mount::mount(none, at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str())).unwrap();
        Tmpfs(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_journal_of_a_newer_version() {
    refused_and_untouched("journal.db", &["999", "use a newer objfs"], set_version);
}

#[test]
fn a_journal_that_is_none() {
    refused_and_untouched("journal.db", &["not a database"], scribble);
}
