//! Receiving bodies.
//!
//! Owns: taking a request's body into memory or into a file while hashing it, checking Content-MD5 and `x-amz-checksum-*`
//! (headers or trailers) before anything becomes visible. Does not own: signatures and aws-chunked framing (s3s).

use super::body::{Body, Piece};
use super::disk::{BodyWriter, Files};
use super::record::Checksum;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::dto::StreamingBlob;
use s3s::stream::ByteStream;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};
use std::sync::Arc;

/// Most bytes of one PUT (S3: 5 GiB).
pub(super) const PUT_MAX: u64 = 5 << 30;
/// Most bytes that are set aside because a request announced them.
const RESERVE_MAX: usize = 64 << 20;

const CRC32: &str = "x-amz-checksum-crc32";
const CRC32C: &str = "x-amz-checksum-crc32c";
const CRC64NVME: &str = "x-amz-checksum-crc64nvme";
const SHA1: &str = "x-amz-checksum-sha1";
const SHA256: &str = "x-amz-checksum-sha256";

/// A body that arrived whole and unharmed.
pub(super) struct Received {
    pub(super) body: Body,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) checksum: Option<Checksum>,
}

/// Takes a request's body.
pub(super) async fn receive(
    files: Option<&Arc<Files>>,
    stream: Option<StreamingBlob>,
    headers: &HeaderMap,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Received> {
    let announced = stream.as_ref().and_then(|s| s.remaining_length().exact());
    let mut sink = match files {
        Some(files) if announced != Some(0) => {
            Sink::File(Box::new(files.create().await.map_err(S3Error::internal_error)?))
        }
        _ => Sink::Memory(Bytes::new(), BytesMut::with_capacity(announced.unwrap_or(0).min(RESERVE_MAX))),
    };
    let (mut md5, mut hasher, mut size) = (Md5::new(), hasher(headers), 0);
    if let Some(mut stream) = stream {
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(broken)?;
            size += bytes.len() as u64;
            if size > PUT_MAX {
                return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
            }
            md5.update(&bytes);
            hasher.update(&bytes);
            sink.write(bytes, announced).await?;
        }
    }
    let md5 = md5.finalize().into();
    check_md5(headers, md5)?;
    let checksum = check_sums(hasher.finalize(), headers, trailers)?;
    Ok(Received { body: sink.finish(size).await?, size, md5, checksum })
}

/// Where a body goes.
enum Sink {
    /// The only slice so far, or what was gathered of many.
    Memory(Bytes, BytesMut),
    File(Box<BodyWriter>),
}

impl Sink {
    async fn write(&mut self, bytes: Bytes, announced: Option<usize>) -> S3Result<()> {
        match self {
            Sink::Memory(only, gathered) => {
                if gathered.is_empty() && announced == Some(bytes.len()) {
                    *only = bytes;
                } else {
                    gathered.extend_from_slice(&bytes);
                }
                Ok(())
            }
            Sink::File(writer) => writer.write(&bytes).await.map_err(S3Error::internal_error),
        }
    }

    async fn finish(self, size: u64) -> S3Result<Body> {
        match self {
            Sink::Memory(only, _) if !only.is_empty() => Ok(Body::from(Piece::Memory(only))),
            Sink::Memory(_, gathered) if gathered.is_empty() => Ok(Body::default()),
            Sink::Memory(_, gathered) => Ok(Body::from(Piece::Memory(gathered.freeze()))),
            Sink::File(_) if size == 0 => Ok(Body::default()),
            Sink::File(writer) => writer.finish().await.map_err(S3Error::internal_error),
        }
    }
}

/// An error in the midst of a body: the client went away, or sent what it had not signed.
fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> S3Error {
    let mut answer = match error.to_string().to_ascii_lowercase() {
        text if text.contains("sha256") => {
            let mut answer = S3Error::with_message(
                S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            );
            answer.set_status_code(StatusCode::BAD_REQUEST);
            answer
        }
        text if text.contains("signature") => s3_error!(SignatureDoesNotMatch),
        text => s3_error!(IncompleteBody, "The body could not be read: {text}"),
    };
    answer.set_source(error);
    answer
}

/// Hashes what the headers give or announce for the trailer.
fn hasher(headers: &HeaderMap) -> ChecksumHasher {
    let trailer = headers.get("x-amz-trailer").and_then(|v| v.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    let wanted = |name: &str| headers.contains_key(name) || trailer.split(',').any(|t| t.trim() == name);
    ChecksumHasher {
        crc32: wanted(CRC32).then(Default::default),
        crc32c: wanted(CRC32C).then(Default::default),
        sha1: wanted(SHA1).then(Default::default),
        sha256: wanted(SHA256).then(Default::default),
        crc64nvme: wanted(CRC64NVME).then(Default::default),
    }
}

fn check_md5(headers: &HeaderMap, md5: [u8; 16]) -> S3Result<()> {
    match headers.get("content-md5").map(|v| v.as_bytes()) {
        Some(sent) if sent.len() != 24 => Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid.")),
        Some(sent) if sent != base64(&md5).as_bytes() => Err(bad_digest("Content-MD5")),
        _ => Ok(()),
    }
}

fn check_sums(
    computed: s3s::dto::Checksum,
    headers: &HeaderMap,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Option<Checksum>> {
    let trailers = trailers.and_then(|t| t.take()).unwrap_or_default();
    let sent = |name: &str| headers.get(name).or_else(|| trailers.get(name)).and_then(|v| v.to_str().ok());
    type Make = fn(String) -> Checksum;
    let pairs: [(&str, Option<String>, Make); 5] = [
        (CRC32, computed.checksum_crc32, Checksum::Crc32),
        (CRC32C, computed.checksum_crc32c, Checksum::Crc32c),
        (CRC64NVME, computed.checksum_crc64nvme, Checksum::Crc64Nvme),
        (SHA1, computed.checksum_sha1, Checksum::Sha1),
        (SHA256, computed.checksum_sha256, Checksum::Sha256),
    ];
    let mut kept = None;
    for (name, computed, make) in pairs {
        if let Some(computed) = computed {
            match sent(name) {
                Some(sent) if sent == computed => kept = Some(make(computed)),
                _ => return Err(bad_digest(name)),
            }
        }
    }
    Ok(kept)
}

fn bad_digest(name: &str) -> S3Error {
    s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum.")
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_each_length() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|t| base64(t.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    async fn code(headers: &[(&'static str, &str)]) -> Option<String> {
        let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
        let stream = StreamingBlob::from(s3s::Body::from(Bytes::from_static(b"hello")));
        receive(None, Some(stream), &headers, None).await.err().map(|e| e.code().as_str().to_owned())
    }

    #[tokio::test]
    async fn digests_are_checked() {
        assert_eq!(code(&[]).await, None);
        assert_eq!(code(&[("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")]).await, None);
        assert_eq!(code(&[("content-md5", "XUFAKrxLKna5cZ2REBfFkA==")]).await.as_deref(), Some("BadDigest"));
        assert_eq!(code(&[("content-md5", "x")]).await.as_deref(), Some("InvalidDigest"));
        assert_eq!(code(&[(CRC32, "NhCmhg==")]).await, None);
        assert_eq!(code(&[(CRC32, "NhCmhA==")]).await.as_deref(), Some("BadDigest"));
        assert_eq!(code(&[("x-amz-trailer", CRC32)]).await.as_deref(), Some("BadDigest"), "announced and not sent");
    }
}
