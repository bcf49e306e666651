//! The SHA-256 of an object's bytes, as its metadata carries it.
//!
//! Owns: the text, and of which versions it is true. Does not own: computing it (`write`), who is told (`fs`).

use super::Version;
use std::fmt;

/// The SHA-256 of an object's bytes, beside what tells whether the object still has these bytes: how many they are, and the MD5
/// that S3 gives an object of one PUT as its ETag ("Common response headers" in the S3 API reference). Whoever rewrites the
/// object elsewhere may copy the metadata along; the sum is then that of other bytes, and the ETag shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentSum {
    sha256: String,
    size: u64,
    md5: String,
}

impl ContentSum {
    /// Name of the user metadata entry that carries it.
    pub const HEADER: &'static str = "objfs-sha256";

    /// From both sums of `size` bytes.
    pub fn new(sha256: &[u8], md5: &[u8], size: u64) -> ContentSum {
        ContentSum { sha256: hex(sha256), size, md5: hex(md5) }
    }

    /// From the entry's value. `None` for what is no such value.
    pub fn parse(text: &str) -> Option<ContentSum> {
        let mut words = text.split(' ');
        let (sha256, size, md5) = (words.next()?, words.next()?, words.next()?);
        let is_hex = |word: &str, len: usize| word.len() == len && word.bytes().all(|b| b.is_ascii_hexdigit());
        if words.next().is_some() || !is_hex(sha256, 64) || !is_hex(md5, 32) {
            return None;
        }
        Some(ContentSum { sha256: sha256.to_owned(), size: size.parse().ok()?, md5: md5.to_owned() })
    }

    /// The SHA-256 in hexadecimal digits, if it is that of this version. `None` if it cannot be told, as of an object whose ETag
    /// is no MD5.
    pub fn of(&self, version: &Version) -> Option<&str> {
        let is_same = self.size == version.size && self.md5.eq_ignore_ascii_case(version.etag.bare());
        is_same.then_some(&*self.sha256)
    }
}

/// The entry's value.
impl fmt::Display for ContentSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.sha256, self.size, self.md5)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    #[test]
    fn a_sum_is_believed_of_the_bytes_that_it_was_made_of_only() {
        let sum = ContentSum::new(&[0xab; 32], &[0xcd; 16], 5);
        let text = sum.to_string();
        assert_eq!(text, format!("{} 5 {}", "ab".repeat(32), "cd".repeat(16)));
        let read = ContentSum::parse(&text).unwrap();
        assert_eq!(read, sum);
        let version = |etag: &str, size| Version { etag: ETag::parse(etag), last_modified: None, size };
        assert_eq!(read.of(&version(&"CD".repeat(16), 5)), Some(&*"ab".repeat(32)));
        assert_eq!(read.of(&version(&"cd".repeat(16), 6)), None);
        assert_eq!(read.of(&version(&"ce".repeat(16), 5)), None);
        assert_eq!(read.of(&version(&format!("{}-2", "cd".repeat(16)), 5)), None);
    }

    #[test]
    fn what_is_no_sum_is_none() {
        let (sha256, md5) = ("ab".repeat(32), "cd".repeat(16));
        for text in [
            String::new(),
            sha256.clone(),
            format!("{sha256} 5"),
            format!("{sha256} x {md5}"),
            format!("{md5} 5 {sha256}"),
            format!("{sha256} 5 {md5} "),
        ] {
            assert_eq!(ContentSum::parse(&text), None, "{text:?}");
        }
    }
}
