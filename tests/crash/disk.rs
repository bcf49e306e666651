//! A directory as a disk shows it after the power came back.
//!
//! Owns: which writes and names have lasted, making a directory of them. Does not own: what was done (`recording`),
//! whether that is enough (`verify`).
//!
//! What was synced has lasted. Of the rest each write may have lasted, in full or up to a block, and so may each change
//! of a name; what came later may have lasted without what came before.

use crate::recording::{Act, Record};
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What makes a name last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As with ext4: new names last once the file or the directory was synced, new directories at once.
    Lenient,
    /// As POSIX has it: the directory must be synced.
    Strict,
}

/// Makes the directory `at`, which must be empty, of what has lasted.
pub(crate) fn rebuild(records: &[Record], at: &Path, names: Names, dice: &mut Rng) {
    let synced = Synced::of(records);
    // How much of what nobody waited for has lasted: nothing, all, or some.
    let luck = dice.choice([0.0, 0.1, 0.5, 0.9, 1.0]).unwrap();
    let kept = kept_names(records, &synced, names, luck, dice);
    let mut dirs: Vec<&String> = kept.dirs.iter().filter(|dir| !dir.is_empty()).collect();
    dirs.sort();
    for dir in dirs {
        DirBuilder::new().recursive(true).mode(0o700).create(at.join(dir)).unwrap();
    }
    for (path, id) in &kept.files {
        let bytes = kept_bytes(records, *id, &synced, luck, dice);
        let path = at.join(path);
        if !path.parent().unwrap().is_dir() {
            continue;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
    }
}

/// The last record that synced a file or a directory.
#[derive(Debug, Default)]
struct Synced {
    files: HashMap<u64, usize>,
    dirs: HashMap<String, usize>,
}

impl Synced {
    fn of(records: &[Record]) -> Synced {
        let mut synced = Synced::default();
        for (i, record) in records.iter().enumerate() {
            match &record.act {
                Act::Sync { id } => drop(synced.files.insert(*id, i)),
                Act::SyncDir { path } => drop(synced.dirs.insert(path.clone(), i)),
                _ => {}
            }
        }
        synced
    }

    fn has_file(&self, id: u64, since: usize) -> bool {
        self.files.get(&id).is_some_and(|at| *at > since)
    }

    fn has_parent(&self, path: &str, since: usize) -> bool {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.dirs.get(parent).is_some_and(|at| *at > since)
    }
}

/// Names that have lasted.
#[derive(Debug, Default)]
struct Kept {
    files: BTreeMap<String, u64>,
    dirs: Vec<String>,
}

fn kept_names(records: &[Record], synced: &Synced, names: Names, luck: f64, dice: &mut Rng) -> Kept {
    let is_lenient = names == Names::Lenient;
    let mut kept = Kept::default();
    // Names as the daemon saw them.
    let mut live: HashMap<&str, u64> = HashMap::new();
    for (i, record) in records.iter().enumerate() {
        let mut is_lucky = || dice.f64() < luck;
        match &record.act {
            Act::Create { id, path } => {
                live.insert(path, *id);
                let lasts = synced.has_parent(path, i) || is_lenient && synced.has_file(*id, i);
                if lasts || is_lucky() {
                    kept.files.insert(path.clone(), *id);
                }
            }
            Act::Rename { from, to } => {
                let Some(id) = live.remove(from.as_str()) else { panic!("{from} is renamed and was never made") };
                live.insert(to, id);
                if synced.has_parent(from, i) && synced.has_parent(to, i) || is_lucky() {
                    kept.files.retain(|known, its| !(known == from && *its == id));
                    kept.files.insert(to.clone(), id);
                }
            }
            Act::Unlink { path } => {
                let id = live.remove(path.as_str());
                if synced.has_parent(path, i) || is_lucky() {
                    kept.files.retain(|known, its| !(known == path && Some(*its) == id));
                }
            }
            Act::MakeDir { path } => {
                if is_lenient || synced.has_parent(path, i) || is_lucky() {
                    kept.dirs.push(path.clone());
                }
            }
            Act::RemoveDir { path } => {
                if synced.has_parent(path, i) || is_lucky() {
                    kept.dirs.retain(|dir| dir != path);
                }
            }
            Act::Write { .. } | Act::Punch { .. } | Act::Resize { .. } | Act::Sync { .. } | Act::SyncDir { .. } => {}
        }
    }
    kept
}

fn kept_bytes(records: &[Record], of: u64, synced: &Synced, luck: f64, dice: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, record) in records.iter().enumerate() {
        let lasts = synced.has_file(of, i);
        match &record.act {
            Act::Write { id, offset, data } if *id == of => {
                if lasts {
                    put(&mut bytes, *offset, data);
                } else if dice.f64() < luck {
                    let len = if dice.u32(..4) == 0 { cut(*offset, data.len(), dice) } else { data.len() };
                    put(&mut bytes, *offset, &data[..len]);
                }
            }
            Act::Punch { id, offset, len } if *id == of && (lasts || dice.f64() < luck) => {
                let place = |at: u64| usize::try_from(at).unwrap().min(bytes.len());
                let (start, end) = (place(*offset), place(offset + len));
                bytes[start..end].fill(0);
            }
            Act::Resize { id, size } if *id == of && (lasts || dice.f64() < luck) => {
                bytes.resize(usize::try_from(*size).unwrap(), 0);
            }
            _ => {}
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let start = usize::try_from(offset).unwrap();
    let end = start + data.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[start..end].copy_from_slice(data);
}

/// How many bytes of a write have lasted that the disk took by blocks: up to the end of one.
fn cut(offset: u64, len: usize, dice: &mut Rng) -> usize {
    let block = if dice.bool() { 512 } else { 4096 };
    let first = block - usize::try_from(offset % block as u64).unwrap();
    let ends: Vec<usize> = (first..len).step_by(block).collect();
    dice.choice(&ends).copied().unwrap_or(len)
}

#[test]
fn a_hole_that_was_not_synced_may_last() {
    let acts = [
        Act::Create { id: 1, path: "a".to_owned() },
        Act::Write { id: 1, offset: 0, data: b"0123456789".to_vec() },
        Act::Punch { id: 1, offset: 1, len: 3 },
        Act::Sync { id: 1 },
        Act::Punch { id: 1, offset: 8, len: 100 },
    ];
    let records = acts.map(|act| Record { count: 0, act });
    let mut lasted = 0;
    for seed in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        rebuild(&records, dir.path(), Names::Lenient, &mut Rng::with_seed(seed));
        let bytes = std::fs::read(dir.path().join("a")).unwrap();
        assert!(bytes.starts_with(b"0\0\0\x004567") && bytes.len() == 10, "seed {seed}: {bytes:?}");
        assert!(bytes.ends_with(b"89") || bytes.ends_with(b"\0\0"), "seed {seed}: {bytes:?}");
        lasted += u32::from(bytes[9] == 0);
    }
    assert!((1..50).contains(&lasted), "{lasted}");
}

#[test]
fn what_was_synced_lasts() {
    let record = |act| Record { count: 0, act };
    let path = |name: &str| name.to_owned();
    let records = [
        Act::MakeDir { path: path("d") },
        Act::Create { id: 1, path: path("d/a") },
        Act::Write { id: 1, offset: 0, data: b"synced".to_vec() },
        Act::Sync { id: 1 },
        Act::Write { id: 1, offset: 6, data: b" and not".to_vec() },
        Act::Create { id: 2, path: path("d/b") },
        Act::SyncDir { path: path("d") },
        Act::Rename { from: path("d/b"), to: path("d/c") },
        Act::Unlink { path: path("d/a") },
    ]
    .map(record);
    let (mut had_rest, mut was_renamed, mut was_removed) = (0, 0, 0);
    for seed in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        rebuild(&records, dir.path(), Names::Strict, &mut Rng::with_seed(seed));
        let is_there = |name: &str| dir.path().join(name).exists();
        if !is_there("d") {
            // In the strict world nothing says that it lasts.
            continue;
        }
        assert!(is_there("d/b") != is_there("d/c"), "seed {seed}");
        was_renamed += u32::from(is_there("d/c"));
        match std::fs::read(dir.path().join("d/a")) {
            Ok(bytes) => {
                assert!(bytes.starts_with(b"synced"), "seed {seed}");
                had_rest += u32::from(bytes.len() > 6);
            }
            Err(_) => was_removed += 1,
        }
    }
    assert!(had_rest > 0 && was_renamed > 0 && was_removed > 0, "{had_rest} {was_renamed} {was_removed}");
    assert_eq!(cut(0, 100, &mut Rng::with_seed(1)), 100);
    assert!((0..20).all(|seed| [512, 1024, 1100].contains(&cut(512, 1100, &mut Rng::with_seed(seed)))));
}
