//! Keys of objects and names of directory entries.
//!
//! Owns: what a key may be (S3: 1 to 1,024 bytes of UTF-8), what a name may be (Linux: 1 to 255 bytes without NUL and
//! `/`, not `.` or `..`), and how one is made of the other.
//! Does not own: the mount's prefix (`store::prefix`), escaping of names that are not UTF-8 (`spelling`).

use super::spelling;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest key that S3 accepts, in bytes of UTF-8 (S3 user guide, "Creating object key names").
const KEY_LEN_MAX: usize = 1024;
/// Longest name of a directory entry, in bytes (`NAME_MAX`, include/uapi/linux/limits.h).
const NAME_LEN_MAX: usize = 255;

/// The key of an object, relative to the mount's prefix. Directories' keys end in `/`; the root's is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Why a key or a name could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key would be longer than 1,024 bytes.
    #[error("the key would be longer than {KEY_LEN_MAX} bytes")]
    KeyTooLong,
    /// The name is longer than 255 bytes.
    #[error("the name is longer than {NAME_LEN_MAX} bytes")]
    NameTooLong,
    /// The name is empty, `.`, `..`, or contains `/` or NUL.
    #[error("the name is empty, '.', '..', or contains '/' or NUL")]
    NameInvalid,
}

/// Why a key of the bucket has no place in the directory tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmappable {
    /// A component is empty (`a//b`, a leading `/`).
    EmptyComponent,
    /// A component is `.` or `..`.
    Dots,
    /// A component stands for a name of more than 255 bytes.
    LongComponent,
    /// A component contains a NUL byte.
    Nul,
    /// A component stands for a name that is spelled otherwise here: with an escape for what needs none.
    OtherSpelling,
    /// The key is longer than 1,024 bytes, which some servers allow.
    LongKey,
    /// The key is not UTF-8, which some servers allow.
    NotUtf8,
    /// An object whose name is also the name of a directory (`a` beside `a/b`).
    HiddenByDirectory,
}

impl Unmappable {
    /// One word for listings and the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Unmappable::EmptyComponent => "empty-component",
            Unmappable::Dots => "dot-component",
            Unmappable::LongComponent => "component-too-long",
            Unmappable::Nul => "nul-byte",
            Unmappable::OtherSpelling => "other-spelling",
            Unmappable::LongKey => "key-too-long",
            Unmappable::NotUtf8 => "not-utf8",
            Unmappable::HiddenByDirectory => "hidden-by-directory",
        }
    }
}

impl Key {
    /// The key of the root directory: the empty string.
    pub fn root() -> Key {
        Key(Arc::from(""))
    }

    /// Takes a key as the bucket spells it. Any string within S3's limit is a key, also one that no path can express.
    ///
    /// # Errors
    /// [`KeyError::KeyTooLong`] above 1,024 bytes.
    pub fn parse(key: &str) -> Result<Key, KeyError> {
        if key.len() > KEY_LEN_MAX {
            return Err(KeyError::KeyTooLong);
        }
        Ok(Key(Arc::from(key)))
    }

    /// The key of the file `name` in the directory whose key is `self`.
    ///
    /// # Errors
    /// [`KeyError::KeyTooLong`]: a byte of a name that is not UTF-8 takes three bytes of the key.
    pub fn child(&self, name: &Name) -> Result<Key, KeyError> {
        debug_assert!(self.is_dir(), "only directories have children: {self}");
        Key::parse(&format!("{}{}", self.0, name.to_component()))
    }

    /// The key of the directory `name` in the directory whose key is `self`: as [`Key::child`], with a trailing `/`.
    ///
    /// # Errors
    /// As [`Key::child`].
    pub fn child_dir(&self, name: &Name) -> Result<Key, KeyError> {
        self.child(name)?.to_dir()
    }

    /// The same key as a directory's: with a trailing `/`.
    ///
    /// # Errors
    /// [`KeyError::KeyTooLong`].
    pub fn to_dir(&self) -> Result<Key, KeyError> {
        if self.is_dir() { Ok(self.clone()) } else { Key::parse(&format!("{}/", self.0)) }
    }

    /// Whether this is the key of a directory: the root's empty key, or one with a trailing `/`.
    pub fn is_dir(&self) -> bool {
        self.0.is_empty() || self.0.ends_with('/')
    }

    /// Whether this is the root's key.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The key as S3 spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether S3 takes the key with a prefix of so many bytes before it.
    pub fn fits_behind(&self, prefix_len: usize) -> bool {
        prefix_len.saturating_add(self.0.len()) <= KEY_LEN_MAX
    }

    /// Whether `self` lies at or below the directory key `dir`.
    pub fn is_under(&self, dir: &Key) -> bool {
        self.0.starts_with(dir.as_str())
    }

    /// The same key with the leading `from` replaced by `to`; both are directory keys, and `self` lies under `from`.
    ///
    /// # Errors
    /// [`KeyError::KeyTooLong`].
    pub fn rebase(&self, from: &Key, to: &Key) -> Result<Key, KeyError> {
        debug_assert!(self.is_under(from));
        Key::parse(&format!("{}{}", to.0, &self.0[from.0.len()..]))
    }

    /// Why no path can express this key, or `None` if one can.
    pub fn unmappable(&self) -> Option<Unmappable> {
        let path = self.0.strip_suffix('/').unwrap_or(&self.0);
        if self.0.is_empty() {
            return None;
        }
        path.split('/').find_map(|component| Name::from_component(component).err())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The name of a directory entry: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Takes a name as the kernel or the bucket gave it.
    ///
    /// # Errors
    /// [`KeyError::NameTooLong`] or [`KeyError::NameInvalid`].
    pub fn parse(name: impl AsRef<[u8]>) -> Result<Name, KeyError> {
        let name = name.as_ref();
        if name.len() > NAME_LEN_MAX {
            return Err(KeyError::NameTooLong);
        }
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(KeyError::NameInvalid);
        }
        Ok(Name(Arc::from(name)))
    }

    /// The name that a component of a key, what stands between slashes, stands for.
    ///
    /// # Errors
    /// Why it stands for none.
    pub fn from_component(component: &str) -> Result<Name, Unmappable> {
        let name = spelling::read(component).ok_or(Unmappable::OtherSpelling)?;
        Name::parse(&name).map_err(|_| match &*name {
            b"." | b".." => Unmappable::Dots,
            name if name.len() > NAME_LEN_MAX => Unmappable::LongComponent,
            name if name.contains(&0) => Unmappable::Nul,
            // Or there is a slash in it: then it is no component.
            _ => Unmappable::EmptyComponent,
        })
    }

    /// The component of a key that stands for the name: the same text if it is UTF-8, but for characters U+E000 to U+E0FF. These, and
    /// bytes that are not UTF-8, are escaped as s3fs does with `use_wtf8`.
    pub fn to_component(&self) -> Cow<'_, str> {
        spelling::spell(&self.0)
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// For people: bytes that are not UTF-8 as `\xe9`, all else as it is.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| write!(f, "{}{}", chunk.valid(), chunk.invalid().escape_ascii()))
    }
}

/// As Rust would write it: no two names look the same.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}{}", chunk.valid().escape_debug(), chunk.invalid().escape_ascii())?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_directories() {
        let dir = Key::root().child_dir(&Name::parse("bücher").unwrap()).unwrap();
        assert_eq!(dir.as_str(), "bücher/");
        let file = dir.child(&Name::parse("a b.epub").unwrap()).unwrap();
        assert_eq!(file.as_str(), "bücher/a b.epub");
        assert!(file.is_under(&dir) && !file.is_dir() && dir.is_dir());
        let to = Key::parse("x/").unwrap();
        assert_eq!(file.rebase(&dir, &to).unwrap().as_str(), "x/a b.epub");
    }

    #[test]
    fn keys_that_no_path_can_express() {
        let why = |k: &str| Key::parse(k).unwrap().unmappable();
        assert_eq!(why("a/b"), None);
        assert_eq!(why("a/"), None);
        assert_eq!(why(""), None);
        assert_eq!(why("/"), Some(Unmappable::EmptyComponent));
        assert_eq!(why("a//b"), Some(Unmappable::EmptyComponent));
        assert_eq!(why("/a"), Some(Unmappable::EmptyComponent));
        assert_eq!(why("a//"), Some(Unmappable::EmptyComponent));
        assert_eq!(why("a/../b"), Some(Unmappable::Dots));
        assert_eq!(why(&"x".repeat(256)), Some(Unmappable::LongComponent));
        assert_eq!(why("a\0b"), Some(Unmappable::Nul));
        assert_eq!(why("a/\u{e061}/b"), Some(Unmappable::OtherSpelling));
        assert_eq!(why("\u{e02e}\u{e02e}/b"), Some(Unmappable::OtherSpelling), "no way out of the mount");
        assert_eq!(why(&"\u{e0ff}".repeat(255)), None);
        assert_eq!(why(&"\u{e0ff}".repeat(256)), Some(Unmappable::LongComponent));
    }

    #[test]
    fn names_that_are_not_utf8_have_keys_and_are_found_by_them() {
        let dir = Key::root().child_dir(&Name::parse(b"caf\xe9").unwrap()).unwrap();
        assert_eq!(dir.as_str(), "caf\u{e0e9}/");
        assert_eq!(dir.unmappable(), None);
        assert_eq!(Name::from_component("caf\u{e0e9}").unwrap().as_bytes(), b"caf\xe9");
        assert_eq!(Name::from_component("\u{e0c3}\u{e0bc}"), Err(Unmappable::OtherSpelling));
        assert_eq!(Name::from_component("a/b"), Err(Unmappable::EmptyComponent), "these are two");
        let long = Name::parse([0xff; 255]).unwrap();
        let key = Key::parse(&format!("{}/", "d".repeat(258))).unwrap().child(&long).unwrap();
        assert_eq!(key.as_str().len(), 1024);
        assert_eq!(Key::parse(&format!("{}/", "d".repeat(259))).unwrap().child(&long), Err(KeyError::KeyTooLong));
    }

    #[test]
    fn names_are_shown_without_loss() {
        let shown = |name: &[u8]| Name::parse(name).map(|name| (name.to_string(), format!("{name:?}"))).unwrap();
        let both = |display: &str, debug: &str| (display.to_owned(), debug.to_owned());
        assert_eq!(shown("bücher".as_bytes()), both("bücher", "\"bücher\""));
        assert_eq!(shown(b"caf\xe9 \xc3\xbc"), both("caf\\xe9 ü", "\"caf\\xe9 ü\""));
        assert_eq!(shown(b"caf\\xe9"), both("caf\\xe9", "\"caf\\\\xe9\""));
    }

    #[test]
    fn limits() {
        assert_eq!(Key::parse(&"x".repeat(1025)), Err(KeyError::KeyTooLong));
        let key = Key::parse(&"x".repeat(1000)).unwrap();
        assert!(key.fits_behind(24) && !key.fits_behind(25));
        assert_eq!(Name::parse("x".repeat(256)), Err(KeyError::NameTooLong));
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert_eq!(Name::parse(bad), Err(KeyError::NameInvalid), "{bad:?}");
        }
    }
}
