//! Rules on plain text: leftovers, paths of one machine, characters outside ASCII.
//!
//! The words themselves are written in halves here, so that this file passes its own rules. It must
//! never look at Cargo.lock or the licence texts: others wrote those.

use super::Finding;
use crate::repo::Source;

/// Words that mark unfinished work.
const LEFTOVERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders that exist on somebody's machine only.
const MACHINE_FOLDERS: &[&str] =
    &[concat!("/ho", "me"), concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/Us", "ers")];

/// Kinds of file that are source and stay ASCII. Prose may use what it likes.
const SOURCE: &[&str] = &["rs", "c", "h", "toml", "sh", "py", "yml", "yaml"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if name == "Cargo.lock" || name.starts_with("LICENSE") {
        return Vec::new();
    }
    let ascii_only = source.has_extension(SOURCE) || !name.contains('.');
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let number = index + 1;
        for word in LEFTOVERS.iter().filter(|word| has_word(line, word)) {
            let what = format!("leftover `{word}`");
            findings.push(Finding::new(&source.path, number, what, "do it now, or write an issue"));
        }
        for folder in MACHINE_FOLDERS.iter().filter(|folder| has_folder(line, folder)) {
            let what = format!("absolute path under `{folder}`");
            let remedy = "make it relative to the repository, or take it from the environment";
            findings.push(Finding::new(&source.path, number, what, remedy));
        }
        if let Some(other) = line.chars().find(|c| ascii_only && !c.is_ascii()) {
            let what = format!("U+{:04X} in a source file", u32::from(other));
            findings.push(Finding::new(&source.path, number, what, "write it in ASCII or as an escape"));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    matches(line, word).any(|(before, after)| !before.is_some_and(is_word) && !after.is_some_and(is_word))
}

/// True if `folder` starts a path here: nothing path-like before it, and it is a whole component.
fn has_folder(line: &str, folder: &str) -> bool {
    let path_like = |c: char| is_word(c) || matches!(c, '.' | '-' | '}' | ')' | '>' | '*' | '~' | '/');
    matches(line, folder).any(|(before, after)| {
        !before.is_some_and(path_like) && !after.is_some_and(|c| is_word(c) || c == '-')
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The characters before and after each occurrence of `needle`.
fn matches<'a>(line: &'a str, needle: &'a str) -> impl Iterator<Item = (Option<char>, Option<char>)> + 'a {
    line.match_indices(needle).map(move |(at, found)| {
        let (before, rest) = line.split_at(at);
        (before.chars().next_back(), rest.get(found.len()..).and_then(|after| after.chars().next()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn leftovers_are_found_as_whole_words() {
        for word in LEFTOVERS {
            assert_eq!(lines("a.rs", &format!("//! A.\n// {word}: later\n")), [2], "{word}");
            assert_eq!(lines("a.md", &format!("{word}S and {word}_A\n")), [0; 0], "{word}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(lines("a.md", &format!("see `{folder}/me/x`\n")), [1], "{folder}");
            assert_eq!(lines("a.md", &format!("in {folder}\n")), [1], "{folder}");
            assert_eq!(lines("a.md", &format!("see store{folder}/x, {folder}ing\n")), [0; 0], "{folder}");
        }
    }

    #[test]
    fn source_is_ascii_and_prose_is_free() {
        assert_eq!(lines("a.c", "int a; // \u{b5}s\n"), [1]);
        assert_eq!(lines(".ci/run", "# \u{2026}\n"), [1]);
        assert_eq!(lines("a.md", "10 \u{b5}s\n"), [0; 0]);
    }

    #[test]
    fn files_of_others_are_left_alone() {
        assert_eq!(lines("Cargo.lock", &format!("{}\n", LEFTOVERS[0])), [0; 0]);
        assert_eq!(lines("LICENSE-MIT", &format!("{}\n", LEFTOVERS[0])), [0; 0]);
    }
}
