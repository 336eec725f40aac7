//! The recorder's final ledger: read from its JSON and laid out for a person.
//!
//! It adds up what it is given and says where it does not balance; it must never fill in a number.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One line of the books: a queue or the total.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Account {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    queue: u64,
    #[serde(default)]
    mode: String,
    pub(crate) seen: u64,
    pub(crate) filtered: u64,
    pub(crate) stored: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) pending: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) unaccounted: i64,
}

impl Account {
    /// True if every packet stands in exactly one line.
    pub(crate) fn balances(&self) -> bool {
        let parts = self.filtered + self.stored + self.pending + self.dropped.values().sum::<u64>();
        self.unaccounted == 0 && parts == self.seen
    }

    /// The causes that took packets.
    fn losses(&self) -> String {
        let losses: Vec<String> = self
            .dropped
            .iter()
            .filter(|(_, packets)| **packets > 0)
            .map(|(cause, packets)| format!("{cause} {}", grouped(*packets)))
            .collect();
        if losses.is_empty() { "none".to_owned() } else { losses.join(", ") }
    }
}

/// The whole ledger.
#[derive(Debug, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) total: Account,
    pub(crate) queues: Vec<Account>,
}

impl Ledger {
    /// The ledger that `record` or `import` printed.
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json)
            .with_context(|| format!("final ledger: {}", String::from_utf8_lossy(json)))
    }

    /// A table: one line for each queue, then the total.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let head = ["", "seen", "stored", "filtered", "pending", "unaccounted"];
        row(&mut text, &head.map(str::to_owned), "dropped, by cause");
        for queue in &self.queues {
            let name = format!("{} queue {} ({})", queue.interface, queue.queue, queue.mode);
            account(&mut text, name, queue);
        }
        account(&mut text, "total".to_owned(), &self.total);
        text
    }
}

fn account(text: &mut String, name: String, account: &Account) {
    let cells = [
        name,
        grouped(account.seen),
        grouped(account.stored),
        grouped(account.filtered),
        grouped(account.pending),
        account.unaccounted.to_string(),
    ];
    row(text, &cells, &account.losses());
}

fn row(text: &mut String, cells: &[String; 6], last: &str) {
    let [name, seen, stored, filtered, pending, unaccounted] = cells;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "     {name:<22} {seen:>9} {stored:>9} {filtered:>9} {pending:>8} {unaccounted:>12}  {last}"
    );
}

/// A number with commas between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"version":1,"total":{"seen":1210,"filtered":0,"stored":1200,"stored_bytes":9,
        "pending":0,"dropped":{"shed":7,"nic":3},"unaccounted":0},"interfaces":[],
        "queues":[{"interface":"tap0","queue":0,"mode":"copy","seen":1207,"filtered":0,"stored":1200,
        "stored_bytes":9,"pending":0,"dropped":{"shed":7},"unaccounted":0}]}"#;

    #[test]
    fn a_ledger_is_read_and_shown() {
        let ledger = Ledger::parse(JSON.as_bytes()).unwrap();
        assert!(ledger.total.balances());
        let table = ledger.table();
        assert!(table.contains("tap0 queue 0 (copy)"), "{table}");
        assert!(table.contains("1,210") && table.contains("nic 3, shed 7"), "{table}");
    }

    #[test]
    fn books_that_do_not_add_up_are_seen() {
        let mut ledger = Ledger::parse(JSON.as_bytes()).unwrap();
        ledger.total.seen += 1;
        assert!(!ledger.total.balances());
        ledger.total.unaccounted = 1;
        assert!(!ledger.total.balances());
        assert!(Ledger::parse(b"{}").is_err());
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
