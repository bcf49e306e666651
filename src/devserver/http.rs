//! Connections.
//!
//! Owns: accepting, one task per connection, handing requests to s3s or to `control`, request ids, faults after an
//! operation that end the connection, stopping. Does not own: what an operation does (`service`).

use super::control;
use super::counters::Counters;
use super::faults::{Faults, Plan};
use super::gate::Exchange;
use super::log::Log;
use super::transport::{Asker, InBody, Meter, OutBody, Pace};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::S3Service;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes of an unwanted request body that are read, so that the client gets to see the answer.
const DRAIN_MAX: usize = 64 << 20;
/// How long connections have to finish their request when the server stops.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Read buffer of a connection.
const BUFFER: usize = 1 << 20;

/// What all connections share.
pub(super) struct Shared {
    pub(super) s3: S3Service,
    pub(super) counters: Arc<Counters>,
    pub(super) faults: Faults,
    pub(super) log: Arc<Log>,
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on request")]
struct Reset;

/// Accepts connections until `stop`, then waits for them for a while.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    shared.counters.connection();
                    connections.spawn(connection(stream, peer, Arc::clone(&shared), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME, all_done).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let pace = Arc::new(Pace::default());
    let service = service_fn(move |request| {
        let meter = Meter { counters: Arc::clone(&shared.counters), pace: Arc::clone(&pace) };
        answer(Arc::clone(&shared), meter, peer, request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).max_buf_size(BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn answer(
    shared: Arc<Shared>,
    meter: Meter,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<OutBody>, Reset> {
    if request.uri().path().starts_with(control::PREFIX) {
        let local = peer.ip().to_canonical().is_loopback();
        let response = control::answer(&shared.counters, &shared.faults, local, request).await;
        let uncounted = Meter { counters: Arc::default(), pace: meter.pace };
        return Ok(response.map(|body| OutBody::new(body, Plan::default(), uncounted)));
    }
    let (exchange, mut asker) = (Exchange::new(&shared.log), Asker::new(&shared.counters));
    let is_head = request.method() == Method::HEAD;
    let waits_for_continue = request.headers().contains_key(header::EXPECT);
    let mut request =
        request.map(|body| s3s::Body::http_body_unsync(InBody::new(body, Arc::clone(&exchange), meter.clone())));
    request.extensions_mut().insert(Arc::clone(&exchange));
    let answered = tokio::select! {
        answered = shared.s3.call(request) => answered,
        () = exchange.is_cut() => {
            asker.served();
            return Err(Reset);
        }
    };
    let plan = exchange.drawn().unwrap_or_else(|| {
        shared.counters.request("Rejected");
        Plan::default()
    });
    if plan.reset_before || plan.reset_after {
        asker.served();
        return Err(Reset);
    }
    let mut response = answered.map_err(|error| {
        tracing::error!(?error, "cannot answer");
        asker.served();
        Reset
    })?;
    if !waits_for_continue {
        drain(&exchange).await;
    }
    shared.counters.status(response.status().as_u16());
    exchange.draft.answered(response.status().as_u16());
    if response.status() == StatusCode::NOT_MODIFIED {
        *response.body_mut() = s3s::Body::empty();
    }
    if let Ok(id) = HeaderValue::from_str(&exchange.id) {
        response.headers_mut().insert("x-amz-request-id", id);
    }
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("objfs-dev-server"));
    if is_head {
        // The body of such an answer goes nowhere.
        asker.served();
    }
    Ok(response.map(|body| OutBody::new(body, plan, meter).awaited_by(asker)))
}

/// Reads off what the operation did not want of the request, lest the client meet a closed connection before the answer.
async fn drain(exchange: &Exchange) {
    let Some(mut unread) = exchange.unread() else { return };
    let mut left = DRAIN_MAX;
    while let Some(Ok(frame)) = unread.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
