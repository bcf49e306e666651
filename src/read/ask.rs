//! Asking the bucket for what is not here.
//!
//! Owns: how gaps become requests, what is asked for ahead of a reader, waiting for memory and taking it back. Does not own: what
//! a read is put together of (`mod`), the requests themselves (`fetch`).

use super::budget::Room;
use super::disk::{CacheFile, DiskCache, KeepFor};
use super::fill::Fill;
use super::in_flight::VersionId;
use super::prefetch::Advice;
use super::stream::{Purpose, Seen, Stream};
use super::{Inner, Piece, fetch, unit};
use crate::types::{ByteRange, ObjectRef};
use bytes::Bytes;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long somebody waits for memory before what is idle is taken back, and when a stream is idle.
const ROOM_WAIT: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);

/// How many streams are remembered between two times that those which were closed are forgotten.
const STREAMS_TIDY: usize = 256;

/// How far ahead of a sequential reader the disk is read: enough to keep it busy, and little to throw away.
const DISK_AHEAD: u64 = 4 << 20;

/// What becomes of bytes that are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// The stream keeps them until they were read, or its reader goes elsewhere.
    Sequence,
    /// Kept for whoever asks again.
    Kept,
    /// For this read only.
    Once,
}

/// How a gap is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Bytes up to here are wanted.
    pub(super) to: u64,
    /// How many each request should ask for.
    pub(super) get: u64,
    pub(super) kind: Kind,
    /// What the handle is for, if there is one.
    pub(super) purpose: Option<&'a Arc<Purpose>>,
}

impl Inner {
    /// Room for all pieces that are not there yet, at once: who has room for some of what he reads and waits for more would keep it from
    /// others who do the same, and all of them would wait for ever.
    pub(super) async fn room_for(&self, id: VersionId, size: u64, pieces: &[Piece], ask: Ask<'_>) -> Room {
        let (mut len, mut has_gap) = (0, false);
        for piece in pieces {
            len += match piece {
                Piece::Disk(part) => unit::cells_around(*part, size).len(),
                // More than itself: what others would ask for beyond them is a part of that.
                Piece::Gap(gap) if !std::mem::replace(&mut has_gap, true) => {
                    self.asked_for(id, size, *gap, ask).len().max(gap.len())
                }
                Piece::Gap(gap) => gap.len(),
                Piece::Cell(_) | Piece::Fill(..) => 0,
            };
        }
        if len == 0 { Room::none() } else { self.room(len).await }
    }

    /// Asks for all gaps at once.
    pub(super) fn ask_for_gaps(
        self: &Arc<Self>,
        object: &ObjectRef,
        id: VersionId,
        pieces: &mut Vec<Piece>,
        room: &mut Room,
        ask: Ask<'_>,
    ) {
        let mut index = 0;
        while let Some(piece) = pieces.get(index) {
            if let Piece::Gap(gap) = *piece {
                let fill = self.ask(object, id, gap, room, ask);
                // A gap larger than a request, or a part of it for which somebody else has asked meanwhile.
                let part = gap.intersect(fill.range()).unwrap_or(gap);
                pieces[index] = Piece::Fill(fill, part);
                if let Some(rest) = ByteRange::new(part.end(), gap.end()) {
                    pieces.insert(index + 1, Piece::Gap(rest));
                }
            }
            index += 1;
        }
    }

    /// Asks for what begins with `gap`.
    fn ask(
        self: &Arc<Self>,
        object: &ObjectRef,
        id: VersionId,
        gap: ByteRange,
        room: &mut Room,
        ask: Ask<'_>,
    ) -> Arc<Fill> {
        let range = self.asked_for(id, object.version.size, gap, ask);
        self.begin(object, id, gap.start(), (range, room.part(range.len())), ask)
    }

    /// What a request asks for that begins with `gap`.
    fn asked_for(&self, id: VersionId, size: u64, gap: ByteRange, ask: Ask<'_>) -> ByteRange {
        let range = match ask.kind {
            Kind::Once => gap,
            Kind::Kept => match ByteRange::new(0, size) {
                Some(whole) if size <= unit::SMALL_MAX => whole,
                _ => unit::cells_around(gap, size),
            },
            Kind::Sequence => self.request(id, gap, ask),
        };
        ByteRange::new(range.start(), range.end().min(range.start() + unit::GET_MAX)).unwrap_or(range)
    }

    /// The range of a sequential request for `gap` at least: it ends at a multiple of a step, where what is on its way begins, or
    /// with what is wanted.
    fn request(&self, id: VersionId, gap: ByteRange, ask: Ask<'_>) -> ByteRange {
        let aligned = (gap.start() + ask.get) / unit::STEP * unit::STEP;
        let end = aligned.min(ask.to);
        match ByteRange::new(gap.end(), end) {
            Some(beyond) => ByteRange::new(gap.start(), self.in_flight.next(id, beyond)).unwrap_or(gap),
            None => gap,
        }
    }

    /// The stream keeps what was asked for: it has what is read next. Answers up to where.
    pub(super) fn keep_asked(
        &self,
        id: VersionId,
        range: ByteRange,
        stream: &Stream,
        advice: &Advice,
        pieces: &[Piece],
    ) -> u64 {
        let mut state = stream.of(id);
        if state.join(&self.share) {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            if streams.len() % STREAMS_TIDY == STREAMS_TIDY - 1 {
                streams.retain(Seen::is_open);
            }
            streams.push(stream.seen());
        }
        let mut at = advice.asked.max(range.end());
        for piece in pieces {
            if let Piece::Fill(fill, _) = piece {
                at = at.max(fill.range().end());
                state.keep(Arc::clone(fill));
            }
        }
        at
    }

    /// Reads from the disk what a sequential reader will read next, as far as it is there.
    pub(super) fn read_disk_ahead(
        self: &Arc<Self>,
        object: &ObjectRef,
        id: VersionId,
        stream: &Stream,
        advice: &Advice,
        file: &Arc<CacheFile>,
    ) {
        let (mut at, to) = (advice.at, advice.to.min(advice.at + DISK_AHEAD));
        stream.of(id).on_read_from_disk(advice, to);
        while at < to {
            if let Some(fill) = self.in_flight.find(id, at) {
                at = fill.range().end();
                continue;
            }
            let step = to.min((at / unit::STEP + 1) * unit::STEP);
            let Some(range) = file.until(at, step).and_then(|until| ByteRange::new(at, until)) else {
                at = (at / unit::CELL + 1) * unit::CELL;
                continue;
            };
            let Some(room) = self.budget.reserve_ahead(unit::cells_around(range, object.version.size).len()) else {
                return;
            };
            let (fill, is_new) = self.in_flight.enter(id, at, range, room);
            at = fill.range().end();
            if is_new {
                self.fill_from_disk(object, &fill, Arc::clone(file));
            }
            stream.of(id).keep(fill);
        }
    }

    /// What the disk cannot answer after all comes from the bucket.
    fn fill_from_disk(self: &Arc<Self>, object: &ObjectRef, fill: &Arc<Fill>, file: Arc<CacheFile>) {
        // Not all of us: the disk cache belongs to the next mount once this one is gone.
        let (source, budget) = (Arc::clone(&self.source), self.budget.clone());
        let (object, range, weak) = (object.clone(), fill.range(), Arc::downgrade(fill));
        tokio::spawn(async move {
            let _ends = fetch::Ends(Weak::clone(&weak));
            let size = object.version.size;
            let mut at = range.start();
            loop {
                let next =
                    weak.upgrade().and_then(|fill| fill.next_buffer(|part| unit::cells_around(part, size).len()));
                let Some((segment, buffer)) = next else { return };
                let Some(bytes) = DiskCache::read(Arc::clone(&file), segment, buffer, false).await else { break };
                at = segment.end();
                if let Some(fill) = weak.upgrade() {
                    fill.put(segment, bytes);
                }
            }
            if let Some(rest) = ByteRange::new(at, range.end()) {
                let room = budget.reserve(rest.len()).await;
                if let Some(fill) = weak.upgrade() {
                    fill.set_room(room);
                }
                fetch::fill(&source, &object, &weak, rest, |_, _| {}).await;
            }
        });
    }

    /// Asks for what a sequential reader will read from `at` on. `false` if there is not enough memory for it.
    pub(super) fn ask_ahead(
        self: &Arc<Self>,
        object: &ObjectRef,
        id: VersionId,
        stream: &Stream,
        advice: &Advice,
        mut at: u64,
        file: Option<&CacheFile>,
    ) -> bool {
        let mut state = stream.of(id);
        let purpose = state.purpose();
        let mut has_room = true;
        // While this read waited, others of the same reader may have asked, read, and dropped what they had read.
        at = at.max(state.asked(advice));
        // In requests as large as they can be, but for the last.
        let is_due = advice.to >= at.saturating_add(advice.get) || advice.to == object.version.size;
        let ask = Ask { to: advice.to, get: advice.get, kind: Kind::Sequence, purpose: Some(&purpose) };
        while let Some(first) = ByteRange::at(at, 1).filter(|_| is_due && at < advice.to) {
            let here = file.and_then(|file| file.until(at, advice.to));
            let kept = || self.cells.has(id, at / unit::CELL).then(|| (at / unit::CELL + 1) * unit::CELL);
            if let Some(next) = here.or_else(kept) {
                at = next;
                continue;
            }
            let fill = match self.in_flight.find(id, at) {
                Some(fill) => fill,
                None => {
                    let range = self.request(id, first, ask);
                    let end = file.map_or(range.end(), |file| file.gap_end(at, range.end()));
                    let range = ByteRange::new(at, end).unwrap_or(range);
                    let Some(room) = self.budget.reserve_ahead(range.len()) else {
                        has_room = false;
                        break;
                    };
                    self.begin(object, id, at, (range, room), ask)
                }
            };
            at = fill.range().end();
            state.keep(fill);
        }
        state.on_asked(advice, at);
        has_room
    }

    /// Asks for a small object before anybody reads it.
    pub(super) async fn fetch_ahead(self: &Arc<Self>, object: &ObjectRef) {
        let (id, size) = (VersionId::of(object), object.version.size);
        let Some(whole) = ByteRange::new(0, size) else { return };
        let file = match &self.disk {
            Some(disk) => disk.file(id, size).await,
            None => None,
        };
        let known = self.known(id, whole, file.as_deref());
        let gap = known.iter().find_map(|piece| if let Piece::Gap(gap) = piece { Some(gap.start()) } else { None });
        if let Some((at, room)) = gap.zip(self.budget.reserve_ahead(size)) {
            let ask = Ask { to: size, get: unit::GET_MAX, kind: Kind::Kept, purpose: None };
            self.begin(object, id, at, (whole, room), ask);
        }
    }

    /// Room for bytes that somebody waits for. If there is none for a while, streams that nobody reads from lose what they have
    /// ahead; the others give back what they have as they go on.
    pub(super) async fn room(&self, len: u64) -> Room {
        let mut waiting = std::pin::pin!(self.budget.reserve(len));
        loop {
            match tokio::time::timeout(ROOM_WAIT, &mut waiting).await {
                Ok(room) => return room,
                Err(_) => self.reclaim(),
            }
        }
    }

    /// Once in a while: many may find at the same time that there is no room.
    pub(super) fn reclaim_now_and_then(&self) {
        let now = Instant::now();
        {
            let mut last = self.reclaimed.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now < last + IDLE) {
                return;
            }
            *last = Some(now);
        }
        self.reclaim();
    }

    fn reclaim(&self) {
        let streams = || self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // Not under the lock: whoever joins has its own state locked.
        let mut known = std::mem::take(&mut *streams());
        known.retain(|stream| stream.reclaim(IDLE));
        streams().append(&mut known);
    }

    /// Sends the request for the byte at `offset` and others, unless somebody else has been first.
    fn begin(
        self: &Arc<Self>,
        object: &ObjectRef,
        id: VersionId,
        offset: u64,
        (range, room): (ByteRange, Room),
        ask: Ask<'_>,
    ) -> Arc<Fill> {
        let (fill, is_new) = self.in_flight.enter(id, offset, range, room);
        if !is_new {
            return fill;
        }
        let (inner, object, range, weak) = (Arc::clone(self), object.clone(), fill.range(), Arc::downgrade(&fill));
        let purpose = ask.purpose.cloned();
        let size = object.version.size;
        // What is kept is fetched to its end, whether or not its reader waits for all of it.
        let is_kept = matches!(ask.kind, Kind::Kept);
        let held = is_kept.then(|| Arc::clone(&fill));
        let task = tokio::spawn(async move {
            // However this ends: nobody waits for ever.
            let _ends = fetch::Ends(Weak::clone(&weak));
            let keep = |range: ByteRange, bytes: &Bytes| {
                if is_kept {
                    inner.cells.keep(id, range, bytes, size);
                }
                if let Some(disk) = &inner.disk {
                    disk.keep(id, size, range, bytes, keep_for(purpose.as_deref(), is_kept));
                }
            };
            fetch::fill(&inner.source, &object, &weak, range, keep).await;
            drop(held);
        });
        if !is_kept {
            fill.stops(task.abort_handle());
            let (inner, purpose) = (Arc::downgrade(self), ask.purpose.cloned());
            fill.leaves_rest_to(Box::new(move |range, bytes| {
                if let Some(disk) = inner.upgrade().as_ref().and_then(|inner| inner.disk.as_ref()) {
                    disk.keep(id, size, range, &bytes, keep_for(purpose.as_deref(), false));
                }
            }));
        }
        fill
    }
}

fn keep_for(purpose: Option<&Purpose>, is_kept: bool) -> KeepFor {
    match purpose {
        _ if is_kept => KeepFor::Look,
        Some(purpose) => purpose.keep_for(),
        None => KeepFor::Stream,
    }
}
