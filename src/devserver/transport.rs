//! Bodies on their way through a connection.
//!
//! Owns: counting bytes and clients that went away, limiting bandwidth over all requests of a connection, cutting and stalling
//! answers.
//! Does not own: drawing faults (`faults`), the bytes (`body`).

use super::counters::Counters;
use super::faults::Plan;
use super::gate::Exchange;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a cut answer waits, so that what came before the cut is on its way.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// When a connection has paid for the bytes that it carried.
#[derive(Debug, Default)]
pub(super) struct Pace {
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// When `bytes` more may be carried.
    fn book(&self, bytes: usize, bytes_per_second: u64) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let from = free_at.map_or(now, |at| at.max(now));
        let until = from + Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        *free_at = Some(until);
        until
    }
}

/// Most bytes to carry at once at this bandwidth: a twentieth of a second's worth.
fn slice_at(bytes_per_second: u64) -> usize {
    (bytes_per_second / 20).clamp(1, 1 << 20) as usize
}

/// What counts and paces one direction of one exchange.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    pub(super) counters: Arc<Counters>,
    pub(super) pace: Arc<Pace>,
}

/// Whoever has asked, and has no whole answer yet. Dropped so, it has gone away.
#[derive(Debug, Default)]
pub(super) struct Asker(Option<Arc<Counters>>);

impl Asker {
    pub(super) fn new(counters: &Arc<Counters>) -> Asker {
        Asker(Some(Arc::clone(counters)))
    }

    /// It has all that it gets.
    pub(super) fn served(&mut self) {
        self.0 = None;
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if let Some(counters) = self.0.take() {
            counters.given_up();
        }
    }
}

/// A pause under way.
type Pause = Option<Pin<Box<Sleep>>>;

fn waited(pause: &mut Pause, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = pause {
        ready!(sleep.as_mut().poll(cx));
        *pause = None;
    }
    Poll::Ready(())
}

/// A request's body.
pub(super) struct InBody {
    body: Option<Incoming>,
    exchange: Arc<Exchange>,
    meter: Meter,
    pause: Pause,
    /// Bytes that were announced, and that have come.
    announced: u64,
    came: u64,
}

impl InBody {
    pub(super) fn new(body: Incoming, exchange: Arc<Exchange>, meter: Meter) -> InBody {
        let announced = body.size_hint().exact().unwrap_or(0);
        InBody { body: Some(body), exchange, meter, pause: None, announced, came: 0 }
    }
}

impl Drop for InBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.exchange.leave(body);
        }
    }
}

impl Body for InBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        ready!(waited(&mut this.pause, cx));
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(data)) = frame.as_ref().map(|f| f.as_ref().map(|f| f.data_ref().map_or(0, Bytes::len))) {
            this.meter.counters.bytes_in(data);
            this.came += data as u64;
            if this.exchange.plan().reset_halfway && this.came * 2 >= this.announced {
                // Whoever waits for the rest is dropped with the connection.
                this.exchange.cut();
                return Poll::Pending;
            }
            if let Some(limit) = this.exchange.plan().bytes_per_second {
                this.pause = Some(Box::pin(tokio::time::sleep_until(this.meter.pace.book(data, limit))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.pause.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What happens at half of an answer's body.
#[derive(Debug, Clone, Copy)]
enum AtHalf {
    Cut,
    Stall(Duration),
}

/// An answer's body.
pub(super) struct OutBody {
    inner: s3s::Body,
    meter: Meter,
    bytes_per_second: Option<u64>,
    /// Bytes until something happens.
    half: Option<(u64, AtHalf)>,
    pause: Pause,
    cut: bool,
    /// Taken from `inner` and not handed on yet.
    waiting: Bytes,
    /// Paid for and to be handed on after the pause.
    booked: Bytes,
    /// Bytes that were announced and not handed on yet, if that is known.
    left: Option<u64>,
    asker: Asker,
}

impl OutBody {
    pub(super) fn new(inner: s3s::Body, plan: Plan, meter: Meter) -> OutBody {
        let left = inner.size_hint().exact();
        let half = left.unwrap_or(0) / 2;
        let at_half = match plan.stall {
            _ if plan.truncate => Some((half, AtHalf::Cut)),
            Some(time) => Some((half, AtHalf::Stall(time))),
            None => None,
        };
        let (waiting, booked) = (Bytes::new(), Bytes::new());
        let (bytes_per_second, asker) = (plan.bytes_per_second, Asker::default());
        OutBody { inner, meter, bytes_per_second, half: at_half, pause: None, cut: false, waiting, booked, left, asker }
    }

    /// The same for a client that is counted if it goes away before the end.
    pub(super) fn awaited_by(mut self, asker: Asker) -> OutBody {
        self.asker = asker;
        if self.left == Some(0) {
            self.asker.served();
        }
        self
    }

    /// How many of the waiting bytes may go at once.
    fn allowed(&self) -> usize {
        let mut allowed = self.waiting.len();
        if let Some(limit) = self.bytes_per_second {
            allowed = allowed.min(slice_at(limit));
        }
        if let Some((left, _)) = self.half {
            allowed = allowed.min(left as usize);
        }
        allowed
    }

    fn hand_on(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.meter.counters.bytes_out(bytes.len());
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if self.left == Some(0) {
            // Nobody asks for the end of a body whose length is known.
            self.asker.served();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        loop {
            ready!(waited(&mut this.pause, cx));
            if this.cut {
                this.asker.served();
                return Poll::Ready(Some(Err("the answer is cut on request".into())));
            }
            if !this.booked.is_empty() {
                let bytes = std::mem::take(&mut this.booked);
                return this.hand_on(bytes);
            }
            if let Some((0, at_half)) = this.half {
                this.half = None;
                let time = match at_half {
                    AtHalf::Cut => {
                        this.cut = true;
                        BEFORE_CUT
                    }
                    AtHalf::Stall(time) => time,
                };
                this.pause = Some(Box::pin(tokio::time::sleep(time)));
                continue;
            }
            if this.waiting.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => this.waiting = bytes,
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    end => {
                        this.asker.served();
                        return Poll::Ready(end);
                    }
                }
            }
            let bytes = this.waiting.split_to(this.allowed());
            if let Some((left, _)) = &mut this.half {
                *left -= bytes.len() as u64;
            }
            match this.bytes_per_second {
                None => return this.hand_on(bytes),
                Some(limit) => {
                    this.pause = Some(Box::pin(tokio::time::sleep_until(this.meter.pace.book(bytes.len(), limit))));
                    this.booked = bytes;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.cut
            && self.half.is_none()
            && self.waiting.is_empty()
            && self.booked.is_empty()
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = (self.waiting.len() + self.booked.len()) as u64;
        let mut hint = self.inner.size_hint();
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn out(plan: Plan) -> OutBody {
        let meter = Meter { counters: Arc::default(), pace: Arc::default() };
        OutBody::new(s3s::Body::from(Bytes::from_static(&[1; 1000])), plan, meter)
    }

    #[tokio::test]
    async fn whole_bodies_go_in_one_slice() {
        let mut body = out(Plan::default());
        assert_eq!(body.size_hint().exact(), Some(1000));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1000);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn bandwidth_takes_its_time() {
        let started = Instant::now();
        let body = out(Plan { bytes_per_second: Some(5000), ..Plan::default() });
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 1000);
        let took = started.elapsed().as_secs_f64();
        assert!((0.19..2.0).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn stalls_and_cuts_come_at_half() {
        let started = Instant::now();
        let mut body = out(Plan { stall: Some(Duration::from_millis(300)), ..Plan::default() });
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 500);
        assert!(started.elapsed() < Duration::from_millis(250));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 500);
        assert!(started.elapsed() >= Duration::from_millis(300));
        let mut body = out(Plan { truncate: true, ..Plan::default() });
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 500);
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn whoever_goes_away_before_the_end_is_counted() {
        let counters = Arc::<Counters>::default();
        let awaited = |plan| out(plan).awaited_by(Asker::new(&counters));
        let half = Plan { stall: Some(Duration::from_secs(60)), ..Plan::default() };
        let mut body = awaited(half);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 500);
        assert_eq!(counters.get().given_up, 0);
        drop(body);
        assert_eq!(counters.get().given_up, 1);
        let mut body = awaited(Plan::default());
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        let mut body = awaited(Plan { truncate: true, ..Plan::default() });
        assert!(body.frame().await.unwrap().is_ok() && body.frame().await.unwrap().is_err());
        drop(body);
        let meter = Meter { counters: Arc::default(), pace: Arc::default() };
        drop(OutBody::new(s3s::Body::empty(), Plan::default(), meter).awaited_by(Asker::new(&counters)));
        assert_eq!(counters.get().given_up, 1);
    }
}
