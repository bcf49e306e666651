//! Remote bytes of one immutable object version.
//!
//! Owns: fetching each byte once however many readers ask, reading ahead, what is kept in memory, the bound of all of it.
//! Does not own: names, dirty data, which version a file shows (`fs`).
//!
//! A read is put together of what is kept (`cells`), what is on its way (`in_flight`) and what has to be asked for. Who reads in
//! sequence has large requests ahead of it, which its handle keeps (`stream`) until they are read; the kernel keeps what it has
//! read. What random readers and readers of small files ask for is fetched by cells, and kept.

mod ask;
mod budget;
mod cells;
mod disk;
mod fetch;
mod fill;
mod hedge;
mod in_flight;
mod prefetch;
mod stream;
mod unit;

use crate::store::{ObjectStore, StoreError};
use crate::types::{ByteRange, ObjectRef};
use ask::{Ask, Kind};
use budget::{Budget, Room};
use bytes::{Bytes, BytesMut};
use cells::Cells;
use disk::{CacheFile, DiskCache};
use fetch::Source;
use fill::Fill;
use in_flight::{InFlight, VersionId};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub use disk::DiskSettings;
pub use prefetch::{Advice, Sequence};
pub use stream::Stream;
use stream::{Purpose, Seen};

/// What tunes reading.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes that all buffers hold, at most: cached, on their way, and waiting for their reader.
    pub memory: u64,
    /// Bytes that are fetched ahead of one sequential reader, at most.
    pub window: u64,
    /// The disk cache, if there is to be one.
    pub disk: Option<DiskSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        // Sixteen requests of 8 MiB in flight hide 30 ms at 90 MB/s per connection.
        Settings { memory: 256 << 20, window: 128 << 20, disk: None }
    }
}

/// Reads objects.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<Source>,
    budget: Budget,
    cells: Cells,
    in_flight: InFlight,
    disk: Option<DiskCache>,
    /// Held by each stream that is served ahead: their number divides the memory for that.
    share: Arc<()>,
    /// These streams.
    streams: Mutex<Vec<Seen>>,
    /// When memory was last taken back from those that are idle.
    reclaimed: Mutex<Option<Instant>>,
    window: u64,
}

/// What a part of a read comes from.
enum Piece {
    /// It is there.
    Cell(Bytes),
    /// The disk cache has it.
    Disk(ByteRange),
    /// It is on its way, or waits for its reader.
    Fill(Arc<Fill>, ByteRange),
    /// It has to be asked for.
    Gap(ByteRange),
}

impl Reader {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn ObjectStore>, settings: Settings) -> Reader {
        let budget = Budget::new(settings.memory);
        let cells = Cells::new(budget.for_cells());
        let (in_flight, share, streams) = (InFlight::default(), Arc::default(), Mutex::default());
        let window = settings.window;
        let for_disk = budget.for_disk();
        let open = |disk: DiskSettings| {
            let dir = disk.dir.clone();
            DiskCache::open(disk, for_disk)
                .inspect_err(|e| tracing::warn!(dir = %dir.display(), error = %e, "no disk cache"))
                .ok()
        };
        let disk = settings.disk.and_then(open);
        Reader(Arc::new(Inner {
            source: Arc::new(Source::new(store)),
            budget,
            cells,
            in_flight,
            disk,
            share,
            streams,
            reclaimed: Mutex::default(),
            window,
        }))
    }

    /// The object `from` has become `to`, with the same bytes: it was copied by the server. What is kept of it is kept.
    pub fn carry(&self, from: &ObjectRef, to: &ObjectRef) {
        let (size, is_same_size) = (to.version.size, to.version.size == from.version.size);
        let (from, to) = (VersionId::of(from), VersionId::of(to));
        if from == to || !is_same_size {
            return;
        }
        self.0.cells.carry(from, to, size);
        if let Some(disk) = &self.0.disk {
            disk.carry(from, to);
        }
    }

    /// The bytes `range` of `object`, cut at its end, if they are kept in memory and in one cell: nothing is waited for.
    pub fn kept(&self, object: &ObjectRef, range: ByteRange) -> Option<Bytes> {
        let range = ByteRange::new(0, object.version.size)?.intersect(range)?;
        let index = range.start() / unit::CELL;
        let cell = self.0.cells.get(VersionId::of(object), index)?;
        let place = |offset: u64| usize::try_from(offset - index * unit::CELL).unwrap_or(usize::MAX);
        (place(range.end()) <= cell.len()).then(|| cell.slice(place(range.start())..place(range.end())))
    }

    /// Whether an object of `size` bytes is fetched whole, whatever is read of it.
    pub fn is_small(size: u64) -> bool {
        size <= unit::SMALL_MAX
    }

    /// Fetches a small object that somebody will probably read next, if there is memory to spare.
    pub fn fetch_ahead(&self, object: ObjectRef) {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.fetch_ahead(&object).await });
    }

    /// Bytes in the disk cache.
    pub fn disk_bytes(&self) -> u64 {
        self.0.disk.as_ref().map_or(0, DiskCache::bytes)
    }

    /// The bytes `range` of `object`, cut at its end. One slice without a copy when the range came by one request.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::Precondition`] or `NotFound` when the object is no longer at this version.
    pub async fn read(
        &self,
        object: &ObjectRef,
        range: ByteRange,
        stream: Option<&Stream>,
    ) -> Result<Bytes, StoreError> {
        let size = object.version.size;
        let Some(range) = ByteRange::new(0, size).and_then(|whole| range.intersect(whole)) else {
            return Ok(Bytes::new());
        };
        match stream {
            Some(stream) => self.read_stream(object, range, stream).await,
            None => self.read_in_turn(object, range).await,
        }
    }

    /// Bytes that no handle reads, which may be many: as many at once as a request asks for at most.
    async fn read_in_turn(&self, object: &ObjectRef, range: ByteRange) -> Result<Bytes, StoreError> {
        let (id, size) = (VersionId::of(object), object.version.size);
        let file = match &self.0.disk {
            Some(disk) => disk.file(id, size).await,
            None => None,
        };
        let mut out = BytesMut::new();
        for start in (range.start()..range.end()).step_by(unit::GET_MAX as usize) {
            let Some(part) = ByteRange::new(start, range.end().min(start + unit::GET_MAX)) else { break };
            let ask = Ask { to: part.end(), get: unit::GET_MAX, kind: Kind::Once, purpose: None };
            let mut pieces = self.0.known(id, part, file.as_deref());
            let mut room = self.0.room_for(id, size, &pieces, ask).await;
            if let Some(file) = &file {
                self.0.read_disk(file, &mut pieces, &mut room, size, false).await;
            }
            self.0.ask_for_gaps(object, id, &mut pieces, &mut room, ask);
            drop(room);
            take(&pieces);
            let bytes = assemble(pieces, part).await?;
            if part == range {
                return Ok(bytes);
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out.freeze())
    }

    /// What the handle of `stream` reads.
    async fn read_stream(&self, object: &ObjectRef, range: ByteRange, stream: &Stream) -> Result<Bytes, StoreError> {
        let (id, size) = (VersionId::of(object), object.version.size);
        let (advice, purpose) = self.0.on_read(id, range, size, stream);
        let advice = Some(advice).filter(|_| size > unit::SMALL_MAX);
        let ask = match advice {
            Some(a) if a.is_ahead_of(range) => {
                Ask { to: a.to, get: a.get, kind: Kind::Sequence, purpose: Some(&purpose) }
            }
            _ => Ask { to: range.end(), get: unit::GET_MAX, kind: Kind::Kept, purpose: None },
        };
        // What others of the same reader's reads have asked for already is not asked for again.
        let is_behind = advice.is_some_and(|advice| range.start() < advice.asked);
        let ask = Ask { to: if is_behind { range.end() } else { ask.to }, ..ask };
        let file = match &self.0.disk {
            Some(disk) => disk.file(id, size).await,
            None => None,
        };
        let mut pieces = self.0.known(id, range, file.as_deref());
        let mut room = self.0.room_for(id, size, &pieces, ask).await;
        if let Some(file) = &file {
            self.0.read_disk(file, &mut pieces, &mut room, size, matches!(ask.kind, Kind::Kept)).await;
        }
        if pieces.iter().any(|piece| matches!(piece, Piece::Gap(_))) {
            stream.of(id).on_miss();
        }
        self.0.ask_for_gaps(object, id, &mut pieces, &mut room, ask);
        drop(room);
        take(&pieces);
        if let (Some(advice), Kind::Sequence) = (advice, ask.kind) {
            let at = self.0.keep_asked(id, range, stream, &advice, &pieces);
            if let Some(file) = &file {
                self.0.read_disk_ahead(object, id, stream, &advice, file);
            }
            let is_due = advice.is_stream || stream.of(id).has_missed();
            if is_due && !self.0.ask_ahead(object, id, stream, &advice, at, file.as_deref()) {
                self.0.reclaim_now_and_then();
            }
            if !pieces.iter().all(Piece::has_arrived) {
                stream.on_wait(&advice);
            }
        }
        assemble(pieces, range).await
    }
}

impl Piece {
    fn has_arrived(&self) -> bool {
        match self {
            Piece::Cell(_) => true,
            Piece::Fill(fill, part) => fill.has(*part),
            Piece::Disk(_) | Piece::Gap(_) => false,
        }
    }
}

impl Inner {
    /// What the read means for its handle, and what that is for.
    fn on_read(&self, id: VersionId, range: ByteRange, size: u64, stream: &Stream) -> (Advice, Arc<Purpose>) {
        let mut state = stream.of(id);
        let advice = state.on_read(range, size, self.window_max());
        if let Some(disk) = &self.disk
            && state.begins_to_read_through(&advice)
        {
            disk.is_read_through(id, state.purpose().number());
        }
        (advice, state.purpose())
    }

    /// What one stream may have ahead of it: its share of the memory for that.
    fn window_max(&self) -> u64 {
        let streams = Arc::strong_count(&self.share).saturating_sub(1).max(1) as u64;
        (self.budget.for_ahead() / streams).min(self.window)
    }

    /// The parts of `range`, as far as they are here or on their way.
    fn known(&self, id: VersionId, range: ByteRange, file: Option<&CacheFile>) -> Vec<Piece> {
        let (mut pieces, mut at, mut gap) = (Vec::with_capacity(1), range.start(), range.start());
        while at < range.end() {
            let (known, end) = match self.at(id, at, range.end(), file) {
                Ok(piece) => piece,
                Err(next) => {
                    at = next;
                    continue;
                }
            };
            pieces.extend(ByteRange::new(gap, at).map(Piece::Gap));
            pieces.push(known);
            (at, gap) = (end, end);
        }
        pieces.extend(ByteRange::new(gap, range.end()).map(Piece::Gap));
        pieces
    }

    /// What has the bytes from `at` on, and where that ends, `end` at most; or where to look next.
    fn at(&self, id: VersionId, at: u64, end: u64, file: Option<&CacheFile>) -> Result<(Piece, u64), u64> {
        let index = at / unit::CELL;
        let next = end.min((index + 1) * unit::CELL);
        if let Some(fill) = self.in_flight.find(id, at) {
            let end = end.min(fill.range().end());
            return ByteRange::new(at, end).map(|part| (Piece::Fill(fill, part), end)).ok_or(next);
        }
        if let Some(cell) = self.cells.get(id, index) {
            let place = |offset: u64| usize::try_from(offset - index * unit::CELL).unwrap_or(usize::MAX);
            return Ok((Piece::Cell(cell.slice(place(at)..place(next))), next));
        }
        let until = file.and_then(|file| file.until(at, end)).ok_or(next)?;
        ByteRange::new(at, until).map(|part| (Piece::Disk(part), until)).ok_or(next)
    }

    /// Reads what the disk has. What it cannot answer is a gap.
    async fn read_disk(&self, file: &Arc<CacheFile>, pieces: &mut [Piece], room: &mut Room, size: u64, is_look: bool) {
        for piece in pieces {
            if let Piece::Disk(part) = *piece {
                let around = unit::cells_around(part, size);
                let buffer = room.buffer(around.len());
                let read = DiskCache::read(Arc::clone(file), part, buffer, is_look).await;
                *piece = read.map_or(Piece::Gap(part), Piece::Cell);
            }
        }
    }
}

/// What is on its way is for this read.
fn take(pieces: &[Piece]) {
    for piece in pieces {
        if let Piece::Fill(fill, part) = piece {
            fill.take(part.len());
        }
    }
}

async fn assemble(pieces: Vec<Piece>, range: ByteRange) -> Result<Bytes, StoreError> {
    let is_one = pieces.len() == 1;
    let mut out = BytesMut::new();
    for piece in pieces {
        let bytes = match piece {
            Piece::Cell(bytes) => bytes,
            Piece::Fill(fill, part) => fill.read(part).await?,
            Piece::Disk(_) | Piece::Gap(_) => Bytes::new(),
        };
        if is_one {
            return Ok(bytes);
        }
        if out.is_empty() {
            out.reserve(usize::try_from(range.len()).unwrap_or(0));
        }
        out.extend_from_slice(&bytes);
    }
    Ok(out.freeze())
}

#[cfg(test)]
mod tests;
