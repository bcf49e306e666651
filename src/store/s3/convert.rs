//! From the SDK's answers to ours.
//!
//! Owns: versions, headers, ranges and keys as the answers spell them. Does not own: requests (`ops`), errors (`error`).

use super::super::{ErrorKind, InvalidKey, ListPage, ListedObject, ObjectHeaders, ObjectMeta, Op, Result, StoreError};
use super::encoding::{parse_header_value, url_decode};
use super::error;
use crate::types::{ByteRange, ETag, Key, Timestamp, Unmappable, Version};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::EncodingType;
use aws_smithy_types::body::Error as BodyError;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body::Body;
use http_body_util::BodyExt;
use std::collections::{BTreeMap, HashMap};

/// A time as the SDK gives it.
pub(super) fn timestamp(time: &DateTime) -> Timestamp {
    Timestamp::from_parts(time.secs(), time.subsec_nanos())
}

/// The ETag of an answer, which every answer about an object has.
pub(super) fn etag(op: Op, key: &Key, etag: Option<&str>) -> Result<ETag> {
    let missing = || StoreError::new(ErrorKind::Corrupt, op, Some(key), "the answer has no ETag");
    etag.map(ETag::parse).ok_or_else(missing)
}

/// A size as the SDK gives it.
pub(super) fn size(op: Op, key: &Key, size: Option<i64>) -> Result<u64> {
    let missing = || StoreError::new(ErrorKind::Corrupt, op, Some(key), "the answer has no valid size");
    size.and_then(|s| u64::try_from(s).ok()).ok_or_else(missing)
}

fn user_metadata(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    let entries = metadata.into_iter().flatten();
    entries.map(|(name, value)| (name.to_ascii_lowercase(), parse_header_value(value))).collect()
}

/// HEAD and GET have the same fields, but no common type.
macro_rules! headers_of {
    ($answer:expr) => {
        ObjectHeaders {
            content_type: $answer.content_type().map(str::to_owned),
            cache_control: $answer.cache_control().map(str::to_owned),
            content_disposition: $answer.content_disposition().map(str::to_owned),
            content_encoding: $answer.content_encoding().map(str::to_owned),
            content_language: $answer.content_language().map(str::to_owned),
            storage_class: $answer.storage_class().map(|class| class.as_str().to_owned()),
            user: user_metadata($answer.metadata()),
        }
    };
}

/// What a HEAD tells.
pub(super) fn head(key: &Key, answer: &HeadObjectOutput) -> Result<ObjectMeta> {
    Ok(ObjectMeta {
        version: Version {
            etag: etag(Op::Head, key, answer.e_tag())?,
            last_modified: answer.last_modified().map(timestamp),
            // Some servers leave Content-Length out of the HEAD of an empty object.
            size: size(Op::Head, key, Some(answer.content_length().unwrap_or(0)))?,
        },
        headers: headers_of!(answer),
        version_id: answer.version_id().map(str::to_owned),
    })
}

/// What the headers of a GET tell: the object, and the range that follows.
pub(super) fn get(
    key: &Key,
    asked: Option<ByteRange>,
    answer: &GetObjectOutput,
) -> Result<(ObjectMeta, Option<ByteRange>)> {
    let (size, range) = following(key, asked, answer.content_range(), answer.content_length())?;
    let version = Version {
        etag: etag(Op::Get, key, answer.e_tag())?,
        last_modified: answer.last_modified().map(timestamp),
        size,
    };
    let meta = ObjectMeta { version, headers: headers_of!(answer), version_id: answer.version_id().map(str::to_owned) };
    Ok((meta, range))
}

/// The size of the object, and the range of it that follows, which must be what was asked for.
pub(super) fn following(
    key: &Key,
    asked: Option<ByteRange>,
    content_range: Option<&str>,
    content_length: Option<i64>,
) -> Result<(u64, Option<ByteRange>)> {
    let corrupt = |message: &str| StoreError::new(ErrorKind::Corrupt, Op::Get, Some(key), message);
    let (size, range) = match content_range {
        Some(header) => {
            let (range, size) = parse_range(header).ok_or_else(|| corrupt("Content-Range cannot be understood"))?;
            (size, Some(range))
        }
        None => {
            let size = size(Op::Get, key, content_length)?;
            (size, ByteRange::new(0, size))
        }
    };
    let expected = match asked {
        None => ByteRange::new(0, size),
        Some(asked) => ByteRange::new(0, size).and_then(|whole| whole.intersect(asked)),
    };
    if range != expected {
        return Err(corrupt("the answer has another range than was asked for"));
    }
    if asked.is_some() && range.is_none() {
        return Err(StoreError::new(ErrorKind::InvalidRange, Op::Get, Some(key), "the range begins past the end"));
    }
    Ok((size, range))
}

/// The bytes of a GET, checked against the announced length.
pub(super) fn body<B>(key: &Key, body: B, range: Option<ByteRange>) -> BoxStream<'static, Result<Bytes>>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    let state = Some((body, key.clone(), range.map_or(0, ByteRange::len)));
    let bytes = stream::unfold(state, |state| async move {
        let (mut body, key, mut left) = state?;
        let broken = |kind, message| StoreError::new(kind, Op::Get, Some(&key), message);
        let next = loop {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => break Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Some(Err(e)) => break Some(Err(e)),
                None => break None,
            }
        };
        let error = match next {
            Some(Ok(bytes)) if bytes.len() as u64 <= left => {
                left -= bytes.len() as u64;
                return Some((Ok(bytes), Some((body, key, left))));
            }
            Some(Ok(_)) => broken(ErrorKind::Corrupt, "the body is longer than announced"),
            Some(Err(e)) => error::from_body(&key, e),
            None if left > 0 => broken(ErrorKind::Broken, "the body is shorter than announced"),
            None => return None,
        };
        Some((Err(error), None))
    });
    bytes.boxed()
}

/// `bytes 0-9/100`: the range, and the size of the whole.
fn parse_range(header: &str) -> Option<(ByteRange, u64)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((ByteRange::new(first.parse().ok()?, end)?, size.parse().ok()?))
}

/// A key of a listing. `encoded`: whether the server says that it encoded its keys.
///
/// # Errors
/// What is no key, and why.
pub(super) fn listed_key(key: &str, encoded: bool) -> Result<Key, InvalidKey> {
    let not_utf8 = |bytes| InvalidKey { text: key.to_owned(), bytes, why: Unmappable::NotUtf8, size: 0 };
    let text = if encoded { url_decode(key).map_err(not_utf8)? } else { key.to_owned() };
    Key::parse(&text).map_err(|_| {
        let bytes = text.clone().into_bytes();
        InvalidKey { text, bytes, why: Unmappable::LongKey, size: 0 }
    })
}

/// Whether the server says that it encoded its keys; some ignore the request to do so.
pub(super) fn is_encoded(encoding: Option<&EncodingType>) -> bool {
    encoding == Some(&EncodingType::Url)
}

/// A page of a listing.
pub(super) fn page(prefix: &Key, answer: &ListObjectsV2Output) -> Result<ListPage> {
    let encoded = is_encoded(answer.encoding_type());
    let mut page = ListPage { next: answer.next_continuation_token().map(str::to_owned), ..ListPage::default() };
    for object in answer.contents() {
        // What has no key cannot be asked for.
        let Some(key) = object.key() else { continue };
        let key = match listed_key(key, encoded) {
            Ok(key) => key,
            Err(invalid) => {
                let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                page.invalid.push(InvalidKey { size, ..invalid });
                continue;
            }
        };
        let version = Version {
            // Servers whose listings have no ETags exist; a HEAD then tells.
            etag: ETag::parse(object.e_tag().unwrap_or_default()),
            last_modified: object.last_modified().map(timestamp),
            size: size(Op::List, &key, object.size())?,
        };
        let storage_class = object.storage_class().map(|class| class.as_str().to_owned());
        page.objects.push(ListedObject { key, version, storage_class });
    }
    for prefix in answer.common_prefixes().iter().filter_map(|common| common.prefix()) {
        match listed_key(prefix, encoded) {
            Ok(key) => page.prefixes.push(key),
            Err(invalid) => page.invalid.push(invalid),
        }
    }
    if answer.is_truncated() != Some(true) {
        page.next = None;
    } else if page.next.is_none() {
        let message = "the listing goes on, but does not say where";
        return Err(StoreError::new(ErrorKind::Corrupt, Op::List, Some(prefix), message));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_range("bytes 0-9/100"), Some((ByteRange::new(0, 10).unwrap(), 100)));
        for bad in ["bytes */100", "bytes 5-4/100", "bytes 0-9/*", "0-9/100"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_that_are_none_are_kept_apart() {
        let long = aws_sdk_s3::types::Object::builder().key("x".repeat(1025)).size(1).build();
        let latin = aws_sdk_s3::types::CommonPrefix::builder().prefix("caf%E9/").build();
        let good = aws_sdk_s3::types::Object::builder().key("a+b").size(1).e_tag("x").build();
        let answer = |encoding: Option<EncodingType>| {
            let builder = ListObjectsV2Output::builder().contents(long.clone()).contents(good.clone());
            let builder = builder.common_prefixes(latin.clone());
            page(&Key::root(), &builder.set_encoding_type(encoding).build()).unwrap()
        };
        let encoded = answer(Some(EncodingType::Url));
        assert_eq!(encoded.objects[0].key.as_str(), "a b");
        let invalid: Vec<_> = encoded.invalid.iter().map(|key| (key.text.len(), key.why, key.size)).collect();
        assert_eq!(invalid, [(1025, Unmappable::LongKey, 1), (7, Unmappable::NotUtf8, 0)]);
        assert_eq!(encoded.invalid[1].bytes, b"caf\xe9/");
        let plain = answer(None);
        assert_eq!((plain.objects[0].key.as_str(), plain.prefixes[0].as_str()), ("a+b", "caf%E9/"));
        assert_eq!(plain.invalid.len(), 1);
    }
}
