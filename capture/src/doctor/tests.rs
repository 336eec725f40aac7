//! The checks, from literal facts: a healthy sensor, and each thing that may be wrong with one.

use super::facts::{
    CardFacts, ClockFacts, CoreFacts, Facts, HashFacts, InterruptFacts, KernelFacts, LinkFacts, MemoryFacts,
    OffloadFacts, OtherEnd, StoreFacts,
};
use super::finding::Severity;
use super::rungs::{Ground, Ladder, expected};
use super::{Page, command, examine, is_finding, json};
use crate::cli::{CpuList, DoctorArgs};
use crate::ladder::Mode;
use crate::pins::estate::Left;
use crate::sys::netdev::XdpFeatures;

/// A sensor with nothing to mend: four queues, their interrupts on CPUs 0 to 3, workers on 4 to 7.
fn healthy() -> Facts {
    let interrupt = |cpu: usize| InterruptFacts {
        irq: u32::try_from(50 + cpu).unwrap(),
        name: format!("eth1-TxRx-{cpu}"),
        cpus: vec![cpu],
    };
    Facts {
        interface: "eth1".into(),
        link: LinkFacts {
            up: true,
            carrier: true,
            mtu: 1500,
            driver: "ice".into(),
            bus: "0000:3b:00.0".into(),
            ..LinkFacts::default()
        },
        card: card(),
        segment_bytes: 1 << 30,
        ladder: Ladder { mode: Some("zerocopy"), ..Ladder::default() },
        cores: CoreFacts {
            workers: vec![4, 5, 6, 7],
            chosen: true,
            allowed: (0..16).collect(),
            node: Some(0),
            node_cpus: (0..8).collect(),
            interrupts: (0..4).map(interrupt).collect(),
            governors: vec!["performance".into()],
        },
        memory: MemoryFacts {
            packets_bytes: 128 << 20,
            most_bytes: 700 << 20,
            sessions_bytes: 1 << 30,
            available_bytes: Some(64 << 30),
            huge_pages: Some(128),
            huge_pages_free: Some(64),
            locked_limit_bytes: Some(8 << 20),
        },
        clock: ClockFacts {
            synchronised: Some(true),
            tai_offset_s: Some(37),
            error_max_us: Some(900),
            source: Some("tsc".into()),
            sources: vec!["tsc".into(), "hpet".into()],
        },
        kernel: KernelFacts {
            release: "6.12.1-amd64".into(),
            jit: Some(1),
            af_xdp: Some(true),
            ..KernelFacts::default()
        },
        stores: vec![StoreFacts {
            store: "/data/store".into(),
            folder: "/data/store".into(),
            mount: "/data".into(),
            filesystem: "xfs".into(),
            size_bytes: Some(1 << 40),
            free_bytes: Some(1 << 39),
            sink: Some("io_uring"),
            ..StoreFacts::default()
        }],
        ..Facts::default()
    }
}

fn card() -> CardFacts {
    CardFacts {
        queues: 4,
        queues_max: Some(16),
        queue_word: Some("combined"),
        ring: Some(8160),
        ring_max: Some(8160),
        sends_pause: Some(false),
        interrupt_wait_us: Some(50),
        interrupt_wait_adaptive: Some(false),
        hash: Some(HashFacts { symmetric: true, key_bytes: 52, queues_named: 4, udp_ports: Some(false) }),
        stamps: None,
        no_stamps: None,
    }
}

fn ladder(bits: u64, pieces: u32, mtu: u32) -> Ladder {
    let driver = Some(XdpFeatures::of(bits, pieces));
    expected(Ground { program: true, af_xdp: true, occupied: false, driver, mtu, queues: 4 })
}

#[test]
fn a_healthy_sensor_has_nothing_to_mend() {
    assert_eq!(examine(&healthy()), []);
}

/// Changes the facts of a healthy sensor.
type Spoil = fn(&mut Facts);

/// Id, severity, part of the command, and what is wrong.
const WRONG: &[(&str, Severity, &str, Spoil)] = &[
    ("link-down", Severity::Error, "ip link set dev eth1 up", |f| f.link.up = false),
    ("recorder", Severity::Error, "kill -TERM 77", |f| f.recorder = Some(77)),
    ("left-pinned", Severity::Warning, "tapedeck detach eth1", |f| {
        f.left = vec![Left { interface: "eth1".into(), attached: true, passed: 7, ..Left::default() }];
    }),
    ("xdp-attached", Severity::Error, "ip link set dev eth1 xdp off", |f| f.link.xdp_attached = true),
    ("default-route", Severity::Error, "ip route del default dev eth1", |f| f.link.default_route_v4 = true),
    ("default-route-v6", Severity::Error, "ip -6 route del", |f| f.link.default_route_v6 = true),
    ("mtu", Severity::Warning, "mtu 1500", |f| f.link.mtu = 1400),
    ("length-errors", Severity::Note, "mtu 9000", |f| f.link.length_errors = 3),
    ("lro", Severity::Warning, "ethtool -K eth1 lro off", |f| f.offloads = on("lro")),
    ("rx-gro-hw", Severity::Warning, "ethtool -K eth1 rx-gro-hw off", |f| f.offloads = on("rx-gro-hw")),
    ("veth-tags", Severity::Warning, "ethtool -K tap0 txvlan off", |f| {
        f.link.other_end = Some(OtherEnd { name: Some("tap0".into()), tags_beside: vec!["txvlan"] });
    }),
    ("ring-size", Severity::Warning, "ethtool -G eth1 rx 8160", |f| f.card.ring = Some(512)),
    ("pause", Severity::Warning, "ethtool -A eth1", |f| f.card.sends_pause = Some(true)),
    ("interrupt-wait", Severity::Warning, "rx-usecs 50", |f| f.card.interrupt_wait_us = Some(1000)),
    ("interrupt-wait", Severity::Note, "adaptive-rx off", |f| f.card.interrupt_wait_adaptive = Some(true)),
    ("queues", Severity::Warning, "ethtool -L eth1 combined 2", |f| f.cores.workers = vec![4, 5]),
    ("spare-queues", Severity::Error, "ethtool -L eth1 combined 8", |f| {
        f.link.driver = "virtio_net".into();
        f.card.queues_max = Some(8);
    }),
    ("rss-asymmetric", Severity::Warning, "hkey 6d:5a:6d:5a equal 4", |f| {
        f.card.hash = Some(HashFacts { symmetric: false, key_bytes: 4, ..HashFacts::default() });
    }),
    ("rss-table", Severity::Warning, "ethtool -X eth1 equal 4", |f| {
        f.card.hash = Some(HashFacts { symmetric: true, queues_named: 2, ..HashFacts::default() });
    }),
    ("rss-fragments", Severity::Note, "rx-flow-hash udp4 sd", |f| {
        f.card.hash = Some(HashFacts { symmetric: true, udp_ports: Some(true), ..HashFacts::default() });
    }),
    ("irq-cpus", Severity::Warning, "for irq in 50 51; do echo 0-3 >", |f| {
        f.cores.interrupts[0].cpus = vec![4];
        f.cores.interrupts[1].cpus = vec![5];
    }),
    ("numa", Severity::Warning, "--store /data/store --cpus 0-7", |f| f.cores.workers = (8..12).collect()),
    ("governor", Severity::Note, "cpupower", |f| f.cores.governors = vec!["powersave".into()]),
    ("memlock", Severity::Error, "ulimit -l unlimited", |f| {
        f.kernel.missing_capabilities = vec!["CAP_IPC_LOCK"];
    }),
    ("huge-pages", Severity::Warning, "vm.nr_hugepages=182", |f| f.memory.huge_pages_free = Some(10)),
    ("memory", Severity::Warning, "--max-sessions", |f| f.memory.available_bytes = Some(1 << 30)),
    ("clock", Severity::Warning, "timedatectl", |f| f.clock.synchronised = Some(false)),
    ("clock-source", Severity::Warning, "echo tsc >", |f| f.clock.source = Some("hpet".into())),
    ("kernel", Severity::Error, "linux-image", |f| f.kernel.release = "6.1.0-13-amd64".into()),
    ("bpf-jit", Severity::Warning, "bpf_jit_enable=1", |f| f.kernel.jit = Some(0)),
    ("af-xdp", Severity::Note, "", |f| f.kernel.af_xdp = Some(false)),
    ("program", Severity::Note, "", |f| f.kernel.program_refused = Some("no BPF".into())),
    ("refusals", Severity::Note, "", |f| f.kernel.without_refusals = Some("no BTF".into())),
    ("capabilities", Severity::Error, "setcap", |f| f.kernel.missing_capabilities = vec!["CAP_BPF"]),
    ("store-read-only", Severity::Error, "mount -o remount,rw /data", |f| f.stores[0].read_only = true),
    ("store-refused", Severity::Error, "chown", |f| f.stores[0].refused = Some("no".into())),
    ("store-memory", Severity::Warning, "findmnt", |f| f.stores[0].filesystem = "tmpfs".into()),
    ("store-remote", Severity::Warning, "findmnt", |f| f.stores[0].filesystem = "fuse.sshfs".into()),
    ("store-space", Severity::Error, "du -xh", |f| f.stores[0].free_bytes = Some(1 << 30)),
    ("store-space", Severity::Warning, "du -xh", |f| f.stores[0].free_bytes = Some(20 << 30)),
    ("store-writes", Severity::Warning, "io_uring_disabled=0", |f| {
        f.stores[0].sink_reason = Some("io_uring refused: not permitted".into());
    }),
    ("store-writes", Severity::Note, "", |f| {
        f.stores[0].sink_reason = Some("O_DIRECT refused: invalid argument".into());
    }),
    ("mode", Severity::Note, "", |f| f.ladder = ladder(0b11, 0, 1500)),
    ("mode", Severity::Warning, "mtu 3782", |f| f.ladder = ladder(0b11, 0, 9000)),
];

fn on(name: &str) -> Vec<OffloadFacts> {
    vec![OffloadFacts { name: name.into(), switchable: true }]
}

#[test]
fn each_thing_that_is_wrong_is_found_with_its_command() {
    for (id, severity, command, spoil) in WRONG {
        let mut facts = healthy();
        spoil(&mut facts);
        let found = examine(&facts);
        let [one] = found.as_slice() else { panic!("{id}: {found:?}") };
        assert_eq!((one.id, one.severity), (*id, *severity), "{one:?}");
        assert!(!one.what.is_empty() && !one.why.is_empty(), "{one:?}");
        assert!(one.mend.as_deref().unwrap_or_default().contains(command), "{one:?}");
        assert!(one.mend.is_some() || !is_finding(one), "errors and warnings have a command: {one:?}");
    }
}

#[test]
fn offloads_are_judged_by_the_mode_that_is_taken() {
    let severities = |names: &[&str], ladder: Ladder| {
        let offloads = names.iter().flat_map(|name| on(name)).collect();
        let facts = Facts { ladder, offloads, ..healthy() };
        examine(&facts).iter().map(|found| (found.id, found.severity)).collect::<Vec<_>>()
    };
    use Severity::{Note, Warning};
    let both = ["rxvlan", "gro"];
    let untaken = Ladder { mode: Some("copy"), ..Ladder::default() };
    assert_eq!(severities(&both, untaken), [("rxvlan", Warning), ("gro", Warning)]);
    assert_eq!(severities(&both, Ladder::taken(Mode::Copy)), [("rxvlan", Warning), ("gro", Note)]);
    assert_eq!(severities(&both, Ladder::taken(Mode::Packet)), [("gro", Warning), ("rxvlan", Note)]);
    let fixed = OffloadFacts { name: "rxvlan".into(), switchable: false };
    let found = examine(&Facts { offloads: vec![fixed], ..healthy() });
    assert!(found[0].severity == Note && found[0].what.contains("cannot be switched off"), "{found:?}");
}

#[test]
fn the_ladder_is_climbed_down_for_a_reason() {
    let zero_copy = 0b10_1011;
    assert_eq!(ladder(zero_copy, 1, 1500).mode, Some("zerocopy"));
    assert_eq!(ladder(zero_copy, 1, 9000).mode, Some("copy"), "zero-copy takes one piece");
    assert_eq!(ladder(zero_copy, 8, 9000).mode, Some("zerocopy"));
    assert_eq!(ladder(0b11, 0, 3782).mode, Some("copy"));
    assert_eq!(
        ladder(0b11, 0, 3783).mode,
        Some("skb"),
        "the MTU that the command names is the last that fits"
    );
    assert_eq!(ladder(0, 0, 1500).mode, Some("skb"));
    let ground = Ground { program: true, af_xdp: true, occupied: false, driver: None, mtu: 1500, queues: 1 };
    assert_eq!(expected(ground).mode, Some("copy"), "a kernel that does not tell");
    for bad in [
        Ground { program: false, ..ground },
        Ground { af_xdp: false, ..ground },
        Ground { occupied: true, ..ground },
        Ground { queues: 65, ..ground },
    ] {
        let ladder = expected(bad);
        assert_eq!((ladder.mode, ladder.passed.len()), (Some("packet"), 3), "{ladder:?}");
    }
}

#[test]
fn cpus_that_are_all_taken_make_a_note() {
    let mut facts = healthy();
    facts.cores.workers = (0..8).collect();
    facts.cores.allowed = (0..8).collect();
    facts.cores.chosen = false;
    let found = examine(&facts);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].id, found[0].severity), ("irq-cpus", Severity::Note));
    assert!(found[0].mend.as_deref().unwrap().ends_with("--cpus 4-7"), "{found:?}");
}

#[test]
fn the_json_has_its_keys() {
    let mut facts = healthy();
    facts.card.ring = Some(512);
    let text = json(&facts, &examine(&facts)).unwrap();
    assert!(!text.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&value), ["facts", "findings", "interface", "version"]);
    assert_eq!((&value["version"], &value["interface"]), (&1.into(), &"eth1".into()));
    let finding = &value["findings"][0];
    assert_eq!(keys(finding), ["id", "mend", "severity", "what", "why"]);
    assert_eq!((&finding["id"], &finding["severity"]), (&"ring-size".into(), &"warning".into()));
    let facts =
        ["card", "clock", "cores", "interface", "kernel", "ladder", "left", "link", "memory", "offloads"];
    assert_eq!(keys(&value["facts"])[..10], facts);
    assert_eq!(value["facts"]["card"]["ring_max"], 8160);
}

#[test]
fn what_cannot_be_looked_at_is_a_failure() {
    let page = Page::new(None, None, true);
    let args = DoctorArgs { interface: "no-such-if".into(), ..DoctorArgs::default() };
    let failure = command(&args, page).unwrap_err().to_string();
    assert!(failure.contains("there is no interface no-such-if") && failure.contains("hint: "), "{failure}");
    let args =
        DoctorArgs { interface: "lo".into(), cpus: Some(CpuList(vec![1023])), ..DoctorArgs::default() };
    assert!(command(&args, page).unwrap_err().to_string().contains("CPU 1023"));
}
