//! Which names are shown at all: the mount options `include=` and `exclude=`.
//!
//! Owns: matching names and paths against the user's patterns. Pure. Does not own: asking (`lookup`, `dir`), objfs' own
//! names (`lookup::is_reserved`).

use crate::types::{FileKind, Name};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Patterns of one option. Those without a slash mean the name, the others the path from the mount's root.
#[derive(Debug, Clone, Default)]
struct Patterns {
    names: GlobSet,
    paths: GlobSet,
    is_empty: bool,
}

/// What is shown: files that some `include=` matches, if there is one, without files and directories that an `exclude=`
/// matches. Directories are shown whatever `include=` says: what is to be seen may lie below.
#[derive(Debug, Clone, Default)]
pub struct Filter(Option<Box<(Patterns, Patterns)>>);

impl Patterns {
    fn new(globs: &[String]) -> Result<Patterns, String> {
        let build = |with_slash: bool| {
            let mut set = GlobSetBuilder::new();
            for glob in globs.iter().filter(|g| g.contains('/') == with_slash) {
                // Media libraries have .JPG beside .jpg.
                let parsed = GlobBuilder::new(glob.trim_start_matches('/'))
                    .case_insensitive(true)
                    .literal_separator(true)
                    .build();
                set.add(parsed.map_err(|e| e.to_string())?);
            }
            set.build().map_err(|e| e.to_string())
        };
        Ok(Patterns { names: build(false)?, paths: build(true)?, is_empty: globs.is_empty() })
    }

    fn matches(&self, name: &[u8], dir: &[u8]) -> bool {
        self.names.is_match(OsStr::from_bytes(name))
            || !self.paths.is_empty() && self.paths.is_match(OsString::from_vec([dir, name].concat()))
    }
}

impl Filter {
    /// The filter of these patterns.
    ///
    /// # Errors
    /// What is wrong with a pattern.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Filter, String> {
        if include.is_empty() && exclude.is_empty() {
            return Ok(Filter(None));
        }
        Ok(Filter(Some(Box::new((Patterns::new(include)?, Patterns::new(exclude)?)))))
    }

    /// Whether everything is shown.
    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the path of a directory is needed to decide about what is in it.
    pub fn needs_paths(&self) -> bool {
        self.0.as_ref().is_some_and(|both| !both.0.paths.is_empty() || !both.1.paths.is_empty())
    }

    /// Whether a name in the directory `dir` (its path from the root, with a slash at the end; empty for the root) is shown.
    pub fn shows(&self, name: &Name, dir: &[u8], kind: FileKind) -> bool {
        let Some(both) = &self.0 else { return true };
        let ((include, exclude), name) = (&**both, name.as_bytes());
        !exclude.matches(name, dir) && (kind == FileKind::Dir || include.is_empty || include.matches(name, dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(filter: &Filter, path: &str, kind: FileKind) -> bool {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (&path[..=dir.len()], name));
        filter.shows(&Name::parse(name).unwrap(), dir.as_bytes(), kind)
    }

    #[test]
    fn books_only_and_every_directory() {
        let filter = Filter::new(&["*.{pdf,epub}".to_owned()], &["tmp*".to_owned(), "/old/**".to_owned()]).unwrap();
        let file = |path| shown(&filter, path, FileKind::File);
        assert!(file("a.pdf") && file("x/y/B.EPUB") && !file("a.pdf.part") && !file("x/cover.jpg"));
        assert!(!file("tmp.pdf") && !file("old/a.pdf") && file("x/old/a.pdf"), "a slash means the path from the root");
        let dir = |path| shown(&filter, path, FileKind::Dir);
        assert!(dir("x") && !dir("tmp1") && !dir("old/y") && filter.needs_paths());
        let latin = Name::parse(b"caf\xe9.PDF").unwrap();
        assert!(filter.shows(&latin, b"\xff/", FileKind::File) && !filter.shows(&latin, b"old/\xff/", FileKind::File));
    }

    #[test]
    fn wildcards_mean_what_they_do_in_a_shell() {
        for (pattern, shown_path, hidden_path) in [
            ("*.txt", "x/a.txt", "a.txt.gz"),
            ("?.txt", "a.txt", "ab.txt"),
            ("[a-c].txt", "b.txt", "d.txt"),
            ("{a,b}.txt", "b.txt", "c.txt"),
            ("A.TXT", "a.txt", "b.txt"),
            ("d/*", "d/a", "d/e/a"),
            ("d/**", "d/e/a", "e/a"),
        ] {
            let filter = Filter::new(&[pattern.to_owned()], &[]).unwrap();
            assert!(shown(&filter, shown_path, FileKind::File), "{pattern} {shown_path}");
            assert!(!shown(&filter, hidden_path, FileKind::File), "{pattern} {hidden_path}");
        }
    }

    #[test]
    fn without_patterns_everything_is_shown_and_a_broken_one_is_named() {
        let filter = Filter::new(&[], &[]).unwrap();
        assert!(filter.is_off() && shown(&filter, "x", FileKind::File));
        assert!(Filter::new(&["a[".to_owned()], &[]).unwrap_err().contains("a["));
    }
}
