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
    let text = String::from_utf8_lossy(name.as_bytes());
    let (stem, extension) = match text.rfind('.') {
        Some(at) if at > 0 && text.len() - at <= EXTENSION_LEN_MAX => text.split_at(at),
        _ => (&*text, ""),
    };
    let number = if attempt == 0 { String::new() } else { format!(" {}", attempt + 1) };
    let tail = format!(" (conflict {} {date}{number}){extension}", host.replace('/', "-"));
    let mut room = NAME_LEN_MAX.saturating_sub(tail.len()).min(stem.len());
    while !stem.is_char_boundary(room) {
        room -= 1;
    }
    Name::parse(format!("{}{tail}", &stem[..room]))
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
        assert!(name.len() <= 255 && name.ends_with(").txt") && !name.contains('\u{fffd}'), "{name}");
    }
}
