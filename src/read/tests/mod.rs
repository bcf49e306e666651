//! Tests of reading over the in-memory store, with its requests counted and its faults set. Owns nothing else.

mod kept;

use super::*;
use crate::store::observe::Counters;
use crate::store::{Condition, ErrorKind, FaultStore, MemoryStore, ObjectHeaders, Observed, Op, fault};
use crate::types::Key;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

struct Bench {
    memory: Arc<MemoryStore>,
    faults: Arc<FaultStore>,
    counters: Arc<Counters>,
    reader: Reader,
}

fn bench(settings: Settings) -> Bench {
    bench_over(MemoryStore::new(), settings)
}

fn bench_over(memory: MemoryStore, settings: Settings) -> Bench {
    let memory = Arc::new(memory);
    let faults = Arc::new(FaultStore::new(Arc::<MemoryStore>::clone(&memory), fault::Settings::default()));
    let observed = Observed::new(Arc::<FaultStore>::clone(&faults));
    let counters = observed.counters();
    Bench { memory, faults, counters, reader: Reader::new(Arc::new(observed), settings) }
}

fn bytes_of(size: u64) -> Bytes {
    let mut dice = fastrand::Rng::with_seed(size);
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    dice.fill(&mut bytes);
    Bytes::from(bytes)
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::at(start, len).unwrap()
}

impl Bench {
    async fn put(&self, key: &str, body: &Bytes) -> ObjectRef {
        let key = Key::parse(key).unwrap();
        self.memory.put(&key, body.clone(), &ObjectHeaders::default(), &Condition::Always).await.unwrap();
        let version = self.memory.head(&key).await.unwrap().version;
        ObjectRef { key, version }
    }

    fn gets(&self) -> (u64, u64) {
        let of = self.counters.of(Op::Get);
        (of.requests, of.bytes_in)
    }

    /// Reads all of it, in reads of `len`. Answers whether the bytes were right.
    async fn read_all(&self, object: &ObjectRef, body: &Bytes, stream: &Stream, len: u64) -> bool {
        let size = object.version.size;
        for start in (0..size).step_by(usize::try_from(len).unwrap()) {
            let got = self.reader.read(object, range(start, len), Some(stream)).await.unwrap();
            let (start, end) = (start as usize, (start + len).min(size) as usize);
            if got != body[start..end] {
                return false;
            }
        }
        true
    }

    /// Bytes that could be had without waiting.
    fn free(&self) -> u64 {
        self.reader.0.budget.free()
    }
}

#[tokio::test]
async fn a_sequential_reader_gets_each_byte_once_in_large_requests() {
    let b = bench(Settings::default());
    let body = bytes_of(50 * MIB + 7);
    let object = b.put("film", &body).await;
    assert!(b.read_all(&object, &body, &Stream::default(), 128 * KIB).await);
    let (requests, bytes) = b.gets();
    assert_eq!(bytes, body.len() as u64, "each byte once");
    assert!(requests < 40, "{requests} requests for 50 MiB");
}

#[tokio::test]
async fn a_random_read_is_one_request_for_little_more_than_it_asks_and_is_kept() {
    let b = bench(Settings::default());
    let body = bytes_of(64 * MIB);
    let object = b.put("db", &body).await;
    let stream = Stream::default();
    let mut dice = fastrand::Rng::with_seed(1);
    let places: Vec<u64> = (0..60).map(|i| (i * 8 + dice.u64(0..5)) * 128 * KIB).collect();
    for start in &places {
        assert_eq!(b.reader.read(&object, range(*start, 128 * KIB), Some(&stream)).await.unwrap().len(), 128 << 10);
    }
    assert_eq!(b.gets(), (60, 60 * 128 * KIB));
    for start in &places {
        let got = b.reader.read(&object, range(*start + 5, 4 * KIB), Some(&Stream::default())).await.unwrap();
        assert_eq!(got, body[(*start + 5) as usize..(*start + 5 + 4 * KIB) as usize]);
    }
    assert_eq!(b.gets().0, 60, "from memory");
}

#[tokio::test]
async fn a_small_file_is_one_request_however_it_is_read() {
    let b = bench(Settings::default());
    let body = bytes_of(500 * KIB);
    let object = b.put("page", &body).await;
    let end = b.reader.read(&object, range(490 * KIB, 99 * KIB), Some(&Stream::default())).await.unwrap();
    assert_eq!(end, body[490 << 10..]);
    assert!(b.read_all(&object, &body, &Stream::default(), 4 * KIB).await);
    assert_eq!(b.gets(), (1, 500 * KIB));
}

#[tokio::test]
async fn many_readers_of_one_range_make_one_request() {
    let b = bench(Settings::default());
    let body = bytes_of(4 * MIB);
    let object = b.put("a", &body).await;
    let hold = b.faults.hold_next(Op::Get);
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let (reader, object) = (b.reader.clone(), object.clone());
            tokio::spawn(async move { reader.read(&object, range(MIB, 64 * KIB), Some(&Stream::default())).await })
        })
        .collect();
    hold.reached().await;
    hold.release();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), body[1 << 20..(1 << 20) + (64 << 10)]);
    }
    assert_eq!(b.gets().0, 1);
}

#[tokio::test]
async fn an_object_of_another_version_is_an_error_at_every_step() {
    for step in 0..12 {
        let b = bench(Settings::default());
        let body = bytes_of(6 * MIB);
        let object = b.put("a", &body).await;
        let stream = Stream::default();
        for i in 0..step {
            let got = b.reader.read(&object, range(i * 512 * KIB, 512 * KIB), Some(&stream)).await.unwrap();
            assert_eq!(got, body[(i * 512 * KIB) as usize..((i + 1) * 512 * KIB) as usize]);
        }
        b.put("a", &bytes_of(6 * MIB + 1)).await;
        for i in step..12 {
            match b.reader.read(&object, range(i * 512 * KIB, 512 * KIB), Some(&stream)).await {
                Ok(got) => assert_eq!(got, body[(i * 512 * KIB) as usize..((i + 1) * 512 * KIB) as usize]),
                Err(e) => assert_eq!(e.kind, ErrorKind::Precondition),
            }
        }
        if let Ok(got) = b.reader.read(&object, range(5 * MIB + 7, 9), Some(&Stream::default())).await {
            assert_eq!(got, body[(5 << 20) + 7..(5 << 20) + 16], "what another handle still has of the old version");
        }
    }
}

#[tokio::test]
async fn the_memory_is_bounded_and_all_of_it_comes_back() {
    let b = bench(Settings { memory: 32 * MIB, ..Settings::default() });
    let body = bytes_of(12 * MIB);
    let object = b.put("a", &body).await;
    let before = b.free();
    let reads = (0..64).map(|_| async {
        let stream = Stream::default();
        assert!(b.read_all(&object, &body, &stream, MIB).await);
        stream
    });
    let streams = futures::future::join_all(reads).await;
    assert!(b.free() <= before);
    drop(streams);
    assert_eq!(b.free(), before, "nothing is kept of what was read in sequence");
}

#[tokio::test]
async fn who_goes_elsewhere_stops_the_requests_ahead() {
    let b = bench(Settings::default());
    let object = b.put("a", &bytes_of(64 * MIB)).await;
    let before = b.free();
    let stream = Stream::default();
    for i in 0..8 {
        b.reader.read(&object, range(i * MIB, MIB), Some(&stream)).await.unwrap();
    }
    assert!(b.free() < before);
    // Four others, so that the first is forgotten.
    for place in [49, 53, 57, 61] {
        b.reader.read(&object, range(place * MIB, KIB), Some(&stream)).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(before - b.free() <= 5 * 64 * KIB, "only cells are kept");
}

#[tokio::test]
async fn an_answer_that_is_late_is_asked_for_a_second_time_and_rarely() {
    let b = bench(Settings::default());
    let body = bytes_of(64 * MIB);
    let object = b.put("a", &body).await;
    let places = |from: u64, count: u64| (from..from + count).map(|i| range(i * 256 * KIB, 4 * KIB));
    for place in places(0, 60) {
        b.reader.read(&object, place, Some(&Stream::default())).await.unwrap();
    }
    assert_eq!(b.gets().0, 60);
    // The first is never answered: whoever reads does not notice.
    let hold = b.faults.hold_next(Op::Get);
    for place in places(60, 1) {
        let stream = Stream::default();
        let read = b.reader.read(&object, place, Some(&stream));
        let got = tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap().unwrap();
        assert_eq!(got, body[place.start() as usize..place.end() as usize]);
    }
    hold.reached().await;
    // The budget is spent: the next one waits.
    let hold = b.faults.hold_next(Op::Get);
    let place = places(61, 1).next().unwrap();
    let (reader, object) = (b.reader.clone(), object.clone());
    let waits = tokio::spawn(async move { reader.read(&object, place, Some(&Stream::default())).await });
    hold.reached().await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waits.is_finished());
    hold.release();
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_that_nobody_reads_from_do_not_keep_others_waiting() {
    let b = bench(Settings { memory: 32 * MIB, ..Settings::default() });
    let body = bytes_of(24 * MIB);
    let object = b.put("a", &body).await;
    // Each stops in the middle, with something ahead of it: together they have more than there is.
    let mut paused = Vec::new();
    for i in 0..40 {
        let body = bytes_of(24 * MIB + i);
        let object = b.put(&format!("paused{i}"), &body).await;
        let stream = Stream::default();
        for start in 0..6 {
            b.reader.read(&object, range(start * 256 * KIB, 256 * KIB), Some(&stream)).await.unwrap();
        }
        paused.push((object, body, stream));
    }
    let stream = Stream::default();
    let reading = b.read_all(&object, &body, &stream, MIB);
    assert!(tokio::time::timeout(std::time::Duration::from_secs(60), reading).await.unwrap());
    let (object, body, stream) = &paused[0];
    let rest = b.reader.read(object, range(6 * 256 * KIB, MIB), Some(stream)).await.unwrap();
    assert_eq!(rest, body[6 << 18..(6 << 18) + (1 << 20)], "and who goes on gets the right bytes");
}

#[tokio::test]
async fn what_begins_before_and_ends_too_early_is_not_waited_for() {
    let b = bench(Settings::default());
    let body = bytes_of(2 * MIB);
    let object = b.put("a", &body).await;
    // What a reader without a handle asks for is cut anywhere: here in the middle of a cell.
    let hold = b.faults.hold_next(Op::Get);
    let (reader, first) = (b.reader.clone(), object.clone());
    let head = tokio::spawn(async move { reader.read(&first, range(0, 70 * KIB), None).await });
    hold.reached().await;
    let stream = Stream::default();
    let rest = b.reader.read(&object, range(72 * KIB, 4 * KIB), Some(&stream));
    let rest = tokio::time::timeout(std::time::Duration::from_secs(10), rest).await.unwrap().unwrap();
    assert_eq!(rest, body[72 << 10..76 << 10]);
    hold.release();
    assert_eq!(head.await.unwrap().unwrap(), body[..70 << 10]);
}

#[tokio::test]
async fn bytes_of_another_version_are_refused_where_a_server_ignores_the_condition() {
    let b = bench_over(MemoryStore::new().with_lax_reads(), Settings::default());
    let object = b.put("k", &bytes_of(MIB)).await;
    // Two of the ranges end, or begin, past the end of what is there.
    for (size, at) in [(MIB + 1, 0), (MIB - 1, 0), (MIB - 1, MIB - KIB), (KIB, MIB - KIB)] {
        b.put("k", &bytes_of(size)).await;
        let refused = b.reader.read(&object, range(at, KIB), None).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Precondition, "{size}");
    }
}
