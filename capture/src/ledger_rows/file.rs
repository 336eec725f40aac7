//! The ledger of imported files: a row for each second of their packets.
//!
//! A file says nothing of the seconds in which nothing came, so these get no row. Memory is bounded by the packets
//! between two looks, however a file jumps in time.

use super::account::{Account, Facts, Origin};
use super::{LedgerRows, Place};
use crate::ledger::Ledger;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_packet::Timestamp;
use tapedeck_writer::{ChainCounters, WriteError};

/// The rows of an import.
#[derive(Debug)]
pub(crate) struct FileRows {
    rows: LedgerRows,
    accounts: BTreeMap<InterfaceInfo, Account>,
}

impl FileRows {
    /// Starts the thread for a store (folder, sensor).
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(store: (PathBuf, String), run: u32) -> Result<Self, WriteError> {
        Ok(Self { rows: LedgerRows::start(vec![store], run)?, accounts: BTreeMap::new() })
    }

    /// Books what the chain of an interface has done since the last look.
    pub(crate) fn look(&mut self, interface: &InterfaceInfo, chain: &ChainCounters) {
        let account = match self.accounts.get_mut(interface) {
            Some(account) => account,
            None => {
                let new = || Account::new(Origin::File, false, Timestamp::ZERO);
                self.accounts.entry(interface.clone()).or_insert_with(new)
            }
        };
        let (now, settled) = (Timestamp::MAX, Timestamp::MAX);
        let facts = Facts { now, settled, program: None, chain: chain.take_seconds(), socket: (0, 0) };
        let drafts = account.look(facts, None);
        let place: Place = (interface.name.clone(), 0);
        self.rows.take(0, &place, "file", drafts);
        self.rows.hand_over_waiting();
    }

    /// The end; `from` and `to` are the times of the import, for what no second of a packet can be named for.
    pub(crate) fn finish(mut self, ledger: &Ledger, from: Timestamp, to: Timestamp) {
        for (interface, mut account) in std::mem::take(&mut self.accounts) {
            let rows = account.close();
            let drafts = super::Drafts { rows, live: Vec::new() };
            self.rows.take(0, &(interface.name, 0), "file", drafts);
        }
        self.rows.close(&ledger.queues, &BTreeMap::new(), |_| 0, from, to);
        self.rows.end();
    }
}
