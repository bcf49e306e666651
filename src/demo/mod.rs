//! A small media library, made at run time, that `objfs demo` fills its bucket with.
//!
//! Owns: which files the library has, under which keys and content types, and the bytes of each: every file is one
//! that its usual programs open (reader, player, viewer), and every call gives the same bytes.
//! Does not own: the store they go into, the mount, what the command line says about them.

mod bits;
mod epub;
mod flac;
mod h264;
mod mp4;
mod pdf;
mod texts;

use std::io;

/// One object of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The object's key, relative to the mount's prefix, e.g. `Books/Two Lighthouses (二つの灯台).epub`.
    pub key: String,
    /// What goes into the object's Content-Type.
    pub content_type: &'static str,
    /// The object's bytes.
    pub body: Vec<u8>,
}

/// The whole library, in the order of its keys' folders.
///
/// # Errors
/// Only if the zip writer refuses the book, which no input can cause; the caller passes it on.
pub fn library() -> io::Result<Vec<Item>> {
    let mut items = vec![
        item("README.txt", texts::PLAIN, texts::README.as_bytes().to_vec()),
        item("Books/Two Lighthouses (二つの灯台).epub", "application/epub+zip", epub::book()?),
        item("Documents/How a bucket becomes a folder.pdf", "application/pdf", pdf::document()),
        item("Music/Ludwig van Beethoven/Ode to Joy (An die Freude).flac", "audio/flac", flac::song()),
        item("Videos/Test pattern.mp4", "video/mp4", mp4::movie()),
    ];
    items.extend(texts::TEXTS.iter().map(|(key, text)| item(key, texts::PLAIN, text.as_bytes().to_vec())));
    Ok(items)
}

fn item(key: &str, content_type: &'static str, body: Vec<u8>) -> Item {
    Item { key: key.to_owned(), content_type, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_call_gives_the_same_library() {
        assert_eq!(library().unwrap(), library().unwrap());
    }

    #[test]
    fn keys_are_unique_relative_and_short_enough_for_any_file_system() {
        let items = library().unwrap();
        let keys: BTreeSet<&str> = items.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(keys.len(), items.len());
        for key in keys {
            assert!(!key.starts_with('/') && !key.ends_with('/') && key.len() <= 1024, "{key}");
            assert!(key.split('/').all(|name| !name.is_empty() && name.len() <= 255 && name != ".."), "{key}");
        }
    }

    #[test]
    fn no_file_is_empty_and_the_whole_stays_small() {
        let items = library().unwrap();
        assert!(items.iter().all(|item| !item.body.is_empty()));
        assert!(items.iter().map(|item| item.body.len()).sum::<usize>() < 4 << 20);
    }
}
