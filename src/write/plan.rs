//! How the bytes of a file become an object. Pure.
//!
//! Owns: one PUT, a copy or a multipart upload; where its parts lie; which of them the bucket can copy from the version
//! before. Does not own: doing it (`commit`).

use super::content::Content;
use crate::store::Capabilities;
use crate::types::{ByteRange, Key, ObjectRef};

/// Up to this size an object is one PUT: below it a multipart upload only adds requests.
const PUT_SIZE_MAX: u64 = 16 << 20;
/// Smallest part that we send: large enough to hide the round trip, small enough for several in memory.
const PART_SIZE_MIN: u64 = 8 << 20;
/// Parts of one size while a file of unknown size is written, to stores that want equal parts: a compromise between the
/// memory that a part takes and the size that fits.
const EQUAL_PART_SIZE: u64 = 16 << 20;
/// Largest part that is copied by the bucket: fewer requests for large files, several at once all the same.
const COPY_SIZE_MAX: u64 = 128 << 20;
/// Part sizes that a file of unknown size goes through, each twice the one before: with 8 MiB first, 10,000 parts hold 7.8 TiB.
const TIERS: u16 = 10;

/// How to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One PutObject.
    Put,
    /// A multipart upload in these parts.
    Multipart(Layout),
}

/// Where the parts of an upload lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Size of the first part, in bytes.
    first: u64,
    /// After how many parts the size doubles. `None` for parts of one size.
    tier: Option<u16>,
}

impl Layout {
    /// The layout for a file whose size is not known yet.
    pub fn growing(capabilities: &Capabilities) -> Layout {
        if capabilities.parts_equal {
            let first = EQUAL_PART_SIZE.clamp(capabilities.part_size_min, capabilities.part_size_max);
            return Layout { first, tier: None };
        }
        let first = PART_SIZE_MIN.clamp(capabilities.part_size_min, capabilities.part_size_max);
        Layout { first, tier: Some((capabilities.part_count_max / TIERS).max(1)) }
    }

    /// The range of the part with this number, from 1. `None` if it lies beyond all bounds.
    pub fn range(&self, number: u16) -> Option<ByteRange> {
        let index = u64::from(number.max(1) - 1);
        let (start, size) = match self.tier.map(u64::from) {
            None => (index * self.first, self.first),
            Some(tier) => {
                let level = (index / tier).min(32);
                let size = self.first << level;
                // Before it: `tier` parts of each size below, which is tier * first * (2^level - 1).
                (tier * self.first * ((1 << level) - 1) + (index - level * tier) * size, size)
            }
        };
        ByteRange::at(start, size)
    }

    /// The parts of a file of `size` bytes, cut at its end.
    pub fn parts(&self, size: u64) -> impl Iterator<Item = (u16, ByteRange)> + use<> {
        let layout = *self;
        (1..=u16::MAX).map_while(move |number| {
            let range = layout.range(number)?;
            Some((number, ByteRange::new(range.start(), range.end().min(size))?))
        })
    }

    /// Whether a file of `size` bytes fits into the store's limits so.
    pub fn fits(&self, size: u64, capabilities: &Capabilities) -> bool {
        let last = self.range(capabilities.part_count_max).map_or(0, ByteRange::end);
        size <= last && self.parts(size).all(|(_, part)| part.len() <= capabilities.part_size_max)
    }
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
    let first = size
        .div_ceil(parts_max)
        .next_multiple_of(1 << 20)
        .clamp(PART_SIZE_MIN.max(capabilities.part_size_min), capabilities.part_size_max);
    Ok(Plan::Multipart(Layout { first, tier: None }))
}

/// A part of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartPlan {
    pub(super) number: u16,
    pub(super) range: ByteRange,
    /// Nothing of it differs from the version before, which has the same key: the bucket can copy it.
    pub(super) is_copy: bool,
}

/// What a commit sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Send {
    /// All of it, by one PutObject.
    Put,
    /// Nothing: the file is an object that the bucket has, and which it copies, to itself if only headers have changed.
    Copy(ObjectRef),
    /// An upload of these parts.
    Parts(Layout, Vec<PartPlan>),
}

/// Plans the commit of `content` to `key`; `under_way` is the layout of an upload that has begun already.
///
/// # Errors
/// [`TooLarge`].
pub(super) fn plan_commit(
    content: &Content,
    key: &Key,
    under_way: Option<Layout>,
    capabilities: &Capabilities,
) -> Result<Send, TooLarge> {
    let size = content.size();
    // Of another object's bytes nothing but the condition of the copy would say that they are still those, and some servers
    // do not keep that one. Here the condition of the commit says so too.
    let base = content.base().filter(|base| base.key == *key);
    // Of a copy that is all here, its source may be gone: it is a file like others.
    let is_copy = content.copied().is_some() && !content.missing().is_empty();
    let is_base = |whole: &ObjectRef| content.copied().is_none() && whole.key == *key;
    if let Some(whole) = content.whole().filter(|whole| is_copy || is_base(whole)) {
        return Ok(Send::Copy(whole.clone()));
    }
    let layout = match plan_upload(size, capabilities)? {
        Plan::Put => return Ok(Send::Put),
        Plan::Multipart(layout) => under_way.filter(|known| known.fits(size, capabilities)).unwrap_or(layout),
    };
    let clean_len = if base.is_some() && content.copied().is_none() { content.base_len() } else { 0 };
    let part = |(number, range): (u16, ByteRange)| {
        let is_clean = range.end() <= clean_len && content.dirty().overlaps(range).is_empty();
        PartPlan { number, range, is_copy: is_clean && range.len() >= capabilities.part_size_min }
    };
    let parts = layout.parts(size).map(part).collect();
    Ok(Send::Parts(layout, if capabilities.parts_equal { parts } else { with_large_copies(parts) }))
}

/// The same parts, those next to each other that are copied made one.
fn with_large_copies(parts: Vec<PartPlan>) -> Vec<PartPlan> {
    let mut out: Vec<PartPlan> = Vec::with_capacity(parts.len());
    for part in parts {
        match out.last_mut() {
            Some(last) if last.is_copy && part.is_copy && last.range.len() + part.range.len() <= COPY_SIZE_MAX => {
                last.range = last.range.through(part.range);
            }
            _ => out.push(part),
        }
    }
    (1..).zip(out).map(|(number, part)| PartPlan { number, ..part }).collect()
}

/// What of the base has to be here before `send` can begin.
pub(super) fn needed(send: &Send, missing: &[ByteRange]) -> Vec<ByteRange> {
    match send {
        Send::Put => missing.to_vec(),
        Send::Copy(_) => Vec::new(),
        Send::Parts(_, parts) => {
            let sent = parts.iter().filter(|part| !part.is_copy);
            sent.flat_map(|part| missing.iter().filter_map(|gap| gap.intersect(part.range))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, RangeSet, Version};
    use proptest::prelude::*;

    #[test]
    fn small_files_are_one_put() {
        assert_eq!(plan_upload(0, &Capabilities::default()), Ok(Plan::Put));
        assert_eq!(plan_upload(16 << 20, &Capabilities::default()), Ok(Plan::Put));
    }

    #[test]
    fn what_nobody_touched_is_copied_in_large_parts() {
        let mib = |a: u64, b: u64| ByteRange::new(a << 20, b << 20).unwrap();
        let key = Key::parse("k").unwrap();
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 400 << 20 };
        let base = ObjectRef { key: key.clone(), version };
        let mut content = Content::new(Some(base.clone()));
        let caps = Capabilities::default();
        assert_eq!(plan_commit(&content, &key, None, &caps), Ok(Send::Copy(base)));
        content.on_write(mib(201, 202));
        content.on_write(mib(400, 401));
        let of = |key: &Key, caps: &Capabilities| match plan_commit(&content, key, None, caps) {
            Ok(send @ Send::Parts(..)) => send,
            other => panic!("{other:?}"),
        };
        let send = of(&key, &caps);
        let Send::Parts(_, parts) = &send else { unreachable!() };
        let plan: Vec<_> = parts.iter().map(|p| (p.number, p.range, p.is_copy)).collect();
        let expected = [
            (1, mib(0, 128), true),
            (2, mib(128, 200), true),
            (3, mib(200, 208), false),
            (4, mib(208, 336), true),
            (5, mib(336, 400), true),
            (6, mib(400, 401), false),
        ];
        assert_eq!(plan, expected);
        assert_eq!(needed(&send, &content.missing()), [mib(200, 201), mib(202, 208)]);
        let elsewhere = of(&Key::parse("other").unwrap(), &caps);
        let all: RangeSet = needed(&elsewhere, &content.missing()).into_iter().collect();
        assert_eq!(all, content.missing().into_iter().collect(), "nothing is copied from another key");
        let Send::Parts(_, equal) = of(&key, &Capabilities { parts_equal: true, ..caps }) else { unreachable!() };
        assert!(equal.len() == 51 && equal.iter().filter(|p| !p.is_copy).count() == 2, "{equal:?}");
    }

    proptest! {
        /// Parts cover the file without gap, within every limit of the store, up to 5 TiB, be its size known or not.
        #[test]
        fn prop_parts_cover_the_file(size in 0u64..(6 << 40), count in prop::sample::select(vec![1000u16, 10_000])) {
            let caps = Capabilities { part_count_max: count, ..Capabilities::default() };
            let growing = Layout::growing(&caps);
            // 10,000 parts hold what S3 takes.
            prop_assert!(count < 10_000 || size > 5 << 40 || growing.fits(size, &caps));
            let layout = match plan_upload(size, &caps) {
                Err(TooLarge(max)) => { prop_assert!(size > max); return Ok(()) }
                Ok(Plan::Put) => { prop_assert!(size <= PUT_SIZE_MAX); return Ok(()) }
                Ok(Plan::Multipart(layout)) => layout,
            };
            prop_assert!(layout.fits(size, &caps));
            let sizes: Vec<_> = layout.parts(size).map(|(_, p)| p.len()).collect();
            prop_assert!(sizes[..sizes.len() - 1].iter().all(|len| *len == sizes[0]), "of one size");
            for layout in [Some(layout), Some(growing).filter(|g| g.fits(size, &caps))].into_iter().flatten() {
                let parts: Vec<_> = layout.parts(size).collect();
                prop_assert!(parts.len() <= usize::from(count));
                prop_assert_eq!(parts[0].1.start(), 0);
                prop_assert_eq!(parts.last().map(|(_, p)| p.end()), Some(size));
                prop_assert!(parts.windows(2).all(|w| w[0].1.end() == w[1].1.start() && w[0].0 + 1 == w[1].0));
                let all_but_last = &parts[..parts.len() - 1];
                prop_assert!(all_but_last.iter().all(|(_, p)| p.len() >= caps.part_size_min && p.len() <= caps.part_size_max));
            }
        }
    }
}
