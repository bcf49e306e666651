//! Pages of listings.
//!
//! Owns: which keys and common prefixes a page has, tokens between pages, the encoding of keys that clients ask for.
//! Does not own: the keys: it asks a [`Sorted`] for the first one past a bound, and skips a common prefix by one such
//! question. Pure.

use super::record::{hex, unhex};
use std::ops::Bound;

/// Keys in order of their UTF-8 bytes.
pub(super) trait Sorted {
    /// What is listed with a key.
    type Value;

    /// The first key past the bound. The value is `None` for a key that is not to be listed.
    fn next(&self, from: Bound<&str>) -> Option<(String, Option<Self::Value>)>;
}

/// What to list.
#[derive(Debug, Clone)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// Where to begin.
    pub(super) from: Bound<String>,
    /// Most entries.
    pub(super) max: usize,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<V> {
    /// A key.
    Key(String, V),
    /// Keys that share what comes before the delimiter.
    Prefix(String),
}

/// A page, and whether more follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page<V> {
    pub(super) entries: Vec<Entry<V>>,
    pub(super) truncated: bool,
}

impl<V> Page<V> {
    /// The last key or prefix, which V1 gives as the next marker.
    pub(super) fn last(&self) -> Option<&str> {
        self.entries.last().map(|entry| match entry {
            Entry::Key(key, _) => key.as_str(),
            Entry::Prefix(prefix) => prefix.as_str(),
        })
    }

    /// The token that continues after this page, if more follows.
    pub(super) fn token(&self) -> Option<String> {
        let last = self.entries.last().filter(|_| self.truncated)?;
        Some(match last {
            Entry::Key(key, _) => hex(format!("k{key}").as_bytes()),
            Entry::Prefix(prefix) => hex(format!("p{prefix}").as_bytes()),
        })
    }
}

/// Where a listing goes on that gave this token; `None` if we never gave it.
pub(super) fn from_token(token: &str) -> Option<Bound<String>> {
    let text = String::from_utf8(unhex(token)?).ok()?;
    match (text.get(..1)?, text.get(1..)?) {
        ("k", key) => Some(Bound::Excluded(key.to_owned())),
        ("p", prefix) => Some(after_prefix(prefix)),
        _ => None,
    }
}

/// Where a listing begins with this start-after or marker. One that is a common prefix itself skips all below it.
pub(super) fn from_marker(marker: &str, prefix: &str, delimiter: Option<&str>) -> Bound<String> {
    match delimiter.and_then(|d| common_prefix(marker, prefix, d)) {
        Some(common) if common == marker => after_prefix(marker),
        _ if marker.is_empty() => Bound::Unbounded,
        _ => Bound::Excluded(marker.to_owned()),
    }
}

/// The part of `key` up to and with the first delimiter after the prefix.
fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let at = key.strip_prefix(prefix)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// Past all keys that begin with `prefix`.
fn after_prefix(prefix: &str) -> Bound<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Order of UTF-8 bytes is the order of code points; surrogates are none.
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            text.push(next);
            return Bound::Included(text);
        }
    }
    // Nothing follows: no key is past the longest run of the greatest character.
    Bound::Excluded(char::MAX.to_string().repeat(256))
}

fn later(a: Bound<String>, b: &str) -> Bound<String> {
    match &a {
        Bound::Included(key) | Bound::Excluded(key) if key.as_str() >= b => a,
        _ => Bound::Included(b.to_owned()),
    }
}

/// One page.
pub(super) fn page<S: Sorted>(keys: &S, query: &Query<'_>) -> Page<S::Value> {
    let delimiter = query.delimiter.filter(|d| !d.is_empty());
    let mut from = later(query.from.clone(), query.prefix);
    let mut entries = Vec::new();
    if query.max == 0 {
        return Page { entries, truncated: false };
    }
    while let Some((key, value)) = keys.next(from.as_ref().map(String::as_str)) {
        if !key.starts_with(query.prefix) {
            break;
        }
        let Some(value) = value else {
            from = Bound::Excluded(key);
            continue;
        };
        if entries.len() == query.max {
            return Page { entries, truncated: true };
        }
        match delimiter.and_then(|d| common_prefix(&key, query.prefix, d)) {
            Some(common) => {
                from = after_prefix(common);
                entries.push(Entry::Prefix(common.to_owned()));
            }
            None => {
                from = Bound::Excluded(key.clone());
                entries.push(Entry::Key(key, value));
            }
        }
    }
    Page { entries, truncated: false }
}

/// A key as `encoding-type=url` asks for it: like a form's value, but `/` and `*` stay and `~` does not.
pub(super) fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            _ => {
                encoded.push('%');
                encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
            }
        }
    }
    encoded
}

/// Whether XML 1.0 can carry the text and give it back unchanged.
pub(super) fn xml_can_carry(text: &str) -> bool {
    text.chars().all(|c| !matches!(c, '\0'..='\x08' | '\x0b'..='\x1f' | '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    struct Counted {
        keys: BTreeMap<String, Option<()>>,
        asked: Cell<usize>,
    }

    impl Sorted for Counted {
        type Value = ();
        fn next(&self, from: Bound<&str>) -> Option<(String, Option<()>)> {
            self.asked.set(self.asked.get() + 1);
            self.keys.range::<str, _>((from, Bound::Unbounded)).next().map(|(k, v)| (k.clone(), *v))
        }
    }

    fn keys(keys: &[&str]) -> Counted {
        Counted { keys: keys.iter().map(|k| ((*k).to_owned(), Some(()))).collect(), asked: Cell::new(0) }
    }

    fn all(keys: &Counted, prefix: &str, delimiter: Option<&str>, max: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let page = page(keys, &Query { prefix, delimiter, from, max });
            assert!(page.entries.len() <= max);
            found.extend(page.entries.iter().map(|e| match e {
                Entry::Key(key, ()) => key.clone(),
                Entry::Prefix(prefix) => format!("[{prefix}]"),
            }));
            match page.token() {
                Some(token) => from = from_token(&token).unwrap(),
                None => return found,
            }
        }
    }

    #[test]
    fn pages_of_any_size_give_the_same() {
        let keys =
            keys(&["", "/x", "a", "a/", "a/b", "a/b/c", "a//d", "a0", "b/\u{10ffff}", "b/\u{10ffff}x", "é/1", "é/2"]);
        for max in 1..14 {
            assert_eq!(all(&keys, "", Some("/"), max), ["", "[/]", "a", "[a/]", "a0", "[b/]", "[é/]"]);
            assert_eq!(all(&keys, "a/", Some("/"), max), ["a/", "[a//]", "a/b", "[a/b/]"]);
            assert_eq!(all(&keys, "", Some("é"), max).last().unwrap(), "[é]");
            assert_eq!(all(&keys, "b/\u{10ffff}", Some("\u{10ffff}"), max), ["b/\u{10ffff}", "b/\u{10ffff}x"]);
            assert_eq!(all(&keys, "", None, max).len(), 12);
            assert_eq!(all(&keys, "", Some(""), max).len(), 12);
        }
    }

    #[test]
    fn common_prefixes_are_skipped_not_walked() {
        let mut many = keys(&["z"]);
        many.keys.extend((0..10_000).map(|i| (format!("d{}/{i:05}", i / 5000), Some(()))));
        assert_eq!(all(&many, "", Some("/"), 1000), ["[d0/]", "[d1/]", "z"]);
        assert!(many.asked.get() <= 5);
    }

    #[test]
    fn hidden_keys_make_no_entries() {
        let mut some = keys(&["a/1", "a/2", "b/1", "c"]);
        for hidden in ["a/1", "b/1", "c"] {
            some.keys.insert(hidden.to_owned(), None);
        }
        assert_eq!(all(&some, "", Some("/"), 1), ["[a/]"]);
    }

    #[test]
    fn markers() {
        let keys = keys(&["a/1", "a/2", "b"]);
        let first = |marker| {
            let from = from_marker(marker, "", Some("/"));
            page(&keys, &Query { prefix: "", delimiter: Some("/"), from, max: 1 }).entries.remove(0)
        };
        assert_eq!(first(""), Entry::Prefix("a/".to_owned()));
        assert_eq!(first("a/"), Entry::Key("b".to_owned(), ()), "a marker that is a prefix skips it");
        assert_eq!(first("a/1"), Entry::Prefix("a/".to_owned()));
        assert!(from_token("zz").is_none());
    }

    #[test]
    fn encodings() {
        assert_eq!(url_encode("a b/ü~*\n+"), "a+b/%C3%BC%7E*%0A%2B");
        assert!(xml_can_carry("a\tü\n") && !xml_can_carry("a\r") && !xml_can_carry("\x01"));
    }
}
