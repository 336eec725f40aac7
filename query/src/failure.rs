//! How an error sounds: `error: what`, `Caused by: why`, a blank line, `hint: do this`.
//!
//! Every act has its own error type; this is only their common voice at the very end.

use std::error::Error;
use std::fmt;

/// An error ready to be said, with the causes below it and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure that is its own cause.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), hint: None }
    }

    /// A failure because of `error` and everything below it.
    #[must_use]
    pub fn because(what: impl Into<String>, error: &dyn Error) -> Self {
        let mut causes = vec![error.to_string()];
        causes.extend(below(error));
        Self { what: what.into(), causes, hint: None }
    }

    /// The failure that `error` itself describes.
    #[must_use]
    pub fn of(error: &dyn Error) -> Self {
        Self { what: error.to_string(), causes: below(error), hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Failure {
    /// What and why in one text, without the hint.
    #[must_use]
    pub fn told(&self) -> String {
        self.causes.iter().fold(self.what.clone(), |text, cause| format!("{text}: {cause}"))
    }
}

/// What the errors below `error` say, top down.
fn below(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        for cause in &self.causes {
            writeln!(f, "Caused by: {cause}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
