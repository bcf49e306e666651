//! Ranges of a staged file that become zeros, or are to have room.
//!
//! Owns: making them zeros without a byte being fetched or kept, extending the file. Does not own: what fallocate(2) asks for
//! (`fs`), blocks on the disk (`disk`).

use super::content::Source;
use super::staging::Staged;
use crate::types::ByteRange;
use std::io;
use std::sync::atomic::Ordering;

impl Staged {
    /// Bytes of `range` that would take room if they were written.
    pub fn uncovered(&self, range: ByteRange) -> u64 {
        self.lock().uncovered(range)
    }

    /// What the file has of `range` is zeros from now on, which count as written. The file keeps its size.
    ///
    /// # Errors
    /// ENOSPC without room for zeros in the place of bytes that are not here: then nothing has changed. What the disk says; some of
    /// the range may be zeros then.
    pub fn zero(&self, range: ByteRange) -> io::Result<()> {
        let mut content = self.lock();
        // The rest is zeros already.
        let goes = content.data(range);
        if goes.is_empty() {
            return Ok(());
        }
        let more: u64 = goes.iter().map(|piece| content.uncovered(piece)).sum();
        if !self.room.take(more) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.held.fetch_add(more, Ordering::Relaxed);
        let here = content.dirty().iter().chain(content.local().iter());
        let stays = here.flat_map(|piece| goes.gaps(piece));
        let punched = self.changing(goes.iter(), stays).and_then(|()| {
            let file = self.file.file();
            goes.iter().try_for_each(|piece| file.punch(piece))
        });
        if let Err(e) = punched {
            // As with a write that fails: what of it was here counts as written, and the base stays where nothing was.
            let sources: Vec<_> = goes.iter().flat_map(|piece| content.sources(piece)).collect();
            for (piece, source) in sources {
                if source == Source::File {
                    self.note_written(&mut content, piece);
                }
            }
            self.note_held(&content);
            return Err(e);
        }
        for piece in goes.iter() {
            self.note_written(&mut content, piece);
        }
        Ok(())
    }

    /// The file has `size` bytes at least from now on; those that it had not are zeros.
    ///
    /// # Errors
    /// What the disk says.
    pub fn extend(&self, size: u64) -> io::Result<()> {
        let mut content = self.lock();
        // Never a cut: somebody may have written beyond meanwhile.
        if size > content.size() { self.resize(&mut content, size) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Content;
    use super::super::disk::{DirDisk, Disk};
    use super::super::place::StagingFile;
    use super::super::room::Room;
    use super::super::testing::{Gate, Gated};
    use super::*;
    use crate::types::{ETag, Ino, Key, ObjectRef, Version};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    fn r(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    struct Bench {
        dir: tempfile::TempDir,
        disk: Arc<dyn Disk>,
        room: Arc<Room>,
        staged: Staged,
    }

    fn bench(base_size: u64, room: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        let first = StagingFile::new(Arc::clone(&disk), "first".to_owned(), disk.open("first").unwrap());
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: base_size };
        let base = (base_size > 0).then(|| ObjectRef { key: Key::parse("k").unwrap(), version });
        let room = Arc::new(Room::new(room));
        let staged = Staged::new(Ino(2), first, Arc::clone(&room), Content::new(base), Vec::new());
        Bench { dir, disk, room, staged }
    }

    #[test]
    fn zeros_are_not_put_over_what_the_journal_counts_on() {
        let Bench { dir, disk, staged, .. } = bench(0, 1000);
        staged.write(Some(0), b"acknowledged").unwrap();
        let snapshot = staged.snapshot(|_| false).unwrap();
        staged.set_recorded(&snapshot, Key::root());
        let on_disk = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let bytes = |len| staged.read_file(r(0, len)).unwrap();
        staged.write(Some(12), b", more").unwrap();
        staged.zero(r(14, 100)).unwrap();
        assert_eq!(disk.names().unwrap(), ["first"], "the journal knows nothing of what was appended");
        staged.zero(r(2, 8)).unwrap();
        assert_eq!(&on_disk("first")[..12], b"acknowledged");
        assert_eq!(bytes(18), &b"ac\0\0\0\0\0\0dged, \0\0\0\0"[..]);
        let second = staged.snapshot(|_| false).unwrap();
        staged.file.file().sync_data().unwrap();
        staged.set_recorded(&second, Key::root());
        assert_eq!(disk.names().unwrap(), [second.file.0.as_str()], "the journal names the second");
        assert_eq!((staged.size(), staged.is_changed()), (18, true));
    }

    #[test]
    fn nobody_but_readers_and_writers_waits_while_a_file_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::default());
        let disk: Arc<dyn Disk> = Arc::new(Gated::new(DirDisk::new(dir.path()).unwrap(), &gate));
        let first = StagingFile::new(Arc::clone(&disk), "first".to_owned(), disk.open("first").unwrap());
        let staged = Staged::new(Ino(2), first, Arc::new(Room::new(1000)), Content::new(None), Vec::new());
        staged.write(Some(0), b"acknowledged").unwrap();
        staged.set_recorded(&staged.snapshot(|_| false).unwrap(), Key::root());
        gate.set_closed(true);
        let (send, answers) = mpsc::channel();
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| staged.zero(r(2, 12)).unwrap());
            while !gate.is_reached() {
                std::thread::sleep(Duration::from_millis(1));
            }
            scope.spawn(|| {
                staged.touch();
                staged.give_room();
                send.send((staged.size(), staged.is_changed())).unwrap();
            });
            let answer = answers.recv_timeout(Duration::from_secs(10));
            gate.set_closed(false);
            answer
        });
        assert_eq!(answer, Ok((12, true)));
        assert_eq!(staged.read_file(r(0, 12)).unwrap(), &b"ac\0\0\0\0\0\0\0\0\0\0"[..]);
    }

    #[test]
    fn zeros_in_the_place_of_the_base_take_room_and_those_of_a_hole_take_none() {
        let Bench { dir: _dir, room, staged, .. } = bench(100, 50);
        let refused = staged.zero(r(0, 60)).unwrap_err();
        assert_eq!((refused.raw_os_error(), room.used(), staged.is_changed()), (Some(libc::ENOSPC), 0, false));
        staged.zero(r(90, 200)).unwrap();
        assert_eq!((room.used(), staged.size(), staged.uncovered(r(80, 110))), (10, 100, 20));
        staged.extend(1000).unwrap();
        staged.extend(500).unwrap();
        staged.zero(r(90, 1000)).unwrap();
        assert_eq!((room.used(), staged.size()), (10, 1000));
        let wanted = [(r(0, 90), Source::Base), (r(90, 100), Source::File), (r(100, 1000), Source::Zero)];
        assert_eq!(staged.sources(r(0, 2000)).pieces, wanted);
    }
}
