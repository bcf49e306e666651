//! Generated objects: keys and bodies that are computed and never stored.
//!
//! Owns: the description of a set of generated objects, the order of its keys, the search in it, ETags and bodies.
//! Does not own: what happens when somebody writes to such a key (`index`: the write is kept and hides the generated
//! object; a delete leaves a mark that hides it, too).

use super::body::{Body, Piece};
use super::record::{Headers, Object, hex};
use md5::{Digest, Md5};
use std::ops::Bound;

/// When generated objects were last modified: 2026-01-01T00:00:00Z.
const MODIFIED: i64 = 1_767_225_600;
/// Fewest digits of the numbers in a key.
const DIGITS_MIN: usize = 6;

/// A set of generated objects, `PREFIXd000012/f000345`, each of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// How many objects.
    pub count: u64,
    /// How many objects each directory has; 0 puts all of them directly below the prefix.
    pub fanout: u64,
    /// Bytes in each object.
    pub size: u64,
    /// What every key starts with.
    pub prefix: String,
    /// The bucket; `None` is the first one of the settings.
    pub bucket: Option<String>,
}

/// Why a description of generated objects cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("synthetic objects: {0}")]
pub struct SyntheticError(String);

impl Synthetic {
    /// Reads descriptions such as `count=1000000,fanout=1000,size=4096,prefix=synthetic/`, several separated by `;`.
    /// Only `count` is required. Sizes may end in `KiB`, `MiB` or `GiB`; `bucket=` names a bucket.
    ///
    /// # Errors
    /// What is wrong with the description.
    pub fn parse_list(text: &str) -> Result<Vec<Synthetic>, SyntheticError> {
        text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(Synthetic::parse).collect()
    }

    fn parse(text: &str) -> Result<Synthetic, SyntheticError> {
        let mut set = Synthetic { count: 0, fanout: 1000, size: 4096, prefix: "synthetic/".to_owned(), bucket: None };
        for pair in text.split(',') {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| SyntheticError(format!("{pair:?} is not of the form name=value")))?;
            match name.trim() {
                "count" => set.count = number(value)?,
                "fanout" => set.fanout = number(value)?,
                "size" => set.size = number(value)?,
                "prefix" => set.prefix = value.to_owned(),
                "bucket" => set.bucket = Some(value.to_owned()),
                other => return Err(SyntheticError(format!("there is no setting {other:?}"))),
            }
        }
        if set.count == 0 {
            return Err(SyntheticError(format!("{text:?} has no count")));
        }
        if set.key(set.count - 1).len() > 1024 {
            return Err(SyntheticError("the keys would be longer than 1,024 bytes".to_owned()));
        }
        Ok(set)
    }

    /// How many digits directories' and files' numbers have.
    fn digits(&self) -> (usize, usize) {
        let width = |n: u64| n.saturating_sub(1).to_string().len().max(DIGITS_MIN);
        match self.fanout {
            0 => (0, width(self.count)),
            fanout => (width(self.count.div_ceil(fanout)), width(fanout)),
        }
    }

    /// The key of object number `i`; keys sort as their numbers do.
    pub(super) fn key(&self, i: u64) -> String {
        let (d, f) = self.digits();
        match self.fanout {
            0 => format!("{}f{i:0f$}", self.prefix),
            fanout => format!("{}d{:0d$}/f{:0f$}", self.prefix, i / fanout, i % fanout),
        }
    }

    /// The number of the object with this key.
    pub(super) fn number_of(&self, key: &str) -> Option<u64> {
        let rest = key.strip_prefix(&self.prefix)?;
        let i = match self.fanout {
            0 => rest.strip_prefix('f')?.parse().ok()?,
            fanout => {
                let (d, f) = rest.strip_prefix('d')?.split_once("/f")?;
                d.parse::<u64>().ok()?.checked_mul(fanout)?.checked_add(f.parse().ok()?)?
            }
        };
        (i < self.count && self.key(i) == key).then_some(i)
    }

    /// The number of the first object at or after `from`.
    pub(super) fn seek(&self, from: Bound<&str>) -> Option<u64> {
        let i = match from {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.number_of(key).unwrap_or_else(|| self.search(key)),
            Bound::Excluded(key) => self.number_of(key).map_or_else(|| self.search(key), |i| i + 1),
        };
        (i < self.count).then_some(i)
    }

    /// How many keys are less than `key`.
    fn search(&self, key: &str) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle).as_str() < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The object with this key.
    pub(super) fn object(&self, key: &str) -> Object {
        let sum: [u8; 16] = Md5::digest(format!("{key}\0{}", self.size)).into();
        let shift = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
        Object {
            etag: hex(&sum),
            modified: MODIFIED,
            size: self.size,
            headers: Headers::default(),
            checksum: None,
            body: Body::from(Piece::Pattern { shift, offset: 0, len: self.size }),
        }
    }
}

fn number(text: &str) -> Result<u64, SyntheticError> {
    let text = text.trim();
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let parsed = units.into_iter().find_map(|(unit, factor)| {
        text.strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok()?.checked_mul(factor))
    });
    parsed.ok_or_else(|| SyntheticError(format!("{text:?} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions() {
        let sets =
            Synthetic::parse_list("count=1000000,fanout=1000,size=4096,prefix=synthetic/; count=1,size=1GiB,prefix=b")
                .unwrap();
        assert_eq!(sets[0].key(123_456), "synthetic/d000123/f000456");
        assert_eq!(sets[1].size, 1 << 30);
        assert!(Synthetic::parse_list("size=3").is_err());
        assert!(Synthetic::parse_list("count=1,colour=red").is_err());
    }

    #[test]
    fn keys_sort_as_numbers_and_are_found() {
        for spec in ["count=2500,fanout=7", "count=2500,fanout=0", "count=12,fanout=3000000"] {
            let set = &Synthetic::parse_list(spec).unwrap()[0];
            for i in 0..set.count {
                let key = set.key(i);
                assert!(i == 0 || set.key(i - 1) < key);
                assert_eq!(set.number_of(&key), Some(i));
                assert_eq!(set.seek(Bound::Included(&key)), Some(i));
                assert_eq!(set.seek(Bound::Excluded(&format!("{key}x"))), (i + 1 < set.count).then_some(i + 1));
            }
            assert_eq!(set.seek(Bound::Unbounded), Some(0));
            assert_eq!(set.seek(Bound::Included("zzz")), None);
            assert_eq!(set.number_of("synthetic/d1/f1"), None);
        }
    }

    #[test]
    fn etags_depend_on_key_and_size() {
        let sets = Synthetic::parse_list("count=2,size=1;count=2,size=2").unwrap();
        let key = sets[0].key(0);
        assert_ne!(sets[0].object(&key).etag, sets[0].object(&sets[0].key(1)).etag);
        assert_ne!(sets[0].object(&key).etag, sets[1].object(&key).etag);
        assert_eq!(sets[0].object(&key).etag, sets[0].object(&key).etag);
    }
}
