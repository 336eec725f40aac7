//! The link: is it there for us alone, and does it let every frame through?

use super::facts::{Facts, LinkFacts, OffloadFacts};
use super::finding::{Finding, word};
use super::rungs::Ladder;
use crate::nic;

/// Payload of an ordinary Ethernet frame.
const ORDINARY_MTU: u32 = 1500;

/// Up, ours, and wide enough.
pub(crate) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    let interface = &word(&facts.interface);
    let link = &facts.link;
    occupied(facts, found);
    for left in &facts.left {
        let at = if left.attached { "sits on the interface and counts" } else { "is off the interface" };
        found.push(Finding::warning(
            "left-pinned",
            format!("run {} was killed after {}; its program {at}", left.run, left.last),
            format!(
                "nobody records: {} packets have passed. The next `record` takes it over and books them; the \
                 command closes the books without one",
                left.passed
            ),
            format!("tapedeck detach {}", word(&left.interface)),
        ));
    }
    if !link.up {
        found.push(Finding::error(
            "link-down",
            format!("{} is down", facts.interface),
            "nothing arrives on it, and `record` refuses it",
            format!("ip link set dev {interface} up"),
        ));
    } else if !link.carrier {
        let why = "the cable, or the other end, is missing: a recording waits for it";
        found.push(Finding::note("no-carrier", format!("{} has no carrier", facts.interface), why));
    }
    routes(interface, link, found);
    width(interface, link, found);
}

/// Others that hold the interface.
fn occupied(facts: &Facts, found: &mut Vec<Finding>) {
    let interface = word(&facts.interface);
    if let Some(pid) = facts.recorder {
        found.push(Finding::error(
            "recorder",
            format!("process {pid} records {}", facts.interface),
            "an interface has one recorder: a second one does not start. The command ends it in order; \
             what is found while it runs is what it has set",
            format!("kill -TERM {pid}"),
        ));
    } else if facts.link.xdp_attached {
        found.push(Finding::error(
            "xdp-attached",
            format!("an XDP program of somebody else sits on {}", facts.interface),
            "only one fits: packets would come in through AF_PACKET, and only those it lets pass. One \
             attached through a link ends with its process: see `bpftool net`",
            format!("ip link set dev {interface} xdp off; ip link set dev {interface} xdpgeneric off"),
        ));
    }
}

fn routes(interface: &str, link: &LinkFacts, found: &mut Vec<Finding>) {
    for (has, id, family, option) in [
        (link.default_route_v4, "default-route", "IPv4", ""),
        (link.default_route_v6, "default-route-v6", "IPv6", "-6 "),
    ] {
        if has {
            found.push(Finding::error(
                id,
                format!("the default route of {family} leaves through {interface}"),
                "a recording takes every packet, so this host would be cut off; `record` refuses it \
                 without --force. Record a port that only listens: the command cuts off whoever came in \
                 through this one",
                format!("ip {option}route del default dev {interface}"),
            ));
        }
    }
}

fn width(interface: &str, link: &LinkFacts, found: &mut Vec<Finding>) {
    if link.mtu < ORDINARY_MTU {
        found.push(Finding::warning(
            "mtu",
            format!("MTU {}", link.mtu),
            format!(
                "frames of ordinary length (payload {ORDINARY_MTU}) are refused before anything counts them"
            ),
            format!("ip link set dev {interface} mtu {ORDINARY_MTU}"),
        ));
    }
    if link.length_errors > 0 {
        let what = format!("{} frames were refused for their length since the start", link.length_errors);
        let why = format!("the wire carries longer frames than MTU {} lets in", link.mtu);
        let mend = format!("ip link set dev {interface} mtu 9000");
        found.push(Finding::note("length-errors", what, why).mend(mend));
    }
    let missed: Vec<_> = link.missed.iter().filter(|loss| loss.packets > 0).cloned().collect();
    if !missed.is_empty() {
        let packets: u64 = missed.iter().map(|loss| loss.packets).sum();
        let what = format!("the card missed {packets} packets since the start ({})", nic::text(&missed));
        let why =
            "its ring was full, or nobody emptied it; only what is missed while recording counts as `nic`";
        found.push(Finding::note("missed", what, why));
    }
}

/// Features worth looking at, as `ethtool -k` names them inside the kernel, as `-K` takes them, and what
/// they do.
const OFFLOADS: [(&str, &str, Effect); 7] = [
    ("rx-vlan-hw-parse", "rxvlan", Effect::TakesTags),
    ("rx-vlan-stag-hw-parse", "rx-vlan-stag-hw-parse", Effect::TakesTags),
    ("rx-lro", "lro", Effect::CardMerges),
    ("rx-gro-hw", "rx-gro-hw", Effect::CardMerges),
    ("rx-gro", "gro", Effect::StackMerges),
    ("rx-gro-list", "rx-gro-list", Effect::StackMerges),
    ("rx-udp-gro-forwarding", "rx-udp-gro-forwarding", Effect::StackMerges),
];

/// Features of the other end of a veth that hand tags over beside the packet, as the kernel names them and as
/// `ethtool -K` takes them.
pub(crate) const TAGS_BESIDE: [(&str, &str); 2] =
    [("tx-vlan-hw-insert", "txvlan"), ("tx-vlan-stag-hw-insert", "tx-vlan-stag-hw-insert")];

/// Tags that the other end of a veth does not put into the packet.
pub(crate) fn tags_beside(link: &LinkFacts, ladder: &Ladder, found: &mut Vec<Finding>) {
    const WHY: &str = "the sending end of a veth leaves it to the receiving end to put VLAN tags into packets, and \
                       the XDP program sees them before that: tags of packets that come from a VLAN interface or a \
                       mirrored card are lost";
    let Some(end) = link.other_end.as_ref().filter(|_| !ladder.puts_tags_back()) else { return };
    match &end.name {
        None => found.push(Finding::note(
            "veth-tags",
            "the other end of this veth is in another network namespace",
            format!(
                "if txvlan is on there, as it is by default: {WHY}. There: `ethtool -K IF txvlan off \
                     tx-vlan-stag-hw-insert off`"
            ),
        )),
        Some(name) if !end.tags_beside.is_empty() => {
            let offs: String = end.tags_beside.iter().map(|feature| format!(" {feature} off")).collect();
            found.push(Finding::warning(
                "veth-tags",
                format!("{} of {name}, the other end of this veth, is on", end.tags_beside.join(", ")),
                WHY,
                format!("ethtool -K {}{offs}", word(name)),
            ));
        }
        Some(_) => {}
    }
}

/// Ids of the findings about them, in the same order.
const OFFLOAD_IDS: [&str; 7] =
    ["rxvlan", "rx-vlan-stag-hw-parse", "lro", "rx-gro-hw", "gro", "rx-gro-list", "rx-udp-gro-forwarding"];

/// What an offload does to a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    TakesTags,
    CardMerges,
    StackMerges,
}

/// The word of `ethtool -K` for a feature of the kernel's name, if it is one of ours.
pub(crate) fn offload_word(feature: &str) -> Option<&'static str> {
    OFFLOADS.iter().find(|(name, ..)| *name == feature).map(|(_, word, _)| *word)
}

/// Offloads that change packets before they are recorded.
pub(crate) fn offloads(interface: &str, on: &[OffloadFacts], ladder: &Ladder, found: &mut Vec<Finding>) {
    let interface = word(interface);
    for (id, (_, name, effect)) in OFFLOAD_IDS.into_iter().zip(OFFLOADS) {
        let Some(offload) = on.iter().find(|offload| offload.name == name) else { continue };
        let why = match effect {
            Effect::TakesTags => {
                "the card takes VLAN tags out of packets before the XDP program sees them: the tags are lost"
            }
            Effect::CardMerges => "the card merges packets: what is recorded was never on the wire",
            Effect::StackMerges => {
                "the network stack merges packets before modes skb and packet see them, should a recording \
                 have to step down to one"
            }
        };
        let harmless = match effect {
            Effect::TakesTags => ladder.puts_tags_back(),
            Effect::CardMerges => false,
            Effect::StackMerges => ladder.is_below_the_stack(),
        };
        let (what, mend) = (format!("{name} is on"), format!("ethtool -K {interface} {name} off"));
        found.push(match offload.switchable {
            true if harmless => Finding::note(id, what, "does no harm in this mode").mend(mend),
            true => Finding::warning(id, what, why, mend),
            // Nothing can be done about a fixed feature; `record` refuses modes that it would falsify.
            false => Finding::note(id, format!("{what} and cannot be switched off"), why),
        });
    }
}
