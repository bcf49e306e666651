//! How the names of directory entries are spelled in keys.
//!
//! Owns: the escape for bytes that are not UTF-8, and undoing it. Pure. Does not own: what a name or a key may be (`key`).
//!
//! A name is bytes, a key is UTF-8. A byte that is no part of UTF-8 is written as the character U+E000 + byte, of the private use
//! area: so does s3fs with its option `use_wtf8` (s3fs-fuse, src/string_util.cpp). There, such a character in a name stays as it is,
//! and is read as a byte. Here its three bytes are written like bytes that are not UTF-8, so that each name has a spelling that no
//! other name has, and reading it gives the name again.

use std::borrow::Cow;

/// The character that stands for byte 0; the other 255 follow.
const FIRST: u32 = 0xE000;
/// The byte with which all of them begin in UTF-8, and those up to U+EFFF (RFC 3629, section 3). Text without it needs no look.
const LEAD: u8 = 0xEE;

/// The component of a key that stands for the name of these bytes.
pub(super) fn spell(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if !name.contains(&LEAD) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(name)),
    }
}

/// The name that a component of a key stands for. `None` if the component is not how [`spell`] writes that name: then it stands for
/// none, or there would be two keys for one name.
pub(super) fn read(component: &str) -> Option<Cow<'_, [u8]>> {
    if !component.as_bytes().contains(&LEAD) {
        return Some(Cow::Borrowed(component.as_bytes()));
    }
    let mut name = Vec::with_capacity(component.len());
    for c in component.chars() {
        match byte_of(c) {
            Some(byte) => name.push(byte),
            None => name.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    let is_spelling = spell(&name) == component;
    is_spelling.then_some(Cow::Owned(name))
}

fn escape(name: &[u8]) -> String {
    // Three bytes for each, if all are escaped.
    let mut spelled = String::with_capacity(name.len() * 3);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                None => spelled.push(c),
                Some(_) => spelled.extend(c.encode_utf8(&mut [0; 4]).bytes().map(char_of)),
            }
        }
        spelled.extend(chunk.invalid().iter().copied().map(char_of));
    }
    spelled
}

/// The character that stands for a byte.
fn char_of(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for, if it is one of those that do.
fn byte_of(c: char) -> Option<u8> {
    u32::from(c).checked_sub(FIRST).and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled(name: &[u8]) -> String {
        spell(name).into_owned()
    }

    #[test]
    fn bytes_that_are_no_text_are_spelled_as_s3fs_does() {
        assert_eq!(spelled(b"\xff\xfe"), "\u{e0ff}\u{e0fe}");
        assert_eq!(spelled(b"caf\xe9"), "caf\u{e0e9}");
        assert_eq!(spelled("ü".as_bytes()), "ü");
        assert_eq!(spelled(b"\xc3\xbc\xe9.txt"), "ü\u{e0e9}.txt");
        // Half a character, one that is too long, half of a pair (RFC 3629, section 4).
        assert_eq!(spelled(b"\xe2\x82A"), "\u{e0e2}\u{e082}A");
        assert_eq!(spelled(b"\xc0\x80"), "\u{e0c0}\u{e080}");
        assert_eq!(spelled(b"\xed\xa0\x80"), "\u{e0ed}\u{e0a0}\u{e080}");
        // Of the private use area too, what stands for no byte stays.
        assert_eq!(spelled("\u{e100}\u{f000}".as_bytes()), "\u{e100}\u{f000}");
    }

    #[test]
    fn a_character_that_stands_for_a_byte_is_spelled_by_its_own_bytes() {
        assert_eq!(spelled("\u{e0e9}".as_bytes()), "\u{e0ee}\u{e083}\u{e0a9}");
        assert_eq!(read("\u{e0ee}\u{e083}\u{e0a9}").as_deref(), Some("\u{e0e9}".as_bytes()));
        assert_eq!(read("\u{e0e9}").as_deref(), Some(&b"\xe9"[..]));
    }

    #[test]
    fn what_we_would_spell_otherwise_is_no_name() {
        // "a", a slash, NUL, a dot; "ü" by its bytes.
        for other in ["\u{e061}", "a\u{e02f}b", "\u{e000}", "\u{e02e}", "\u{e0c3}\u{e0bc}"] {
            assert_eq!(read(other), None, "{other:?}");
        }
        assert_eq!(read("ü").as_deref(), Some("ü".as_bytes()));
    }

    /// Bytes of which many are those of characters that stand for bytes, or nearly so.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), Just(LEAD), 0x80u8..=0x84, 0xC0u8..=0xFF, 0x20u8..=0x7E];
        prop::collection::vec(byte, 0..40)
    }

    /// Text of which many characters stand for bytes.
    fn text() -> impl Strategy<Value = String> {
        let escape = (0u32..=0x110).prop_map(|at| char::from_u32(FIRST + at).unwrap());
        let c = prop_oneof![any::<char>(), escape, prop::char::range(' ', '~')];
        prop::collection::vec(c, 0..30).prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn prop_what_is_spelled_is_read_again(name in bytes()) {
            let component = spelled(&name);
            prop_assert!(component.len() <= 3 * name.len());
            prop_assert_eq!(read(&component).map(Cow::into_owned), Some(name));
        }

        #[test]
        fn prop_text_is_read_again_and_stays_where_it_can(name in text()) {
            let component = spelled(name.as_bytes());
            prop_assert_eq!(component == name, name.chars().all(|c| byte_of(c).is_none()));
            prop_assert_eq!(read(&component).map(Cow::into_owned), Some(name.into_bytes()));
        }

        #[test]
        fn prop_a_component_has_one_name_or_none(component in text()) {
            if let Some(name) = read(&component).map(Cow::into_owned) {
                prop_assert_eq!(spelled(&name), component);
            }
        }
    }
}
