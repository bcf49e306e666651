//! Bodies that know when they last moved.
//!
//! Owns: the request body, which notes each piece that the connection takes; the answer's body, which fails when it
//! stands still. Does not own: the timeouts' values.

use super::http::TimedOut;
use aws_smithy_types::body::{Error, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Length of the pieces in which a request body is handed to the connection: how finely progress is seen.
const FRAME_LEN: usize = 128 << 10;

/// What may lie in the kernel's send buffer when the connection has taken a body (`tcp_wmem`, tcp(7): 4 MiB at most).
const SEND_BUFFER_MAX: u64 = 4 << 20;
/// The slowest line, in bytes per second, over which that buffer must not pass for a standstill.
const LINE_SPEED_MIN: u64 = 128 << 10;

/// When a request last made progress, and how many bytes of its body the connection has taken.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<(Instant, u64)>>);

/// How long what was sent last may still be on its way out of the kernel.
fn drain(sent: u64) -> Duration {
    Duration::from_millis(sent.min(SEND_BUFFER_MAX) * 1000 / LINE_SPEED_MIN)
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress(Arc::new(Mutex::new((Instant::now(), 0))))
    }

    /// Notes that something moved: so many bytes of a body, or none of it.
    pub(super) fn mark(&self, len: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (Instant::now(), state.1 + len as u64);
    }

    fn due(&self, limit: Duration) -> Instant {
        let (last, sent) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last + limit + drain(sent)
    }

    /// Returns when nothing has moved for `limit`, and for as long as the kernel may need to send what it took.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let due = self.due(limit);
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    inner: SdkBody,
    /// What of the last piece is still to be sent.
    rest: Bytes,
    progress: Progress,
}

impl RequestBody {
    pub(super) fn new(inner: SdkBody, progress: &Progress) -> RequestBody {
        RequestBody { inner, rest: Bytes::new(), progress: progress.clone() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.rest.is_empty() {
            let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => return Poll::Ready(None),
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Ok(Ok(data))) => self.rest = data,
            }
        }
        let len = self.rest.len().min(FRAME_LEN);
        self.progress.mark(len);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = Body::size_hint(&self.inner);
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// The body of an answer.
pub(super) struct AnswerBody {
    inner: Incoming,
    limit: Option<Duration>,
    /// Runs while the body is waited for; a reader that takes its time is not the server's fault.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    pub(super) fn new(inner: Incoming, limit: Option<Duration>) -> AnswerBody {
        AnswerBody { inner, limit, waiting: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(cx).map(|()| Some(Err(TimedOut::Read(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn a_full_send_buffer_is_given_time() {
        assert_eq!(drain(0), Duration::ZERO);
        assert_eq!(drain(128 << 10), Duration::from_secs(1));
        assert_eq!(drain(5 << 30), drain(SEND_BUFFER_MAX));
    }

    #[tokio::test]
    async fn bodies_go_out_in_pieces_and_whole() {
        let bytes = Bytes::from(vec![7; 3 * FRAME_LEN + 5]);
        let mut body = RequestBody::new(SdkBody::from(bytes.clone()), &Progress::new());
        assert_eq!(Body::size_hint(&body).exact(), Some(bytes.len() as u64));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), FRAME_LEN);
        assert_eq!(Body::size_hint(&body).exact(), Some((bytes.len() - FRAME_LEN) as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), bytes.len() - FRAME_LEN);
    }
}
