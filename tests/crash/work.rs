//! What programs do to files, and what they are told.
//!
//! Owns: single operations on a mount, each noted before it begins and when it was acknowledged; a worker that does
//! them at random. Does not own: when the daemon dies (`kill`, `power`).

use crate::model::{Content, Expected, noise};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest file that is made in passing.
const LEN_MAX: usize = 300 << 10;
/// One that goes to the bucket in parts.
const LARGE_LEN: usize = 20 << 20;
/// Files of each worker.
const FILES: usize = 6;

/// Files of a mount, and what must come of what is done to them.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) mnt: PathBuf,
    pub(crate) expected: Expected,
}

/// close(2), whose answer dropping a file throws away.
fn close(file: File) -> io::Result<()> {
    Ok(nix::unistd::close(file)?)
}

impl Hand {
    pub(crate) fn new(mnt: &Path) -> Hand {
        Hand { mnt: mnt.to_owned(), expected: Expected::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mnt.join(name)
    }

    /// The bytes that a file has, for whoever changes them.
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.expected.now(name).map_or_else(Vec::new, |content: Content| content.to_vec())
    }

    fn begin(&mut self, name: &str, bytes: &[u8]) {
        self.expected.begin(name, Some(Arc::new(bytes.to_vec())));
    }

    /// A new file, or other bytes for an old one.
    pub(crate) fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin(name, bytes);
        let mut file = File::create(self.at(name))?;
        file.write_all(bytes)?;
        close(file)?;
        self.expected.acknowledge(name);
        Ok(())
    }

    /// A file whose first bytes are acknowledged by fsync, and the rest by close.
    pub(crate) fn create_synced(&mut self, name: &str, first: &[u8], rest: &[u8]) -> io::Result<()> {
        self.begin(name, first);
        let mut file = File::create(self.at(name))?;
        file.write_all(first)?;
        file.sync_all()?;
        self.expected.acknowledge(name);
        self.begin(name, &[first, rest].concat());
        file.write_all(rest)?;
        close(file)?;
        self.expected.acknowledge(name);
        Ok(())
    }

    /// Bytes in the middle of a file, or beyond its end.
    pub(crate) fn overwrite(&mut self, name: &str, offset: usize, piece: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes(name);
        bytes.resize(bytes.len().max(offset + piece.len()), 0);
        bytes[offset..offset + piece.len()].copy_from_slice(piece);
        self.begin(name, &bytes);
        let file = OpenOptions::new().write(true).open(self.at(name))?;
        file.write_all_at(piece, offset as u64)?;
        close(file)?;
        self.expected.acknowledge(name);
        Ok(())
    }

    /// Bytes at the end of a file: the first acknowledged by fsync, the rest by close.
    pub(crate) fn append(&mut self, name: &str, first: &[u8], rest: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes(name);
        bytes.extend_from_slice(first);
        self.begin(name, &bytes);
        let mut file = OpenOptions::new().append(true).open(self.at(name))?;
        file.write_all(first)?;
        file.sync_data()?;
        self.expected.acknowledge(name);
        bytes.extend_from_slice(rest);
        self.begin(name, &bytes);
        file.write_all(rest)?;
        close(file)?;
        self.expected.acknowledge(name);
        Ok(())
    }

    /// Cuts or extends a file, by its path or by a descriptor.
    pub(crate) fn truncate(&mut self, name: &str, len: usize, by_path: bool) -> io::Result<()> {
        let mut bytes = self.bytes(name);
        bytes.resize(len, 0);
        self.begin(name, &bytes);
        if by_path {
            let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
            nix::unistd::truncate(&self.at(name), len)?;
        } else {
            let file = OpenOptions::new().write(true).open(self.at(name))?;
            file.set_len(len as u64)?;
            close(file)?;
        }
        self.expected.acknowledge(name);
        Ok(())
    }

    /// A hole of `len` bytes at `offset`, as far as the file goes.
    pub(crate) fn punch(&mut self, name: &str, offset: usize, len: usize) -> io::Result<()> {
        let mut bytes = self.bytes(name);
        let place = |at: usize| at.min(bytes.len());
        let (start, end) = (place(offset), place(offset + len));
        bytes[start..end].fill(0);
        self.begin(name, &bytes);
        let file = OpenOptions::new().write(true).open(self.at(name))?;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |number: usize| libc::off_t::try_from(number).map_err(io::Error::other);
        fallocate(&file, hole, signed(offset)?, signed(len)?)?;
        close(file)?;
        self.expected.acknowledge(name);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.expected.begin_rename(from, to);
        std::fs::rename(self.at(from), self.at(to))?;
        self.expected.acknowledge_rename();
        Ok(())
    }

    /// Saves as editors do: a temporary file, fsync, rename.
    pub(crate) fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        self.begin(&temporary, bytes);
        let mut file = File::create(self.at(&temporary))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.expected.acknowledge(&temporary);
        close(file)?;
        self.rename(&temporary, name)
    }

    pub(crate) fn unlink(&mut self, name: &str) -> io::Result<()> {
        self.expected.begin(name, None);
        std::fs::remove_file(self.at(name))?;
        self.expected.acknowledge(name);
        Ok(())
    }
}

/// Does something at random, again and again, to files of its own.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) hand: Hand,
}

impl Worker {
    pub(crate) fn new(number: usize, mnt: &Path) -> Worker {
        Worker { number, hand: Hand::new(mnt) }
    }

    /// Names of its files, in the root and in a directory that exists. Nobody else has such names.
    pub(crate) fn name(&self, index: usize) -> String {
        let dir = if index.is_multiple_of(2) { "" } else { "d/" };
        format!("{dir}w{}-{index}", self.number)
    }

    fn any_name(&self, dice: &mut fastrand::Rng) -> String {
        self.name(dice.usize(..FILES))
    }

    /// Goes on until something fails. Answers what did.
    pub(crate) fn work(&mut self, dice: &mut fastrand::Rng) -> io::Error {
        loop {
            if let Err(e) = self.step(dice) {
                return e;
            }
        }
    }

    fn step(&mut self, dice: &mut fastrand::Rng) -> io::Result<()> {
        let name = self.any_name(dice);
        let len = random_len(dice);
        let is_there = self.hand.expected.now(&name).is_some();
        match dice.u32(..100) {
            0..2 if self.number == 0 => {
                let large = format!("w{}-large", self.number);
                self.hand.create(&large, &noise(dice, LARGE_LEN))
            }
            2..20 => self.hand.create(&name, &noise(dice, len)),
            20..25 if is_there => {
                let offset = dice.usize(..=self.hand.bytes(&name).len());
                self.hand.punch(&name, offset, dice.usize(1..128 << 10))
            }
            25..40 if is_there => {
                let offset = dice.usize(..=self.hand.bytes(&name).len());
                let piece = dice.usize(1..64 << 10);
                self.hand.overwrite(&name, offset, &noise(dice, piece))
            }
            40..55 if is_there => {
                let (first, rest) = (dice.usize(1..32 << 10), dice.usize(1..8 << 10));
                self.hand.append(&name, &noise(dice, first), &noise(dice, rest))
            }
            55..63 if is_there => self.hand.truncate(&name, len, dice.bool()),
            63..73 if is_there => {
                let to = self.any_name(dice);
                if to == name { Ok(()) } else { self.hand.rename(&name, &to) }
            }
            73..83 => self.hand.save(&name, &noise(dice, len)),
            83..90 if is_there => self.hand.unlink(&name),
            _ => {
                let rest = dice.usize(..16 << 10);
                self.hand.create_synced(&name, &noise(dice, len), &noise(dice, rest))
            }
        }
    }
}

/// Mostly short, sometimes none, at times long.
fn random_len(dice: &mut fastrand::Rng) -> usize {
    match dice.u32(..10) {
        0 => 0,
        1..6 => dice.usize(1..8 << 10),
        _ => dice.usize(1..LEN_MAX),
    }
}
