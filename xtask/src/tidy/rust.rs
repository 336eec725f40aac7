//! Rules on Rust tokens: the module's own words, the clock, debug prints; and the token reader that the
//! rules on size and `unsafe` share.
//!
//! It lexes, it never parses: so it also sees into macro bodies, where a parser sees nothing.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::Finding;
use crate::repo::Source;

/// Folders whose code never asks the clock: `now` is a parameter there. The `main.rs` of a binary reads it.
const WITHOUT_CLOCK: &[&str] = &["packet/src/", "session/src/", "index/src/", "query/src/"];
const CLOCKS: &[&str] = &["SystemTime", "Instant", "Timestamp", "Zoned"];

/// A function's name, and the lines of its `fn` and of its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// What one file's tokens say.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) functions: Vec<Function>,
    /// Lines with the keyword `unsafe`.
    pub(super) unsafe_lines: Vec<usize>,
    /// Lines that read a clock.
    clock_lines: Vec<usize>,
    /// Lines with the debug print macro.
    debug_lines: Vec<usize>,
}

/// Reads `text` as Rust tokens. Errors with the lexer's words.
pub(super) fn tokens(text: &str) -> Result<Tokens, String> {
    let stream = TokenStream::from_str(text).map_err(|error| error.to_string())?;
    let mut tokens = Tokens::default();
    collect(stream, &mut tokens);
    Ok(tokens)
}

fn collect(stream: TokenStream, into: &mut Tokens) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        let rest = trees.get(index + 1..).unwrap_or_default();
        if let TokenTree::Ident(ident) = tree {
            let line = ident.span().start().line;
            let word = ident.to_string();
            match word.as_str() {
                "unsafe" => into.unsafe_lines.push(line),
                "dbg" if is_punct(rest.first(), '!') => into.debug_lines.push(line),
                "fn" => into.functions.extend(function(line, rest)),
                _ if CLOCKS.contains(&word.as_str()) && calls_now(rest) => into.clock_lines.push(line),
                _ => {}
            }
        }
        if let TokenTree::Group(group) = tree {
            collect(group.stream(), into);
        }
    }
}

/// The function whose tokens after `fn` are `rest`; `None` for a type such as `fn(u8)` or one without a body.
fn function(first: usize, rest: &[TokenTree]) -> Option<Function> {
    let TokenTree::Ident(name) = rest.first()? else { return None };
    for tree in rest {
        match tree {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => {
                let last = body.span_close().end().line;
                return Some(Function { name: name.to_string(), first, last });
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            _ => {}
        }
    }
    None
}

fn calls_now(rest: &[TokenTree]) -> bool {
    is_punct(rest.first(), ':')
        && is_punct(rest.get(1), ':')
        && matches!(rest.get(2), Some(TokenTree::Ident(ident)) if ident == "now")
}

fn is_punct(tree: Option<&TokenTree>, c: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.has_extension(&["rs"]) {
        return Vec::new();
    }
    let at = |line, what: &str, remedy: &str| Finding::new(&source.path, line, what, remedy);
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        let remedy = "open the file with `//!`: what it is for, what it must never do";
        findings.push(at(1, "the module does not say what it is for", remedy));
    }
    let tokens = match tokens(&source.text) {
        Ok(tokens) => tokens,
        Err(error) => {
            findings.push(at(1, &format!("not Rust tokens: {error}"), "run `cargo check`"));
            return findings;
        }
    };
    for line in tokens.debug_lines {
        findings.push(at(line, concat!("leftover `db", "g!`"), "remove it"));
    }
    let tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    let clockless = WITHOUT_CLOCK.iter().any(|folder| source.path.starts_with(folder));
    if clockless && !tests && !source.path.ends_with("/main.rs") {
        for line in tokens.clock_lines {
            let remedy = "take `now` as a parameter; `main` reads the clock once";
            findings.push(at(line, "this crate never asks the clock", remedy));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_module_without_its_words_is_found() {
        assert_eq!(lines("a.rs", "fn a() {}\n"), [1]);
        assert_eq!(lines("a.rs", "//! A.\nfn a() {}\n"), [0; 0]);
        assert_eq!(lines("a.md", "# A\n"), [0; 0]);
    }

    #[test]
    fn a_debug_print_is_found_also_in_a_macro_body() {
        let text = concat!("//! A.\nfn a() { dbg", "!(1); }\nm! { dbg", "!(2) }\n");
        assert_eq!(lines("a.rs", text), [2, 3]);
    }

    #[test]
    fn a_clock_is_found_only_where_none_may_be() {
        let text = "//! A.\nfn a() { std::time::Instant::now(); }\n";
        assert_eq!(lines("index/src/a.rs", text), [2]);
        assert_eq!(lines("query/src/main.rs", text), [0; 0]);
        assert_eq!(lines("index/src/a/tests.rs", text), [0; 0]);
        assert_eq!(lines("capture/src/a.rs", text), [0; 0]);
    }

    #[test]
    fn what_is_no_rust_is_found() {
        assert_eq!(lines("a.rs", "//! A.\nfn a( {\n"), [1]);
    }

    #[test]
    fn functions_are_seen_in_impls_and_macros_but_not_types() {
        let text = "trait T { fn no_body(&self); }\nimpl A {\n    fn b(f: fn(u8) -> u8) {\n    }\n}\n\
                    proptest! {\n    #[test]\n    fn c(x in 0..9) {\n        y();\n    }\n}\n";
        let seen = tokens(text).unwrap().functions;
        let function = |name: &str, first, last| Function { name: name.into(), first, last };
        assert_eq!(seen, [function("b", 3, 4), function("c", 8, 10)]);
    }
}
