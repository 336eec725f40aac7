//! What was wrong with a filter, where, and what to write instead.

use std::fmt;
use std::ops::Range;

/// Characters of the filter shown on each side of the place, when the filter is long.
const CONTEXT_CHARS: usize = 50;

/// A filter that could not be read. Displays as the message, the place with a caret line, and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    text: String,
    span: Range<usize>,
    message: String,
    hint: Option<String>,
}

impl FilterError {
    pub(super) fn new(text: &str, span: Range<usize>, what: Problem) -> Self {
        Self { text: text.to_owned(), span, message: what.message, hint: what.hint }
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Byte range of the filter text that is meant.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl std::error::Error for FilterError {}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |range: Range<usize>| self.text.get(range).unwrap_or_default();
        let before: Vec<char> = part(0..self.span.start).chars().collect();
        let marked: Vec<char> = part(self.span.clone()).chars().take(CONTEXT_CHARS).collect();
        let behind = part(self.span.start..self.text.len());
        let skipped = before.len().saturating_sub(CONTEXT_CHARS);
        let lead = if skipped > 0 { "..." } else { "" };
        // What was typed goes back to a terminal: no control characters.
        let safe = |c: char| if c.is_control() { ' ' } else { c };
        writeln!(f, "{}", self.message)?;
        write!(f, "  {lead}")?;
        for c in before.iter().skip(skipped).copied().chain(behind.chars().take(2 * CONTEXT_CHARS)) {
            write!(f, "{}", safe(c))?;
        }
        let indent = 2 + lead.len() + before.len() - skipped;
        write!(f, "\n{:indent$}{}", "", "^".repeat(marked.len().max(1)))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A message and perhaps a hint, before its place is known.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    message: String,
    hint: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
