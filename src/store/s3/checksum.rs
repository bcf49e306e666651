//! Checksums of what is sent: the server refuses bodies that did not arrive whole, and what it answers is compared.
//!
//! Owns: which checksum a server takes (CRC32C, or Content-MD5 where it takes no CRC), learned from its first answer; sending
//! once more what was refused for its CRC; the comparison of answers. Does not own: requests (`ops`).
//!
//! CRC32C is a header of the request, not a trailer: most servers that do not know it ignore it, and do not repeat it in
//! their answer. Others refuse the request (Backblaze B2: 400 "Unsupported header 'x-amz-checksum-crc32c' received for this
//! API call.").

use super::super::{ErrorKind, Op, Result, StoreError};
use crate::types::{ETag, Key};
use aws_smithy_types::base64;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use md5::{Digest, Md5};
use std::fmt::Write;
use std::sync::atomic::{AtomicU8, Ordering};

/// How the names of all headers about checksums begin.
const HEADERS: &str = "x-amz-checksum";
/// Bodies from this size on are not hashed on a thread that others wait for: MD5 takes 13 ms for 8 MiB.
const LARGE: usize = 256 << 10;

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// What is known of a server.
#[derive(Debug, Default)]
pub(super) struct Checksums {
    /// It takes CRC32C.
    crc: AtomicU8,
    /// Its ETags are MD5s of the bytes.
    etag_is_md5: AtomicU8,
}

/// The checksums of a body that is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// CRC32C in base64.
    pub(super) crc: Option<String>,
    /// MD5 in base64, for Content-MD5.
    pub(super) md5: Option<String>,
    hex: Option<String>,
}

impl Checksums {
    /// Whether CRC32C is asked for: the server takes it, or has not said.
    pub(super) fn takes_crc(&self) -> bool {
        self.crc.load(Ordering::Relaxed) != NO
    }

    /// The server has repeated a CRC, or was asked to and has not, or has refused it.
    pub(super) fn heard(&self, repeated: bool) {
        let answer = if repeated { YES } else { NO };
        if self.crc.compare_exchange(UNKNOWN, answer, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let kind = if repeated { "CRC32C" } else { "MD5" };
            tracing::debug!(checksum = kind, "what is sent carries a checksum");
        }
    }

    /// Sends a request that has a CRC if [`Checksums::takes_crc`] says so when it is made. If the server refuses it for
    /// that, it is sent once more, and none has a CRC from then on.
    ///
    /// # Errors
    /// What the server says to the last one that was sent.
    pub(super) async fn send<T, F: Future<Output = Result<T>>>(&self, request: impl Fn() -> F) -> Result<T> {
        let has_crc = self.takes_crc();
        match request().await {
            Err(error) if has_crc && self.is_refused(&error) => request().await,
            answer => answer,
        }
    }

    /// Whether a request failed because it had a CRC. A server that has repeated one takes them: what it says of one request
    /// does not turn them off for all. Another request may have been told the same before.
    fn is_refused(&self, error: &StoreError) -> bool {
        // The message matters: conditions are refused by the same codes.
        let is_named = matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotImplemented)
            && error.message.to_ascii_lowercase().contains(HEADERS);
        if is_named {
            self.heard(false);
        }
        is_named && !self.takes_crc()
    }

    /// The checksums to send with a body.
    pub(super) async fn of(&self, body: &Bytes) -> Sums {
        if self.takes_crc() {
            let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, body)).unwrap_or_default();
            return Sums { crc: Some(base64::encode(crc.to_be_bytes())), ..Sums::default() };
        }
        let digest = match body.len() {
            0..LARGE => md5(body),
            _ => {
                let body = body.clone();
                tokio::task::spawn_blocking(move || md5(&body)).await.unwrap_or_default()
            }
        };
        let mut hex = String::with_capacity(2 * digest.len());
        digest.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
        Sums { crc: None, md5: Some(base64::encode(digest)), hex: Some(hex) }
    }

    /// Compares what the server answered: the CRC that it repeated, or the ETag where ETags are MD5s.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`]: the server has something else than was sent.
    pub(super) fn check(&self, op: Op, key: &Key, sent: &Sums, crc: Option<&str>, etag: &ETag) -> Result<()> {
        let wrong = |what: &str, theirs: &str, ours: &str| {
            let message = format!("the server has other bytes than were sent: its {what} is {theirs}, and ours {ours}");
            Err(StoreError::new(ErrorKind::Damaged, op, Some(key), message.as_str()))
        };
        if let Some(ours) = &sent.crc {
            self.heard(crc.is_some());
            return match crc {
                Some(theirs) if theirs != ours => wrong("CRC32C", theirs, ours),
                _ => Ok(()),
            };
        }
        let (Some(ours), theirs) = (&sent.hex, etag.as_str().trim_matches('"')) else { return Ok(()) };
        let is_equal = theirs.eq_ignore_ascii_case(ours);
        // The first answer tells what the server's ETags are. It has compared Content-MD5 itself.
        let first = if is_equal { YES } else { NO };
        let known = self.etag_is_md5.compare_exchange(UNKNOWN, first, Ordering::Relaxed, Ordering::Relaxed);
        if known == Err(YES) && !is_equal { wrong("ETag", theirs, ours) } else { Ok(()) }
    }
}

fn md5(body: &[u8]) -> Vec<u8> {
    Md5::digest(body).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::atomic::AtomicUsize;

    /// What B2 says.
    const UNSUPPORTED: &str = "Unsupported header 'X-Amz-Checksum-Crc32c' received for this API call.";

    fn etag(text: &str) -> ETag {
        ETag::parse(text)
    }

    #[tokio::test]
    async fn a_server_that_repeats_the_crc_is_held_to_it() {
        let (sums, key) = (Checksums::default(), Key::parse("k").unwrap());
        // RFC 3720, appendix B.4: 32 bytes of zeros have the CRC32C 8a9136aa.
        let sent = sums.of(&Bytes::from_static(&[0; 32])).await;
        assert_eq!((sent.crc.as_deref(), &sent.md5), (Some("ipE2qg=="), &None));
        sums.check(Op::Put, &key, &sent, Some("ipE2qg=="), &etag("x")).unwrap();
        let error = sums.check(Op::Put, &key, &sent, Some("AAAAAA=="), &etag("x")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged);
        sums.check(Op::Put, &key, &sent, None, &etag("x")).unwrap();
        assert!(sums.takes_crc(), "once heard, a missing one says nothing");
    }

    #[tokio::test]
    async fn others_get_an_md5_and_their_etag_is_compared_if_it_is_one() {
        let (sums, key) = (Checksums::default(), Key::parse("k").unwrap());
        let first = sums.of(&Bytes::from_static(b"abc")).await;
        sums.check(Op::Put, &key, &first, None, &etag("anything")).unwrap();
        let sent = sums.of(&Bytes::from_static(b"abc")).await;
        assert_eq!((&sent.crc, sent.md5.as_deref()), (&None, Some("kAFQmDzST7DWlj99KOF/cg==")));
        let (right, wrong) =
            (etag("\"900150983cd24fb0d6963f7d28e17f72\""), etag("\"900150983cd24fb0d6963f7d28e17f73\""));
        sums.check(Op::Put, &key, &sent, None, &right).unwrap();
        assert_eq!(sums.check(Op::Put, &key, &sent, None, &wrong).unwrap_err().kind, ErrorKind::Damaged);
        let other = Checksums::default();
        other.heard(false);
        other.check(Op::Put, &key, &sent, None, &wrong).unwrap();
        other.check(Op::Put, &key, &sent, None, &right).unwrap();
    }

    /// How often a request is sent to a server that says so to each with a CRC, and what comes of it.
    async fn sent(sums: &Checksums, kind: ErrorKind, message: &str) -> (usize, Result<()>) {
        let count = AtomicUsize::new(0);
        let request = || {
            count.fetch_add(1, Ordering::Relaxed);
            let refusal = StoreError::new(kind, Op::Put, None, message);
            ready(if sums.takes_crc() { Err(refusal) } else { Ok(()) })
        };
        let answer = sums.send(request).await;
        (count.load(Ordering::Relaxed), answer)
    }

    #[tokio::test]
    async fn what_is_refused_for_its_crc_is_sent_once_more_without_and_all_others_have_none() {
        for kind in [ErrorKind::Invalid, ErrorKind::NotImplemented] {
            let sums = Checksums::default();
            let (count, answer) = sent(&sums, kind, UNSUPPORTED).await;
            answer.unwrap();
            assert_eq!((count, sums.takes_crc()), (2, false), "{kind:?}");
            assert!(sums.of(&Bytes::from_static(b"abc")).await.md5.is_some());
            assert_eq!(sent(&sums, kind, UNSUPPORTED).await.0, 1, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn what_another_request_was_told_meanwhile_counts_as_well() {
        let (sums, count) = (Checksums::default(), AtomicUsize::new(0));
        let request = || {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            sums.heard(false);
            ready(if is_first { Err(StoreError::new(ErrorKind::Invalid, Op::Put, None, UNSUPPORTED)) } else { Ok(()) })
        };
        sums.send(request).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn only_a_refusal_that_names_checksums_turns_them_off_and_only_where_none_was_repeated() {
        let sums = Checksums::default();
        let about_others = [
            (ErrorKind::NotImplemented, "A header you provided implies functionality that is not implemented"),
            (ErrorKind::Invalid, "Unsupported header 'if-none-match' received for this API call."),
            (ErrorKind::Server, UNSUPPORTED),
        ];
        for (kind, message) in about_others {
            let (count, answer) = sent(&sums, kind, message).await;
            assert_eq!((count, answer.unwrap_err().kind, sums.takes_crc()), (1, kind, true), "{message}");
        }
        sums.heard(true);
        let (count, answer) = sent(&sums, ErrorKind::Invalid, UNSUPPORTED).await;
        assert_eq!((count, answer.unwrap_err().kind, sums.takes_crc()), (1, ErrorKind::Invalid, true));
    }
}
