//! The HTTP client, under the SDK and without it: HTTP/1.1 only, one connection per request in flight.
//!
//! Owns: connections, TLS and its trusted certificates, timeouts that count from the last progress. An endpoint that
//! offers HTTP/2 would otherwise get all requests over one TCP connection.
//! Does not own: signing, retries, how many requests are in flight (`limit`).

use super::super::{ErrorKind, Op, Result, StoreError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector as TcpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::body::{AnswerBody, Progress, RequestBody};

/// Idle connections are closed after this; many servers close theirs at 60 s.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// Idle connections kept per host.
const IDLE_COUNT_MAX: usize = 128;

type Hyper = Client<hyper_rustls::HttpsConnector<TcpConnector>, RequestBody>;

/// What ran out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimedOut {
    /// No connection: the request was not sent.
    Connect(Duration),
    /// No progress on a connection.
    Read(Duration),
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimedOut::Connect(limit) => write!(f, "no connection within {limit:?}"),
            TimedOut::Read(limit) => write!(f, "no progress for {limit:?}"),
        }
    }
}

impl std::error::Error for TimedOut {}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// It ran out of time.
    TimedOut(TimedOut),
    /// No connection, or it broke.
    Http(hyper_util::client::legacy::Error),
}

impl Failed {
    /// The error inside.
    pub(super) fn cause(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self {
            Failed::TimedOut(limit) => limit.into(),
            Failed::Http(error) => error.into(),
        }
    }
}

/// An HTTP/1.1 client. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Http1 {
    hyper: Hyper,
}

impl Http1 {
    /// `connect` bounds each TCP connection; `ca_bundle` is trusted beside the system's certificates.
    pub(super) fn new(connect: Duration, ca_bundle: Option<&Path>) -> Result<Http1> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_connect_timeout(Some(connect));
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls_config(ca_bundle)?);
        let https = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let hyper = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_COUNT_MAX)
            .build(https);
        Ok(Http1 { hyper })
    }
}

impl Http1 {
    /// Sends a request and waits for the head of its answer. `connect` is how long to wait for a connection, `read` how long for
    /// any progress.
    pub(super) async fn exchange(
        &self,
        request: http::Request<SdkBody>,
        connect: Option<Duration>,
        read: Option<Duration>,
    ) -> Result<http::Response<AnswerBody>, Failed> {
        let progress = Progress::new();
        let mut request = request.map(|body| RequestBody::new(body, &progress));
        let connected = capture_connection(&mut request);
        let answer = self.hyper.request(request);
        tokio::pin!(answer);
        let connecting = wait_connected(connected, connect);
        let early = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            timed_out = connecting => match timed_out {
                Some(timed_out) => return Err(Failed::TimedOut(timed_out)),
                None => None,
            },
        };
        progress.mark(0);
        let answer = match (early, read) {
            (Some(answer), _) => answer,
            (None, None) => answer.await,
            (None, Some(limit)) => tokio::select! {
                biased;
                answer = &mut answer => answer,
                () = progress.stalled(limit) => return Err(Failed::TimedOut(TimedOut::Read(limit))),
            },
        };
        Ok(answer.map_err(Failed::Http)?.map(|body| AnswerBody::new(body, read)))
    }
}

fn tls_config(ca_bundle: Option<&Path>) -> Result<ClientConfig> {
    let invalid = |message: String| StoreError::new(ErrorKind::Invalid, Op::HeadBucket, None, message);
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_bundle {
        let unreadable = |e| invalid(format!("cannot read the CA bundle {}: {e}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(invalid(format!("the CA bundle {} holds no certificate", path.display())));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| invalid(format!("TLS cannot be set up: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl HttpClient for Http1 {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            http: self.clone(),
            connect: settings.connect_timeout(),
            read: settings.read_timeout(),
        })
    }
}

/// The client with the timeouts of one request.
#[derive(Debug)]
struct Connector {
    http: Http1,
    connect: Option<Duration>,
    read: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let send = send(self.http.clone(), request, self.connect, self.read);
        HttpConnectorFuture::new(send)
    }
}

async fn send(
    http: Http1,
    request: HttpRequest,
    connect: Option<Duration>,
    read: Option<Duration>,
) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
    let answer = http.exchange(request, connect, read).await.map_err(|failed| match failed {
        Failed::TimedOut(limit) => ConnectorError::timeout(limit.into()),
        Failed::Http(error) => classify(error),
    })?;
    HttpResponse::try_from(answer.map(SdkBody::from_body_1_x)).map_err(|e| ConnectorError::other(e.into(), None))
}

/// Waits until the request has its connection, or until it took too long.
async fn wait_connected(
    mut connected: hyper_util::client::legacy::connect::CaptureConnection,
    limit: Option<Duration>,
) -> Option<TimedOut> {
    let start = Instant::now();
    let wait = async {
        drop(connected.wait_for_connection_metadata().await);
    };
    match limit {
        None => {
            wait.await;
            None
        }
        Some(limit) => {
            let timed_out = tokio::time::timeout_at(start + limit, wait).await.is_err();
            timed_out.then_some(TimedOut::Connect(limit))
        }
    }
}

/// What the SDK is to think of a failure; `s3::error` looks at the cause itself.
fn classify(error: hyper_util::client::legacy::Error) -> ConnectorError {
    if error.is_connect() {
        return ConnectorError::io(error.into()).never_connected();
    }
    ConnectorError::io(error.into())
}
