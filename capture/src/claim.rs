//! An interface in use: what is changed on it for a recording, and put back at its end.
//!
//! Each change is noted ([`Originals`]) before it is made and said when it is made. It must never set
//! back a thing on another interface that has the name by now.

use crate::ladder::Mode;
use crate::originals::Originals;
use crate::preflight::{PreflightError, Target};
use crate::sys::ethtool::{Ethtool, Offload};
use crate::sys::link_watch::Gone;
use crate::sys::netdev;
use crate::sys::packet::Promiscuous;
use nix::net::if_::if_indextoname;
use std::io;

/// An interface in use: whatever was changed on it is put back on drop.
#[derive(Debug)]
pub(crate) struct Claim {
    interface: String,
    ifindex: u32,
    ethtool: Ethtool,
    originals: Originals,
    gone: Option<Gone>,
    _promiscuous: Promiscuous,
}

impl Claim {
    /// Prepares the interface for a recording; `rss_queues` asks for symmetric hashing over so many
    /// queues.
    ///
    /// # Errors
    /// [`PreflightError::Rss`], and [`PreflightError::Io`] where it does not go promiscuous.
    pub(crate) fn new(target: &Target, rss_queues: Option<u32>) -> Result<Self, PreflightError> {
        let io = |act| {
            let interface = target.name.clone();
            move |source| PreflightError::Io { interface, act, source }
        };
        let promiscuous = Promiscuous::on(target.ifindex).map_err(io("switch on promiscuous mode of"))?;
        let ethtool = Ethtool::open(&target.name).map_err(io("open an ethtool socket for"))?;
        let originals = Originals::load(&target.name, target.ifindex, &target.state.address);
        let interface = target.name.clone();
        if !originals.is_empty() {
            tracing::info!(
                interface,
                "a recorder that did not end in order has left its settings here; this one puts back what was before"
            );
        }
        let (ifindex, gone) = (target.ifindex, None);
        let mut claim = Self { interface, ifindex, ethtool, originals, gone, _promiscuous: promiscuous };
        match rss_queues {
            Some(queues) => claim.spread(queues)?,
            None => claim.gather(),
        }
        Ok(claim)
    }

    /// The interface has left; there is nothing to put back any more.
    pub(crate) fn set_gone(&mut self, gone: Gone) {
        self.gone = Some(gone);
    }

    /// Switches off what would falsify packets in `mode`.
    ///
    /// # Errors
    /// [`PreflightError::Offload`]: tags would be lost and the driver does not let go of them.
    pub(crate) fn offloads_off(&mut self, mode: Mode) -> Result<(), PreflightError> {
        if mode != Mode::Packet {
            // Without the dev-bound program nobody hands the tag over: it would be gone.
            self.switch_off(Offload::RxVlan).map_err(|source| PreflightError::Offload {
                interface: self.interface.clone(),
                word: Offload::RxVlan.word(),
                loss: "VLAN tags would be lost",
                source,
            })?;
        }
        // Merging happens before generic XDP and packet sockets, after native XDP.
        let merging: &[Offload] = match mode {
            Mode::ZeroCopy | Mode::Copy => &[Offload::Lro],
            Mode::Skb | Mode::Packet => &[Offload::Lro, Offload::Gro],
        };
        for which in merging {
            if let Err(error) = self.switch_off(*which) {
                let (interface, word) = (&self.interface, which.word());
                tracing::warn!(interface, %error, "{word} stays on: packets may be recorded merged");
            }
        }
        Ok(())
    }

    fn switch_off(&mut self, which: Offload) -> io::Result<()> {
        // A driver that does not know the offload has not got it.
        if !self.ethtool.offload(which).unwrap_or(false) {
            return Ok(());
        }
        let noted = self.originals.offloads().contains(&which);
        if !noted {
            self.originals.note_offload(which);
        }
        if let Err(error) = self.force_off(which) {
            if !noted {
                self.originals.forget_offload(which);
            }
            return Err(error);
        }
        tracing::info!(interface = self.interface, "{} switched off while recording", which.word());
        Ok(())
    }

    fn force_off(&self, which: Offload) -> io::Result<()> {
        self.ethtool.set_offload(which, false)?;
        if self.ethtool.offload(which)? {
            Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
        } else {
            Ok(())
        }
    }

    /// Has the card stamp every packet that arrives. Returns the number of its clock.
    ///
    /// # Errors
    /// Why it does not: words for people.
    pub(crate) fn stamps_on(&mut self) -> Result<u32, String> {
        let said = |act: &'static str| move |error: io::Error| format!("{act}: {error}");
        let clock = stamps_of(&self.ethtool, self.ifindex)?;
        // What cannot be read cannot be put back, and others may need it as it is.
        let before =
            self.ethtool.stamping().map_err(said("the driver does not say which packets it stamps"))?;
        if before.is_all() {
            return Ok(clock);
        }
        let noted = self.originals.stamping().is_some();
        self.originals.note_stamping(Some(before));
        let set = self
            .ethtool
            .set_stamping(before.with_all())
            .map_err(said("the driver refuses to stamp all packets"));
        let set = set.and_then(|set| {
            if set.is_all() { Ok(()) } else { Err("the driver stamps some packets only".to_owned()) }
        });
        match set {
            Ok(()) => {
                let interface = &self.interface;
                tracing::info!(
                    interface,
                    clock = format!("ptp{clock}"),
                    "the card stamps all packets while recording"
                );
                Ok(clock)
            }
            Err(why) => {
                if !noted {
                    self.stamps_back();
                }
                Err(why)
            }
        }
    }

    /// The card stamps what it did before, if that was changed.
    pub(crate) fn stamps_back(&mut self) {
        let Some(before) = self.originals.stamping() else { return };
        match self.ethtool.set_stamping(before) {
            Ok(_) => self.originals.note_stamping(None),
            Err(error) => {
                let interface = &self.interface;
                tracing::warn!(interface, %error, "cannot set back which packets the card stamps");
            }
        }
    }

    /// Symmetric hashing over `queues` queues.
    fn spread(&mut self, queues: u32) -> Result<(), PreflightError> {
        let fail = |act| {
            let interface = self.interface.clone();
            move |source| PreflightError::Rss { interface, act, source }
        };
        let hashing = self.ethtool.hashing().map_err(fail("read the receive hashing"))?;
        if !hashing.is_settable() {
            return Err(fail("read the receive hashing")(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        }
        let channels = self.ethtool.channels().map_err(fail("read the queue count"))?;
        let queues = queues.clamp(1, channels.rx_max().max(1));
        let (set_channels, set_hashing) = (fail("set the queue count"), fail("set the receive hashing"));
        if channels.rx() != queues {
            self.originals.note_channels(Some(channels));
            self.ethtool.set_channels(channels.with_rx(queues)).map_err(set_channels)?;
        }
        let symmetric = hashing.symmetric(queues);
        self.originals.note_hashing(Some(hashing));
        self.ethtool.set_hashing(&symmetric).map_err(set_hashing)?;
        tracing::info!(interface = self.interface, queues, "symmetric receive hashing set while recording");
        Ok(())
    }

    /// Queues and hashing as they were, if they were changed.
    fn gather(&mut self) {
        let interface = &self.interface;
        if let Some(channels) = self.originals.channels() {
            match self.ethtool.set_channels(channels) {
                Ok(()) => self.originals.note_channels(None),
                Err(error) => tracing::warn!(interface, %error, "cannot set the queue count back"),
            }
        }
        if let Some(hashing) = self.originals.hashing() {
            match self.ethtool.set_hashing(hashing) {
                Ok(()) => self.originals.note_hashing(None),
                Err(error) => tracing::warn!(interface, %error, "cannot set the receive hashing back"),
            }
        }
    }

    fn put_back(&mut self) {
        for which in self.originals.offloads().to_vec() {
            match self.ethtool.set_offload(which, true) {
                Ok(()) => self.originals.forget_offload(which),
                Err(error) => {
                    let interface = &self.interface;
                    tracing::warn!(interface, %error, "cannot switch {} on again", which.word());
                }
            }
        }
        self.stamps_back();
        self.gather();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.gone == Some(Gone::Deleted) {
            self.originals.discard();
        }
        if self.originals.is_empty() {
            return;
        }
        // By its number: it may have another name by now, and another interface its name.
        let name = if_indextoname(self.ifindex).ok().and_then(|name| name.into_string().ok());
        match name.filter(|_| self.gone.is_none()).map(|name| Ethtool::open(&name)) {
            Some(Ok(ethtool)) => {
                self.ethtool = ethtool;
                self.put_back();
            }
            _ => {
                let interface = &self.interface;
                tracing::warn!(interface, "the interface is gone: its settings cannot be put back");
            }
        }
    }
}

/// The number of the clock of a card that can stamp every packet.
///
/// # Errors
/// Why it cannot: words for people.
pub(crate) fn stamps_of(ethtool: &Ethtool, ifindex: u32) -> Result<u32, String> {
    let info = ethtool.stamp_info().map_err(|error| format!("the driver knows no stamps: {error}"))?;
    let clock = info.clock.ok_or_else(|| "the card has no clock".to_owned())?;
    if !info.all {
        return Err("the card cannot stamp all packets".to_owned());
    }
    // Kernels before Linux 6.8 do not say: then it is tried.
    if netdev::features(ifindex).is_ok_and(|features| features.stamps() == Some(false)) {
        return Err("the driver hands no stamps to XDP programs".to_owned());
    }
    Ok(clock)
}
