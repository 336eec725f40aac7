//! Gathers [`Facts`]: asks the kernel, and changes nothing that is not gone when it returns.
//!
//! It must never bind to a queue or attach a program: a recording may run on the interface. Files of
//! /proc and /sys are asked for what has no network namespace only; the interface itself is asked through
//! its own sockets.

use super::facts::{
    CardFacts, ClockFacts, CoreFacts, Facts, HashFacts, KernelFacts, LinkFacts, MemoryFacts, OffloadFacts,
    OtherEnd,
};
use super::rungs::{self, Ground, Ladder};
use super::{link, texts};
use crate::claim;
use crate::ladder::{self, Mode};
use crate::lock;
use crate::nic;
use crate::pins::estate;
use crate::plan::{PACKET_BYTES, QUEUE_BYTES, SESSION_BYTES};
use crate::preflight::{self, Target};
use crate::sessions::SessionOptions;
use crate::sys::ethtool::{Channels, Ethtool};
use crate::sys::netdev;
use crate::sys::sockopt;
use nix::net::if_::if_indextoname;
use std::fs;
use std::path::{Path, PathBuf};
use tapedeck_ebpf::Program;

/// 2 MiB pages.
const HUGE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// What a recording is asked to use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// CPUs for the workers.
    pub(crate) cpus: &'a [usize],
    /// They were named.
    pub(crate) chosen: bool,
    /// Stored bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Sessions.
    pub(crate) sessions: SessionOptions,
    /// Where recorders pin; `None` for one that has looked there itself.
    pub(crate) pin_dir: Option<PathBuf>,
}

/// Everything but the stores, for an interface that nobody of ours records.
pub(crate) fn before(target: &Target, wish: &Wish<'_>) -> Facts {
    let mut facts = common(target, wish);
    let features = netdev::features(target.ifindex);
    let routes = preflight::default_routes(&target.name);
    facts.link.default_route_v4 = routes.v4;
    facts.link.default_route_v6 = routes.v6;
    facts.recorder = lock::holder_of(target.ifindex).map(|holder| holder.pid);
    if let (None, Some(dir)) = (facts.recorder, &wish.pin_dir) {
        facts.left = estate::left_on(dir, target);
    }
    let ours = facts.recorder.is_some() || facts.left.iter().any(|left| left.attached);
    facts.link.xdp_attached = target.state.xdp_attached && !ours;
    match Program::load(0) {
        Ok(program) => facts.kernel.without_refusals = program.without_refusals().map(str::to_owned),
        Err(error) => facts.kernel.program_refused = Some(one_line(&error)),
    }
    facts.ladder = rungs::expected(Ground {
        program: facts.kernel.program_refused.is_none(),
        af_xdp: facts.kernel.af_xdp.unwrap_or(true),
        occupied: facts.link.xdp_attached,
        driver: features.ok(),
        mtu: facts.link.mtu,
        queues: facts.card.queues,
    });
    size(&mut facts, &wish.sessions);
    facts
}

/// The same for a recording that is about to take the interface; what it refuses, or says itself, is left
/// out.
pub(crate) fn at_start(target: &Target, wish: &Wish<'_>) -> Facts {
    let mut facts = common(target, wish);
    size(&mut facts, &wish.sessions);
    facts
}

/// The recording has taken this mode, and switched off what it could.
pub(crate) fn taken(facts: &mut Facts, target: &Target, mode: Mode) {
    facts.ladder = Ladder::taken(mode);
    if mode != Mode::Packet {
        // Its sockets have the memory they asked for.
        facts.memory.locked_limit_bytes = None;
    }
    facts.offloads = offloads(target.ethtool());
}

fn common(target: &Target, wish: &Wish<'_>) -> Facts {
    let ethtool = target.ethtool();
    let driver = ethtool.driver().unwrap_or_default();
    let state = &target.state;
    let link = LinkFacts {
        up: state.up,
        carrier: state.carrier,
        mtu: state.mtu,
        driver: driver.name,
        bus: driver.bus,
        other_end: other_end(target),
        length_errors: state.rx_length_errors,
        missed: nic::losses(&target.name).unwrap_or_default(),
        ..LinkFacts::default()
    };
    let cores = cores(&target.name, &link.bus, wish);
    Facts {
        interface: target.name.clone(),
        segment_bytes: wish.segment_bytes,
        offloads: offloads(ethtool),
        card: card(target),
        cores,
        link,
        memory: memory(),
        clock: clock(),
        kernel: kernel(),
        ..Facts::default()
    }
}

/// The other end of a veth.
fn other_end(target: &Target) -> Option<OtherEnd> {
    let state = &target.state;
    let index = state.joined.filter(|_| state.kind.as_deref() == Some("veth"))?;
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    let Some(name) = name.filter(|_| !state.joined_elsewhere) else { return Some(OtherEnd::default()) };
    let features = Ethtool::open(&name).and_then(|ethtool| ethtool.features()).unwrap_or_default();
    let on = |kernel: &str| features.iter().any(|feature| feature.on && feature.name == kernel);
    let tags_beside = link::TAGS_BESIDE.iter().filter(|(kernel, _)| on(kernel)).map(|(_, word)| *word);
    Some(OtherEnd { name: Some(name), tags_beside: tags_beside.collect() })
}

fn offloads(ethtool: &Ethtool) -> Vec<OffloadFacts> {
    let features = ethtool.features().unwrap_or_default().into_iter().filter(|feature| feature.on);
    let known = |feature: crate::sys::ethtool::Feature| {
        let name = link::offload_word(&feature.name)?.to_owned();
        Some(OffloadFacts { name, switchable: feature.switchable })
    };
    features.filter_map(known).collect()
}

fn card(target: &Target) -> CardFacts {
    let ethtool = target.ethtool();
    let ring = ethtool.ring().ok().filter(|ring| ring.max > 0);
    let coalescing = ethtool.coalescing().ok();
    let hash = ethtool.hashing().ok().filter(|hashing| hashing.queues_named() > 0 || hashing.key_len() > 0);
    let stamps = claim::stamps_of(ethtool, target.ifindex);
    let word = |combined: bool| if combined { "combined" } else { "rx" };
    CardFacts {
        queues: target.queues(),
        queues_max: ethtool.channels().ok().map(Channels::rx_max),
        queue_word: ethtool.channels().ok().map(|channels| word(channels.are_combined())),
        ring: ring.map(|ring| ring.entries),
        ring_max: ring.map(|ring| ring.max),
        sends_pause: ethtool.sends_pause().ok(),
        interrupt_wait_us: coalescing.map(|coalescing| coalescing.wait_us),
        interrupt_wait_adaptive: coalescing.map(|coalescing| coalescing.adaptive),
        hash: hash.map(|hashing| HashFacts {
            symmetric: hashing.is_symmetric(),
            key_bytes: hashing.key_len(),
            queues_named: hashing.queues_named(),
            udp_ports: ethtool.udp_ports_hashed().ok(),
        }),
        stamps: stamps.as_ref().ok().map(|number| format!("ptp{number}")),
        no_stamps: stamps.err(),
    }
}

fn cores(interface: &str, bus: &str, wish: &Wish<'_>) -> CoreFacts {
    let device = format!("/sys/bus/pci/devices/{bus}");
    let node = if bus.is_empty() { None } else { number(&format!("{device}/numa_node")) };
    // -1 does not parse: a machine with one node.
    let node = node.and_then(|node| u32::try_from(node).ok());
    let node_cpus = node.map(|node| read(format!("/sys/devices/system/node/node{node}/cpulist")));
    let card: Vec<u32> = fs::read_dir(format!("{device}/msi_irqs"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let all = texts::interrupts(&read("/proc/interrupts"));
    let ours = texts::of_card(all, if bus.is_empty() { &[] } else { &card }, interface);
    let affinity = |(irq, name): (u32, String)| {
        let file = |name: &str| read(format!("/proc/irq/{irq}/{name}"));
        texts::interrupt(irq, name, &file("smp_affinity_list"), &file("effective_affinity_list"))
    };
    let governor = |cpu: &usize| {
        let text = read(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    let mut governors: Vec<String> = wish.cpus.iter().filter_map(governor).collect();
    governors.sort();
    governors.dedup();
    CoreFacts {
        workers: wish.cpus.to_vec(),
        chosen: wish.chosen,
        allowed: crate::plan::choose_cpus(None).unwrap_or_default(),
        node,
        node_cpus: node_cpus.map(|text| texts::cpus(&text)).unwrap_or_default(),
        interrupts: ours.into_iter().map(affinity).collect(),
        governors,
    }
}

fn memory() -> MemoryFacts {
    MemoryFacts {
        available_bytes: texts::meminfo_bytes(&read("/proc/meminfo"), "MemAvailable"),
        huge_pages: number(&format!("{HUGE}/nr_hugepages")),
        huge_pages_free: number(&format!("{HUGE}/free_hugepages")),
        locked_limit_bytes: texts::locked_limit(&read("/proc/thread-self/limits")).flatten(),
        ..MemoryFacts::default()
    }
}

/// The memory a recording would take, by the formula of docs/operations.md.
fn size(facts: &mut Facts, sessions: &SessionOptions) {
    let mode = facts.ladder.mode.and_then(Mode::named).unwrap_or(Mode::Copy);
    let queues = if mode == Mode::Packet { 1 } else { u64::from(facts.card.queues) };
    let packets = ladder::packet_memory_bytes(mode, facts.link.mtu, PACKET_BYTES);
    let tables = if queues > 1 { queues + 1 } else { queues };
    facts.memory.packets_bytes = queues * packets;
    facts.memory.most_bytes = queues * (packets + QUEUE_BYTES);
    facts.memory.sessions_bytes = tables * u64::from(sessions.max_sessions) * SESSION_BYTES;
}

fn clock() -> ClockFacts {
    let state = sockopt::clock_state().ok();
    let text = |name: &str| read(format!("{CLOCK_SOURCE}/{name}")).trim().to_owned();
    ClockFacts {
        synchronised: state.map(|state| state.synchronised),
        tai_offset_s: state.map(|state| state.tai_offset_s),
        error_max_us: state.map(|state| state.error_max_us),
        source: Some(text("current_clocksource")).filter(|source| !source.is_empty()),
        sources: text("available_clocksource").split_whitespace().map(str::to_owned).collect(),
    }
}

fn kernel() -> KernelFacts {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let protocols = read("/proc/thread-self/net/protocols");
    KernelFacts {
        release: release.unwrap_or_default(),
        jit: number("/proc/sys/net/core/bpf_jit_enable").and_then(|jit| u32::try_from(jit).ok()),
        af_xdp: (!protocols.is_empty()).then(|| texts::has_af_xdp(&protocols)),
        missing_capabilities: texts::missing_capabilities(&read("/proc/thread-self/status")),
        program: std::env::current_exe().unwrap_or_else(|_| "tapedeck".into()),
        ..KernelFacts::default()
    }
}

/// A file of the kernel's; empty where there is none.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// An error with its causes.
fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
