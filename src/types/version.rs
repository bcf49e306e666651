//! What identifies the bytes of an object: its version.
//!
//! Owns: ETag, Version = (ETag, Last-Modified, size), ObjectRef = key at a version, and the write id that marks our own
//! writes. Does not own: conditions on requests (`store`).

use super::{Key, Timestamp};
use std::fmt;
use std::sync::Arc;

/// An entity tag as the server sent it, quotes included (RFC 9110, section 8.8.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes an ETag from a header or an XML field, and adds the quotes that some servers leave out.
    pub fn parse(etag: &str) -> ETag {
        let quoted = etag.starts_with('"') || etag.starts_with("W/");
        ETag(if quoted { Arc::from(etag) } else { Arc::from(format!("\"{etag}\"")) })
    }

    /// As it goes into a header, with its quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both name the same bytes, by the weak comparison (RFC 9110, section 8.8.3.2): proxies weaken what they pass on.
    pub fn is(&self, other: &ETag) -> bool {
        self.0.trim_start_matches("W/") == other.0.trim_start_matches("W/")
    }

    /// Without the quotes, as `aws s3api` and the catalogue show it.
    pub fn bare(&self) -> &str {
        self.0.trim_matches('"')
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies the bytes and headers of an object. A metadata-only self-copy keeps the ETag of a single-part object,
/// so Last-Modified is a part of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Version {
    /// The entity tag.
    pub etag: ETag,
    /// Last-Modified. `None` after a write of ours, whose answer does not carry it, until a HEAD or LIST tells.
    pub last_modified: Option<Timestamp>,
    /// Size in bytes.
    pub size: u64,
}

impl Version {
    /// Whether both can be the same version: equal, where a Last-Modified not yet known fits any. Compared by the second,
    /// because HEAD answers whole seconds and LIST may answer milliseconds.
    pub fn same(&self, other: &Version) -> bool {
        let times = match (self.last_modified, other.last_modified) {
            (Some(a), Some(b)) => a.secs() == b.secs(),
            _ => true,
        };
        self.etag == other.etag && self.size == other.size && times
    }
}

/// One immutable version of one object: all that the read path needs to fetch bytes that cannot mix versions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectRef {
    /// Where it is.
    pub key: Key,
    /// Which of its versions.
    pub version: Version,
}

/// The id that every write of ours carries as `x-amz-meta-objfs-write`, so that an ambiguous answer can be resolved by a
/// HEAD: if the object carries our id, the write happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WriteId(Arc<str>);

impl WriteId {
    /// Name of the user metadata entry that carries the id.
    pub const HEADER: &'static str = "objfs-write";

    /// One that nothing else has: a UUID of version 4.
    pub fn random() -> WriteId {
        WriteId::new(&uuid::Uuid::new_v4().to_string())
    }

    /// Wraps an id.
    pub fn new(id: &str) -> WriteId {
        WriteId(Arc::from(id))
    }

    /// The id as the header carries it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_gain_their_quotes() {
        assert_eq!(ETag::parse("abc").as_str(), "\"abc\"");
        assert_eq!(ETag::parse("\"abc\"").bare(), "abc");
    }

    #[test]
    fn unknown_last_modified_fits_any_second() {
        let v =
            |lm: Option<i64>| Version { etag: ETag::parse("a"), last_modified: lm.map(Timestamp::from_nanos), size: 1 };
        assert!(v(None).same(&v(Some(5))));
        assert!(v(Some(1_000_000_000)).same(&v(Some(1_999_000_000))));
        assert!(!v(Some(1_000_000_000)).same(&v(Some(2_000_000_000))));
    }
}
