//! Rust source as the rules need it: tokens without comments and strings, paths, test code, functions.
//!
//! Owns: a lexer that is good enough for code that compiles. Does not own: the rules (`rules`).

use std::ops::Range;

/// A word or a sign, with its line. Strings are `""`, characters and lifetimes are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A file of Rust.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    /// Tokens that are compiled for tests only.
    tests: Vec<Range<usize>>,
    /// For each token, how many inline modules it is in.
    depths: Vec<usize>,
}

/// A path such as `crate::fs::Fs`, from code or from a `use`, however it was nested there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedPath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) in_test: bool,
    /// How many inline modules it is in.
    pub(crate) depth: usize,
}

/// A function with its first and last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: Range<usize>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let tokens = lex(text);
        let whole = path.ends_with("/tests.rs") || path.contains("/tests/") || !path.starts_with("src/");
        let everything = 0..tokens.len();
        let tests = if whole { Vec::from([everything]) } else { test_ranges(&tokens) };
        let depths = depths(&tokens);
        Source { path: path.to_owned(), text: text.to_owned(), tokens, tests, depths }
    }

    /// The folder of src/ that the file is in; `main` and `lib` for the two files beside the folders.
    pub(crate) fn folder(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        below.split_once('/').map_or_else(|| below.strip_suffix(".rs"), |(folder, _)| Some(folder))
    }

    /// The module that the file is: `["fs", "attr"]` for src/fs/attr.rs, `["fs"]` for src/fs/mod.rs.
    pub(crate) fn module(&self) -> Vec<&str> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut parts: Vec<&str> = below.trim_end_matches(".rs").split('/').collect();
        if parts.last().is_some_and(|p| ["mod", "lib", "main"].contains(p)) {
            parts.pop();
        }
        parts
    }

    /// Whether the token is compiled for tests only.
    pub(crate) fn is_test(&self, index: usize) -> bool {
        self.tests.iter().any(|r| r.contains(&index))
    }

    /// Lines that are not those of tests.
    pub(crate) fn len_without_tests(&self) -> usize {
        let line = |i: usize| self.tokens.get(i).map_or(0, |t| t.line);
        let of_tests: usize =
            self.tests.iter().filter(|r| !r.is_empty()).map(|r| line(r.end - 1) + 1 - line(r.start)).sum();
        self.text.lines().count().saturating_sub(of_tests)
    }

    fn at(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |t| t.text.as_str())
    }

    /// Whether `words` stand at `index` one after another.
    pub(crate) fn has_at(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.at(index + i) == *word)
    }

    /// Every path of at least two parts, and every `use` of one.
    pub(crate) fn paths(&self) -> Vec<UsedPath> {
        let mut paths = Vec::new();
        let mut i = 0;
        while i < self.tokens.len() {
            let before = if i == 0 { ";" } else { self.at(i - 1) };
            if self.at(i) == "use" && [";", "{", "}", "]", ")", "pub"].contains(&before) {
                i = self.use_tree(i + 1, &[], &mut paths);
            } else if is_ident(self.at(i)) && self.at(i + 1) == "::" && self.begins_path(i) {
                let start = i;
                let mut segments = vec![self.at(i).to_owned()];
                while self.at(i + 1) == "::" && is_ident(self.at(i + 2)) {
                    i += 2;
                    segments.push(self.at(i).to_owned());
                }
                paths.push(self.used(segments, start));
                i += 1;
            } else {
                i += 1;
            }
        }
        paths
    }

    /// Not the middle of a path, nor a method.
    fn begins_path(&self, index: usize) -> bool {
        match index.checked_sub(1).map(|i| self.at(i)) {
            Some(".") => false,
            Some("::") => index < 2 || !is_ident(self.at(index - 2)) && self.at(index - 2) != ">",
            _ => true,
        }
    }

    fn used(&self, segments: Vec<String>, index: usize) -> UsedPath {
        let depth = self.depths.get(index).copied().unwrap_or(0);
        UsedPath { segments, line: self.tokens[index].line, in_test: self.is_test(index), depth }
    }

    /// Reads a tree such as `crate::{a::B, c as d, e::*}`; answers where it ends.
    fn use_tree(&self, mut i: usize, prefix: &[String], paths: &mut Vec<UsedPath>) -> usize {
        let start = i;
        let mut segments = prefix.to_vec();
        loop {
            match self.at(i) {
                "::" => i += 1,
                "{" => {
                    i += 1;
                    while !["}", ""].contains(&self.at(i)) {
                        i = self.use_tree(i, &segments, paths);
                        i += usize::from(self.at(i) == ",");
                    }
                    return i + 1;
                }
                "as" => i += 2,
                "*" => {
                    segments.push("*".to_owned());
                    i += 1;
                }
                word if is_ident(word) => {
                    segments.push(word.to_owned());
                    i += 1;
                }
                _ => break,
            }
        }
        if start < self.tokens.len() {
            paths.push(self.used(segments, start));
        }
        // Whatever this is, the caller gets ahead.
        i.max(start + usize::from(i == start))
    }

    /// Every function that has a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let begins = |i: &usize| self.at(*i) == "fn" && is_ident(self.at(i + 1));
        let function = |i: usize| {
            let body = item_end(&self.tokens, i)?;
            let has_body = self.at(body) == "}";
            let lines = self.tokens[i].line..self.tokens[body].line + 1;
            has_body.then(|| Function { name: self.at(i + 1).to_owned(), lines })
        };
        (0..self.tokens.len()).filter(begins).filter_map(function).collect()
    }

    /// Names of types, traits and modules that are defined here, with their lines.
    pub(crate) fn defined(&self) -> Vec<(&str, usize)> {
        const WORDS: [&str; 6] = ["struct", "enum", "union", "trait", "type", "mod"];
        let names = (1..self.tokens.len()).filter(|i| WORDS.contains(&self.at(i - 1)) && is_ident(self.at(*i)));
        names.map(|i| (self.at(i), self.tokens[i].line)).collect()
    }
}

pub(crate) fn is_ident(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The last token of the item that begins at `start`: its `;` or its closing brace.
fn item_end(tokens: &[Token], start: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut in_body = false;
    let is_use =
        tokens[start..].iter().map(|t| &*t.text).find(|t| ["use", "fn", "mod", "struct"].contains(t)) == Some("use");
    for (i, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "{" => {
                in_body |= depth == 0 && !is_use;
                depth += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && in_body {
                    return Some(i);
                }
            }
            ";" if depth == 0 => return Some(i),
            _ => {}
        }
    }
    None
}

/// Items behind `#[cfg(test)]`.
fn test_ranges(tokens: &[Token]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|t| t.text == word);
    for i in 0..tokens.len() {
        let is_cfg = is(i, "#") && is(i + 1, "[") && is(i + 2, "cfg") && is(i + 4, "test") && is(i + 5, ")");
        if is_cfg && !ranges.last().is_some_and(|r| r.contains(&i)) {
            let end = item_end(tokens, i + 7).unwrap_or(tokens.len() - 1);
            ranges.push(i..end + 1);
        }
    }
    ranges
}

fn depths(tokens: &[Token]) -> Vec<usize> {
    let (mut depths, mut braces) = (Vec::with_capacity(tokens.len()), Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => braces.push(i >= 2 && tokens[i - 2].text == "mod"),
            "}" => drop(braces.pop()),
            _ => {}
        }
        depths.push(braces.iter().filter(|is_mod| **is_mod).count());
    }
    depths
}

fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let start = i;
        let at = |n: usize| chars.get(start + n).copied().unwrap_or('\0');
        let mut push = |text: String| tokens.push(Token { text, line });
        match at(0) {
            '/' if at(1) == '/' => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(1) == '*' => i += block_comment_len(&chars[i..]),
            '"' => {
                push("\"\"".to_owned());
                i += string_len(&chars[i..]);
            }
            '\'' => i += quote_len(&chars[i..]),
            'r' | 'b' | 'c' if prefixed_string_len(&chars[i..]).is_some() => {
                push("\"\"".to_owned());
                i += prefixed_string_len(&chars[i..]).unwrap_or(1);
            }
            c if c.is_alphanumeric() || c == '_' => {
                let word: String = chars[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                i += word.chars().count();
                push(word);
            }
            ':' if at(1) == ':' => {
                push("::".to_owned());
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    push(c.to_string());
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn block_comment_len(chars: &[char]) -> usize {
    let (mut depth, mut i) = (0usize, 0);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                i += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => i += 1,
        }
    }
    i
}

/// From the opening quote to behind the closing one.
fn string_len(chars: &[char]) -> usize {
    let mut i = 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// A character literal, or a lifetime.
fn quote_len(chars: &[char]) -> usize {
    match (chars.get(1), chars.get(2)) {
        (Some('\\'), _) => 3 + chars.iter().skip(3).take_while(|c| **c != '\'').count() + 1,
        (Some(_), Some('\'')) => 3,
        _ => 1 + chars.iter().skip(1).take_while(|c| c.is_alphanumeric() || **c == '_').count(),
    }
}

/// Raw strings, byte strings, C strings, byte characters; `None` if this is a word.
fn prefixed_string_len(chars: &[char]) -> Option<usize> {
    let letters = chars.iter().take_while(|c| ['r', 'b', 'c'].contains(c)).count();
    let hashes = chars.iter().skip(letters).take_while(|c| **c == '#').count();
    let is_raw = chars[..letters].contains(&'r');
    match chars.get(letters + hashes) {
        Some('"') if is_raw && letters <= 2 => {
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = letters + hashes + 1;
            let len = chars[body..].windows(end.len()).position(|w| w == end)?;
            Some(body + len + end.len())
        }
        Some('"') if hashes == 0 && letters == 1 => Some(letters + string_len(&chars[letters..])),
        Some('\'') if hashes == 0 && chars[..letters] == ['b'] => Some(letters + quote_len(&chars[letters..])),
        _ => None,
    }
}
