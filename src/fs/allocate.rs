//! Room and holes.
//!
//! Owns: fallocate(2), and where lseek(2) finds data and holes. Does not own: the bytes (`write`).
//!
//! The kernel passes these modes only: none, PUNCH_HOLE and ZERO_RANGE, with and without KEEP_SIZE (fs/fuse/file.c,
//! fuse_file_fallocate).

use super::io::change_staged;
use super::{Caller, Fs, FsError, Result};
use crate::types::{ByteRange, Fh, Ino};
use crate::write::{CommitError, Source, Staged, plan_upload};
use std::io;
use std::sync::Arc;

impl Fs {
    /// FALLOCATE, as fallocate(2) describes `mode`. What becomes zeros is not fetched before, and counts as written. Room is looked
    /// for and not set aside: what others stage would wait for bytes that may never be written.
    ///
    /// # Errors
    /// ENOSPC if staging has no room for the range; EFBIG if the store takes no file of that size: nothing has changed then.
    /// [`FsError::NotSupported`] for another mode; [`FsError::Stale`] if what is changed would reach nobody.
    pub async fn fallocate(self: &Arc<Self>, caller: Caller, fh: Fh, offset: u64, len: u64, mode: i32) -> Result<()> {
        let handle = self.handles.get(fh).filter(|h| h.writable).ok_or(FsError::BadHandle)?;
        let wanted = Wanted::of(mode).ok_or(FsError::NotSupported)?;
        let range = ByteRange::at(offset, len).ok_or(FsError::Invalid)?;
        if wanted.may_grow {
            plan_upload(range.end(), self.store.capabilities()).map_err(CommitError::from)?;
        }
        self.with_room(handle.ino, || self.allocate(caller, handle.ino, range, wanted)).await
    }

    async fn allocate(self: &Arc<Self>, caller: Caller, ino: Ino, range: ByteRange, wanted: Wanted) -> Result<()> {
        let row = self.row(ino)?;
        // Of a file that is not staged nothing is here.
        let (size, needed) = match self.writer.get(ino) {
            Some(staged) => {
                staged.copy_ended().await;
                (staged.size(), staged.uncovered(range))
            }
            None => (row.attr.size, range.len()),
        };
        if wanted.has_room && !self.writer.room().has(needed) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
        }
        let makes_zeros = wanted.is_zeros && range.start() < size;
        let grows = wanted.may_grow && range.end() > size;
        if !makes_zeros && !grows {
            // A file that is as it was need not be uploaded.
            return Ok(());
        }
        let staged = self.stage_for_write(&row).await?;
        // FALLOCATE does not say whether they may stay, as WRITE does: so it is decided as for truncate.
        if caller.uid != 0 {
            self.clear_suid(ino).await?;
        }
        let change = move |staged: &Staged| -> io::Result<()> {
            if wanted.is_zeros {
                staged.zero(range)?;
            }
            if wanted.may_grow { staged.extend(range.end()) } else { Ok(()) }
        };
        change_staged(&staged, range, change).await?;
        staged.set_written_at(Some(self.meta.now()));
        Ok(())
    }

    /// LSEEK with SEEK_DATA or SEEK_HOLE (lseek(2)): where the next data or hole begins, at `offset` or behind. Holes are zeros of a
    /// file with changes that nobody has written. An object has none.
    ///
    /// # Errors
    /// [`FsError::PastEnd`] if nothing follows, or `offset` is not within the file.
    pub async fn seek(&self, fh: Fh, offset: i64, whence: i32) -> Result<u64> {
        let handle = self.handles.get(fh).ok_or(FsError::BadHandle)?;
        let is_data_wanted = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(FsError::Invalid),
        };
        let rest = u64::try_from(offset).ok().and_then(|offset| ByteRange::new(offset, u64::MAX));
        let rest = rest.ok_or(FsError::PastEnd)?;
        let pieces = match self.writer.get(handle.ino) {
            Some(staged) => {
                staged.copy_ended().await;
                staged.sources(rest).pieces
            }
            None => {
                let size = self.row(handle.ino)?.attr.size;
                ByteRange::new(rest.start(), size).map(|all| (all, Source::Base)).into_iter().collect()
            }
        };
        next_place(&pieces, is_data_wanted).ok_or(FsError::PastEnd)
    }
}

/// Where the first of `pieces` begins, which go up to the end of the file, that is data, or a hole; there is one at the end of each
/// file. Pure.
fn next_place(pieces: &[(ByteRange, Source)], is_data_wanted: bool) -> Option<u64> {
    let (last, _) = pieces.last()?;
    let found = pieces.iter().find(|(_, source)| (*source != Source::Zero) == is_data_wanted);
    let end = (!is_data_wanted).then(|| last.end());
    found.map(|(piece, _)| piece.start()).or(end)
}

/// What is asked for of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    /// It is to be zeros.
    is_zeros: bool,
    /// It is to have room.
    has_room: bool,
    /// The file is to reach to its end.
    may_grow: bool,
}

impl Wanted {
    /// What a mode of fallocate(2) means. `None` for one that is not offered.
    fn of(mode: i32) -> Option<Wanted> {
        let keeps_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Some(Wanted { is_zeros: false, has_room: true, may_grow: !keeps_size }),
            libc::FALLOC_FL_PUNCH_HOLE if keeps_size => {
                Some(Wanted { is_zeros: true, has_room: false, may_grow: false })
            }
            libc::FALLOC_FL_ZERO_RANGE => Some(Wanted { is_zeros: true, has_room: true, may_grow: !keeps_size }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_holes_follow_each_other_and_a_hole_ends_the_file() {
        let r = |start, end| ByteRange::new(start, end).unwrap();
        let pieces = [(r(5, 9), Source::Zero), (r(9, 12), Source::File), (r(12, 20), Source::Base)];
        assert_eq!((next_place(&pieces, true), next_place(&pieces, false)), (Some(9), Some(5)));
        assert_eq!((next_place(&pieces[1..], true), next_place(&pieces[1..], false)), (Some(9), Some(20)));
        assert_eq!((next_place(&pieces[..1], true), next_place(&pieces[..1], false)), (None, Some(5)));
        assert_eq!((next_place(&[], true), next_place(&[], false)), (None, None));
    }

    #[test]
    fn the_modes_that_are_offered() {
        use libc::{FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
        let of = |mode| Wanted::of(mode).map(|w| (w.is_zeros, w.has_room, w.may_grow));
        assert_eq!(of(0), Some((false, true, true)));
        assert_eq!(of(FALLOC_FL_KEEP_SIZE), Some((false, true, false)));
        assert_eq!(of(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE), Some((true, false, false)));
        assert_eq!(of(FALLOC_FL_ZERO_RANGE), Some((true, true, true)));
        assert_eq!(of(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE), Some((true, true, false)));
        let others = [FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | 1];
        assert!(others.into_iter().all(|mode| Wanted::of(mode).is_none()));
    }
}
