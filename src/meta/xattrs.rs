//! Extended attributes as one entry of an object's user metadata.
//!
//! Owns: the form, which is that of s3fs (src/s3fs.cpp, `parse_xattrs` and `build_xattrs`): `{"NAME":"BASE64","NAME":"BASE64"}`,
//! percent-encoded. s3fs takes names as they are, and would misread those with `"`, `,` or `:`: we escape these, and `%`, once
//! more. Does not own: which attributes there are, and what they mean (`fs::xattr`).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use std::collections::BTreeMap;

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
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    let plain: Vec<u8> = percent_decode(&spaced).collect();
    let (begin, end) = (plain.iter().position(|b| *b == b'{'), plain.iter().rposition(|b| *b == b'}'));
    let (Some(begin), Some(end)) = (begin, end) else { return BTreeMap::new() };
    let pairs = plain.get(begin + 1..end).unwrap_or_default();
    pairs.split(|b| *b == b',').filter_map(parse_pair).collect()
}

/// The entry's value with `name` set to `value`, or without it. Empty if nothing is left: there is no entry then.
pub fn with(text: &str, name: &[u8], value: Option<&[u8]>) -> String {
    let mut all = parse(text);
    match value {
        Some(value) => drop(all.insert(name.to_vec(), value.to_vec())),
        None => drop(all.remove(name)),
    }
    format(&all)
}

fn parse_pair(pair: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = pair.iter().position(|b| *b == b':')?;
    let (name, value) = (unquoted(&pair[..colon])?, unquoted(&pair[colon + 1..])?);
    if name.is_empty() { None } else { Some((unescaped(name), from_base64(value)?)) }
}

fn unquoted(text: &[u8]) -> Option<&[u8]> {
    text.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")
}

fn format(all: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut plain = Vec::new();
    for (name, value) in all {
        plain.push(if plain.is_empty() { b'{' } else { b',' });
        plain.push(b'"');
        plain.extend(escaped(name));
        plain.extend_from_slice(b"\":\"");
        plain.extend(to_base64(value).into_bytes());
        plain.push(b'"');
    }
    plain.push(b'}');
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
