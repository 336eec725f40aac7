//! The XDP program, the records both sides share, and a safe loader.
//!
//! A [`Program`] is one instance for one interface: its own maps, its own error program. Order of use:
//! [`Program::load`], [`Program::set_socket`] for each queue, [`Program::attach`]; on the way out
//! [`Program::detach`] first, so that nothing new arrives while the rings are drained. Dropping it
//! detaches too, and so does the death of the process, unless it is pinned ([`Pins`]). It must never drop
//! or hide a counter: they live as long as the value, or its pins.

pub mod filter;
pub mod generator;
mod link;
mod load;
mod pins;
pub mod replay;
mod shared;
pub mod sync_calls;

pub use filter::Filter;
pub use pins::{Field, Misfit, PinError, Pins, Tally, note_value};
pub use shared::{
    CARD_AHEAD_NS, CARD_BEHIND_NS, CardCounts, CardSample, Counts, FLAG_CARD, FLAG_HEAD, FLAG_META, LAYOUT,
    MAGIC, META_LEN, Meta, QUEUES_MAX, QueueRow, REFUSALS, Refusal, SECONDS, Second, Spot,
};

use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names this build of the programs: a hash of their source. A pinned program of another build is not taken
/// over.
pub const BUILD: &str = env!("TAPEDECK_PROGRAMS");

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has made an skb ("generic").
    Skb,
}

/// A failure of the loader.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The kernel did not take the programs or maps.
    #[error("the kernel refused the XDP program")]
    Load {
        /// The kernel's answer.
        #[source]
        source: libbpf_rs::Error,
        /// What libbpf and the verifier said; many lines.
        log: String,
    },
    /// The interface did not take the program.
    #[error("cannot attach the XDP program to interface {ifindex} in {mode:?} mode")]
    Attach {
        /// Interface.
        ifindex: u32,
        /// Mode that was asked for.
        mode: Mode,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A map did not take or give a value.
    #[error("cannot {act} map {map}")]
    Map {
        /// What was tried.
        act: &'static str,
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The link could not be pinned, or let go of.
    #[error(transparent)]
    Pin(PinError),
    /// A map gave a value of another layout.
    #[error("map {map} holds a record of another layout than {LAYOUT}")]
    Layout {
        /// Name of the map.
        map: &'static str,
    },
}

impl ProgramError {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Load { source, .. } if source.kind() == libbpf_rs::ErrorKind::PermissionDenied => {
                Some("run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON")
            }
            Self::Attach { source, .. } => match source.raw_os_error() {
                Some(EBUSY | EEXIST) => Some(
                    "another XDP program sits on the interface: see `ip link show`, \
                     and take it off with `ip link set dev IF xdp off`",
                ),
                Some(EOPNOTSUPP) => Some("the driver has no native XDP: use --mode skb or --mode packet"),
                Some(EINVAL) => Some("the driver refuses XDP at this MTU or with these offloads: see dmesg"),
                _ => None,
            },
            _ => None,
        }
    }

    /// The errno of a refused attach.
    #[must_use]
    pub fn attach_errno(&self) -> Option<i32> {
        match self {
            Self::Attach { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// One loaded instance of the programs, for one interface.
#[derive(Debug)]
pub struct Program {
    program: OwnedFd,
    xsks: MapHandle,
    queues: MapHandle,
    control: MapHandle,
    filter: filter::FilterMaps,
    /// Of a program that asks the card for stamps.
    card: Option<CardMaps>,
    /// [`shared::Control::card`] as it was written last. Written and read by one thread at a time: Relaxed.
    card_in_use: AtomicU32,
    /// Every map of the object with a name of its own, for the pins; empty if they are pinned already.
    all_maps: Vec<MapHandle>,
    xsks_id: u32,
    refusals: Result<Link, String>,
    attached: Option<OwnedFd>,
    /// Where the link is pinned, or will be.
    link_pin: Option<PathBuf>,
    /// What was counted before this run, per queue; empty = nothing.
    base: Vec<pins::Base>,
    card_base: CardCounts,
}

/// The maps of `card.h`.
#[derive(Debug)]
struct CardMaps {
    cards: MapHandle,
    counts: MapHandle,
}

impl CardMaps {
    /// Those that `map` gives by their names.
    fn named<E>(map: impl Fn(&str) -> Result<MapHandle, E>) -> Result<Self, E> {
        Ok(Self { cards: map("cards")?, counts: map("card_counts")? })
    }
}

impl Program {
    /// Why the kernel's refusals are not counted by the program, on kernels without BTF or without
    /// the tracepoint. `None` = they are, and [`Counts::refused`] is exact.
    #[must_use]
    pub fn without_refusals(&self) -> Option<&str> {
        self.refusals.as_ref().err().map(String::as_str)
    }

    /// Tells the program UTC minus CLOCK_MONOTONIC, nanoseconds.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_utc_offset(&self, utc_offset_ns: u64) -> Result<(), ProgramError> {
        self.tell(utc_offset_ns)
    }

    /// True if the program asks the card when it saw a packet.
    #[must_use]
    pub fn asks_card(&self) -> bool {
        self.card.is_some()
    }

    /// Tells the program how the card's clock runs, and UTC minus CLOCK_MONOTONIC, nanoseconds. `None`: nobody knows
    /// how it runs, so the card is not asked. A sample counts for five seconds. Without [`Program::asks_card`] the sample
    /// is of no use.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn set_card(&self, sample: Option<CardSample>, utc_offset_ns: u64) -> Result<(), ProgramError> {
        let slot = match (sample, &self.card) {
            (Some(sample), Some(maps)) => {
                // The other one than the program reads.
                let slot = u32::from(self.card_in_use.load(Ordering::Relaxed) == 1);
                let refuse = |source| ProgramError::Map { act: "write", map: "cards", source };
                maps.cards.update(&slot.to_ne_bytes(), &sample.bytes(), MapFlags::ANY).map_err(refuse)?;
                slot + 1
            }
            _ => 0,
        };
        self.card_in_use.store(slot, Ordering::Relaxed);
        self.tell(utc_offset_ns)
    }

    /// Who stamped the packets, over all queues, since the run began; `None` unless [`Program::asks_card`].
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn card_counts(&self) -> Result<Option<CardCounts>, ProgramError> {
        let Some(maps) = &self.card else { return Ok(None) };
        let rows = maps.counts.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY);
        let rows = rows.map_err(|source| ProgramError::Map { act: "read", map: "card_counts", source })?;
        let layout = || ProgramError::Layout { map: "card_counts" };
        let mut sum = CardCounts::default();
        for row in rows.ok_or_else(layout)? {
            sum.add(&CardCounts::read(&row).ok_or_else(layout)?);
        }
        Ok(Some(sum.since(&self.card_base)))
    }

    fn tell(&self, utc_offset_ns: u64) -> Result<(), ProgramError> {
        let card = self.card_in_use.load(Ordering::Relaxed);
        let (xsks_id, layout) = (self.xsks_id, LAYOUT);
        let value = shared::Control { utc_offset_ns, xsks_id, layout, card, unused: 0 }.bytes();
        self.control.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY).map_err(|source| ProgramError::Map {
            act: "write",
            map: "control",
            source,
        })
    }

    /// Makes a filter ready beside the one in use. Returns its generation, which [`Program::switch_filter`]
    /// wants and each packet it lets through carries ([`Meta::filter_generation`]).
    ///
    /// # Errors
    /// [`ProgramError::Map`]: the filter in use stays.
    pub fn prepare_filter(&self, filter: &Filter) -> Result<u32, ProgramError> {
        self.filter.prepare(filter)
    }

    /// Generation of the filter in use; 0 = there was never one.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn filter_generation(&self) -> Result<u32, ProgramError> {
        self.filter.generation()
    }

    /// Puts the filter into use that was made ready last. When it returns, every packet is judged by it; no
    /// packet is judged by a mixture.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub fn switch_filter(&self, generation: u32) -> Result<(), ProgramError> {
        self.filter.switch(generation)
    }

    /// Steers `queue` to the AF_XDP socket, which must be bound to that queue.
    ///
    /// # Errors
    /// [`ProgramError::Map`]: the queue is [`QUEUES_MAX`] or beyond, or `socket` is no AF_XDP socket.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), ProgramError> {
        self.xsks
            .update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| ProgramError::Map { act: "write", map: "xsks", source })
    }

    /// Empties the slot of `queue`: its packets are counted and passed on from now on.
    ///
    /// # Errors
    /// [`ProgramError::Map`]: the slot was empty, or lies beyond [`QUEUES_MAX`].
    pub fn clear_socket(&self, queue: u32) -> Result<(), ProgramError> {
        self.xsks.delete(&queue.to_ne_bytes()).map_err(|source| ProgramError::Map {
            act: "clear",
            map: "xsks",
            source,
        })
    }

    /// Attaches the program, and pins the link if the rest is pinned. Every packet of the interface is
    /// counted from here on.
    ///
    /// # Errors
    /// [`ProgramError::Attach`], [`ProgramError::Pin`].
    pub fn attach(&mut self, ifindex: u32, mode: Mode) -> Result<(), ProgramError> {
        let refuse = |source| ProgramError::Attach { ifindex, mode, source };
        let index =
            i32::try_from(ifindex).map_err(|_| refuse(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let link = link::attach(self.program.as_fd(), index, mode).map_err(refuse)?;
        if let Some(path) = &self.link_pin {
            link::pin(link.as_fd(), path)
                .map_err(|source| ProgramError::Pin(PinError { act: "pin", path: path.clone(), source }))?;
        }
        self.attached = Some(link);
        Ok(())
    }

    /// True while the program sits on an interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// Takes the program off its interface. Counters and sockets stay, and so do their pins.
    ///
    /// # Errors
    /// [`ProgramError::Pin`]: a pinned link was not let go of; the program may count on.
    pub fn detach(&mut self) -> Result<(), ProgramError> {
        let (Some(link), Some(path)) = (self.attached.take(), &self.link_pin) else { return Ok(()) };
        link::detach(link, path)
            .map_err(|source| ProgramError::Pin(PinError { act: "detach", path: path.clone(), source }))
    }

    /// Everything counted on `queue` since the run began, over all CPUs: since the load, or since
    /// [`Program::begin`]. `queue` = [`QUEUES_MAX`] reads what lay beyond.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn totals(&self, queue: u32) -> Result<Counts, ProgramError> {
        let mut sum = Counts::default();
        for row in self.rows(queue)? {
            sum.add(&QueueRow::read_total(&row).ok_or(ProgramError::Layout { map: "queues" })?);
        }
        Ok(sum.since(&self.before(queue)))
    }

    /// The counts of `queue` by UTC second, for the last [`SECONDS`] seconds in which the run saw packets. A
    /// second is final once the clock has left it and every packet stamped in it has been handled.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn seconds(&self, queue: u32) -> Result<BTreeMap<u64, Counts>, ProgramError> {
        let mut seconds: BTreeMap<u64, Counts> = BTreeMap::new();
        for (spot, counts) in self.total_and_seconds(queue)?.1 {
            seconds.entry(spot.second).or_default().add(&counts);
        }
        Ok(seconds)
    }

    /// [`Program::totals`] and [`Program::seconds`] in one look, so that the two differ by no more than the
    /// packets that are being counted meanwhile; the seconds by where they are counted.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn total_and_seconds(&self, queue: u32) -> Result<(Counts, BTreeMap<Spot, Counts>), ProgramError> {
        let pins::Base { total, mut seconds } = self.raw(queue)?;
        let base = usize::try_from(queue).ok().and_then(|queue| self.base.get(queue));
        for (spot, before) in base.iter().flat_map(|base| &base.seconds) {
            if let Some(counts) = seconds.get_mut(spot) {
                *counts = counts.since(before);
                if counts.packets == 0 {
                    seconds.remove(spot);
                }
            }
        }
        Ok((total.since(&self.before(queue)), seconds))
    }

    /// A row as it stands in the map, whatever run it counts for.
    fn raw(&self, queue: u32) -> Result<pins::Base, ProgramError> {
        let mut sums = pins::Base::default();
        for (cpu, row) in (0..).zip(self.rows(queue)?) {
            let layout = || ProgramError::Layout { map: "queues" };
            sums.total.add(&QueueRow::read_total(&row).ok_or_else(layout)?);
            for (slot, Second { second, counts }) in QueueRow::read_seconds(&row).ok_or_else(layout)? {
                sums.seconds.insert(Spot { second, cpu, slot }, counts);
            }
        }
        Ok(sums)
    }

    fn rows(&self, queue: u32) -> Result<Vec<Vec<u8>>, ProgramError> {
        self.queues
            .lookup_percpu(&queue.to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| ProgramError::Map { act: "read", map: "queues", source })?
            .ok_or(ProgramError::Layout { map: "queues" })
    }
}

impl AsFd for Program {
    /// The XDP program itself.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl Drop for Program {
    /// A pinned link would outlive the value. After a panic it does: the counters are all that is left.
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Err(error) = self.detach()
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the XDP program stays attached");
        }
    }
}
