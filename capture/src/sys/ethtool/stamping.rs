//! Stamps of the card: whether it has a clock, and which packets it stamps (linux/net_tstamp.h).

use super::Ethtool;
use serde::{Deserialize, Serialize};
use std::io;

const GET_TS_INFO: u32 = 0x41;
/// `struct ethtool_ts_info` in words.
const TS_INFO_WORDS: usize = 11;
/// `SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE`.
const RX_HARDWARE: u32 = 1 << 2 | 1 << 6;
/// `HWTSTAMP_FILTER_ALL`: every packet that arrives.
const FILTER_ALL: u32 = 1;

/// What a card can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StampInfo {
    /// Number of its clock: /dev/ptpN.
    pub(crate) clock: Option<u32>,
    /// It can stamp every packet that arrives.
    pub(crate) all: bool,
}

/// `struct hwtstamp_config`: which packets are stamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamping {
    flags: u32,
    sent: u32,
    received: u32,
}

impl Stamping {
    /// Every packet that arrives is stamped.
    pub(crate) fn is_all(self) -> bool {
        self.received == FILTER_ALL
    }

    /// The same for those that are sent, and every packet that arrives.
    pub(crate) fn with_all(self) -> Self {
        Self { received: FILTER_ALL, ..self }
    }
}

impl Ethtool {
    /// What the card can do.
    ///
    /// # Errors
    /// The driver's answer.
    pub(crate) fn stamp_info(&self) -> io::Result<StampInfo> {
        let mut words = [0; TS_INFO_WORDS];
        words[0] = GET_TS_INFO;
        self.exchange(&mut words)?;
        let [_, stamping, clock, _, _, _, _, filters, ..] = words;
        Ok(StampInfo {
            // Signed: -1 = none.
            clock: (clock <= i32::MAX.cast_unsigned()).then_some(clock),
            all: stamping & RX_HARDWARE == RX_HARDWARE && filters & (1 << FILTER_ALL) != 0,
        })
    }

    /// Which packets are stamped.
    ///
    /// # Errors
    /// The driver's answer: EOPNOTSUPP where it stamps none, or does not say.
    pub(crate) fn stamping(&self) -> io::Result<Stamping> {
        self.exchange_stamping(libc::SIOCGHWTSTAMP, Stamping::default())
    }

    /// Sets which packets are stamped. Returns what the driver has made of it.
    ///
    /// # Errors
    /// The driver's answer: ERANGE where it cannot.
    pub(crate) fn set_stamping(&self, stamping: Stamping) -> io::Result<Stamping> {
        self.exchange_stamping(libc::SIOCSHWTSTAMP, stamping)
    }

    fn exchange_stamping(&self, request: libc::c_ulong, stamping: Stamping) -> io::Result<Stamping> {
        let mut words = [stamping.flags, stamping.sent, stamping.received];
        self.exchange_by(request, &mut words)?;
        let [flags, sent, received] = words;
        Ok(Stamping { flags, sent, received })
    }
}
