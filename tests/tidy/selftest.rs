//! The rules find what they are for, and nothing else. Owns: samples, right and wrong.

use super::rules::{self, Violation};
use super::source::Source;

fn found(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<(usize, String)> {
    rule(&Source::new(path, text)).into_iter().map(|v| (v.line, v.what)).collect()
}

fn lines(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    found(rule, path, text).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn a_forbidden_import_is_found_however_it_is_spelt() {
    let layers = |text: &str| lines(rules::layers, "src/read/fetch.rs", text);
    assert_eq!(layers("//! x\nuse crate::meta::Meta;\n"), [2]);
    assert_eq!(layers("use crate::{store::Op, write::{Writer, Staged}};"), [1, 1]);
    assert_eq!(layers("use super::super::meta::Meta;"), [1]);
    assert_eq!(layers("use super::{super::meta::Meta, block};"), [1]);
    assert_eq!(layers("fn f() -> Result<(), crate::fs::FsError> {}"), [1]);
    assert_eq!(layers("mod inner {\n use super::super::super::cli;\n}"), [2]);
    assert_eq!(layers("#[cfg(test)]\nmod tests {\n use super::*;\n use crate::meta::Meta;\n}"), [4]);
    assert_eq!(lines(rules::layers, "src/read/mod.rs", "use super::meta::Meta;"), [1]);
    assert_eq!(lines(rules::layers, "src/main.rs", "fn main() { objfs::daemon::serve() }"), [1]);
    assert_eq!(lines(rules::layers, "src/attic/mod.rs", "//! x"), [1], "a folder without a row");
}

#[test]
fn an_allowed_import_is_left_alone() {
    let allowed = "//! uses crate::meta::X\n// crate::fs::Fs\nuse crate::store::Op;\nuse crate::types::{Key, Name};\n\
                   use super::block;\nuse super::super::types::Ino;\nuse std::fs::{self, File};\nuse super::super::read::Reader;\n\
                   fn f() { let s = \"crate::meta::X\"; fs::read(s); a.meta::<u8>(); }";
    assert_eq!(found(rules::layers, "src/read/fetch.rs", allowed), []);
    assert_eq!(found(rules::layers, "src/main.rs", "fn main() { objfs::cli::main() }"), []);
    assert_eq!(found(rules::layers, "src/read/mod.rs", "pub(crate) fn f() {}\nuse self::block::X;"), []);
}

#[test]
fn a_crate_in_a_foreign_room_is_found() {
    let crates = |path: &str, text: &str| lines(rules::crates, path, text);
    assert_eq!(crates("src/fs/io.rs", "use fuser::INodeNo;"), [1]);
    assert_eq!(crates("src/fs/io.rs", "use fuser as f;"), [1]);
    assert_eq!(crates("src/fs/io.rs", "fn f(_: aws_sdk_s3::Client) {}"), [1]);
    assert_eq!(crates("src/fs/io.rs", "fn f(_: ::rusqlite::Row) {}"), [1]);
    assert_eq!(crates("src/daemon/x.rs", "use nix::{unistd::gethostname, mount::umount2};"), [1]);
    assert_eq!(crates("src/fuse/mount.rs", "use nix::mount::MsFlags; use fuser::Errno;"), []);
    assert_eq!(crates("src/daemon/x.rs", "use nix::unistd::setsid;"), []);
    assert_eq!(crates("src/devserver/http.rs", "use hyper::Request; use rusqlite::Row; use s3s::dto;"), []);
}

#[test]
fn circles_are_named() {
    let edges = |pairs: &[(&str, &[&str])]| -> rules::Edges {
        pairs.iter().map(|(f, to)| ((*f).to_owned(), to.iter().map(|t| (*t).to_owned()).collect())).collect()
    };
    assert_eq!(rules::circle(&edges(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), None);
    let found = rules::circle(&edges(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]));
    assert_eq!(found.as_deref(), Some("b > c > b"));
}

#[test]
fn files_without_a_word_of_their_own_are_found() {
    assert_eq!(lines(rules::documented, "src/fs/x.rs", "use std::io;\n"), [1]);
    assert_eq!(lines(rules::documented, "src/fs/x.rs", "//! A thing.\n"), [1]);
    assert_eq!(lines(rules::documented, "src/fs/x.rs", "//! A thing.\n//! Owns: it.\n"), []);
    assert_eq!(lines(rules::documented, "tests/x.rs", "//! A thing.\n"), []);
}

#[test]
fn long_files_and_functions_are_found_and_tests_do_not_count() {
    let body = "    let x = 1;\n".repeat(70);
    assert_eq!(lines(rules::short, "src/fs/x.rs", &format!("//! x\nfn f() {{\n{body}}}\n")), [2]);
    assert_eq!(lines(rules::short, "src/fs/x.rs", "trait T {\n fn f(&self) -> [u8; 3];\n}\n"), []);
    let long = "const X: u8 = 1;\n".repeat(490);
    let tests = "#[cfg(test)]\nmod tests {\n    const Y: &str = \"}\";\n\n\n\n\n\n\n\n\n\n\n\n}\n";
    assert_eq!(lines(rules::short, "src/fs/x.rs", &format!("{long}{tests}")), []);
    assert_eq!(lines(rules::short, "src/fs/x.rs", &format!("{long}{}", "const Z: u8 = 1;\n".repeat(11))), [1]);
}

#[test]
fn words_that_are_not_used_are_found() {
    let names = |path: &str, text: &str| found(rules::names, path, text).len();
    assert_eq!(names("src/fs/x.rs", "struct CacheManager; enum Chunks {} mod helpers {} fn do_read() {}"), 4);
    assert_eq!(names("src/fs/util.rs", ""), 1);
    assert_eq!(names("src/common/mod.rs", ""), 1);
    assert_eq!(names("src/fs/x.rs", "struct Mount; fn handler() {} fn domain() {} // a Manager\nuse http::Chunk;"), 0);
}

#[test]
fn what_is_unfinished_or_panics_is_found() {
    let finished = |text: &str| lines(rules::finished, "src/fs/x.rs", text);
    let marks = ["dbg", "todo", "unimplemented"].map(|word| format!("fn f() {{ {word}!() }}"));
    assert!(marks.iter().all(|text| finished(text) == [1]));
    assert_eq!(finished("fn f() { a.unwrap();\n b.expect(\"x\"); c.unwrap_or(1); }"), [1, 2]);
    assert_eq!(finished("// a.unwrap()\n#[cfg(test)]\nmod tests { fn f() { a.unwrap() } }"), []);
    assert_eq!(lines(rules::finished, "src/fs/tests.rs", "fn f() { a.unwrap() }"), []);
}

#[test]
fn texts_of_one_machine_are_found() {
    let text = |line: &str| rules::text("README.md", line).len();
    let home = concat!("/ro", "ot/x");
    assert_eq!(text(&format!("see {home}")), 1);
    assert_eq!(text(&format!("`{}`", concat!("/wo", "rk/main"))), 1);
    assert_eq!(text(&format!("$dir{home} and s3://bucket{home}")), 0);
    assert_eq!(text(concat!("// FIX", "ME: later")), 1);
    assert_eq!(text("mktemp /tmp/objfs.XXXXXX"), 0);
    assert_eq!(text(concat!("https://mir", "ror.example.net/simple")), 1);
    assert_eq!(text(concat!("http://10.1.", "2.3:8080/")), 1);
    assert_eq!(text("https://rustup.rs, http://127.0.0.1:9000, http://192.0.2.1"), 0);
    let lock = "source = \"registry+https://example.net/index\"";
    assert_eq!(rules::text("Cargo.lock", lock).len(), 1);
}

#[test]
fn a_violation_says_where_what_and_what_to_do() {
    let violations = rules::layers(&Source::new("src/read/mod.rs", "//! x\n\nuse crate::meta::Meta;\n"));
    let shown = violations[0].to_string();
    assert!(
        shown.starts_with("src/read/mod.rs:3: [layers] read/ may not import meta/ (crate::meta::Meta)\n"),
        "{shown}"
    );
    assert!(shown.contains("what to do: "), "{shown}");
}

#[test]
fn comments_strings_and_characters_hide_nothing_else() {
    let text = "/* a /* b */ crate::fs */ let c = '\"'; let l: &'static str = r#\"crate::fs \"x\"#; let b = b'\\''; use crate::meta::M;";
    assert_eq!(lines(rules::layers, "src/read/x.rs", text), [1]);
}
