//! Where the bytes come from that a commit sends.
//!
//! Owns: the staging file with which the commit began and what that lacked of the base, reading both. Does not own: what is sent
//! (`plan`), that bytes stay in the file as they were (`snapshot`, `disk`).

use super::Writer;
use super::commit::{CommitError, FILL_SIZE, FILLS_IN_FLIGHT, base_lost, split};
use super::content::Content;
use super::disk::DiskFile;
use crate::types::{ByteRange, ObjectRef};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::io;
use std::sync::Arc;

/// A staged file as it was when its commit began.
#[derive(Debug)]
pub(super) struct Origin {
    file: Arc<dyn DiskFile>,
    /// What the file lacked, and the base has: the bucket copies it, as a rule.
    missing: Vec<ByteRange>,
    /// Where it had zeros that nobody had written: who writes there does so in this file.
    zeros: Vec<ByteRange>,
    base: Option<ObjectRef>,
}

impl Origin {
    /// Of a file that has all that is asked for.
    pub(super) fn whole(file: Arc<dyn DiskFile>) -> Origin {
        Origin { file, missing: Vec::new(), zeros: Vec::new(), base: None }
    }

    pub(super) fn new(file: Arc<dyn DiskFile>, content: &Content) -> Origin {
        Origin { file, missing: content.missing(), zeros: content.zeros(), base: content.base().cloned() }
    }

    /// The version that the file is over.
    ///
    /// # Errors
    /// [`CommitError::BaseLost`] without one.
    pub(super) fn base(&self) -> Result<&ObjectRef, CommitError> {
        self.base.as_ref().ok_or(CommitError::BaseLost)
    }

    fn read_at(&self, buffer: &mut [u8], range: ByteRange) -> io::Result<()> {
        self.file.read_at(buffer, range.start())?;
        let at = |offset: u64| usize::try_from(offset - range.start()).unwrap_or(usize::MAX);
        for zeros in self.zeros.iter().filter_map(|zeros| zeros.intersect(range)) {
            if let Some(place) = buffer.get_mut(at(zeros.start())..at(zeros.end())) {
                place.fill(0);
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Reads `range` into memory, as it was.
    ///
    /// # Errors
    /// What the disk says; [`CommitError::BaseLost`] or what the store says of bytes that only the base has.
    pub(super) async fn read_of(&self, origin: &Origin, range: Option<ByteRange>) -> Result<Bytes, CommitError> {
        let Some(range) = range else { return Ok(Bytes::new()) };
        let len = usize::try_from(range.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let missing: Vec<_> = origin.missing.iter().filter_map(|gap| gap.intersect(range)).collect();
        if missing.is_empty() {
            return Ok(self.buffers.filled(len, |buffer| origin.read_at(buffer, range))?);
        }
        let mut body = BytesMut::zeroed(len);
        origin.read_at(&mut body, range)?;
        let (reader, base) = (&self.reader, origin.base()?);
        let pieces = missing.into_iter().flat_map(|gap| split(gap, FILL_SIZE));
        let reads = pieces.map(|piece| async move { (piece, reader.read(base, piece, None).await) });
        let mut reads = futures::stream::iter(reads).buffered(FILLS_IN_FLIGHT);
        while let Some((piece, bytes)) = reads.next().await {
            // Whatever was written there or cut off since belongs to the next commit.
            let bytes = bytes.map_err(base_lost)?;
            let at = usize::try_from(piece.start() - range.start()).unwrap_or(usize::MAX);
            match body.get_mut(at..at.saturating_add(bytes.len())) {
                Some(place) if bytes.len() as u64 == piece.len() => place.copy_from_slice(&bytes),
                _ => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
        Ok(body.freeze())
    }
}
