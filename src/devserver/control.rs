//! The control endpoints below `/-/`, which is no bucket's name.
//!
//! Owns: `GET /-/counters`, `POST /-/counters/reset`, `GET|PUT /-/faults` (JSON). Unsigned, and for this machine only.
//! Does not own: what the JSON means (`counters`, `faults`).

use super::counters::Counters;
use super::faults::{FaultSettings, Faults};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;

/// What every control path starts with.
pub(super) const PREFIX: &str = "/-/";
/// Longest body of a control request.
const BODY_MAX: usize = 1 << 20;

/// Answers a control request.
pub(super) async fn answer(
    counters: &Counters,
    faults: &Faults,
    local: bool,
    request: Request<Incoming>,
) -> Response<s3s::Body> {
    if !local {
        return text(StatusCode::FORBIDDEN, "control requests are taken from this machine only\n".to_owned());
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/-/counters") => json(&counters.get()),
        (&Method::POST, "/-/counters/reset") => {
            counters.reset();
            json(&counters.get())
        }
        (&Method::GET, "/-/faults") => json(&faults.get()),
        (&Method::PUT, "/-/faults") => match parse(request).await {
            Ok(settings) => {
                faults.set(settings);
                json(&faults.get())
            }
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        },
        (_, "/-/counters" | "/-/counters/reset" | "/-/faults") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "this path does not know this method\n".to_owned())
        }
        (_, path) => text(StatusCode::NOT_FOUND, format!("there is no {path}\n")),
    }
}

async fn parse(request: Request<Incoming>) -> Result<FaultSettings, Box<dyn std::error::Error + Send + Sync>> {
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await?.to_bytes();
    let settings: FaultSettings = serde_json::from_slice(&body)?;
    match settings.rules.iter().find(|rule| !(0.0..=1.0).contains(&rule.rate)) {
        Some(rule) => Err(format!("a rate is between 0 and 1, and {} is not", rule.rate).into()),
        None => Ok(settings),
    }
}

fn json(value: &impl Serialize) -> Response<s3s::Body> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn text(status: StatusCode, text: String) -> Response<s3s::Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
