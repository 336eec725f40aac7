//! A report for people: the state of things in a few aligned lines, then what was found.
//!
//! Prose is wrapped; a command never is, so that it can be pasted.

use super::facts::Facts;
use super::finding::{Finding, Severity, cpu_list};
use super::host::mib;
use crate::ladder::{self, Mode};
use std::fmt::Write as _;

/// Width of the labels in front of texts.
const LABEL: usize = 11;
/// Narrowest and widest page.
const WIDTHS: (usize, usize) = (40, 160);

/// What a report is printed on.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    width: usize,
    colour: bool,
}

impl Page {
    /// A terminal of so many columns if it is one, else what COLUMNS says.
    #[must_use]
    pub fn new(terminal: Option<usize>, columns: Option<&str>, no_colour: bool) -> Self {
        let named = columns.and_then(|columns| columns.trim().parse().ok());
        let (least, most) = WIDTHS;
        let width = terminal.or(named).unwrap_or(100).clamp(least, most);
        Self { width, colour: terminal.is_some() && !no_colour }
    }

    fn paint(self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
            Severity::Note => "1;36",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The whole report.
pub(super) fn report(facts: &Facts, findings: &[Finding], page: Page) -> String {
    let mut text = format!("{}: {}\n\n", facts.interface, summary(findings));
    for (label, value) in lines(facts) {
        labelled(&mut text, &label, &value, page);
    }
    for finding in findings {
        let severity = page.paint(finding.severity, finding.severity.name());
        let padding = " ".repeat((LABEL - 1).saturating_sub(finding.severity.name().len()));
        let _ = writeln!(text, "\n{severity}{padding}{}", finding.id);
        labelled(&mut text, "what", &finding.what, page);
        labelled(&mut text, "why", &finding.why, page);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "  {:width$}{mend}", "mend", width = LABEL - 3);
        }
    }
    text.trim_end().to_owned()
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity, one: &str| {
        let number = findings.iter().filter(|finding| finding.severity == severity).count();
        let plural = if number == 1 { "" } else { "s" };
        (number > 0).then(|| format!("{number} {one}{plural}"))
    };
    let counts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| count(severity, severity.name()))
        .collect();
    let is_clean = findings.iter().all(|finding| finding.severity == Severity::Note);
    match (is_clean, counts.is_empty()) {
        (true, true) => "clean".to_owned(),
        (true, false) => format!("clean ({})", counts.join(", ")),
        _ => counts.join(", "),
    }
}

/// A label and a wrapped text beside it.
fn labelled(text: &mut String, label: &str, value: &str, page: Page) {
    let room = page.width.saturating_sub(LABEL - 1).max(20);
    let mut head = label;
    for line in wrap(value, room) {
        let _ = writeln!(text, "  {head:width$}{line}", width = LABEL - 3);
        head = "";
    }
}

/// Lines of at most `width` characters, unless a single word is longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The state of things.
fn lines(facts: &Facts) -> Vec<(String, String)> {
    let card = &facts.card;
    let ring = card.ring.zip(card.ring_max).map(|(now, max)| format!(", ring {now} of {max}"));
    let bus = if facts.link.bus.is_empty() { String::new() } else { format!(" at {}", facts.link.bus) };
    let node = facts.cores.node.map(|node| format!(", NUMA node {node}"));
    let mut lines = vec![
        (
            "card".to_owned(),
            format!(
                "{}{bus}{}, queues {}{}, MTU {}",
                facts.link.driver,
                node.unwrap_or_default(),
                card.queues,
                ring.unwrap_or_default(),
                facts.link.mtu
            ),
        ),
        ("mode".to_owned(), facts.ladder.mode.unwrap_or("none").to_owned()),
        ("stamps".to_owned(), stamps(facts)),
        ("cpus".to_owned(), cpus(facts)),
        ("memory".to_owned(), memory(facts)),
        ("clock".to_owned(), clock(facts)),
        ("kernel".to_owned(), format!("Linux {}", facts.kernel.release)),
    ];
    for store in &facts.stores {
        let free = store.free_bytes.zip(store.size_bytes);
        let free =
            free.map_or_else(String::new, |(free, size)| format!(", {} free of {}", mib(free), mib(size)));
        let sink = store.sink.map_or_else(String::new, |sink| format!(", writes by {sink}"));
        let value = format!("{}: {}{free}{sink}", store.store.display(), store.filesystem);
        lines.push(("store".to_owned(), value));
    }
    lines
}

/// Whose clock would stamp packets.
fn stamps(facts: &Facts) -> String {
    let native = facts.ladder.mode.and_then(Mode::named).is_some_and(ladder::can_ask_card);
    match (&facts.card.stamps, &facts.card.no_stamps) {
        (Some(clock), _) if native => format!("of the card ({clock}), else of the system's clock"),
        (Some(clock), _) => format!("of the system's clock: only native XDP asks the card ({clock})"),
        (None, Some(why)) => format!("of the system's clock: {why}"),
        (None, None) => "of the system's clock".to_owned(),
    }
}

fn cpus(facts: &Facts) -> String {
    let cores = &facts.cores;
    let workers = if cores.workers.is_empty() { "any".to_owned() } else { cpu_list(&cores.workers) };
    let interrupts: Vec<usize> =
        cores.interrupts.iter().flat_map(|interrupt| interrupt.cpus.iter().copied()).collect();
    let interrupts =
        if interrupts.is_empty() { String::new() } else { format!(", interrupts {}", cpu_list(&interrupts)) };
    format!("workers {workers}{interrupts}")
}

fn memory(facts: &Facts) -> String {
    let memory = &facts.memory;
    let available =
        memory.available_bytes.map_or_else(String::new, |bytes| format!("; {} available", mib(bytes)));
    format!(
        "at most {} for packets, of it {} that they arrive in, and {} for sessions{available}",
        mib(memory.most_bytes),
        mib(memory.packets_bytes),
        mib(memory.sessions_bytes)
    )
}

fn clock(facts: &Facts) -> String {
    let clock = &facts.clock;
    let held = match clock.synchronised {
        Some(true) => "held to a source of time",
        Some(false) => "on its own",
        None => "unknown",
    };
    let error = clock
        .error_max_us
        .filter(|_| clock.synchronised == Some(true))
        .map_or_else(String::new, |us| format!(" within {us} us"));
    let tai = match clock.tai_offset_s {
        None | Some(0) => "TAI offset not set".to_owned(),
        Some(seconds) => format!("TAI offset {seconds} s"),
    };
    let source = clock.source.as_deref().unwrap_or("unknown");
    format!("{held}{error}, {tai}, read from {source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_terminal_then_columns() {
        let page = Page::new(Some(120), Some("50"), false);
        assert_eq!((page.width, page.colour), (120, true));
        let pipe = Page::new(None, Some("50"), false);
        assert_eq!((pipe.width, pipe.colour), (50, false));
        assert_eq!(Page::new(None, Some("wide"), true).width, 100);
        assert_eq!(Page::new(None, Some("3"), true).width, 40);
        assert!(!Page::new(Some(80), None, true).colour);
    }

    #[test]
    fn prose_is_wrapped_and_commands_are_not() {
        let mend = format!("ethtool -X eth1 hkey {}", "6d:5a:".repeat(20));
        let finding =
            Finding::warning("rss", "a few words that are long enough to be wrapped", "w", mend.clone());
        let facts = Facts { interface: "eth1".into(), ..Facts::default() };
        let text = report(&facts, &[finding], Page::new(None, Some("40"), false));
        assert!(text.starts_with("eth1: 1 warning\n\n"), "{text}");
        assert!(
            text.contains("\nwarning   rss\n  what    a few words that are long\n          enough to be"),
            "{text}"
        );
        assert!(text.contains(&format!("\n  mend    {mend}")) && !text.contains('\x1b'), "{text}");
        let prose = text.lines().filter(|line| !line.contains("mend"));
        assert!(prose.clone().all(|line| line.chars().count() <= 40), "{text}");
    }

    #[test]
    fn severity_has_its_colour_on_a_terminal() {
        let finding = Finding::error("x", "w", "y", "z".into());
        let facts = Facts { interface: "eth1".into(), ..Facts::default() };
        let text = report(&facts, &[finding], Page::new(Some(80), None, false));
        assert!(text.contains("\x1b[1;31merror\x1b[0m     x"), "{text}");
    }

    #[test]
    fn summaries_count() {
        let facts = Facts::default();
        assert!(report(&facts, &[], Page::new(None, None, true)).starts_with(": clean\n"));
        let note = Finding::note("n", "w", "y");
        let text = report(&facts, &[note.clone(), note], Page::new(None, None, true));
        assert!(text.starts_with(": clean (2 notes)\n"), "{text}");
    }
}
