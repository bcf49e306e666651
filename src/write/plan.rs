//! How the bytes of a file become an object. Pure.
//!
//! Owns: one PUT or a multipart upload, and the size of parts. Does not own: doing it (`commit`).

use crate::store::Capabilities;
use crate::types::ByteRange;

/// Up to this size an object is one PUT: below it a multipart upload only adds requests.
const PUT_SIZE_MAX: u64 = 16 << 20;
/// Smallest part that we send: large enough to hide the round trip, small enough for several in memory.
const PART_SIZE_MIN: u64 = 8 << 20;

/// How to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One PutObject.
    Put,
    /// A multipart upload of these ranges, in order.
    Multipart(Vec<ByteRange>),
}

/// The file is larger than the store takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is larger than the {0} bytes that the store takes")]
pub struct TooLarge(pub u64);

/// Plans the upload of `size` bytes to a store with these limits: as one PUT up to 16 MiB, else in parts of one size.
///
/// # Errors
/// [`TooLarge`].
pub fn plan_upload(size: u64, capabilities: &Capabilities) -> Result<Plan, TooLarge> {
    let parts_max = u64::from(capabilities.part_count_max);
    let size_max = capabilities.object_size_max.min(capabilities.part_size_max.saturating_mul(parts_max));
    if size > size_max {
        return Err(TooLarge(size_max));
    }
    if size <= PUT_SIZE_MAX.min(capabilities.put_size_max) {
        return Ok(Plan::Put);
    }
    // Whole MiB, so that parts and blocks meet; as many parts as the store allows for the largest files.
    let part_size = size
        .div_ceil(parts_max)
        .next_multiple_of(1 << 20)
        .clamp(PART_SIZE_MIN.max(capabilities.part_size_min), capabilities.part_size_max);
    let parts = (0..size.div_ceil(part_size))
        .filter_map(|i| ByteRange::new(i * part_size, size.min((i + 1) * part_size)))
        .collect();
    Ok(Plan::Multipart(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_files_are_one_put() {
        assert_eq!(plan_upload(0, &Capabilities::default()), Ok(Plan::Put));
        assert_eq!(plan_upload(16 << 20, &Capabilities::default()), Ok(Plan::Put));
    }

    proptest! {
        /// Parts cover the file without gap, within every limit of the store, up to 5 TiB.
        #[test]
        fn prop_parts_cover_the_file(size in 0u64..(6 << 40), count in prop::sample::select(vec![1000u16, 10_000])) {
            let caps = Capabilities { part_count_max: count, ..Capabilities::default() };
            match plan_upload(size, &caps) {
                Err(TooLarge(max)) => prop_assert!(size > max),
                Ok(Plan::Put) => prop_assert!(size <= PUT_SIZE_MAX),
                Ok(Plan::Multipart(parts)) => {
                    prop_assert!(parts.len() <= usize::from(count));
                    prop_assert_eq!(parts.first().map(|p| p.start()), Some(0));
                    prop_assert_eq!(parts.last().map(|p| p.end()), Some(size));
                    prop_assert!(parts.windows(2).all(|w| w[0].end() == w[1].start() && w[0].len() == parts[0].len()));
                    prop_assert!(parts[0].len() >= caps.part_size_min && parts[0].len() <= caps.part_size_max);
                }
            }
        }
    }
}
