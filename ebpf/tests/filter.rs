//! The program, given packets: its filter and the one in Rust decide alike, about packets made at random and about
//! real ones; no second's counts are lost when the clock jumps. Needs root; nothing is attached.

#![expect(clippy::unwrap_used, reason = "a panic in a test is its report")]

use libbpf_rs::libbpf_sys;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tapedeck_ebpf::filter::Rule;
use tapedeck_ebpf::{Filter, Program};

/// Says why a test does not run, if it cannot.
fn program() -> Option<Program> {
    if std::fs::read_dir("/proc/1/fd").is_err() {
        let _ = writeln!(std::io::stdout(), "SKIPPED 1: not root");
        return None;
    }
    Some(Program::load(0).unwrap())
}

/// Gives the program one packet, as if it had come in on the loopback interface.
fn run(program: &Program, packet: &[u8]) {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>().try_into().unwrap(),
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len().try_into().unwrap(),
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: `opts` is a whole record of the size it names; the packet it points to is only read and lives
    // through the call; there is no place for output.
    let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut opts) };
    assert_eq!(ret, 0, "BPF_PROG_TEST_RUN: {}", std::io::Error::last_os_error());
    assert_eq!(opts.retval, 2, "nobody listens: XDP_PASS");
}

/// Whether the program leaves a packet out; each stands in one counter.
fn leaves_out(program: &Program, packet: &[u8]) -> bool {
    let before = program.totals(0).unwrap();
    run(program, packet);
    let after = program.totals(0).unwrap();
    assert_eq!(after.packets, before.packets + 1);
    assert_eq!(after.filtered + after.slot_empty, before.filtered + before.slot_empty + 1);
    after.filtered > before.filtered
}

fn load(program: &Program, filter: &Filter) {
    let generation = program.prepare_filter(filter).unwrap();
    program.switch_filter(generation).unwrap();
}

fn filter(keep: &[&str], skip: &[&str]) -> Filter {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse::<Rule>().unwrap()).collect();
    Filter::new(rules(keep), rules(skip)).unwrap()
}

/// Rules about the few values that the packets below are made of.
const RULES: &[&str] = &[
    "net 10.0.0.0/8",
    "net 10.1.0.0/16",
    "host 10.1.2.3",
    "host 10.1.2.3 and host 10.9.9.9",
    "net 0.0.0.0/0",
    "net 10.0.0.0/8 and net 10.1.0.0/16",
    "net 2001:db8::/32",
    "net 2001:db8:1::/48",
    "host 2001:db8:1::5",
    "net ::/0 and udp",
    "net fe80::/10 and net 2001:db8::/32 and tcp port 443",
    "tcp",
    "udp",
    "sctp port 443",
    "icmp",
    "icmp6",
    "proto 51",
    "proto 44",
    "port 53",
    "tcp port 443",
    "udp portrange 50-60",
    "portrange 0-1023 and net 10.0.0.0/8",
    "vlan",
    "vlan 12",
    "vlan 12 and vlan 7",
    "vlan 7 and tcp",
    "vlan and vlan 12 and net 10.1.0.0/16 and udp port 53",
];

fn rules() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(RULES, 0..=5)
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![select(&[53_u16, 443, 55, 1023, 1024, 0, 65535][..]), any::<u16>()]
}

/// A step of tags: what it adds, and the EtherType that announces it.
fn tag() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let vlan = (select(&[0x8100_u16, 0x88a8, 0x9100][..]), select(&[0x000c_u16, 0x2007, 0xe00c, 1][..]));
    prop_oneof![
        6 => vlan.prop_map(|(kind, id)| (kind, id.to_be_bytes().to_vec())),
        1 => any::<[u8; 3]>().prop_map(|[a, b, ttl]| (0x8847, vec![a, b, 0x00, ttl])),
    ]
}

fn v4() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![
        select(&[[10, 1, 2, 3], [10, 9, 9, 9], [10, 1, 255, 255], [11, 0, 0, 1]][..]),
        any::<[u8; 4]>()
    ]
}

fn v6() -> impl Strategy<Value = [u8; 16]> {
    let known = ["2001:db8:1::5", "2001:db8:2::1", "fe80::1", "2001:db9::1"];
    select(known.to_vec()).prop_map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets())
}

fn proto() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => select(&[6_u8, 17, 132, 33, 136, 1, 58][..]),
        2 => select(&[0_u8, 43, 44, 51, 60, 135, 139, 140, 59][..]),
        1 => any::<u8>()
    ]
}

/// Transport header, or an extension header, of this protocol and what is behind it.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let header =
        (proto(), 0_u8..3, any::<[u8; 6]>(), any::<bool>()).prop_map(|(next, length, rest, whole)| {
            let mut header = vec![next, length];
            header.extend(if whole { [0; 6] } else { rest });
            header.resize((usize::from(length) + 1) * 8, 0);
            header
        });
    let ports = (port(), port()).prop_map(|(one, other)| [one.to_be_bytes(), other.to_be_bytes()].concat());
    (prop::collection::vec(header, 0..4), ports).prop_map(|(headers, ports)| {
        let mut all = headers.concat();
        all.extend(ports);
        all.extend([0; 20]);
        all
    })
}

fn ipv4() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let fragment = select(&[0_u16, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001][..]);
    (v4(), v4(), proto(), fragment, 0_u8..=15, 0_u8..8, payload()).prop_map(
        |(source, target, proto, fragment, words, odd, payload)| {
            let (version, words) = match odd {
                0 => (5, 5),
                1 => (4, words),
                _ => (4, 5),
            };
            let mut packet = vec![version << 4 | words, 0, 0, 60, 0, 0];
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, proto, 0, 0]);
            packet.extend(source);
            packet.extend(target);
            packet.resize(usize::from(words.max(5)) * 4, 1);
            packet.extend(payload);
            (0x0800, packet)
        },
    )
}

fn ipv6() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (v6(), v6(), proto(), payload()).prop_map(|(source, target, proto, payload)| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 40, proto, 64];
        packet.extend(source);
        packet.extend(target);
        packet.extend(payload);
        (0x86dd, packet)
    })
}

fn arp() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (v4(), v4(), any::<bool>()).prop_map(|(sender, target, odd)| {
        let mut packet = vec![0, 1, 8, u8::from(odd), 6, 4, 0, 1, 2, 2, 2, 2, 2, 2];
        packet.extend(sender);
        packet.extend([0; 6]);
        packet.extend(target);
        (0x0806, packet)
    })
}

fn other() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let kind = prop_oneof![
        select(&[0x88cc_u16, 0x8909, 0x88e5, 0x88e7, 0x0026, 0x8847, 0x8864, 0x8100][..]),
        any::<u16>()
    ];
    (kind, prop::collection::vec(any::<u8>(), 0..80))
}

/// A step that is no plain tag, before a network header.
fn wrapped((kind, network): (u16, Vec<u8>), how: u8) -> (u16, Vec<u8>) {
    let ppp: [u8; 2] = if kind == 0x86dd { [0, 0x57] } else { [0, 0x21] };
    let (kind, head): (u16, Vec<u8>) = match how {
        0 => (0x8847, vec![1, 2, 3, 4]),
        1 => (0x8864, [&[0x11, 0, 0, 1, 0, 50][..], &ppp].concat()),
        2 => (0x8864, vec![0x11, 0, 0, 1, 0, 50, 0x21]),
        3 => (0x0040, [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind.to_be_bytes()].concat()),
        4 => (0x0040, vec![0x42, 0x42, 3]),
        _ => return (kind, network),
    };
    (kind, [head, network].concat())
}

/// An Ethernet frame of 14 bytes at least, as the kernel wants it.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let network = prop_oneof![4 => ipv4(), 4 => ipv6(), 1 => arp(), 1 => other()];
    let tags = prop_oneof![3 => prop::collection::vec(tag(), 0..3), 1 => prop::collection::vec(tag(), 0..10)];
    let noise = prop::collection::vec((0_usize..120, any::<u8>()), 0..2);
    let cut = prop_oneof![3 => Just(usize::MAX), 1 => 14_usize..120];
    let pad = prop_oneof![3 => Just(0_usize), 1 => 0_usize..400];
    (tags, network, 0_u8..12, noise, cut, pad).prop_map(|(tags, network, how, noise, cut, pad)| {
        let (kind, network) = wrapped(network, how);
        let mut packet = vec![2; 12];
        for (kind, bytes) in tags {
            packet.extend(kind.to_be_bytes());
            packet.extend(bytes);
        }
        packet.extend(kind.to_be_bytes());
        packet.extend(network);
        packet.resize(packet.len() + pad, 0);
        for (at, byte) in noise {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet.truncate(cut);
        packet.resize(packet.len().max(14), 0);
        packet
    })
}

#[test]
fn program_and_rust_decide_alike_about_random_packets() {
    let Some(program) = program() else { return };
    // The filters are loaded once for many packets: that is what takes time.
    let config =
        Config { cases: 200, rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..Config::default() };
    let input = (rules(), rules(), prop::collection::vec(packet(), 150));
    let result = TestRunner::new(config).run(&input, |(keep, skip, packets)| {
        let filter = filter(&keep, &skip);
        load(&program, &filter);
        for packet in packets {
            let takes = filter.takes(&packet);
            if takes == leaves_out(&program, &packet) {
                let why = format!("takes: {takes}; {filter}\n{packet:02x?}");
                return Err(TestCaseError::fail(why));
            }
        }
        Ok(())
    });
    if let Err(why) = result {
        panic!("{why}");
    }
    let totals = program.totals(0).unwrap();
    let (left_out, taken) = (totals.filtered, totals.slot_empty);
    assert!(left_out > 2_000 && taken > 2_000, "{left_out} left out, {taken} taken");
    let _ = writeln!(std::io::stdout(), "{left_out} random packets left out, {taken} taken, all as in Rust");
}

/// Every rule on its own finds something, and everything is found: the packets above reach each table.
#[test]
fn each_kind_of_rule_finds_its_packets() {
    let Some(program) = program() else { return };
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(5), ..Config::default() });
    let made: Vec<Vec<u8>> = (0..2_000).map(|_| packet().new_tree(&mut runner).unwrap().current()).collect();
    for rule in RULES {
        let keep = filter(&[rule], &[]);
        load(&program, &keep);
        let left_out = made.iter().filter(|packet| leaves_out(&program, packet)).count();
        assert!(left_out < made.len(), "`{rule}` keeps none of {}", made.len());
        load(&program, &filter(&[], &[rule]));
        let skipped = made.iter().filter(|packet| leaves_out(&program, packet)).count();
        assert!(left_out + skipped <= made.len(), "`{rule}`: a packet is left out by both");
    }
    // An empty filter after all of these takes everything again.
    load(&program, &Filter::default());
    assert!(!made.iter().any(|packet| leaves_out(&program, packet)));
}

/// Ethernet packets of a classic pcap file; none of what is not one.
fn pcap(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if !matches!(word(0), Some(0xa1b2_c3d4 | 0xa1b2_3c4d)) || word(20) != Some(1) {
        return Vec::new();
    }
    let (mut at, mut packets) = (24, Vec::new());
    while let Some(length) = word(at + 8).and_then(|length| usize::try_from(length).ok()) {
        let Some(packet) = bytes.get(at + 16..at + 16 + length) else { break };
        // What BPF_PROG_TEST_RUN takes in one piece or several.
        if (14..=9000).contains(&packet.len()) {
            packets.push(packet.to_vec());
        }
        at += 16 + length;
    }
    packets
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn program_and_rust_decide_alike_about_real_packets() {
    let Some(program) = program() else { return };
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES") else {
        let _ = writeln!(std::io::stdout(), "SKIPPED 1: TAPEDECK_TRACES is not set");
        return;
    };
    let filters = [
        filter(
            &["net 10.0.0.0/8", "net 192.168.0.0/16", "net 2000::/3", "vlan"],
            &["tcp port 443", "udp port 53"],
        ),
        filter(&["tcp", "icmp6", "proto 47"], &["portrange 0-1023 and net 0.0.0.0/0", "vlan and udp"]),
        filter(&[], &["net 0.0.0.0/1", "net fe80::/10", "sctp", "port 2123"]),
    ];
    let (mut packets, mut left_out) = (0_u64, 0_u64);
    let mut captures: Vec<_> = files(Path::new(&folder)).iter().map(|path| pcap(path)).collect();
    captures.retain(|capture| !capture.is_empty());
    for filter in &filters {
        load(&program, filter);
        for capture in &captures {
            // The beginning of each: there are many, and some are large.
            for packet in capture.iter().take(400) {
                let takes = filter.takes(packet);
                assert_ne!(takes, leaves_out(&program, packet), "{filter}\n{packet:02x?}");
                packets += 1;
                left_out += u64::from(!takes);
            }
        }
    }
    let _ = writeln!(
        std::io::stdout(),
        "{packets} verdicts on {} captures, {left_out} packets left out, as in Rust",
        captures.len()
    );
    assert!(
        packets > 1_000 && left_out > 100 && left_out < packets,
        "{packets} packets, {left_out} left out"
    );
}

/// Packets come in from another thread while filters change: each is judged by one filter or the other, never by
/// a mixture, and each is counted once.
#[test]
fn a_change_of_filters_is_seen_whole() {
    let Some(program) = program() else { return };
    let mut packet = vec![2; 12];
    packet.extend([0x81, 0, 0, 12, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend([10, 1, 2, 3, 10, 9, 9, 9, 0, 53, 0, 53, 0, 8, 0, 0]);
    // Both keep it, each by other tables; a mixture of the two would leave it out.
    let one = filter(&["net 10.1.0.0/16 and udp"], &["vlan 13", "net 172.16.0.0/12"]);
    let other = filter(&["vlan 12 and port 53"], &["net 11.0.0.0/8", "tcp"]);
    assert!(one.takes(&packet) && other.takes(&packet));
    load(&program, &one);
    let stop = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut runs = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                run(&program, &packet);
                runs += 1;
            }
            runs
        });
        for _ in 0..40 {
            load(&program, &other);
            load(&program, &one);
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let totals = program.totals(0).unwrap();
    assert_eq!((totals.packets, totals.filtered, totals.slot_empty), (runs, 0, runs));
    assert!(runs > 1_000, "only {runs} packets while filters changed");
}

#[test]
fn no_step_of_the_clock_loses_the_counts_of_a_second() {
    const SECOND_NS: i64 = 1_000_000_000;
    let Some(program) = program() else { return };
    let mut offset: u64 = 1_795_284_010_300_000_000;
    program.set_utc_offset(offset).unwrap();
    let mut sent = 0;
    // All but the last three put the new second where the one in use is counted, or right before it.
    let far = [64, 63, 65, -64, -63, 128, 4 * 3_600, -4 * 3_600, 30 * 365 * 86_400, -30 * 365 * 86_400];
    for step in far.into_iter().map(|s| s * SECOND_NS).chain([3 * SECOND_NS, -SECOND_NS, -64_400_000_000]) {
        run(&program, &[0; 64]);
        offset = offset.wrapping_add_signed(step);
        program.set_utc_offset(offset).unwrap();
        run(&program, &[0; 64]);
        sent += 2;
        let seconds = program.seconds(0).unwrap();
        let counted: u64 = seconds.values().map(|counts| counts.packets).sum();
        assert_eq!(counted, sent, "after {step} ns: {seconds:?}");
        assert!(seconds.keys().next_back().is_some_and(|latest| *latest > 1_000_000_000), "{seconds:?}");
    }
}
