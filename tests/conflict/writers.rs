//! Those who write the same keys at random.
//!
//! Owns: what a writer does and what it notes as acknowledged. Does not own: what must come of it (`ledger`).

use crate::client::Client;
use crate::ledger::Acknowledged;
use crate::records::{Party, RECORD, Tag};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Keys that all write.
pub(crate) const KEYS: usize = 50;
/// Of those, the last few are large: multipart uploads.
const LARGE_KEYS: usize = 3;
const LARGE_SIZE: usize = 18 << 20;
/// One in so many writes goes to a large key.
const LARGE_ONE_IN: usize = 60;
/// Conflict copies beyond these are deleted by the foreign client: a run of ten minutes makes many.
const COPIES_MAX: usize = 60;

/// What all writers share.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) acknowledged: Mutex<Vec<Acknowledged>>,
    /// Failures by what was done and what was answered.
    pub(crate) failed: Mutex<BTreeMap<(&'static str, String), u64>>,
    numbers: AtomicU64,
}

pub(crate) fn key(i: usize) -> String {
    format!("k{i:02}.bin")
}

fn any_key(dice: &mut fastrand::Rng) -> usize {
    match dice.usize(0..LARGE_ONE_IN) {
        0 => dice.usize(KEYS - LARGE_KEYS..KEYS),
        _ => dice.usize(0..KEYS - LARGE_KEYS),
    }
}

/// The size of a whole version.
fn any_size(dice: &mut fastrand::Rng, key: usize) -> usize {
    if key >= KEYS - LARGE_KEYS { LARGE_SIZE } else { dice.usize((4 << 10) / RECORD..=(200 << 10) / RECORD) * RECORD }
}

impl Notes {
    fn tag(&self, party: Party) -> Tag {
        Tag { party, number: self.numbers.fetch_add(1, Ordering::SeqCst) }
    }
}

/// A program that writes through a mount.
pub(crate) struct LocalWriter {
    pub(crate) party: Party,
    pub(crate) root: PathBuf,
    pub(crate) notes: Arc<Notes>,
    /// One per key: within a mount nobody writes a file while another does, so that an answer is about one version.
    pub(crate) turns: Arc<Vec<Mutex<()>>>,
    pub(crate) dice: fastrand::Rng,
}

impl LocalWriter {
    /// Writes until then.
    pub(crate) fn run(mut self, until: Instant) {
        while Instant::now() < until {
            let i = any_key(&mut self.dice);
            let turns = Arc::clone(&self.turns);
            let turn = turns[i].lock().unwrap();
            let tag = self.notes.tag(self.party);
            let (what, outcome) = match self.dice.u32(0..20) {
                0..6 => ("overwrite", self.overwrite(i, tag)),
                6..12 => ("patch", self.patch(i, tag)),
                12..15 => ("append", self.append(i, tag)),
                15..17 => ("save by rename", self.save(i, tag, true)),
                17..19 => ("save by early rename", self.save(i, tag, false)),
                _ => ("remove", fs::remove_file(self.root.join(key(i))).map(|()| false)),
            };
            match outcome {
                Ok(true) => {
                    let one = Acknowledged { tag, key: key(i), what, at: Instant::now() };
                    self.notes.acknowledged.lock().unwrap().push(one);
                }
                Ok(false) => {}
                Err(e) => {
                    let answer =
                        e.raw_os_error().map_or_else(|| e.to_string(), |n| format!("{:?}", nix::Error::from_raw(n)));
                    *self.notes.failed.lock().unwrap().entry((what, answer)).or_default() += 1;
                }
            }
            drop(turn);
            std::thread::sleep(Duration::from_millis(self.dice.u64(0..60)));
        }
    }

    fn overwrite(&mut self, i: usize, tag: Tag) -> io::Result<bool> {
        let bytes = tag.bytes(Some(0), any_size(&mut self.dice, i));
        let mut file = File::create(self.root.join(key(i)))?;
        file.write_all(&bytes)?;
        close(file)
    }

    /// A few records in the midst of what is there, and not read before.
    fn patch(&mut self, i: usize, tag: Tag) -> io::Result<bool> {
        let file = OpenOptions::new().write(true).open(self.root.join(key(i)))?;
        let records = usize::try_from(file.metadata()?.len()).unwrap() / RECORD;
        let offset = self.dice.usize(0..records.max(1)) * RECORD;
        let bytes = tag.bytes(Some(offset), self.dice.usize(1..=100) * RECORD);
        file.write_all_at(&bytes, offset as u64)?;
        close(file)
    }

    fn append(&mut self, i: usize, tag: Tag) -> io::Result<bool> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.root.join(key(i)))?;
        file.write_all(&tag.bytes(None, self.dice.usize(1..=100) * RECORD))?;
        close(file)
    }

    /// As editors do. `close_first`: the new file is in the bucket before it gets its name.
    fn save(&mut self, i: usize, tag: Tag, close_first: bool) -> io::Result<bool> {
        let draft = self.root.join(format!(".k{i:02}-{}.tmp", tag.number));
        let saved = self.save_by_way_of(&draft, i, tag, close_first);
        if saved.is_err() {
            _ = fs::remove_file(&draft);
        }
        saved
    }

    fn save_by_way_of(&mut self, draft: &Path, i: usize, tag: Tag, close_first: bool) -> io::Result<bool> {
        let name = self.root.join(key(i));
        let mut file = File::create(draft)?;
        file.write_all(&tag.bytes(Some(0), any_size(&mut self.dice, i)))?;
        if close_first {
            close(file)?;
            fs::rename(draft, name)?;
            return Ok(true);
        }
        fs::rename(draft, name)?;
        close(file)
    }
}

/// close(2), whose answer counts.
fn close(file: File) -> io::Result<bool> {
    nix::unistd::close(file)?;
    Ok(true)
}

/// A client that writes and deletes without conditions.
pub(crate) struct ForeignWriter {
    pub(crate) client: Client,
    pub(crate) notes: Arc<Notes>,
    pub(crate) dice: fastrand::Rng,
}

impl ForeignWriter {
    /// Writes until then.
    pub(crate) fn run(mut self, until: Instant) {
        let mut tidied = Instant::now();
        while Instant::now() < until {
            let i = any_key(&mut self.dice);
            match self.dice.u32(0..7) {
                0 => self.client.delete(&key(i)),
                _ => {
                    let tag = self.notes.tag(Party::Foreign);
                    self.client.put(&key(i), tag.bytes(Some(0), any_size(&mut self.dice, i)));
                }
            }
            if tidied.elapsed() > Duration::from_secs(10) {
                tidied = Instant::now();
                let copies: Vec<String> =
                    self.client.keys().into_iter().filter(|key| key.contains(" (conflict ")).collect();
                copies.iter().skip(COPIES_MAX).for_each(|copy| self.client.delete(copy));
            }
            std::thread::sleep(Duration::from_millis(self.dice.u64(5..120)));
        }
    }
}
