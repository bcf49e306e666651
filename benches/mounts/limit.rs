//! The limit of a step: what a bare client gets from the same server in the same round.
//!
//! Owns: loops of requests over 1 to 16 connections of the SDK and of plain HTTP, of which the best counts.
//! Does not own: single requests (`client`), the native file system as a limit (`cell` runs the step there).

use crate::client::{Ask, Via};
use crate::data::{BIG_KEY, Bucket, noise};
use crate::figures::{Figures, Unit};
use crate::sdk::Place;
use crate::workload::{GIB, Limit, MANY};
use anyhow::Context;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many connections are tried.
const CONNECTIONS: [usize; 5] = [1, 2, 4, 8, 16];
/// How long each way is measured.
const TRY: Duration = Duration::from_millis(600);
/// A ranged GET of the big file: long, so that first bytes count little.
const RANGE: u64 = 64 << 20;
/// What objfs sends of a large file, and how many of it at once (src/write).
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 8;

/// What a loop counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// As they arrive.
    Bytes,
    /// Each so many requests are one operation.
    Requests(u64),
}

type Asks = Arc<dyn Fn(u64) -> Ask + Send + Sync>;

/// Measures the limit. `prefix` is one that the limit has to itself, `layout` the one that contestants mount.
pub(crate) async fn measure(
    limit: Limit,
    unit: Unit,
    place: &Place,
    bucket: &Bucket,
    prefix: &str,
    layout: &str,
) -> anyhow::Result<Figures> {
    let (asks, counted, connections) = match limit {
        Limit::Get => (gets(), Counted::Bytes, &CONNECTIONS[..]),
        Limit::RandomGet(block) => {
            let counted = if unit == Unit::Bytes { Counted::Bytes } else { Counted::Requests(1) };
            (random_gets(block), counted, &CONNECTIONS[..1])
        }
        Limit::PutSmall(size) => (puts(prefix, size), Counted::Requests(1), &CONNECTIONS[..]),
        Limit::GetSmall => {
            let body = noise(30_000);
            bucket.put_all((0..MANY).map(|i| (small_key(prefix, i), body.clone()))).await?;
            let prefix = prefix.to_owned();
            let get = move |i| Ask::Get { key: small_key(&prefix, i % MANY), range: None };
            (Arc::new(get) as Asks, Counted::Requests(1), &CONNECTIONS[..])
        }
        // Of keys that are not there: a bucket that lasts for all tries would take longer to fill than to measure.
        Limit::Delete => {
            let prefix = prefix.to_owned();
            let delete = move |i| Ask::Delete { key: small_key(&prefix, i) };
            (Arc::new(delete) as Asks, Counted::Requests(1), &CONNECTIONS[..])
        }
        Limit::CopyDelete => {
            bucket.put_all(std::iter::once((small_key(prefix, 0), Bytes::from(vec![b'x'; 4096])))).await?;
            (copies_and_deletes(prefix), Counted::Requests(2), &CONNECTIONS[..])
        }
        Limit::Upload => return upload(bucket, prefix).await,
        Limit::PutSerially(size) => return put_serially(place, prefix, size).await,
        Limit::HeadAndGet(len) => return head_and_get(place, layout, len).await,
        Limit::List => {
            // Contestants list what they made; the bare client has to be given as much.
            if layout == prefix {
                let body = Bytes::from_static(b"x");
                bucket.put_all((0..MANY).map(|i| (small_key(prefix, i), body.clone()))).await?;
            }
            return list(place, layout).await;
        }
        Limit::Append => {
            let start = Instant::now();
            bucket.append(&format!("{prefix}appended.bin")).await?;
            return Ok(figures(1.0, start.elapsed(), "SDK, 16 connections"));
        }
        Limit::Native => anyhow::bail!("the native file system is measured by the step itself"),
    };
    best(place, connections, counted, &asks).await
}

fn small_key(prefix: &str, i: u64) -> String {
    format!("{prefix}f{i:08}")
}

fn gets() -> Asks {
    Arc::new(|i| {
        let start = i * RANGE % GIB;
        Ask::Get { key: BIG_KEY.to_owned(), range: Some((start, start + RANGE)) }
    })
}

fn random_gets(block: u64) -> Asks {
    Arc::new(move |i| {
        let start = fastrand::Rng::with_seed(i).u64(..GIB / block) * block;
        Ask::Get { key: BIG_KEY.to_owned(), range: Some((start, start + block)) }
    })
}

fn puts(prefix: &str, size: usize) -> Asks {
    let (prefix, body) = (prefix.to_owned(), noise(size));
    Arc::new(move |i| Ask::Put { key: small_key(&prefix, i % 10_000), body: body.clone() })
}

fn copies_and_deletes(prefix: &str) -> Asks {
    let prefix = prefix.to_owned();
    Arc::new(move |i| {
        let to = format!("{prefix}to{:08}", i / 2);
        if i % 2 == 0 { Ask::Copy { from: small_key(&prefix, 0), to } } else { Ask::Delete { key: to } }
    })
}

async fn upload(bucket: &Bucket, prefix: &str) -> anyhow::Result<Figures> {
    let key = format!("{prefix}limit.bin");
    let body = noise(PART);
    let start = Instant::now();
    bucket.upload_in_parts(&key, &body, GIB / PART as u64, PARTS_AT_ONCE).await?;
    Ok(figures(GIB as f64, start.elapsed(), &format!("SDK, parts of 8 MiB, {PARTS_AT_ONCE} at once")))
}

/// The SDK alone, one request after the other, until a second has passed.
async fn put_serially(place: &Place, prefix: &str, size: usize) -> anyhow::Result<Figures> {
    let (amount, took) = run(place, false, 1, Counted::Requests(1), &puts(prefix, size)).await?;
    Ok(figures(amount, took, "SDK, 1 connection"))
}

fn figures(amount: f64, took: Duration, how: &str) -> Figures {
    Figures { amount, seconds: took.as_secs_f64(), how: Some(how.to_owned()), ..Figures::default() }
}

/// The best of all ways.
async fn best(place: &Place, connections: &[usize], counted: Counted, asks: &Asks) -> anyhow::Result<Figures> {
    let mut best: Option<Figures> = None;
    for http in [false, true] {
        for &count in connections {
            let (amount, took) = run(place, http, count, counted, asks).await?;
            let way = if http { "plain HTTP" } else { "SDK" };
            let plural = if count == 1 { "" } else { "s" };
            let tried = figures(amount, took, &format!("{way}, {count} connection{plural}"));
            keep_better(&mut best, tried);
        }
    }
    best.context("no way was tried")
}

fn keep_better(best: &mut Option<Figures>, tried: Figures) {
    if best.as_ref().is_none_or(|b| tried.amount / tried.seconds > b.amount / b.seconds) {
        *best = Some(tried);
    }
}

/// One loop: how much in what time.
async fn run(
    place: &Place,
    http: bool,
    connections: usize,
    counted: Counted,
    asks: &Asks,
) -> anyhow::Result<(f64, Duration)> {
    let mut ways = Vec::new();
    for _ in 0..connections {
        ways.push(Via::connect(place, http).await?);
    }
    let (next, bytes, requests) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut via in ways {
        let (next, bytes, requests, over, asks) =
            (Arc::clone(&next), Arc::clone(&bytes), Arc::clone(&requests), Arc::clone(&over), Arc::clone(asks));
        tasks.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let ask = asks(next.fetch_add(1, Ordering::Relaxed));
                via.send(ask, |n| _ = bytes.fetch_add(n as u64, Ordering::Relaxed)).await?;
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    tokio::time::sleep(TRY).await;
    let so_far = match counted {
        Counted::Bytes => bytes.load(Ordering::Relaxed),
        Counted::Requests(each) => requests.load(Ordering::Relaxed) / each,
    };
    let took = start.elapsed();
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.try_join_next() {
        ended??;
    }
    // On a slow profile the rest of a long GET would take longer than the measurement.
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok((so_far as f64, took))
}

async fn head_and_get(place: &Place, layout: &str, len: u64) -> anyhow::Result<Figures> {
    let name = if layout.contains("media") { "Film 000.mp4" } else { "Book 000.epub" };
    let mut best: Option<Figures> = None;
    for http in [false, true] {
        // Plain HTTP sends keys as they are.
        let key = format!("{layout}{}", if http { name.replace(' ', "%20") } else { name.to_owned() });
        let mut via = Via::connect(place, http).await?;
        let (start, mut count) = (Instant::now(), 0.0);
        while start.elapsed() < TRY {
            via.send(Ask::Head { key: key.clone() }, |_| {}).await?;
            via.send(Ask::Get { key: key.clone(), range: Some((0, len)) }, |_| {}).await?;
            count += 1.0;
        }
        let way = if http { "plain HTTP, 1 connection" } else { "SDK, 1 connection" };
        let tried = figures(count, start.elapsed(), way);
        keep_better(&mut best, tried);
    }
    best.context("no way was tried")
}

/// Pages can only be asked for one after the other.
async fn list(place: &Place, prefix: &str) -> anyhow::Result<Figures> {
    let mut best: Option<Figures> = None;
    for http in [false, true] {
        let mut via = Via::connect(place, http).await?;
        let (start, mut keys, mut token) = (Instant::now(), 0, None);
        loop {
            let page = via.send(Ask::List { prefix: prefix.to_owned(), token }, |_| {}).await?;
            keys += page.keys;
            token = page.token;
            if token.is_none() {
                break;
            }
        }
        let tried =
            figures(keys as f64, start.elapsed(), if http { "LIST pages, plain HTTP" } else { "LIST pages, SDK" });
        keep_better(&mut best, tried);
    }
    best.context("no way was tried")
}
