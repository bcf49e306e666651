//! Each statement of SEMANTICS.md names the tests that execute it.
//!
//! Owns: what a statement is (a sentence, an item of a list, a row of a table), and that each has its entry in
//! `statements_promises.txt` or `statements_details.txt`, in the order of the document. Does not own: whether the test that
//! an entry names is the right one.
//!
//! An entry is a line `> ` with the first words of the statement, and below it lines of two kinds: `FILE TEST`, and
//! `- REASON` for what no test can execute, such as a line that introduces a table.

use super::{read, root};
use std::collections::BTreeMap;

const LISTS: [&str; 2] = ["tests/tidy/statements_promises.txt", "tests/tidy/statements_details.txt"];
/// Characters of a statement that its entry has at least.
const WORDS_MIN: usize = 40;
/// Of a hundred entries, so many may have no test.
const UNTESTED_MAX: usize = 15;

/// Where a sentence ends: before a space that a capital, a name or a link follows.
fn sentences(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = vec![String::new()];
    for (at, c) in chars.iter().enumerate() {
        let is_after_end = at > 0 && ['.', '!', '?'].contains(&chars[at - 1]);
        let begins = chars.get(at + 1).is_some_and(|n| n.is_ascii_uppercase() || ['`', '*', '[', '('].contains(n));
        if *c == ' ' && is_after_end && begins {
            found.push(String::new());
        } else {
            found.last_mut().unwrap().push(*c);
        }
    }
    found
}

/// The statements of a document, in order. The rows of a table count, and its head does not.
pub(crate) fn statements(document: &str) -> Vec<String> {
    let (mut found, mut block, mut in_table) = (Vec::new(), String::new(), false);
    let end = |block: &mut String, found: &mut Vec<String>| {
        let text = block.trim().trim_start_matches("- ");
        let text =
            ["**Now.** ", "**To come.** "].iter().fold(text, |text, mark| text.strip_prefix(mark).unwrap_or(text));
        if !text.is_empty() {
            found.extend(sentences(text));
        }
        block.clear();
    };
    let body = document.split_once("\n## ").map_or("", |(_, body)| body);
    for line in body.lines().skip(1) {
        let is_row = line.starts_with('|');
        if is_row || line.trim().is_empty() || line.starts_with("- ") || line.starts_with('#') {
            end(&mut block, &mut found);
        }
        if is_row && in_table && !line.starts_with("|--") {
            found.push(line.to_owned());
        } else if !is_row && !line.starts_with('#') {
            block.push(' ');
            block.push_str(line.trim());
        }
        in_table = is_row;
    }
    end(&mut block, &mut found);
    found
}

/// One entry of a list.
struct Entry {
    place: String,
    words: String,
    /// File and name.
    tests: Vec<(String, String)>,
    is_excused: bool,
}

fn entries() -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    for list in LISTS {
        for (number, line) in (1..).zip(read(list).lines()) {
            let place = format!("{list}:{number}");
            if let Some(words) = line.strip_prefix("> ") {
                found.push(Entry { place, words: words.to_owned(), tests: Vec::new(), is_excused: false });
            } else if let Some(rest) = line.strip_prefix("  ") {
                let entry = found.last_mut().unwrap_or_else(|| panic!("{place}: before the first entry"));
                match rest.strip_prefix("- ") {
                    Some(reason) if !reason.trim().is_empty() => entry.is_excused = true,
                    _ => {
                        let (file, name) = rest.split_once(' ').unwrap_or_else(|| panic!("{place}: FILE TEST"));
                        entry.tests.push((file.to_owned(), name.to_owned()));
                    }
                }
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{place}: no entry, test, reason or heading: {line}");
            }
        }
    }
    found
}

/// Whether a text has a test of that name: a function with the attribute, a case of the conformance suite, or one that
/// a macro makes of a list.
fn has_test(file: &str, text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let is_test = |at: usize| {
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        attributes.into_iter().any(|line| line.contains("test"))
    };
    let is_case = file.starts_with("tests/conformance/suite/");
    (0..lines.len()).any(|at| lines[at].contains(&head) && (is_case || is_test(at)))
        || lines.iter().any(|line| line.starts_with(&format!("{name}: \"")))
}

#[test]
fn a_test_executes_each_statement_of_semantics() {
    let (statements, entries) = (statements(&read("SEMANTICS.md")), entries());
    assert!(statements.len() > 300, "{}", statements.len());
    for (statement, entry) in statements.iter().zip(&entries) {
        let is_whole = entry.words.chars().count() >= WORDS_MIN || entry.words == *statement;
        assert!(
            statement.starts_with(&entry.words) && is_whole,
            "{}: the next statement of SEMANTICS.md has other words:\n  {statement}\nWrite an entry with its first \
             {WORDS_MIN} characters or more, and the test that executes it",
            entry.place
        );
    }
    assert_eq!(statements.len(), entries.len(), "statements of SEMANTICS.md, and entries; they end alike so far");
    let mut texts = BTreeMap::new();
    for entry in &entries {
        assert!(entry.is_excused || !entry.tests.is_empty(), "{}: no test and no reason", entry.place);
        for (file, name) in &entry.tests {
            assert!(root().join(file).is_file(), "{}: {file} is not there", entry.place);
            let text = texts.entry(file).or_insert_with(|| read(file));
            assert!(has_test(file, text, name), "{}: {file} has no test {name}", entry.place);
        }
    }
    let untested = entries.iter().filter(|entry| entry.tests.is_empty()).count();
    assert!(untested * 100 <= entries.len() * UNTESTED_MAX, "{untested} of {} statements have no test", entries.len());
}

#[test]
fn a_statement_is_a_sentence_an_item_or_a_row() {
    let document = "# T\n\nIntroduction. Not one.\n\n- [P](#p)\n\n## P\n\n### P1 One\n\n**Now.** A b. `C` d, e.g. this\ngoes on? \
                    Yes.\n\n- item one\n  goes on. Two\n- item\n\n| a | b |\n|---|---|\n| `x` | Y. Z |\n\nEnd.\n";
    let expected =
        ["A b.", "`C` d, e.g. this goes on?", "Yes.", "item one goes on.", "Two", "item", "| `x` | Y. Z |", "End."];
    assert_eq!(statements(document), expected);
}

#[test]
fn a_name_is_a_test_only_with_the_attribute() {
    let text = "#[tokio::test]\n// why\nasync fn a() {}\nfn b() {}\n without! {\n c: \"x\",\n}\n";
    let found: Vec<bool> = ["a", "b", "c", "d"].iter().map(|name| has_test("tests/x.rs", text, name)).collect();
    assert_eq!(found, [true, false, true, false]);
    assert!(has_test("tests/conformance/suite/x.rs", text, "b"));
}
