//! The records that the server keeps.
//!
//! Owns: objects, multipart uploads and parts with their headers, the spelling of ETags, the server's clock.
//! Does not own: where records are kept (`index`, `disk`), bytes (`body`).

use super::body::Body;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The headers that are stored with an object and given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Headers {
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    /// Seconds since the epoch.
    pub(super) expires: Option<i64>,
    pub(super) storage_class: Option<String>,
    /// Without `x-amz-meta-`.
    pub(super) metadata: BTreeMap<String, String>,
}

/// A checksum that the client sent and that was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Checksum {
    Crc32(String),
    Crc32c(String),
    Crc64Nvme(String),
    Sha1(String),
    Sha256(String),
}

/// An object, never changed once it is in the index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    /// Without quotes.
    pub(super) etag: String,
    /// Seconds since the epoch; S3 tells Last-Modified in whole seconds everywhere.
    pub(super) modified: i64,
    pub(super) size: u64,
    pub(super) headers: Headers,
    pub(super) checksum: Option<Checksum>,
    pub(super) body: Body,
}

/// A multipart upload that was created and neither completed nor aborted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) headers: Headers,
    /// Seconds since the epoch.
    pub(super) initiated: i64,
    #[serde(skip)]
    pub(super) parts: BTreeMap<i32, Part>,
}

/// One part of a multipart upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) md5: [u8; 16],
    pub(super) modified: i64,
    pub(super) size: u64,
    pub(super) body: Body,
}

impl Part {
    /// The part's ETag, without quotes.
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// The ETag of an object made of parts: the MD5 of the parts' MD5s, and how many they are.
pub(super) fn multipart_etag<'a>(parts: impl Iterator<Item = &'a Part>) -> String {
    let (mut sum, mut count) = (Md5::new(), 0);
    for part in parts {
        sum.update(part.md5);
        count += 1;
    }
    format!("{}-{count}", hex(&sum.finalize()))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes from hexadecimal digits, or `None` if they are none.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// Now, in seconds since the epoch.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_etags() {
        let part = |text: &str| Part { md5: Md5::digest(text).into(), modified: 0, size: 1, body: Body::default() };
        // md5(md5("a") + md5("b")).
        assert_eq!(multipart_etag([part("a"), part("b")].iter()), "96e024ba2074fe77e8e965ba43a704be-2");
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(hex(&[0, 0xab]), "00ab");
        assert_eq!(unhex("00ab"), Some(vec![0, 0xab]));
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("0"), None);
    }
}
