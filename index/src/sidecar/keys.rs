//! All that a sidecar can be asked for, as the keys of a pack.
//!
//! Every lookup of [`query`](super::query) that finds a row must have its key here: a key left out is a
//! segment excluded wrongly.

use super::entry::RowEntry;
use super::layout::{HEADER_LEN, Section};
use super::lists::{KeyKind as List, Lists};
use super::read::{Sidecar, SidecarError};
use crate::bytes::u64_at;
use crate::pack::{HIGH_PORT, HIGH_PORTS_MAX, Key, KeyKind};

/// What a segment's keys do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyNotes {
    /// It has rows that no key can exclude: layers beyond the cap.
    pub always: bool,
    /// It has more ports from [`HIGH_PORT`] on than a pack keeps; none of these were given.
    pub high_ports: bool,
}

impl Sidecar {
    /// What tells this sidecar from any other: the header's checksum, which covers those of all sections.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        u64_at(self.bytes(), HEADER_LEN - 8).unwrap_or_default()
    }

    /// Checks the checksums of all sections, and decodes none.
    ///
    /// # Errors
    /// The first [`SidecarError`].
    pub fn check(&self) -> Result<(), SidecarError> {
        Section::ALL.iter().try_for_each(|section| self.section(*section).map(drop))
    }

    /// Gives every key of the segment to `put`, each once.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Rows, Addresses, Fences and Lists.
    pub fn keys(&self, put: &mut dyn FnMut(Key)) -> Result<KeyNotes, SidecarError> {
        let mut previous = None;
        let mut put_new = |key: Key| {
            // Every source of keys is sorted, so equal ones follow each other.
            if previous.replace(key) != Some(key) {
                put(key);
            }
        };
        let mut always = false;
        for number in 0..self.summary().rows {
            let entry = self.row_entry(number)?;
            match entry.flags & RowEntry::KIND {
                RowEntry::IPV4 | RowEntry::IPV6 => put_new(Key::flow(entry.hash)),
                RowEntry::COARSE => always = true,
                _ => {}
            }
        }
        for (section, kinds) in [
            (Section::Addresses4, [(KeyKind::V4, 0), (KeyKind::V4Net24, 8), (KeyKind::V4Net16, 16)]),
            (Section::Addresses6, [(KeyKind::V6, 0), (KeyKind::V6Net64, 64), (KeyKind::V6Net48, 80)]),
        ] {
            for (kind, shift) in kinds {
                for number in 0..self.count(section) {
                    let value = match section {
                        Section::Addresses4 => u32::from_le_bytes(self.element(section, number)?).into(),
                        _ => u128::from_be_bytes(self.element(section, number)?),
                    };
                    put_new(Key { kind, value: value >> shift });
                }
            }
        }
        let high_ports = self.list_keys(&mut put_new)?;
        Ok(KeyNotes { always, high_ports })
    }

    /// The keys of the lists; whether ports were left out.
    fn list_keys(&self, put: &mut dyn FnMut(Key)) -> Result<bool, SidecarError> {
        let (fences, lists) = (self.section(Section::Fences)?, self.section(Section::Lists)?);
        let lists = Lists { fences, lists, rows: self.summary().rows };
        let mut high: Vec<Key> = Vec::new();
        let first = List::Port.key(0);
        lists
            .each_key(first, |key| {
                let value = u128::from(key & u64::from(u32::MAX));
                let kind = match List::of_key(key) {
                    Some(List::Port) => KeyKind::Port,
                    Some(List::Vlan) => KeyKind::Vlan,
                    Some(List::Label) => KeyKind::Label,
                    Some(List::Pppoe) => KeyKind::Pppoe,
                    // Not asked for by any filter; addresses and always-rows come from elsewhere.
                    Some(List::TunnelId | List::Always | List::Address) | None => return,
                };
                let key = Key { kind, value };
                if key.is_high_port() { high.push(key) } else { put(key) }
            })
            .ok_or_else(|| self.senseless(Section::Lists))?;
        let too_many = high.len() > HIGH_PORTS_MAX;
        if !too_many {
            high.into_iter().for_each(put);
        }
        Ok(too_many)
    }
}

const _: () = assert!(HIGH_PORT as usize + HIGH_PORTS_MAX < 1 << 16);
