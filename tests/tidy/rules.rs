//! The rules, each a function from a file to what is wrong with it.
//!
//! Owns: how a rule is checked, and what it tells the reader to do. Does not own: the tables (`tables`), reading files.

use super::source::{Source, UsedPath};
use super::tables::{
    CRATES, FILE_LINES_MAX, FUNCTION_LINES_MAX, IN_TESTS, LAYERS, LONG_FUNCTIONS, NAMES_ALLOWED, PLACES_ALLOWED,
    WORDS_NOT_USED,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    pub(crate) advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}\n    what to do: {}", self.file, self.line, self.rule, self.what, self.advice)
    }
}

fn violation(source: &Source, line: usize, rule: &'static str, what: String, advice: &str) -> Violation {
    Violation { file: source.path.clone(), line, rule, what, advice: advice.to_owned() }
}

/// The folder of src/ that a path leads into, if it leaves its own module by way of the crate's root.
fn folder_of(source: &Source, path: &UsedPath) -> Option<String> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["crate", folder, ..] => Some(folder.to_owned()),
        ["objfs", folder, ..] if source.path == "src/main.rs" => Some(folder.to_owned()),
        ["self", "super", ..] | ["super", ..] => {
            let rest = &segments[usize::from(segments[0] == "self")..];
            let up = rest.iter().take_while(|s| **s == "super").count();
            let here = source.module().len() + path.depth;
            // As many times `super` as there are modules around: that is the crate's root.
            (up == here).then(|| rest.get(up).map(|s| (*s).to_owned())).flatten()
        }
        _ => None,
    }
}

/// Imports between folders, with the place of each: what the layer table is about.
pub(crate) fn imports(source: &Source) -> Vec<(String, UsedPath)> {
    let Some(from) = source.folder() else { return Vec::new() };
    let each = |path: UsedPath| Some((folder_of(source, &path)?, path));
    source.paths().into_iter().filter_map(each).filter(|(to, _)| to != from).collect()
}

fn row<'a>(table: &'a [(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(n, _)| *n == name).map(|(_, allowed)| *allowed)
}

/// Imports point down: only what the layer table allows.
pub(crate) fn layers(source: &Source) -> Vec<Violation> {
    let Some(from) = source.folder() else { return Vec::new() };
    let Some(allowed) = row(LAYERS, from) else {
        let advice = "give the folder a row in LAYERS (tests/tidy/tables.rs) and in the table of ARCHITECTURE.md";
        return vec![violation(
            source,
            1,
            "layers",
            format!("the folder {from}/ has no row in the layer table"),
            advice,
        )];
    };
    let in_tests = row(IN_TESTS, from).unwrap_or(&[]);
    let mut wrong = Vec::new();
    for (to, path) in imports(source) {
        if allowed.contains(&to.as_str()) || path.in_test && in_tests.contains(&to.as_str()) {
            continue;
        }
        let what = format!("{from}/ may not import {to}/ ({})", path.segments.join("::"));
        let advice = "move the code to the layer that it belongs to, or pass the value down from above; if the drawing \
                      itself is to change, change LAYERS in tests/tidy/tables.rs and ARCHITECTURE.md, with the reason";
        wrong.push(violation(source, path.line, "layers", what, advice));
    }
    wrong
}

/// Crates that belong to one room.
pub(crate) fn crates(source: &Source) -> Vec<Violation> {
    let Some(folder) = source.folder() else { return Vec::new() };
    let mut wrong = Vec::new();
    for path in source.paths() {
        let name = path.segments.join("::");
        for (pattern, rooms) in CRATES {
            // `aws_` stands for every crate whose name begins so; `nix::mount` for a part of one.
            let fits = if pattern.ends_with('_') {
                path.segments[0].starts_with(pattern)
            } else {
                name == *pattern || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with("::"))
            };
            if fits && !rooms.contains(&folder) {
                let what = format!("{folder}/ may not use {name}: {pattern} belongs to {}", rooms.join(", "));
                let advice = "ask that room for what you need, in its own types";
                wrong.push(violation(source, path.line, "crates", what, advice));
            }
        }
    }
    wrong
}

/// Who imports whom.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// A circle among folders, as `a > b > a`.
pub(crate) fn circle(edges: &Edges) -> Option<String> {
    fn visit(at: &str, edges: &Edges, trail: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<String> {
        trail.push(at.to_owned());
        if let Some(from) = trail[..trail.len() - 1].iter().position(|t| t == at) {
            return Some(trail[from..].join(" > "));
        }
        if !done.contains(at)
            && let Some(found) = edges.get(at).into_iter().flatten().find_map(|next| visit(next, edges, trail, done))
        {
            return Some(found);
        }
        done.insert(at.to_owned());
        trail.pop();
        None
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|start| visit(start, edges, &mut Vec::new(), &mut done))
}

/// Every file says what it is; those of src/ also what they own.
pub(crate) fn documented(source: &Source) -> Vec<Violation> {
    let doc: String = source.text.lines().take_while(|l| l.starts_with("//!")).collect();
    if doc.is_empty() {
        let advice = "open the file with //! and a line that says what it is";
        return vec![violation(source, 1, "documented", "the file does not open with //!".to_owned(), advice)];
    }
    if source.path.starts_with("src/") && !doc.contains("Owns") {
        let advice = "say in the //! lines what the file owns and what it does not own (\"Owns: … Does not own: …\")";
        return vec![violation(
            source,
            1,
            "documented",
            "the //! lines do not say what the file owns".to_owned(),
            advice,
        )];
    }
    Vec::new()
}

/// Files and functions that fit into a head.
pub(crate) fn short(source: &Source) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let lines = source.len_without_tests();
    if source.path.starts_with("src/") && lines > FILE_LINES_MAX {
        let what = format!("{lines} lines without tests, of at most {FILE_LINES_MAX}");
        wrong.push(violation(source, 1, "short", what, "split the file along what it owns"));
    }
    for function in source.functions() {
        let lines = function.lines.len();
        let known = LONG_FUNCTIONS.iter().find(|(file, name, _)| *file == source.path && *name == function.name);
        let max = known.map_or(FUNCTION_LINES_MAX, |(_, _, max)| *max);
        if lines > max {
            let what = format!("fn {} has {lines} lines, of at most {max}", function.name);
            wrong.push(violation(source, function.lines.start, "short", what, "take a step of it out into a function"));
        } else if known.is_some() && lines < max {
            let what = format!("fn {} has {lines} lines, and LONG_FUNCTIONS still allows {max}", function.name);
            let advice = "lower the number in LONG_FUNCTIONS, or take the row out: it never goes up";
            wrong.push(violation(source, function.lines.start, "short", what, advice));
        }
    }
    wrong
}

/// Names of files and types without the words that the house does not use.
pub(crate) fn names(source: &Source) -> Vec<Violation> {
    let file = source.path.rsplit('/').take(2).map(|part| (part.trim_end_matches(".rs"), 1));
    let functions: Vec<_> = source.functions();
    let defined = source.defined();
    let does = functions.iter().filter(|f| f.name.starts_with("do_")).map(|f| (f.name.as_str(), f.lines.start));
    let mut wrong = Vec::new();
    for (name, line) in file.chain(defined).chain(does) {
        let words = words_of(name);
        let Some(word) = words.iter().find(|w| WORDS_NOT_USED.contains(&w.as_str()) || *w == "do") else { continue };
        if NAMES_ALLOWED.iter().any(|(path, allowed, _)| *path == source.path && *allowed == name) {
            continue;
        }
        let advice = "name the thing by what it owns or does; ARCHITECTURE.md, section Words, has the list";
        wrong.push(violation(
            source,
            line,
            "words",
            format!("{name:?} contains {word:?}, a word that is not used"),
            advice,
        ));
    }
    wrong
}

/// `FooBar`, `foo_bar`, `foo-bar` as lower-case words; a plural as its singular too.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        match words.last_mut() {
            Some(last) if c.is_alphanumeric() && !c.is_uppercase() => last.push(c),
            _ => words.push(c.to_lowercase().filter(|c| c.is_alphanumeric()).collect()),
        }
    }
    let singular = |w: &String| w.strip_suffix('s').map(str::to_owned);
    let more: Vec<String> = words.iter().filter_map(singular).collect();
    words.into_iter().chain(more).filter(|w| !w.is_empty()).collect()
}

/// Nothing unfinished, and nothing that ends the daemon.
pub(crate) fn finished(source: &Source) -> Vec<Violation> {
    const MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];
    let mut wrong = Vec::new();
    for (i, token) in source.tokens.iter().enumerate() {
        if MACROS.contains(&token.text.as_str()) && source.has_at(i + 1, &["!"]) {
            let advice = "finish it, or leave it out and say in the documents that it is to come";
            wrong.push(violation(source, token.line, "finished", format!("{}!", token.text), advice));
        }
        let panics = source.has_at(i, &[".", "unwrap", "("]) || source.has_at(i, &[".", "expect", "("]);
        if panics && !source.is_test(i) {
            let what = format!(".{}() outside of tests", source.tokens[i + 1].text);
            let advice = "answer an error, or write the code so that there is nothing to unwrap: a panic loses a mount";
            wrong.push(violation(source, token.line, "finished", what, advice));
        }
    }
    wrong
}

/// What no text of the repository may hold: marks of unfinished work, paths of one machine, one machine's registries.
pub(crate) fn text(path: &str, text: &str) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut add = |line: usize, rule: &'static str, what: String, advice: &str| {
        wrong.push(Violation { file: path.to_owned(), line, rule, what, advice: advice.to_owned() });
    };
    for (number, line) in (1..).zip(text.lines()) {
        for mark in [concat!("FIX", "ME"), concat!("XX", "X")] {
            if line.split(|c: char| !c.is_alphanumeric()).any(|word| word == mark) {
                add(number, "finished", mark.to_owned(), "do what the mark asks for, and take it out");
            }
        }
        for place in [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/", "w-")] {
            let allowed = PLACES_ALLOWED.iter().any(|(file, allowed, _)| *file == path && *allowed == place);
            if has_absolute(line, place) && !allowed {
                add(number, "machine", format!("a path below {place}"), "a path that exists on every machine, or none");
            }
        }
        if let Some(host) = hosts(line).into_iter().find(|h| is_private(h)) {
            add(
                number,
                "machine",
                format!("the host {host}"),
                "name public hosts only: settings of a machine stay there",
            );
        }
        if path.ends_with("Cargo.lock")
            && line.starts_with("source = ")
            && line != "source = \"registry+https://github.com/rust-lang/crates.io-index\""
        {
            add(
                number,
                "machine",
                line.to_owned(),
                "every crate is one of crates.io: `cargo generate-lockfile` without a mirror",
            );
        }
        let is_pip =
            path.ends_with("requirements.txt") && (line.contains("index-url") || line.contains("trusted-host"));
        if is_pip || path.starts_with(".cargo/") && (line.contains("replace-with") || line.contains("[source")) {
            add(number, "machine", line.to_owned(), "put registries into the settings of your machine");
        }
    }
    wrong
}

/// The path stands there from its first slash on, not as the rest of a longer one (`$dir/root/x`).
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}~*/".contains(c))
    })
}

/// Hosts of the URLs in a line.
fn hosts(line: &str) -> Vec<&str> {
    let after = line.match_indices("://").map(|(at, _)| &line[at + 3..]);
    let host =
        |rest: &'_ str| rest.find(|c: char| !c.is_ascii_alphanumeric() && !".-_@".contains(c)).unwrap_or(rest.len());
    after.map(|rest| &rest[..host(rest)]).map(|h| h.rsplit('@').next().unwrap_or(h)).collect()
}

/// A host that only one network knows, or that stands in for a public registry there.
fn is_private(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    let numbers: Vec<u8> = parts.iter().filter_map(|p| p.parse().ok()).collect();
    let is_address = numbers.len() == 4 && parts.len() == 4;
    let private_address = is_address && matches!(numbers[..], [10, ..] | [192, 168, ..] | [172, 16..=31, ..]);
    let stand_in = ["mirror", "artifactory", "nexus", "proxy"].iter().any(|w| parts[0].contains(w));
    private_address || stand_in || ["internal", "corp", "lan"].contains(parts.last().unwrap_or(&""))
}
