//! The name of a conflict copy. Pure.
//!
//! Owns: `name (conflict HOST DATE).ext`, cut to what a name may be. Does not own: when a conflict is one (`fs::commit`).

use crate::types::{KeyError, Name};

/// Longest extension that is kept behind the mark, in bytes: longer ones are parts of a name that has a point in it.
const EXTENSION_LEN_MAX: usize = 16;
const NAME_LEN_MAX: usize = 255;

/// The name under which our version of `name` is kept: the `attempt`th try, from 0.
///
/// # Errors
/// If the mark itself makes no name (a host name with a slash).
pub fn conflict_name(name: &Name, host: &str, date: &str, attempt: u32) -> Result<Name, KeyError> {
    let name = name.as_bytes();
    let (stem, extension) = match name.iter().rposition(|byte| *byte == b'.') {
        Some(at) if at > 0 && name.len() - at <= EXTENSION_LEN_MAX => name.split_at(at),
        _ => (name, &b""[..]),
    };
    let number = if attempt == 0 { String::new() } else { format!(" {}", attempt + 1) };
    let mark = format!(" (conflict {} {date}{number})", host.replace('/', "-"));
    let room = NAME_LEN_MAX.saturating_sub(mark.len() + extension.len());
    Name::parse([cut(stem, room), mark.as_bytes(), extension].concat())
}

/// The longest beginning of `name` that takes `len` bytes at most and ends between characters. A byte that is not UTF-8 is one by itself.
fn cut(name: &[u8], len: usize) -> &[u8] {
    let mut end = 0;
    for chunk in name.utf8_chunks() {
        let sizes = chunk.valid().chars().map(char::len_utf8).chain(chunk.invalid().iter().map(|_| 1));
        for size in sizes {
            if end + size > len {
                return &name[..end];
            }
            end += size;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(name: &str, attempt: u32) -> String {
        conflict_name(&Name::parse(name).unwrap(), "desk", "2026-11-20 10.00.00", attempt).unwrap().to_string()
    }

    #[test]
    fn the_extension_stays_last() {
        assert_eq!(copy("a.epub", 0), "a (conflict desk 2026-11-20 10.00.00).epub");
        assert_eq!(copy("a.epub", 1), "a (conflict desk 2026-11-20 10.00.00 2).epub");
        assert_eq!(copy(".profile", 0), ".profile (conflict desk 2026-11-20 10.00.00)");
        assert_eq!(copy("Makefile", 0), "Makefile (conflict desk 2026-11-20 10.00.00)");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = format!("{}.txt", "ü".repeat(120));
        let name = copy(&long, 0);
        assert!(name.len() <= 255 && name.ends_with(").txt") && !name.contains("\\x"), "{name}");
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_and_count_as_one() {
        let copy = |name: &[u8]| conflict_name(&Name::parse(name).unwrap(), "desk", "now", 0).unwrap();
        assert_eq!(copy(b"caf\xe9.t\xfft").as_bytes(), b"caf\xe9 (conflict desk now).t\xfft");
        let mark = b" (conflict desk now)";
        assert_eq!(copy(&[0xff; 255]).as_bytes(), [&[0xff_u8; 255 - 20][..], mark].concat());
        // The last "ü" does not fit: 235 is odd.
        let long = ["ü".repeat(118).as_bytes(), &[0xfe_u8; 10]].concat();
        assert_eq!(copy(&long).as_bytes(), ["ü".repeat(117).as_bytes(), mark].concat());
    }
}
