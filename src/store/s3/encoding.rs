//! How keys and metadata travel where they are not plain ASCII.
//!
//! Owns: the decoder of `encoding-type=url`, the encoder of `x-amz-copy-source` and of keys in a URL, RFC 2047 words in user
//! metadata (which is how AWS itself shows values that are not ASCII). Does not own: requests of the SDK, which encodes for itself.

use aws_smithy_types::base64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What must be encoded in a path: all but RFC 3986's unreserved characters and `/`.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The value of `x-amz-copy-source`.
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    format!("{bucket}/{}", key_path(key))
}

/// A key as it stands in a URL.
pub(super) fn key_path(key: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(key, PATH)
}

/// Undoes `encoding-type=url`: `+` is a space, `%XX` a byte, anything else itself.
///
/// # Errors
/// The bytes, if they are not UTF-8.
pub(super) fn url_decode(encoded: &str) -> Result<String, Vec<u8>> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'+', _) => (b' ', tail),
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', tail),
            },
            _ => (first, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|not| not.into_bytes())
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// A value of user metadata as a header can carry it: itself if it is plain ASCII, else one RFC 2047 word.
pub(super) fn header_value(value: &str) -> String {
    let plain = value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value && !value.contains("=?");
    if plain { value.to_owned() } else { format!("=?UTF-8?B?{}?=", base64::encode(value)) }
}

/// Undoes [`header_value`], also for several words and the Q encoding, as other tools and AWS write them. What is no
/// such word stays as it is.
pub(super) fn parse_header_value(header: &str) -> String {
    let words = header.split_ascii_whitespace().map(word).collect::<Option<Vec<_>>>();
    let decoded = words.filter(|words| !words.is_empty()).and_then(|words| String::from_utf8(words.concat()).ok());
    decoded.unwrap_or_else(|| header.to_owned())
}

/// The bytes of one RFC 2047 word in UTF-8.
fn word(word: &str) -> Option<Vec<u8>> {
    let inner = word.strip_prefix("=?")?.strip_suffix("?=")?;
    let (charset, inner) = inner.split_once('?')?;
    let (encoding, text) = inner.split_once('?')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    match encoding {
        "B" | "b" => base64::decode(text).ok(),
        "Q" | "q" => q_decode(text),
        _ => None,
    }
}

fn q_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        (rest, _) = match (first, tail) {
            (b'_', _) => (tail, bytes.push(b' ')),
            (b'=', [high, low, after @ ..]) => (after, bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?)),
            (b'=', _) => return None,
            _ => (tail, bytes.push(first)),
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn url_encoding_is_undone() {
        assert_eq!(url_decode("a+b%2Bc%25d%2fe").unwrap(), "a b+c%d/e");
        assert_eq!(url_decode("b%C3%BCcher").unwrap(), "bücher");
        assert_eq!(url_decode("100%").unwrap(), "100%");
        assert_eq!(url_decode("%zz%4").unwrap(), "%zz%4");
        assert_eq!(url_decode("%0A").unwrap(), "\n");
        assert_eq!(url_decode("a%FF"), Err(b"a\xff".to_vec()));
    }

    #[test]
    fn copy_sources_are_encoded() {
        assert_eq!(copy_source("b", "a b/ü+%?"), "b/a%20b/%C3%BC%2B%25%3F");
    }

    #[test]
    fn words_of_other_tools_are_read() {
        assert_eq!(parse_header_value("=?UTF-8?Q?b=C3=BCcher_und?= =?UTF-8?Q?_mehr?="), "bücher und mehr");
        assert_eq!(parse_header_value("plain text"), "plain text");
        assert_eq!(parse_header_value("=?latin1?Q?x?="), "=?latin1?Q?x?=");
        assert_eq!(parse_header_value(""), "");
    }

    proptest! {
        #[test]
        fn prop_metadata_survives(value in "\\PC*") {
            let header = header_value(&value);
            prop_assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(parse_header_value(&header), value);
        }

        #[test]
        fn prop_url_decoding_undoes_percent_encoding(key in "\\PC*") {
            let encoded = utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(url_decode(&encoded), Ok(key));
        }
    }
}
