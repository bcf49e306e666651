//! Bytes of objects.
//!
//! Owns: bodies as lists of pieces (in memory, in a file, generated), cutting a range out of one without copying, reading
//! one as a stream of large slices, removal of a file when its last user is gone.
//! Does not own: writing of files (`disk`), faults and bandwidth (`transport`).

use bytes::Bytes;
use futures::Stream;
use md5::{Digest, Md5};
use s3s::stream::{ByteStream, RemainingLength};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Bytes handed on at once from a file, and the period of generated bodies.
const SLICE: u64 = 1 << 20;

/// One period of generated bodies, twice, so that any slice of one period starting anywhere in the first is contiguous.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(0x6f62_6a66);
    let mut once = vec![0; SLICE as usize];
    rng.fill(&mut once);
    Bytes::from([once.as_slice(), once.as_slice()].concat())
});

/// A file that holds a body. It is removed with the last [`Piece`] that uses it, unless the server is stopping.
#[derive(Debug)]
pub(super) struct BodyFile {
    pub(super) path: PathBuf,
    pub(super) kept: Arc<AtomicBool>,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a body that is no longer needed");
        }
    }
}

/// A run of bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Piece {
    /// In memory. Never written to disk: a server that keeps objects in a directory makes none.
    #[serde(skip)]
    Memory(Bytes),
    /// `len` bytes of a file.
    File {
        /// Its name in the directory of bodies.
        name: String,
        offset: u64,
        len: u64,
        /// The file; `None` only while being loaded.
        #[serde(skip)]
        file: Option<Arc<BodyFile>>,
    },
    /// Generated: byte `i` is byte `shift + offset + i` of the pattern, which repeats.
    Pattern { shift: u32, offset: u64, len: u64 },
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Memory(bytes) => bytes.len() as u64,
            Piece::File { len, .. } | Piece::Pattern { len, .. } => *len,
        }
    }

    /// Bytes `range` of this piece, which lie in it.
    fn cut(&self, range: Range<u64>) -> Piece {
        let mut cut = self.clone();
        match &mut cut {
            Piece::Memory(bytes) => *bytes = bytes.slice(range.start as usize..range.end as usize),
            Piece::File { offset, len, .. } | Piece::Pattern { offset, len, .. } => {
                *offset += range.start;
                *len = range.end - range.start;
            }
        }
        cut
    }
}

/// The bytes of an object: cheap to clone, since pieces share what they hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Body {
    pub(super) pieces: Vec<Piece>,
}

impl From<Piece> for Body {
    fn from(piece: Piece) -> Body {
        Body { pieces: vec![piece] }
    }
}

impl Body {
    /// How many bytes.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// Bodies one after the other.
    pub(super) fn concat<'a>(bodies: impl Iterator<Item = &'a Body>) -> Body {
        Body { pieces: bodies.flat_map(|b| b.pieces.iter().cloned()).collect() }
    }

    /// Bytes `range`, cut at the end.
    pub(super) fn slice(&self, range: Range<u64>) -> Body {
        let mut at = 0;
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let end = at + piece.len();
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to {
                pieces.push(piece.cut(from - at..to - at));
            }
            at = end;
        }
        Body { pieces }
    }

    /// The MD5 of the bytes. Blocks.
    pub(super) fn md5(&self) -> io::Result<[u8; 16]> {
        let mut sum = Md5::new();
        let mut reader = Reader::default();
        let mut pieces: VecDeque<Piece> = self.pieces.iter().cloned().collect();
        while let Some(piece) = next_slice(&mut pieces) {
            sum.update(reader.read(piece)?);
        }
        Ok(sum.finalize().into())
    }

    /// The bytes as a stream of large slices.
    pub(super) fn into_stream(self) -> BodyStream {
        BodyStream { left: self.len(), pieces: self.pieces.into(), reader: Some(Reader::default()), reading: None }
    }
}

/// Takes what can be handed on at once from the front: all of a piece in memory, or one slice of any other.
fn next_slice(pieces: &mut VecDeque<Piece>) -> Option<Piece> {
    let front = pieces.pop_front()?;
    let len = front.len();
    if len <= SLICE || matches!(front, Piece::Memory(_)) {
        return Some(front);
    }
    pieces.push_front(front.cut(SLICE..len));
    Some(front.cut(0..SLICE))
}

/// Reads pieces, keeping the file of the last one open.
#[derive(Debug, Default)]
struct Reader {
    open: Option<(PathBuf, File)>,
}

impl Reader {
    fn read(&mut self, piece: Piece) -> io::Result<Bytes> {
        let (file, offset, len) = match piece {
            Piece::Memory(bytes) => return Ok(bytes),
            Piece::Pattern { shift, offset, len } => return Ok(pattern(shift, offset, len)),
            Piece::File { file, offset, len, .. } => (file, offset, len),
        };
        let file = file.ok_or_else(|| io::Error::other("a body without its file"))?;
        if self.open.as_ref().is_none_or(|(path, _)| *path != file.path) {
            self.open = Some((file.path.clone(), File::open(&file.path)?));
        }
        let mut bytes = vec![0; len as usize];
        if let Some((_, open)) = &self.open {
            open.read_exact_at(&mut bytes, offset)?;
        }
        Ok(bytes.into())
    }
}

/// At most one slice of a generated body.
fn pattern(shift: u32, offset: u64, len: u64) -> Bytes {
    let start = ((u64::from(shift) + offset) % SLICE) as usize;
    PATTERN.slice(start..start + len as usize)
}

/// The bytes of a body, as s3s takes them.
pub(super) struct BodyStream {
    pieces: VecDeque<Piece>,
    left: u64,
    /// `None` while a read is under way.
    reader: Option<Reader>,
    reading: Option<JoinHandle<(Reader, io::Result<Bytes>)>>,
}

type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl BodyStream {
    fn hand_on(&mut self, bytes: Bytes) -> Poll<Option<Item>> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl Stream for BodyStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        if this.reading.is_none() {
            match next_slice(&mut this.pieces) {
                None => return Poll::Ready(None),
                Some(Piece::Memory(bytes)) => return this.hand_on(bytes),
                Some(Piece::Pattern { shift, offset, len }) => return this.hand_on(pattern(shift, offset, len)),
                Some(piece) => {
                    let mut reader = this.reader.take().unwrap_or_default();
                    this.reading = Some(tokio::task::spawn_blocking(move || {
                        let bytes = reader.read(piece);
                        (reader, bytes)
                    }));
                }
            }
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        match outcome {
            Ok((reader, Ok(bytes))) => {
                this.reader = Some(reader);
                this.hand_on(bytes)
            }
            Ok((_, Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }
}

impl ByteStream for BodyStream {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.left as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    async fn bytes(body: Body) -> Vec<u8> {
        let mut stream = body.into_stream();
        let mut all = Vec::new();
        while let Some(slice) = stream.next().await {
            all.extend_from_slice(&slice.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn slices_across_pieces_are_exact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = Arc::new(BodyFile { path: path.clone(), kept: Arc::default() });
        let body = Body {
            pieces: vec![
                Piece::Memory(Bytes::from_static(b"abcdef")),
                Piece::File { name: "f".to_owned(), offset: 2, len: 5, file: Some(file) },
                Piece::Pattern { shift: 7, offset: SLICE - 9, len: 3 * SLICE },
            ],
        };
        let all = bytes(body.clone()).await;
        assert_eq!(all.len() as u64, body.len());
        assert_eq!(&all[..11], b"abcdef23456");
        for range in [0..1, 5..7, 4..4, 3..20, 9..SLICE + 30, 11..2 * SLICE + 5, 100..u64::MAX] {
            let expected = &all[range.start as usize..(range.end as usize).min(all.len())];
            assert!(bytes(body.slice(range.clone())).await == expected, "{range:?}");
        }
        assert_eq!(body.md5().unwrap(), <[u8; 16]>::from(Md5::digest(&all)));
        drop(body);
        assert!(!path.exists(), "the last user removes the file");
    }
}
