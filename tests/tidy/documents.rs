//! Documents that agree with the code: the layer table, the errno table, the mount options, the environment.
//!
//! Owns: what of the code must be named in which document. Does not own: whether the sentences are true.

use super::{read, tables};
use std::collections::BTreeSet;

/// The row of a folder in the layer table of ARCHITECTURE.md: "| `fs/` | `types`, `store` | …".
fn documented_imports(architecture: &str, folder: &str) -> Option<BTreeSet<String>> {
    let begin = format!("| `{folder}` |");
    let row = architecture.lines().find(|l| l.starts_with(&begin))?;
    let cell = row.split('|').nth(2)?;
    Some(cell.split('`').skip(1).step_by(2).map(|w| w.trim_end_matches('/').to_owned()).collect())
}

#[test]
fn architecture_has_the_layer_table() {
    let architecture = read("ARCHITECTURE.md");
    for (folder, allowed) in tables::LAYERS.iter().filter(|(f, _)| *f != "lib") {
        let name = if *folder == "main" { "main.rs".to_owned() } else { format!("{folder}/") };
        let documented = documented_imports(&architecture, &name);
        let expected: BTreeSet<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        assert_eq!(
            documented,
            Some(expected),
            "the row of {name} in ARCHITECTURE.md and LAYERS in tests/tidy/tables.rs"
        );
    }
}

/// Words of a text that begin with `prefix` and go on in capitals, digits and `_`.
fn words_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let each = text.match_indices(prefix).map(|(at, _)| &text[at + prefix.len()..]);
    each.map(|rest| rest.chars().take_while(|c| is_word(*c)).collect::<String>()).filter(|w| !w.is_empty()).collect()
}

#[test]
fn semantics_explains_every_errno() {
    let table = read("src/fs/error.rs");
    let table = table.split("#[cfg(test)]").next().unwrap();
    let semantics = read("SEMANTICS.md");
    let missing: Vec<String> =
        words_after(table, "libc::").into_iter().filter(|e| !semantics.contains(&format!("| {e} |"))).collect();
    assert!(
        missing.is_empty(),
        "src/fs/error.rs answers {missing:?}: give each a row in the errno table of SEMANTICS.md"
    );
}

#[test]
fn semantics_explains_every_kind_of_error_of_the_store() {
    let code = read("src/store/error.rs");
    let body = code.split("pub enum ErrorKind {").nth(1).and_then(|b| b.split("\n}").next()).unwrap();
    let kinds: Vec<&str> = body.lines().map(str::trim).filter_map(|l| l.strip_suffix(',')).collect();
    assert!(kinds.len() > 10, "{kinds:?}");
    let semantics = read("SEMANTICS.md");
    let missing: Vec<&&str> = kinds.iter().filter(|k| !semantics.contains(&format!("`{k}`"))).collect();
    assert!(missing.is_empty(), "the errno table of SEMANTICS.md does not name {missing:?} of src/store/error.rs");
}

/// Names of the mount options, from the table that `objfs mount --help` prints.
fn options() -> Vec<String> {
    let code = read("src/cli/options.rs");
    let name = |rest: &str| rest.split('"').next().map(str::to_owned);
    code.lines().filter_map(|l| l.trim().strip_prefix("known(\"")).filter_map(name).collect()
}

#[test]
fn documents_name_every_mount_option() {
    let options = options();
    assert!(options.len() > 10, "{options:?}");
    let (semantics, page) = (read("SEMANTICS.md"), read("packaging/mount.objfs.8"));
    for option in options {
        let in_table = [format!("| `{option}` |"), format!("| `{option}=")].iter().any(|row| semantics.contains(row));
        assert!(in_table, "the table of mount options in SEMANTICS.md has no row for {option}");
        let escaped = option.replace('-', "\\-");
        let in_page = [format!(".B {escaped}\n"), format!(".BI {escaped}= ")].iter().any(|line| page.contains(line));
        assert!(in_page, "packaging/mount.objfs.8 does not explain {option} (.B {option}, or .BI {option}= VALUE)");
    }
}

#[test]
fn documents_name_no_option_that_is_gone() {
    let options = options();
    let semantics = read("SEMANTICS.md");
    let table = semantics.split("\n## Mount options").nth(1).and_then(|s| s.split("\n## ").next()).unwrap();
    let rows = table.lines().filter_map(|l| l.strip_prefix("| `")).filter_map(|l| l.split(['`', '=']).next());
    let gone: Vec<&str> = rows.filter(|name| !options.iter().any(|o| o == name)).collect();
    assert!(gone.is_empty(), "SEMANTICS.md explains mount options that do not exist: {gone:?}");
}

#[test]
fn readme_names_the_environment() {
    let code = read("src/cli/mount.rs");
    let code = code.split("#[cfg(test)]").next().unwrap();
    let readme = read("README.md");
    for name in words_after(code, "variables(\"") {
        assert!(readme.contains(&name), "README.md does not name the variable {name}");
    }
}

#[test]
fn readme_shows_the_figures_of_the_report() {
    let table = read("docs/benchmarks/short.md");
    assert!(table.lines().count() > 5, "{table}");
    assert!(
        read("README.md").contains(table.trim_end()),
        "the table of benchmarks in README.md is not that of docs/benchmarks/short.md, which scripts/bench writes"
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "SEMANTICS.md", "CHANGELOG.md"] {
        let text = read(document);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            let is_there = target.contains("://") || file.is_empty() || super::root().join(file).exists();
            assert!(is_there, "{document} links to {target}, which is not there");
        }
    }
}
