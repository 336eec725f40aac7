//! The card: ring, pause frames, interrupt moderation, queues and how packets are spread over them.

use super::facts::{CardFacts, Facts, HashFacts};
use super::finding::{Finding, word};
use crate::ladder::CARD_RING_MAX;

/// Packets of the shortest kind on a link of 10 Gbit/s, per millisecond.
const SHORTEST_PER_MS: u64 = 14_880;
/// Wait before an interrupt that costs little and delays little.
const WAIT_US: u64 = 50;
/// Drivers that hash symmetrically by themselves with Toeplitz, whatever the key.
const SYMMETRIC_DRIVERS: [&str; 1] = ["mlx5_core"];

/// All about the card.
pub(crate) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    let interface = &word(&facts.interface);
    let card = &facts.card;
    ring(interface, card, found);
    pause(interface, card, found);
    moderation(interface, card, found);
    queues(interface, facts, found);
    spare_queues(interface, &facts.link.driver, card, found);
    if let Some(hash) = &card.hash
        && card.queues > 1
    {
        symmetry(interface, &facts.link.driver, card, hash, found);
        spread(interface, card, hash, found);
    } else if card.queues > 1 {
        let what = format!("{} queues, and the driver does not tell how it spreads packets", card.queues);
        let why = "the halves of a conversation may meet different workers; its session is joined afterwards";
        found.push(Finding::note("rss-unknown", what, why));
    }
}

fn ring(interface: &str, card: &CardFacts, found: &mut Vec<Finding>) {
    let (Some(entries), Some(max)) = (card.ring, card.ring_max) else { return };
    let best = max.min(CARD_RING_MAX);
    if entries < best {
        found.push(Finding::warning(
            "ring-size",
            format!("the receive ring has {entries} entries of {max} possible"),
            "while the host is busy elsewhere, packets wait in it; what finds no room counts as `nic`",
            format!("ethtool -G {interface} rx {best}"),
        ));
    }
}

fn pause(interface: &str, card: &CardFacts, found: &mut Vec<Finding>) {
    if card.sends_pause == Some(true) {
        found.push(Finding::warning(
            "pause",
            "the card sends pause frames",
            "when its ring is full it asks the sender to wait: packets are lost there, where nobody counts \
             them",
            format!("ethtool -A {interface} autoneg off rx off tx off"),
        ));
    }
}

fn moderation(interface: &str, card: &CardFacts, found: &mut Vec<Finding>) {
    let Some(wait_us) = card.interrupt_wait_us else { return };
    let waiting = SHORTEST_PER_MS * u64::from(wait_us) / 1000;
    // The ring as it would be: that it is small now is a finding of its own.
    let ring = card.ring.max(card.ring_max.map(|max| max.min(CARD_RING_MAX)));
    let half_full_us = ring.map(|ring| u64::from(ring) * 500 / SHORTEST_PER_MS);
    let short_us = half_full_us.unwrap_or(WAIT_US).clamp(1, WAIT_US);
    let mend = format!("ethtool -C {interface} adaptive-rx off rx-usecs {short_us}");
    match ring {
        Some(ring) if waiting > u64::from(ring) => found.push(Finding::warning(
            "interrupt-wait",
            format!("an interrupt may wait {wait_us} us"),
            format!("at 10 Gbit/s {waiting} packets may come meanwhile, and the ring holds {ring}"),
            mend,
        )),
        _ if card.interrupt_wait_adaptive == Some(true) => {
            let why = "the driver moves the wait by itself; a fixed one behaves the same under every load";
            let what = format!("interrupt moderation is adaptive, now {wait_us} us");
            found.push(Finding::note("interrupt-wait", what, why).mend(mend));
        }
        _ => {}
    }
}

fn queues(interface: &str, facts: &Facts, found: &mut Vec<Finding>) {
    let (queues, workers) = (facts.card.queues, facts.cores.workers.len().max(1));
    if usize::try_from(queues).is_ok_and(|queues| queues <= workers) {
        return;
    }
    let what = format!("{queues} queues and {workers} CPUs for their workers");
    let why = "each queue has a worker: several of them share a CPU, and wait for each other";
    found.push(match facts.card.queue_word {
        Some(kind) => {
            Finding::warning("queues", what, why, format!("ethtool -L {interface} {kind} {workers}"))
        }
        None => Finding::note("queues", what, why),
    });
}

/// virtio-net takes spare queues into use once a program is attached, and spreads packets over them: workers
/// listen on those that were there before.
fn spare_queues(interface: &str, driver: &str, card: &CardFacts, found: &mut Vec<Finding>) {
    let Some(most) = card.queues_max.filter(|most| driver == "virtio_net" && *most > card.queues) else {
        return;
    };
    let word = card.queue_word.unwrap_or("combined");
    found.push(Finding::error(
        "spare-queues",
        format!("{} queues of {most} are in use", card.queues),
        "the card takes others into use when the recording begins, and what comes on them counts as `unbound`",
        format!("ethtool -L {interface} {word} {most}"),
    ));
}

fn symmetry(interface: &str, driver: &str, card: &CardFacts, hash: &HashFacts, found: &mut Vec<Finding>) {
    if hash.udp_ports == Some(true) {
        let why = "only the first fragment of a datagram has ports: the others reach another worker, and \
                   their session is joined afterwards";
        let mend = format!("ethtool -N {interface} rx-flow-hash udp4 sd");
        found.push(Finding::note("rss-fragments", "the ports of UDP are hashed", why).mend(mend));
    }
    if hash.symmetric || SYMMETRIC_DRIVERS.contains(&driver) {
        return;
    }
    let (what, why) = (
        "the receive hash is not symmetric",
        "the halves of a conversation meet different workers, which costs time and memory to join; \
         `record --rss` sets it for its time",
    );
    found.push(if hash.key_bytes > 0 {
        let key: Vec<_> = (0..hash.key_bytes).map(|at| if at % 2 == 0 { "6d" } else { "5a" }).collect();
        let (key, queues) = (key.join(":"), card.queues);
        let mend = format!("ethtool -X {interface} hfunc toeplitz hkey {key} equal {queues}");
        Finding::warning("rss-asymmetric", what, why, mend)
    } else {
        Finding::note("rss-asymmetric", what, why)
    });
}

fn spread(interface: &str, card: &CardFacts, hash: &HashFacts, found: &mut Vec<Finding>) {
    let queues = usize::try_from(card.queues).unwrap_or(usize::MAX);
    if hash.queues_named > 0 && hash.queues_named < queues {
        found.push(Finding::warning(
            "rss-table",
            format!("packets are spread over {} of {queues} queues", hash.queues_named),
            "the others get nothing, and their workers idle",
            format!("ethtool -X {interface} equal {queues}"),
        ));
    }
}
