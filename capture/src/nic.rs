//! What a card lost before any program saw it: `nic` of the ledger.
//!
//! The link statistic `rx_missed_errors` counts on every driver what the device dropped for want of buffers
//! (linux/if_link.h). Some drivers count further losses of that kind only among their own statistics (`ethtool -S`);
//! [`KNOWN`] says which, and which are the same packets under another name. No other statistic is used: `rx_dropped`,
//! `rx_over_errors`, `rx_fifo_errors` and `rx_nohandler` of the link hold, driver by driver, packets that a program or
//! the stack dropped, or those of `rx_missed_errors` once more.
//!
//! It must never count a packet twice, and never one that a program has seen.

use crate::sys::ethtool::{Ethtool, Statistics};
use crate::sys::netlink;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::{Mutex, PoisonError};

/// The link statistic.
const MISSED: &str = "rx_missed_errors";

/// A driver whose own statistics tell more. `*` in a name stands for a number; such statistics add up.
struct Known {
    /// As the kernel names it.
    driver: &'static str,
    /// The packets of `rx_missed_errors` under another name: the larger one counts.
    same: &'static [&'static str],
    /// Other packets, lost before any program as well.
    besides: &'static [&'static str],
    /// The same, where the statistics have no `rx_missed_errors`: later drivers mean something else by the name.
    once: &'static [&'static str],
}

/// The names are those of the drivers' sources (drivers/net/ethernet/ and drivers/net/ of Linux 6.1 to 6.18). Which
/// of them count different packets follows from the registers' descriptions; no such card was at hand to see it.
const KNOWN: &[Known] = &[
    // MPC is the packet buffer's; QPRDC, per queue, counts what found no descriptor.
    Known { driver: "ixgbe", same: &[], besides: &["rx_no_dma_resources"], once: &[] },
    // GLPRT_RDPC, the port's buffer, is `port.rx_dropped`, and later `port.rx_discards`. GLV_RDPC, no descriptor, was in
    // `rx_dropped` together with GL_RXERR1 (frames too long), until it became `rx_missed_errors` and `rx_dropped` the rest.
    Known {
        driver: "i40e",
        same: &[],
        besides: &["port.rx_dropped", "port.rx_discards"],
        once: &["rx_dropped"],
    },
    // The port's buffer is `rx_missed_errors`, and `rx_dropped.nic`; `rx_dropped` is GLV_RDPC, no descriptor.
    Known { driver: "ice", same: &["rx_dropped.nic"], besides: &["rx_dropped"], once: &[] },
    // MPC is the packet buffer's; RQDPC, per queue, counts what found no descriptor.
    Known { driver: "igb", same: &[], besides: &["rx_queue_*_drops"], once: &[] },
    Known { driver: "igc", same: &[], besides: &["rx_queue_*_drops"], once: &[] },
    // Up to Linux 6.8 `rx_out_of_buffer` stood in `rx_dropped` of the link. The port's buffer counts apart.
    Known { driver: "mlx5_core", same: &["rx_out_of_buffer"], besides: &["rx_discards_phy"], once: &[] },
    // From Linux 6.10, where the device has VIRTIO_NET_F_DEVICE_STATS; `rx*_drops` are the driver's and come later.
    Known { driver: "virtio_net", same: &[], besides: &["rx*_hw_drops"], once: &[] },
    // The same name for each queue.
    Known { driver: "vmxnet3", same: &[], besides: &["pkts rx OOB"], once: &[] },
];

/// A counter of losses, and what it has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// As `ip -s -s link` or `ethtool -S` shows it, with `*` for the number of a queue.
    pub counter: String,
    /// Packets.
    pub packets: u64,
}

/// What the counters of an interface say since it is there, 0 included.
///
/// # Errors
/// There is none of this name. What its driver does not tell is left out.
pub fn losses(interface: &str) -> io::Result<Vec<Loss>> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    let missed = netlink::link(ifindex)?.rx_missed;
    let mut card = Card::of(interface);
    let told = card.as_mut().map(Card::told).unwrap_or_default();
    Ok(each_once(raw(missed, card.map(|card| card.known), &told)))
}

/// The statistics of a driver's own, by name.
///
/// # Errors
/// EOPNOTSUPP where it has none, and whatever else the kernel says.
pub fn driver_statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    let ethtool = Ethtool::open(interface)?;
    let mut statistics = Statistics::new(&ethtool)?;
    read(&ethtool, &mut statistics)
}

fn read(ethtool: &Ethtool, statistics: &mut Statistics) -> io::Result<Vec<(String, u64)>> {
    for _ in 0..2 {
        let values = statistics.values(ethtool)?.map(Iterator::collect::<Vec<u64>>);
        if let Some(values) = values {
            return Ok(statistics.names().iter().cloned().zip(values).collect());
        }
        *statistics = Statistics::new(ethtool)?;
    }
    Err(io::Error::from(io::ErrorKind::Interrupted))
}

/// A card whose driver is known, and its statistics if they can be read.
#[derive(Debug)]
struct Card {
    known: &'static Known,
    ethtool: Ethtool,
    statistics: Option<Statistics>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.driver)
    }
}

impl Card {
    fn of(interface: &str) -> Option<Self> {
        let ethtool = Ethtool::open(interface).ok()?;
        let driver = ethtool.driver().ok()?.name;
        let known = KNOWN.iter().find(|known| known.driver == driver)?;
        Some(Self { known, ethtool, statistics: None })
    }

    /// What its driver tells; nothing where it cannot be read now.
    fn told(&mut self) -> Vec<(String, u64)> {
        if self.statistics.is_none() {
            self.statistics = Statistics::new(&self.ethtool).ok();
        }
        let Some(statistics) = &mut self.statistics else { return Vec::new() };
        read(&self.ethtool, statistics).unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read the statistics of the driver");
            self.statistics = None;
            Vec::new()
        })
    }
}

/// A counter as it stands, and whether it counts the packets of `rx_missed_errors`.
type Raw = (bool, Loss);

/// The counters of losses before any program, that of the link first. One that is not there is left out.
fn raw(missed: u64, known: Option<&Known>, told: &[(String, u64)]) -> Vec<Raw> {
    let of = |name: &&'static str| {
        let mut packets = told.iter().filter(|(other, _)| fits(name, other)).map(|(_, packets)| *packets);
        let first = packets.next()?;
        let packets = packets.fold(first, u64::saturating_add);
        Some(Loss { counter: (*name).to_owned(), packets })
    };
    let mut all = vec![(true, Loss { counter: MISSED.to_owned(), packets: missed })];
    if let Some(Known { same, besides, once, .. }) = known {
        all.extend(same.iter().filter_map(of).map(|loss| (true, loss)));
        all.extend(besides.iter().filter_map(of).map(|loss| (false, loss)));
        if of(&MISSED).is_none() {
            all.extend(once.iter().filter_map(of).map(|loss| (false, loss)));
        }
    }
    all
}

/// The losses, each packet once: of the counters that count the same ones the one that has counted most.
fn each_once(all: impl IntoIterator<Item = Raw>) -> Vec<Loss> {
    let (same, others): (Vec<Raw>, Vec<Raw>) = all.into_iter().partition(|(same, _)| *same);
    let most = same
        .into_iter()
        .map(|(_, loss)| loss)
        .reduce(|most, loss| if loss.packets > most.packets { loss } else { most });
    most.into_iter().chain(others.into_iter().map(|(_, loss)| loss)).collect()
}

/// Whether a name is the one meant. Some drivers indent them.
fn fits(meant: &str, name: &str) -> bool {
    let name = name.trim();
    let Some((front, end)) = meant.split_once('*') else { return meant == name };
    let number = name.strip_prefix(front).and_then(|rest| rest.strip_suffix(end));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a card loses while it is recorded.
#[derive(Debug)]
pub(crate) struct Nic {
    ifindex: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The driver is asked by the name that the interface has now.
    name: String,
    card: Option<Card>,
    counters: Vec<Counter>,
}

/// One of its counters.
#[derive(Debug)]
struct Counter {
    /// It counts the packets of `rx_missed_errors`.
    same: bool,
    /// Its name, and what it counted since the beginning.
    lost: Loss,
    /// When it was last read.
    last: u64,
}

impl Nic {
    /// The losses from now on.
    pub(crate) fn new(ifindex: u32) -> Self {
        let state = State { name: String::new(), card: None, counters: Vec::new() };
        let nic = Self { ifindex, state: Mutex::new(state) };
        nic.read();
        nic
    }

    /// Asks what was lost since the beginning, in all. An interface that is gone has lost what it had lost.
    pub(crate) fn read(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { name, card, counters } = &mut *state;
        if let Ok(link) = netlink::link(self.ifindex) {
            let now = nix::net::if_::if_indextoname(self.ifindex).ok().and_then(|it| it.into_string().ok());
            if let Some(now) = now.filter(|now| now != name) {
                *card = Card::of(&now);
                *name = now;
            }
            let told = card.as_mut().map(Card::told).unwrap_or_default();
            note(counters, &raw(link.rx_missed, card.as_ref().map(|card| card.known), &told));
        }
        lost(counters).iter().map(|loss| loss.packets).sum()
    }

    /// The counters that have counted something, as they were last read.
    pub(crate) fn losses(&self) -> Vec<Loss> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        lost(&state.counters).into_iter().filter(|loss| loss.packets > 0).collect()
    }
}

/// What was lost since the beginning.
fn lost(counters: &[Counter]) -> Vec<Loss> {
    each_once(counters.iter().map(|counter| (counter.same, counter.lost.clone())))
}

/// Adds what the counters have counted since they were last read. One that is new begins there. One that went back
/// was set to zero, or is another interface's: what it counted since is not known, and nothing is made up.
fn note(counters: &mut Vec<Counter>, told: &[Raw]) {
    for (same, Loss { counter: name, packets }) in told {
        match counters.iter_mut().find(|counter| counter.lost.counter == *name) {
            Some(counter) => {
                counter.lost.packets += packets.saturating_sub(counter.last);
                counter.last = *packets;
            }
            None => {
                let lost = Loss { counter: name.clone(), packets: 0 };
                counters.push(Counter { same: *same, lost, last: *packets });
            }
        }
    }
}

/// Counters and what they counted, in a line.
pub(crate) fn text(losses: &[Loss]) -> String {
    let one = |loss: &Loss| format!("{} {}", loss.counter, loss.packets);
    losses.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
