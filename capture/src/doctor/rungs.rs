//! Which rung of the ladder a recording would take, and why not a faster one. Pure: nothing is bound.

use super::finding::{Finding, word};
use crate::ladder::Mode;
use crate::sys::netdev::XdpFeatures;
use crate::xsk::ChunkSize;
use serde::Serialize;
use tapedeck_ebpf::QUEUES_MAX;

/// Largest MTU whose packets fit one chunk.
const ONE_CHUNK_MTU: u32 = 3_782;

/// The rung.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Ladder {
    /// Mode that a recording takes, or would take.
    pub(crate) mode: Option<&'static str>,
    /// A recording has taken it: no fall back can come any more.
    #[serde(skip)]
    pub(crate) taken: bool,
    /// Faster modes it cannot have.
    pub(crate) passed: Vec<Passed>,
}

impl Ladder {
    /// That of a recording in this mode.
    pub(crate) fn taken(mode: Mode) -> Self {
        Self { mode: Some(mode.name()), taken: true, passed: Vec::new() }
    }

    /// Merging by the network stack cannot reach the packets: they are taken in the driver.
    pub(crate) fn is_below_the_stack(&self) -> bool {
        self.taken && matches!(self.mode, Some("zerocopy" | "copy"))
    }

    /// Tags that the card took out are put back.
    pub(crate) fn puts_tags_back(&self) -> bool {
        self.taken && self.mode == Some(Mode::Packet.name())
    }
}

/// A rung that is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Passed {
    /// Mode.
    pub(crate) mode: &'static str,
    /// Why it cannot be had.
    pub(crate) why: String,
    /// What was in the way.
    #[serde(skip)]
    pub(crate) obstacle: Obstacle,
}

/// What is in the way of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The kernel refuses, or something else sits there: another check says it.
    Elsewhere,
    /// More queues than the program has slots.
    Queues,
    /// Packets in several pieces.
    Pieces,
    /// The driver.
    Driver,
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground {
    /// The kernel takes the program.
    pub(crate) program: bool,
    /// It has AF_XDP sockets.
    pub(crate) af_xdp: bool,
    /// Somebody else's program sits on the interface.
    pub(crate) occupied: bool,
    /// What the driver announces, where the kernel tells.
    pub(crate) driver: Option<XdpFeatures>,
    /// MTU.
    pub(crate) mtu: u32,
    /// Queues.
    pub(crate) queues: u32,
}

/// The rung that `record --mode auto` would take.
pub(crate) fn expected(ground: Ground) -> Ladder {
    let mut passed = Vec::new();
    for mode in Mode::ALL {
        match obstacle(ground, mode) {
            None => return Ladder { mode: Some(mode.name()), taken: false, passed },
            Some((obstacle, why)) => passed.push(Passed { mode: mode.name(), why, obstacle }),
        }
    }
    Ladder { mode: None, taken: false, passed }
}

fn obstacle(ground: Ground, mode: Mode) -> Option<(Obstacle, String)> {
    use Obstacle::{Driver, Elsewhere, Pieces, Queues};
    let Ground { program, af_xdp, occupied, driver, mtu, queues } = ground;
    if mode == Mode::Packet {
        return None;
    }
    let says = |obstacle, why: &str| Some((obstacle, why.to_owned()));
    if !program {
        return says(Elsewhere, "the kernel does not take the XDP program");
    }
    if !af_xdp {
        return says(Elsewhere, "the kernel has no AF_XDP sockets");
    }
    if occupied {
        return says(Elsewhere, "another XDP program sits on the interface");
    }
    if queues > QUEUES_MAX {
        return Some((Queues, format!("{queues} queues, the XDP program takes {QUEUES_MAX}")));
    }
    if mode == Mode::Skb {
        return None;
    }
    let pieces = ChunkSize::for_mtu(mtu).1;
    let Some(driver) = driver else {
        let unknown = mode == Mode::ZeroCopy;
        return unknown.then(|| (Driver, "the kernel does not tell what the driver can do".to_owned()));
    };
    if !driver.native() {
        return says(Driver, "the driver runs no XDP programs");
    }
    if mode == Mode::ZeroCopy && !driver.zero_copy() {
        return says(Driver, "the driver announces no AF_XDP zero-copy");
    }
    let in_pieces = if mode == Mode::ZeroCopy { driver.zero_copy_pieces() } else { driver.pieces() };
    (pieces && !in_pieces)
        .then(|| (Pieces, format!("at MTU {mtu} packets come in pieces, which the driver does not take")))
}

/// A slower mode than the best, with what can be done about it.
pub(crate) fn check(interface: &str, ladder: &Ladder, queue_word: Option<&str>) -> Option<Finding> {
    let mode = ladder.mode.filter(|_| !ladder.taken)?;
    let last = ladder.passed.last()?;
    let reasons: Vec<_> =
        ladder.passed.iter().map(|passed| format!("{}: {}", passed.mode, passed.why)).collect();
    let (what, why) = (format!("mode {mode} would be used"), reasons.join("; "));
    let is_slow = mode == Mode::Skb.name() || mode == Mode::Packet.name();
    let interface = word(interface);
    let mend = match last.obstacle {
        _ if !is_slow => None,
        Obstacle::Pieces => Some(format!("ip link set dev {interface} mtu {ONE_CHUNK_MTU}")),
        Obstacle::Queues => queue_word.map(|queues| format!("ethtool -L {interface} {queues} {QUEUES_MAX}")),
        Obstacle::Driver | Obstacle::Elsewhere => None,
    };
    Some(match mend {
        Some(mend) => Finding::warning("mode", what, why, mend),
        None => Finding::note("mode", what, why),
    })
}
