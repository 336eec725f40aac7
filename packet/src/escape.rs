//! Text that came from a packet, a capture file or a result is hostile: escaped on a terminal and on a page, raw on a
//! pipe.

use std::fmt;

/// A text from outside, for a terminal or a pipe.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    text: &'a str,
    for_terminal: bool,
}

impl<'a> Foreign<'a> {
    /// `text`, to be escaped when `for_terminal`.
    #[must_use]
    pub fn new(text: &'a str, for_terminal: bool) -> Self {
        Self { text, for_terminal }
    }
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.for_terminal {
            return f.write_str(self.text);
        }
        self.text.chars().try_for_each(|c| {
            if is_harmless(c) { write!(f, "{c}") } else { write!(f, "{}", c.escape_default()) }
        })
    }
}

/// Controls move the cursor and set colours; bidirectional marks and invisible characters make a text
/// look like another one.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text for a page, inside of attributes too: no markup comes out of it, and nothing that hides or turns text.
#[must_use]
pub fn html(text: &str) -> String {
    let text = Foreign::new(text, true).to_string();
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_never_sees_controls() {
        let hostile = "eth0\u{1b}[2J\n\u{9b}1m\u{202e}\u{7f}\u{e9}";
        assert_eq!(Foreign::new(hostile, false).to_string(), hostile);
        assert_eq!(
            Foreign::new(hostile, true).to_string(),
            "eth0\\u{1b}[2J\\n\\u{9b}1m\\u{202e}\\u{7f}\u{e9}"
        );
    }

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(Foreign::new("a\u{1b}[2J\u{202e}b\n", true).to_string(), "a\\u{1b}[2J\\u{202e}b\\n");
        assert_eq!(html("<script>\"&'\u{202e}"), "&lt;script&gt;&quot;&amp;&#39;\\u{202e}");
        assert_eq!(html("<script>\"&\u{202e}"), "&lt;script&gt;&quot;&amp;\\u{202e}");
    }
}
