//! How long a file and a function may be, in Rust and in C.
//!
//! The aims (300 and 40 lines) are for people; only the ceilings are checked, exactly as stated: a function
//! counts from the line of its `fn` (in C: of its name) to its closing brace, tests included. It must never
//! have exceptions.

use super::Finding;
use super::rust::{self, Function};
use crate::repo::Source;

const FILE_CEILING: usize = 600;
const FUNCTION_CEILING: usize = 70;
const COUNTED: &[&str] = &["rs", "c", "h", "py", "sh"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.has_extension(COUNTED) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_CEILING {
        let what = format!("{lines} lines, the ceiling is {FILE_CEILING}");
        let remedy = "split it where it has two subjects; the tests of a long file go to `name/tests.rs`";
        findings.push(Finding::new(&source.path, lines, what, remedy));
    }
    for function in functions(source) {
        let lines = function.last - function.first + 1;
        if lines > FUNCTION_CEILING {
            let what = format!("`{}` has {lines} lines, the ceiling is {FUNCTION_CEILING}", function.name);
            findings.push(Finding::new(&source.path, function.first, what, "give its parts names"));
        }
    }
    findings
}

fn functions(source: &Source) -> Vec<Function> {
    if source.has_extension(&["rs"]) {
        // What does not lex is a finding of its own.
        return rust::tokens(&source.text).map(|tokens| tokens.functions).unwrap_or_default();
    }
    if source.has_extension(&["c", "h"]) {
        return c_functions(&source.text);
    }
    Vec::new()
}

/// The functions of a C file: a brace at depth 0 whose head holds a `(` and no `=`.
fn c_functions(text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut depth = 0_usize;
    let mut line = 1;
    let mut head = String::new();
    let mut open: Option<(String, usize)> = None;
    for c in blank_c(text).chars() {
        match c {
            '{' => {
                if depth == 0 {
                    open = c_name(&head, line);
                }
                depth += 1;
            }
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    head.clear();
                    if let Some((name, first)) = open.take() {
                        functions.push(Function { name, first, last: line });
                    }
                }
            }
            ';' if depth == 0 => head.clear(),
            _ if depth == 0 => head.push(c),
            _ => {}
        }
        if c == '\n' {
            line += 1;
        }
    }
    functions
}

/// Name and line of the function whose head (all since the last declaration) ends at `line`.
fn c_name(head: &str, line: usize) -> Option<(String, usize)> {
    if head.contains('=') {
        return None;
    }
    // The parenthesis that matches the last closing one: those before it belong to attributes.
    let mut depth = 0_usize;
    let (at, _) = head.char_indices().rev().find(|(_, c)| {
        match c {
            ')' => depth += 1,
            '(' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *c == '(' && depth == 0
    })?;
    let (before, after) = head.split_at(at);
    let name = before.trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    if name.is_empty() {
        return None;
    }
    // Line breaks between the name and the brace.
    let spaces = before.len() - before.trim_end().len();
    let gap = before.get(before.len() - spaces..).unwrap_or_default();
    let breaks = gap.matches('\n').count() + after.matches('\n').count();
    Some((name.to_owned(), line - breaks))
}

/// `text` with comments, strings and preprocessor lines blanked; line breaks stay.
fn blank_c(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut line_start = true;
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => skip_until(&mut chars, &mut out, |_, c| c == '\n'),
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                skip_until(&mut chars, &mut out, |before, c| before == '*' && c == '/');
            }
            '#' if line_start => {
                skip_until(&mut chars, &mut out, |before, c| before != '\\' && c == '\n');
            }
            '"' | '\'' => {
                let mut escaped = false;
                skip_until(&mut chars, &mut out, |_, next| {
                    let end = next == c && !escaped;
                    escaped = next == '\\' && !escaped;
                    end
                });
            }
            _ => out.push(c),
        }
        line_start = out.ends_with('\n') || (line_start && c.is_whitespace());
    }
    out
}

fn skip_until(
    chars: &mut impl Iterator<Item = char>,
    out: &mut String,
    mut end: impl FnMut(char, char) -> bool,
) {
    let mut before = '\0';
    for c in chars {
        if c == '\n' {
            out.push('\n');
        }
        if end(before, c) {
            break;
        }
        before = c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lines: usize) -> String {
        "    x();\n".repeat(lines)
    }

    #[test]
    fn a_long_file_is_found() {
        let at_ceiling = Source::new("a.rs", &"// x\n".repeat(FILE_CEILING));
        assert_eq!(check(&at_ceiling), []);
        let above = Source::new("a.rs", &"// x\n".repeat(FILE_CEILING + 1));
        assert_eq!(check(&above).len(), 1);
        let prose = Source::new("a.md", &"x\n".repeat(FILE_CEILING + 1));
        assert_eq!(check(&prose), []);
    }

    #[test]
    fn a_long_function_is_found_at_its_first_line() {
        let at_ceiling = format!("\npub fn a() {{\n{}}}\n", body(FUNCTION_CEILING - 2));
        assert_eq!(check(&Source::new("a.rs", &at_ceiling)), []);
        let above = format!("\npub fn a() {{\n{}}}\n", body(FUNCTION_CEILING - 1));
        let findings = check(&Source::new("a.rs", &above));
        assert_eq!(findings.iter().map(|f| f.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_long_c_function_is_found_whatever_stands_around_it() {
        let text = format!(
            "#define A(x) {{ \\\n  x\n/* {{ */ char *s = \"{{\"; // {{\nstruct s {{ int a; }};\n\
             SEC(\"xdp\")\nint small(void) {{ return '{{'; }}\nstatic __always_inline int\n\
             big(struct s *a,\n    int b)\n{{\n{}}}\n",
            body(FUNCTION_CEILING - 3)
        );
        let seen = c_functions(&text);
        let names: Vec<_> = seen.iter().map(|f| (f.name.as_str(), f.first)).collect();
        assert_eq!(names, [("small", 6), ("big", 8)]);
        assert_eq!(check(&Source::new("a.bpf.c", &text)).len(), 1);
    }
}
