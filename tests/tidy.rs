//! The repository checks itself: layers, words, sizes, and documents that agree with the code.
//!
//! Owns: which files are looked at, and the tests. The tables are in `tidy/tables.rs`, and are what a change of the house
//! changes; the rules are in `tidy/rules.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/selftest.rs"]
mod selftest;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/statements.rs"]
mod statements;
#[path = "tidy/tables.rs"]
mod tables;

use rules::Violation;
use source::Source;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository. Read when the test runs: the binary may have been moved with the sources.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// A text of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file below `folder` whose name ends in `ext`, relative to the repository, in order.
fn files(folder: &str, ext: &str) -> Vec<String> {
    fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && !path.is_symlink() {
                if name != "target" && name != ".git" {
                    walk(root, &path, found);
                }
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    if root.join(folder).is_dir() {
        walk(&root, &root.join(folder), &mut found);
    }
    found.retain(|f| f.ends_with(ext));
    found.sort();
    found
}

/// What git knows, or every file where there is no git.
fn tracked() -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).unwrap();
            let is_there = |name: &&str| !name.is_empty() && root().join(name).is_file();
            names.split('\0').filter(is_there).map(str::to_owned).collect()
        }
        _ => files("", ""),
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| files(folder, ".rs"));
    let sources: Vec<Source> = paths.map(|path| Source::new(&path, &read(&path))).collect();
    assert!(!sources.is_empty(), "no sources below {}", root().display());
    sources
}

/// Fails with every violation, one below the other.
#[track_caller]
pub(crate) fn none(violations: &[Violation]) {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} violations\n\n{}\n", list.len(), list.join("\n"));
}

fn check(folders: &[&str], rule: impl Fn(&Source) -> Vec<Violation>) {
    none(&sources(folders).iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn imports_point_down() {
    check(&["src"], rules::layers);
}

#[test]
fn crates_stay_in_their_rooms() {
    check(&["src"], rules::crates);
}

#[test]
fn no_folder_imports_itself_by_a_detour() {
    let mut edges = rules::Edges::new();
    for source in sources(&["src"]) {
        let imported = rules::imports(&source).into_iter().filter(|(_, path)| !path.in_test).map(|(to, _)| to);
        edges.entry(source.folder().unwrap().to_owned()).or_default().extend(imported);
    }
    assert_eq!(rules::circle(&edges), None, "folders import each other in a circle: see ARCHITECTURE.md, Layers");
}

#[test]
fn the_table_and_the_folders_are_the_same() {
    let folders: BTreeSet<String> =
        sources(&["src"]).iter().filter_map(Source::folder).filter(|f| *f != "lib").map(str::to_owned).collect();
    let rows: BTreeSet<String> = tables::LAYERS.iter().map(|(f, _)| (*f).to_owned()).filter(|f| f != "lib").collect();
    assert_eq!(rows, folders, "LAYERS in tests/tidy/tables.rs (left) and the folders of src/ (right)");
    let edges = tables::LAYERS.iter().map(|(f, to)| ((*f).to_owned(), to.iter().map(|t| (*t).to_owned()).collect()));
    assert_eq!(rules::circle(&edges.collect()), None, "the layer table has a circle");
}

#[test]
fn every_file_says_what_it_is() {
    check(&["src", "tests", "benches"], rules::documented);
}

#[test]
fn files_and_functions_are_short() {
    check(&["src", "tests", "benches"], rules::short);
}

#[test]
fn exceptions_are_of_something() {
    let sources = sources(&["src", "tests", "benches"]);
    let of = |path: &str| sources.iter().find(|s| s.path == path);
    for (path, name, _) in tables::LONG_FUNCTIONS {
        let is_there = of(path).is_some_and(|s| s.functions().iter().any(|f| f.name == *name));
        assert!(is_there, "LONG_FUNCTIONS names fn {name} of {path}, which is not there: take the row out");
    }
    for (path, name, _) in tables::NAMES_ALLOWED {
        let is_there = of(path).is_some_and(|s| s.defined().iter().any(|(n, _)| n == name) || path.contains(name));
        assert!(is_there, "NAMES_ALLOWED names {name} of {path}, which is not there: take the row out");
    }
}

#[test]
fn names_are_those_of_the_house() {
    check(&["src", "tests", "benches"], rules::names);
}

#[test]
fn nothing_is_unfinished() {
    check(&["src", "tests", "benches"], rules::finished);
}

#[test]
fn texts_belong_to_no_machine() {
    let texts = tracked().into_iter().filter_map(|path| {
        let bytes = std::fs::read(root().join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        // What is not UTF-8 is no text.
        Some((path, String::from_utf8(bytes).ok()?))
    });
    none(&texts.flat_map(|(path, text)| rules::text(&path, &text)).collect::<Vec<_>>());
}
