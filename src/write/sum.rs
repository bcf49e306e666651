//! The sum of its bytes that an object of one PUT carries.
//!
//! Owns: computing it, and putting it among the headers. Does not own: its text, and of which versions it is true (`types`).

use crate::store::ObjectHeaders;
use crate::types::ContentSum;
use bytes::Bytes;
use md5::{Digest, Md5};
use sha2::Sha256;

/// Bodies from this size on are not hashed on a thread that others wait for: MD5 takes 13 ms for 8 MiB.
const LARGE: usize = 256 << 10;

/// The headers with the sum of `body` instead of any other one, if they then have no more than `max` bytes of user metadata.
pub(super) async fn with_sum(mut headers: ObjectHeaders, body: &Bytes, max: usize) -> ObjectHeaders {
    headers.user.remove(ContentSum::HEADER);
    let Some(sum) = sum_of(body).await else { return headers };
    headers.user.insert(ContentSum::HEADER.to_owned(), sum.to_string());
    headers.fitting(max)
}

/// `None` while the program ends.
async fn sum_of(body: &Bytes) -> Option<ContentSum> {
    let size = body.len() as u64;
    if body.len() < LARGE {
        return Some(ContentSum::new(&sha256(body), &md5(body), size));
    }
    let (first, second) = (body.clone(), body.clone());
    let (sha256, md5) = tokio::join!(
        tokio::task::spawn_blocking(move || sha256(&first)),
        tokio::task::spawn_blocking(move || md5(&second)),
    );
    Some(ContentSum::new(&sha256.ok()?, &md5.ok()?, size))
}

fn sha256(body: &[u8]) -> Vec<u8> {
    Sha256::digest(body).to_vec()
}

fn md5(body: &[u8]) -> Vec<u8> {
    Md5::digest(body).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sum_is_that_of_the_bytes_whatever_their_number() {
        let headers = with_sum(ObjectHeaders::default(), &Bytes::from_static(b"abc"), 2048).await;
        // FIPS 180-2, appendix B.1; RFC 1321, appendix A.5.
        let expected =
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3 900150983cd24fb0d6963f7d28e17f72";
        assert_eq!(headers.user[ContentSum::HEADER], expected);
        let large = Bytes::from(vec![7; LARGE]);
        let again = with_sum(headers, &large, 2048).await;
        let sum = ContentSum::new(&sha256(&large), &md5(&large), LARGE as u64);
        assert_eq!(again.user[ContentSum::HEADER], sum.to_string(), "in the place of the other one");
        let full = with_sum(again, &large, 100).await;
        assert_eq!(full.user.get(ContentSum::HEADER), None);
    }
}
