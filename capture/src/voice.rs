//! How an error sounds: `error: what`, `Caused by: why`, a blank line, `hint: do this`.

use std::error::Error;
use std::fmt;

/// An error ready to be said, with the exit code that goes with it.
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

    /// The failure that `error` describes, with all causes below it.
    #[must_use]
    pub fn of(error: &dyn Error) -> Self {
        let causes = std::iter::successors(error.source(), |error| (*error).source())
            .map(ToString::to_string)
            .collect();
        Self { what: error.to_string(), causes, hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An error with all causes below it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_with_its_causes_and_a_hint() {
        let inner = std::io::Error::other("disk on fire");
        let error = tapedeck_writer::WriteError::Thread { name: "stage", source: inner };
        let said = Failure::of(&error).hint("call the fire brigade").to_string();
        assert_eq!(said, "error: thread stage\nCaused by: disk on fire\n\nhint: call the fire brigade\n");
    }
}
