//! The bare client: what the wire and the server give to somebody who has no file system in between.
//!
//! Owns: single requests over aws-sdk-s3 and over plain HTTP with the same signatures. Both sign what objfs signs: over
//! http the SHA-256 of bodies, no further checksums. Does not own: loops over them (`limit`), objects (`data`).

use crate::sdk::{self, Place};
use anyhow::{Context, bail, ensure};
use aws_credential_types::Credentials;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::time::SystemTime;
use tokio::net::TcpStream;

/// An SDK client with the checksums that objfs asks for.
pub(crate) fn sdk_client(place: &Place) -> aws_sdk_s3::Client {
    sdk::client(place, RequestChecksumCalculation::WhenRequired)
}

/// One request, in S3's words.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Get { key: String, range: Option<(u64, u64)> },
    Put { key: String, body: Bytes },
    Delete { key: String },
    Copy { from: String, to: String },
    Head { key: String },
    List { prefix: String, token: Option<String> },
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: u64,
    /// Keys on the page of a listing, and how to ask for the next one.
    pub(crate) keys: u64,
    pub(crate) token: Option<String>,
}

/// A way to send requests: one of these is one connection at a time.
pub(crate) enum Via {
    Sdk(aws_sdk_s3::Client, String),
    Http(Plain),
}

impl Via {
    /// A connection of its own.
    pub(crate) async fn connect(place: &Place, http: bool) -> anyhow::Result<Via> {
        Ok(if http {
            Via::Http(Plain::connect(place).await?)
        } else {
            Via::Sdk(sdk_client(place), place.bucket.clone())
        })
    }

    /// Sends one request and reads the whole answer; `arrived` is told of bytes as they come.
    pub(crate) async fn send(&mut self, ask: Ask, arrived: impl Fn(usize)) -> anyhow::Result<Answer> {
        match self {
            Via::Sdk(client, bucket) => send_sdk(client, bucket, ask, arrived).await,
            Via::Http(plain) => plain.send(ask, arrived).await,
        }
    }
}

async fn send_sdk(s3: &aws_sdk_s3::Client, bucket: &str, ask: Ask, arrived: impl Fn(usize)) -> anyhow::Result<Answer> {
    let mut answer = Answer::default();
    match ask {
        Ask::Get { key, range } => {
            let range = range.map(|(start, end)| format!("bytes={start}-{}", end - 1));
            let mut got = s3.get_object().bucket(bucket).key(key).set_range(range).send().await?;
            while let Some(bytes) = got.body.next().await {
                let bytes = bytes?;
                answer.bytes += bytes.len() as u64;
                arrived(bytes.len());
            }
        }
        Ask::Put { key, body } => {
            arrived(body.len());
            s3.put_object().bucket(bucket).key(key).body(ByteStream::from(body)).send().await?;
        }
        Ask::Delete { key } => drop(s3.delete_object().bucket(bucket).key(key).send().await?),
        Ask::Copy { from, to } => {
            drop(s3.copy_object().bucket(bucket).key(to).copy_source(format!("{bucket}/{from}")).send().await?);
        }
        Ask::Head { key } => drop(s3.head_object().bucket(bucket).key(key).send().await?),
        Ask::List { prefix, token } => {
            let page = s3.list_objects_v2().bucket(bucket).prefix(prefix).set_continuation_token(token).send().await?;
            answer.keys = page.contents().len() as u64;
            answer.token = page.next_continuation_token;
        }
    }
    Ok(answer)
}

/// A connection of plain HTTP/1.1 whose requests carry the signature that S3 wants.
pub(crate) struct Plain {
    sender: SendRequest<Full<Bytes>>,
    place: Place,
}

impl Plain {
    pub(crate) async fn connect(place: &Place) -> anyhow::Result<Plain> {
        let address = place.endpoint.strip_prefix("http://").context("the bare client speaks http only")?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new().max_buf_size(1 << 20).handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Plain { sender, place: place.clone() })
    }

    /// One unsigned request on a connection of its own: the dev server's switches.
    pub(crate) async fn ask(place: &Place, method: &str, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let mut plain = Plain::connect(place).await?;
        let request = http::Request::builder().method(method).uri(path).header(http::header::HOST, plain.host());
        plain.sender.ready().await?;
        let response = plain.sender.send_request(request.body(Full::new(body))?).await?;
        ensure!(response.status().is_success(), "{method} {path}: {}", response.status());
        Ok(response.into_body().collect().await?.to_bytes())
    }

    fn host(&self) -> String {
        self.place.endpoint.trim_start_matches("http://").to_owned()
    }

    async fn send(&mut self, ask: Ask, arrived: impl Fn(usize)) -> anyhow::Result<Answer> {
        let bucket = &self.place.bucket;
        let mut headers = Vec::new();
        let is_list = matches!(ask, Ask::List { .. });
        let (method, path, body) = match ask {
            Ask::Get { key, range } => {
                headers.extend(range.map(|(start, end)| ("range", format!("bytes={start}-{}", end - 1))));
                ("GET", format!("/{bucket}/{key}"), Bytes::new())
            }
            Ask::Put { key, body } => ("PUT", format!("/{bucket}/{key}"), body),
            Ask::Delete { key } => ("DELETE", format!("/{bucket}/{key}"), Bytes::new()),
            Ask::Copy { from, to } => {
                headers.push(("x-amz-copy-source", format!("{bucket}/{from}")));
                ("PUT", format!("/{bucket}/{to}"), Bytes::new())
            }
            Ask::Head { key } => ("HEAD", format!("/{bucket}/{key}"), Bytes::new()),
            Ask::List { prefix, token } => {
                let encode = |text: &str| {
                    percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string()
                };
                let token = token.map_or(String::new(), |t| format!("continuation-token={}&", encode(&t)));
                ("GET", format!("/{bucket}?{token}list-type=2&prefix={}", encode(&prefix)), Bytes::new())
            }
        };
        let sent = body.len();
        let request = self.signed(method, &path, &headers, body)?;
        self.sender.ready().await?;
        let mut response = self.sender.send_request(request).await?;
        let (status, mut answer, mut page) = (response.status(), Answer::default(), Vec::new());
        while let Some(frame) = response.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                answer.bytes += data.len() as u64;
                arrived(data.len());
                if is_list {
                    page.extend_from_slice(&data);
                }
            }
        }
        if !status.is_success() {
            bail!("{method} {path}: {status}");
        }
        arrived(sent);
        if is_list {
            let page = String::from_utf8_lossy(&page);
            answer.keys = page.matches("<Key>").count() as u64;
            let after = page.split_once("<NextContinuationToken>").map(|(_, rest)| rest);
            answer.token = after.and_then(|rest| rest.split_once('<')).map(|(token, _)| token.to_owned());
        }
        Ok(answer)
    }

    fn signed(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> anyhow::Result<http::Request<Full<Bytes>>> {
        let host = self.host();
        let place = &self.place;
        let identity = Credentials::new(&place.access_key, &place.secret_key, None, None, "bench").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&place.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let url = format!("http://{host}{path}");
        let pairs = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable = SignableRequest::new(method, &url, pairs, SignableBody::Bytes(&body))?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        let mut request = http::Request::builder().method(method).uri(path).header(http::header::HOST, &host);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Full::new(body))?;
        for (name, value) in instructions.headers() {
            let name = http::HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().insert(name, http::HeaderValue::from_str(value)?);
        }
        Ok(request)
    }
}
