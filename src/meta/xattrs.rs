//! Extended attributes as one entry of an object's user metadata.
//!
//! Owns: the form, which is that of s3fs (src/s3fs.cpp, `parse_xattrs` and `build_xattrs`): `{"NAME":"BASE64","NAME":"BASE64"}`,
//! percent-encoded. s3fs takes names as they are, and would misread those with `"`, `,` or `:`: we escape these, and `%`, once
//! more. Does not own: which attributes there are, and what they mean (`fs::xattr`).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Name of the entry.
pub const HEADER: &str = "xattr";

/// What is encoded. Versions of s3fs differ in what they leave, but all of them decode this. Some wrote a space as `+`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'/');

/// The digits of base64 (RFC 4648, section 4).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The entry's value in an object's user metadata; empty if there is none.
pub fn in_user(user: &BTreeMap<String, String>) -> String {
    user.get(HEADER).cloned().unwrap_or_default()
}

/// Names and values in the entry's value. What makes no sense is left out.
pub fn parse(text: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let text = encoded(text);
    pairs(&text).into_iter().filter_map(|(plain, _)| parse_pair(&plain)).collect()
}

/// The entry's value with `name` set to `value`, or without it. Empty if nothing is left: there is no entry then. All other pairs are
/// spelled as before: whoever has put them there may read them otherwise than we do.
pub fn with(text: &str, name: &[u8], value: Option<&[u8]>) -> String {
    let new = value.map(|value| spelled(name, value));
    let text = encoded(text);
    let named = pairs(&text).into_iter().map(|(plain, spelled)| (parse_pair(&plain).map(|(name, _)| name), spelled));
    let mut kept: Vec<(Option<Vec<u8>>, &str)> = named.filter(|(known, _)| known.as_deref() != Some(name)).collect();
    if let Some(new) = &new {
        let comes_later = |known: &[u8]| known > name;
        let at = kept.iter().position(|(known, _)| known.as_deref().is_some_and(comes_later));
        kept.insert(at.unwrap_or(kept.len()), (None, new.as_str()));
    }
    if kept.is_empty() {
        return String::new();
    }
    let all: Vec<&str> = kept.into_iter().map(|(_, spelled)| spelled).collect();
    format!("%7B{}%7D", all.join("%2C"))
}

/// The entry's value as s3fs spells it: in JSON that nobody has percent-encoded, `+` is a digit of base64, and no space.
fn encoded(text: &str) -> Cow<'_, str> {
    let is_plain = text.trim_start().starts_with('{');
    if is_plain && text.contains('+') { text.replace('+', "%2B").into() } else { text.into() }
}

/// What each pair in the entry's value says, and how it is spelled there.
fn pairs(text: &str) -> Vec<(Vec<u8>, &str)> {
    let bytes = decoded(text);
    let begin = bytes.iter().position(|(byte, _)| *byte == b'{');
    let end = bytes.iter().rposition(|(byte, _)| *byte == b'}');
    let (Some(begin), Some(end)) = (begin, end) else { return Vec::new() };
    let within = bytes.get(begin + 1..end).unwrap_or_default();
    let pair = |pair: &[(u8, Range<usize>)]| {
        let spelled = text.get(pair.first()?.1.start..pair.last()?.1.end)?;
        let plain: Vec<u8> = pair.iter().map(|(byte, _)| *byte).collect();
        (!plain.trim_ascii().is_empty()).then_some((plain, spelled))
    };
    within.split(|(byte, _)| *byte == b',').filter_map(pair).collect()
}

/// The bytes that a percent-encoded text stands for, and where each of them is spelled.
fn decoded(text: &str) -> Vec<(u8, Range<usize>)> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut all, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(first) = bytes.get(at) {
        let (byte, len) = match (*first, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => (((high << 4) | low) as u8, 3),
            (b'+', ..) => (b' ', 1),
            (plain, ..) => (plain, 1),
        };
        all.push((byte, at..at + len));
        at += len;
    }
    all
}

fn parse_pair(pair: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = pair.iter().position(|b| *b == b':')?;
    let (name, value) = (unquoted(&pair[..colon])?, unquoted(&pair[colon + 1..])?);
    if name.is_empty() { None } else { Some((unescaped(name), from_base64(value)?)) }
}

fn unquoted(text: &[u8]) -> Option<&[u8]> {
    text.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// A pair as we write it.
fn spelled(name: &[u8], value: &[u8]) -> String {
    let mut plain = vec![b'"'];
    plain.extend(escaped(name));
    plain.extend_from_slice(b"\":\"");
    plain.extend(to_base64(value).into_bytes());
    plain.push(b'"');
    percent_encode(&plain, ENCODED).to_string()
}

fn escaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'"' | b'%' | b',' | b':' => text.extend(format!("%{byte:02X}").into_bytes()),
            plain => text.push(*plain),
        }
    }
    text
}

/// Undoes [`escaped`]. Any other `%` is one of s3fs' names, and stays.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escape = match (first, tail) {
            (b'%', [b'2', b'2', ..]) => Some(b'"'),
            (b'%', [b'2', b'5', ..]) => Some(b'%'),
            (b'%', [b'2', b'C' | b'c', ..]) => Some(b','),
            (b'%', [b'3', b'A' | b'a', ..]) => Some(b':'),
            _ => None,
        };
        name.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &tail[2..] } else { tail };
    }
    name
}

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for i in 0..4 {
            let digit = DIGITS[((bits >> (18 - 6 * i)) & 0x3f) as usize];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// `None` if there is anything but digits before the padding.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for digit in text.iter().take_while(|digit| **digit != b'=') {
        bits = (bits << 6) | u32::try_from(DIGITS.iter().position(|d| d == digit)?).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(all: &[(&str, &[u8])]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        all.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn what_s3fs_has_written_is_read() {
        let one = "%7B%22user.test%22%3A%22aGVsbG8%3D%22%7D";
        assert_eq!(parse(one), pairs(&[("user.test", b"hello")]));
        let two = "%7B%22system.posix_acl_access%22%3A%22AgAAAA%3D%3D%22%2C%22user.a%22%3A%22eA%3D%3D%22%7D";
        assert_eq!(parse(two), pairs(&[("system.posix_acl_access", &[2, 0, 0, 0]), ("user.a", b"x")]));
        // A space as older versions and as newer ones write it; what they do not encode; and a name that looks escaped.
        assert_eq!(parse("%7B%22user.a+b%22%3A%22eA%3D%3D%22%7D"), pairs(&[("user.a b", b"x")]));
        assert_eq!(parse("%7B%22user.a%20b%22%3A%22eA%3D%3D%22%7D"), pairs(&[("user.a b", b"x")]));
        assert_eq!(parse("%7B%22user.a*~%22%3A%22eA%3D%3D%22%7D"), pairs(&[("user.a*~", b"x")]));
        assert_eq!(parse("%7B%22user.100%25%22%3A%22eA%3D%3D%22%7D"), pairs(&[("user.100%", b"x")]));
        assert_eq!(parse("%7B%22user.plus%22%3A%22%2B%2B8%3D%22%7D"), pairs(&[("user.plus", &[0xfb, 0xef])]));
        // Without attributes, and without values.
        assert_eq!(parse("%7B%7D"), BTreeMap::new());
        assert_eq!(parse("%7B%22user.empty%22%3A%22%22%7D"), pairs(&[("user.empty", b"")]));
        // JSON that somebody else has written.
        assert_eq!(parse("{ \"user.a\": \"eA==\", \"b\": \"eQ==\" }"), pairs(&[("user.a", b"x"), ("b", b"y")]));
    }

    #[test]
    fn nonsense_is_left_out() {
        for text in ["", "none", "%7B", "%7D%7B", "{\"user.a\"}", "{\"user.a\":eA==}", "{\"user.a\":\"?\"}"] {
            assert_eq!(parse(text), BTreeMap::new(), "{text}");
        }
        assert_eq!(parse("{\"\":\"eA==\"}"), BTreeMap::new());
        assert_eq!(parse("{\"user.a\",\"user.b\":\"eA==\"}"), pairs(&[("user.b", b"x")]));
    }

    #[test]
    fn a_plus_in_json_that_nobody_has_encoded_is_one() {
        let plain = " {\"user.k\":\"+/8=\"}";
        assert_eq!(parse(plain), pairs(&[("user.k", &[0xfb, 0xff])]));
        let more = with(plain, b"user.x", Some(b"x"));
        assert_eq!(parse(&more), pairs(&[("user.k", &[0xfb, 0xff]), ("user.x", b"x")]));
    }

    #[test]
    fn what_is_written_is_what_s3fs_would_write() {
        let one = with("", b"user.test", Some(b"hello"));
        assert_eq!(one, "%7B%22user.test%22%3A%22aGVsbG8%3D%22%7D");
        let two = with(&one, b"user.a", Some(b"x"));
        assert_eq!(two, "%7B%22user.a%22%3A%22eA%3D%3D%22%2C%22user.test%22%3A%22aGVsbG8%3D%22%7D");
        assert_eq!(with(&two, b"user.a", None), one);
        assert_eq!(with(&one, b"user.test", None), "");
        assert_eq!(with(&one, b"user.none", None), one);
        let odd = with("", b"user.a,b:\"c\"%3A", Some(b"x"));
        assert_eq!(odd, "%7B%22user.a%252Cb%253A%2522c%2522%25253A%22%3A%22eA%3D%3D%22%7D");
        assert_eq!(parse(&odd), pairs(&[("user.a,b:\"c\"%3A", b"x")]));
    }

    #[test]
    fn pairs_that_are_not_changed_keep_their_spelling() {
        let theirs = ["%22user.100%25%22%3A%22eA%3D%3D%22", "%22user.a+b*~%22%3a%22eA==%22", "\"system.odd\"%3A7"];
        let text = format!("%7b{}%7d", theirs.join(","));
        let more = with(&text, b"user.b", Some(b"x"));
        let [percent, space, odd] = theirs;
        assert_eq!(more, format!("%7B{percent}%2C{space}%2C{odd}%2C%22user.b%22%3A%22eA%3D%3D%22%7D"));
        assert_eq!(parse(&more), pairs(&[("user.100%", b"x"), ("user.a b*~", b"x"), ("user.b", b"x")]));
        assert_eq!(
            with(&more, b"user.a b*~", None),
            format!("%7B{percent}%2C{odd}%2C%22user.b%22%3A%22eA%3D%3D%22%7D")
        );
        let changed = with(&text, b"user.100%", Some(b"y"));
        assert_eq!(changed, format!("%7B%22user.100%2525%22%3A%22eQ%3D%3D%22%2C{space}%2C{odd}%7D"));
    }

    proptest! {
        #[test]
        fn prop_what_is_written_is_read(
            name in prop::collection::vec(1u8.., 1..40),
            value in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let text = with(&with("", b"user.other", Some(b"")), &name, Some(&value));
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
            let parsed = parse(&text);
            prop_assert_eq!(parsed.get(&name), Some(&value));
            prop_assert_eq!(with(&text, &name, None).is_empty(), name == b"user.other");
        }
    }
}
