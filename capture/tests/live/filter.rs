//! What the filter leaves out is missing and counted, nothing else; another one comes in without a gap, and every
//! segment names the one that made it.

use crate::support::recorder::{Ended, Recorder, drops, interface_option, packets, segments};
use crate::support::{Net, live, number_of, numbered, run};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MODES: [&str; 3] = ["copy", "skb", "packet"];

/// Every packet in the store by flow (source port 10000 + flow) and number, and whether one stands there twice.
fn stored(store: &Path) -> BTreeSet<(u16, u64)> {
    let mut found = BTreeSet::new();
    let all: Vec<_> = segments(store).iter().map(|path| packets(path)).collect();
    // A packet whose metadata was not read would have the stamp of the one before it.
    let equal =
        all.iter().flat_map(|packets| packets.windows(2)).filter(|pair| pair[0].0 == pair[1].0).count();
    assert!(equal * 50 <= all.iter().map(Vec::len).sum(), "{equal} stamps in a row are equal");
    for packet in all.iter().flatten() {
        if let Some(number) = (0..3).find_map(|tags| number_of(&packet.1, tags)) {
            assert!(found.insert(number), "{number:?} is stored twice");
        }
    }
    found
}

/// Sends numbers of flows 0 to 7 with and without tags: flow 3 has tag 12, flow 4 tags 7 and 12.
fn send(net: &Net, numbers: std::ops::Range<u64>) {
    let sender = net.sender();
    for number in numbers {
        for flow in 0..8 {
            let tags: &[u16] = match flow {
                3 => &[12],
                4 => &[7, 12],
                _ => &[],
            };
            assert!(sender.send(&numbered(flow, number, 80, tags)));
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn expected(flows: &[u16], numbers: u64) -> BTreeSet<(u16, u64)> {
    flows.iter().flat_map(|flow| (0..numbers).map(|number| (*flow, number))).collect()
}

fn balanced(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((ended.total("unaccounted"), ended.total("pending")), (0, 0), "{ended:?}");
    let queues = ended.ledger["queues"].as_array().unwrap();
    assert!(queues.iter().all(|queue| queue["unaccounted"] == 0), "{ended:?}");
}

/// `if_filter` of a segment: option 11 of the interface description, one byte of kind, then the text.
fn filter_of(segment: &Path) -> Option<String> {
    interface_option(segment, 11).map(|value| String::from_utf8(value[1..].to_vec()).unwrap())
}

#[test]
fn exactly_the_filtered_packets_are_missing() {
    live!();
    const EACH: u64 = 100;
    for mode in MODES {
        for (rules, left) in [
            (&["--skip", "port 10001", "--skip", "vlan 7"][..], &[0, 2, 3, 5, 6, 7][..]),
            (
                &["--keep", "vlan 12", "--keep", "udp portrange 10006-10007", "--skip", "port 10007"],
                &[3, 4, 6],
            ),
            (&["--keep", "net 10.1.0.0/24 and port 10002"], &[2]),
            (&["--skip", "host 10.1.0.1 and host 10.1.0.2"], &[]),
            (&["--skip", "tcp", "--skip", "net 2001:db8::/32"], &[0, 1, 2, 3, 4, 5, 6, 7]),
        ] {
            let net = Net::new(2, 1500);
            let dir = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(&net, dir.path(), &[&["--mode", mode], rules].concat());
            assert!(recorder.said.contains("only packets that match are recorded"), "{}", recorder.said);
            send(&net, 0..EACH);
            let ended = recorder.stop();
            balanced(&ended);
            assert_eq!(stored(dir.path()), expected(left, EACH), "{mode} {rules:?}");
            let of_flows = |flows: usize| i64::try_from(flows as u64 * EACH).unwrap();
            assert_eq!(
                (ended.total("seen"), ended.total("stored"), ended.total("filtered")),
                (of_flows(8), of_flows(left.len()), of_flows(8 - left.len())),
                "{mode} {rules:?}: {ended:?}"
            );
            // What was left out was not lost.
            let told = segments(dir.path()).iter().flat_map(|path| drops(path)).find(|(_, lost)| *lost != 0);
            assert_eq!(told, None, "{mode} {rules:?}: epb_dropcount");
            let named: BTreeSet<_> = segments(dir.path()).iter().map(|path| filter_of(path)).collect();
            assert!(named.len() <= 1 && named.iter().all(Option::is_some), "{named:?}");
        }
    }
}

/// What is left out, and nothing else, reaches the network stack, which counts it.
#[test]
fn what_is_left_out_goes_on_to_the_stack() {
    live!();
    let net = Net::new(1, 1500);
    // The numbered packets are addressed to it.
    run("ip", &["link", "set", &net.rx, "address", "02:00:00:00:00:02"]);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy", "--skip", "port 10001"]);
    // InReceives of the thread's own namespace.
    let received = || {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let line = text.lines().filter(|line| line.starts_with("Ip:")).nth(1).unwrap().to_owned();
        line.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap()
    };
    let before = received();
    send(&net, 0..50);
    let ended = recorder.stop();
    balanced(&ended);
    assert_eq!((ended.total("filtered"), ended.total("stored")), (50, 350), "{ended:?}");
    assert_eq!(received() - before, 50);
}

/// A configuration file that a recorder reads again.
struct Config {
    path: PathBuf,
    head: String,
}

impl Config {
    fn new(dir: &Path) -> Self {
        let config = Self { path: dir.join("tapedeck.toml"), head: String::new() };
        config.write("");
        config
    }

    fn write(&self, filter: &str) {
        std::fs::write(&self.path, format!("{}[filter]\n{filter}", self.head)).unwrap();
    }

    fn arguments<'a>(&'a self, mode: &'a str) -> [&'a str; 4] {
        ["--mode", mode, "--config", self.path.to_str().unwrap()]
    }
}

/// Traffic flows all the while; each of the numbered packets is stored or filtered, in every mode, and each segment
/// holds only what its own filter takes.
#[test]
fn another_filter_comes_in_without_a_gap() {
    live!();
    for mode in MODES {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let config = Config::new(dir.path());
        let mut recorder = Recorder::start(&net, &store, &config.arguments(mode));
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let (sender, stop, sent) = (net.sender(), &stop, &sent);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    for flow in 0..4 {
                        assert!(sender.send(&numbered(flow, number, 80, &[])));
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            for filter in [
                "skip = ['port 10001']",
                "keep = ['port 10001', 'port 10002']",
                "keep = ['net 10.1.0.0/16']\nskip = ['portrange 10002-10003']",
                "",
                "skip = ['udp']",
            ] {
                std::thread::sleep(Duration::from_millis(150));
                config.write(filter);
                recorder.signal(Signal::SIGHUP);
                recorder.wait_for_words("the filter has changed");
            }
            std::thread::sleep(Duration::from_millis(150));
            stop.store(true, Ordering::Relaxed);
        });
        let ended = recorder.stop();
        balanced(&ended);
        let total = |key| u64::try_from(ended.total(key)).unwrap();
        let sent = sent.load(Ordering::Relaxed);
        assert_eq!((total("seen"), total("stored") + total("filtered")), (sent, sent), "{mode}: {ended:?}");
        assert_eq!(stored(&store).len() as u64, total("stored"), "{mode}: {ended:?}");
        each_segment_holds_what_its_filter_takes(mode, &store);
    }
}

fn each_segment_holds_what_its_filter_takes(mode: &str, store: &Path) {
    let takes = |filter: Option<&str>, flow: u16| match filter {
        None => true,
        Some("not (port 10001)") => flow != 1,
        Some("(port 10001 or port 10002)") => flow == 1 || flow == 2,
        Some("(net 10.1.0.0/16) and not (portrange 10002-10003)") => flow < 2,
        Some("not (udp)") => false,
        Some(other) => panic!("{mode}: a segment with the filter {other}"),
    };
    let mut seen: BTreeMap<Option<String>, BTreeMap<u16, Vec<u64>>> = BTreeMap::new();
    for segment in segments(store) {
        let filter = filter_of(&segment);
        for (_, packet) in packets(&segment) {
            let (flow, number) = number_of(&packet, 0).unwrap();
            assert!(takes(filter.as_deref(), flow), "{mode}: flow {flow}, number {number}, in {filter:?}");
            seen.entry(filter.clone()).or_default().entry(flow).or_default().push(number);
        }
    }
    assert_eq!(seen.len(), 4, "{mode}: {:?}", seen.keys());
    // Between the first and the last packet of a filter none is missing that it takes; the numbers of the two
    // times without a filter are apart.
    for (filter, flows) in seen.iter().filter(|(filter, _)| filter.is_some()) {
        for (flow, numbers) in flows {
            let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
            assert_eq!(*numbers, (first..=last).collect::<Vec<_>>(), "{mode}: {filter:?}, flow {flow}");
        }
    }
}

/// A file that is wrong changes nothing and says where; other keys are named; without a file a hangup ends.
#[test]
fn a_wrong_file_leaves_the_filter_as_it_was() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut config = Config::new(dir.path());
    config.write("skip = ['port 10001']\n");
    let mut recorder = Recorder::start(&net, &store, &config.arguments("copy"));
    config.write("skip = [\n  'port 10001',\n  'prot 10002']\n");
    recorder.signal(Signal::SIGHUP);
    recorder.wait_for_words("the filter stays as it is");
    let said = recorder.said.lines().last().unwrap().to_owned();
    for words in ["tapedeck.toml, line 4: skip of [filter]", "`prot` is not understood", "Mend the file"] {
        assert!(said.contains(words), "{said}");
    }
    config.head = "segment-size = '2MiB'\nlevel = 1\n".to_owned();
    config.write("skip = ['port 10001']\n");
    recorder.signal(Signal::SIGHUP);
    recorder.wait_for_words("changes of segment-size, level take effect at the next start only");
    recorder.wait_for_words("the filter is the same");
    send(&net, 0..50);
    let status = || {
        let out =
            Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(["status", "--store"]).arg(&store).output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    let shown = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        status().contains("filter not (port 10001)") && status().contains("filtered 50")
    });
    assert!(shown, "{}", status());
    let ended = recorder.stop();
    balanced(&ended);
    assert_eq!(ended.total("filtered"), 50, "{ended:?}");
    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    recorder.signal(Signal::SIGHUP);
    assert_eq!(recorder.wait().code, Some(0));
}

/// Nothing comes any more after the change: the open segment ends all the same.
#[test]
fn an_idle_queue_ends_its_segment_at_a_change() {
    live!();
    for mode in MODES {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let config = Config::new(dir.path());
        let mut recorder = Recorder::start(&net, &store, &config.arguments(mode));
        send(&net, 0..20);
        config.write("skip = ['net 0.0.0.0/0']\n");
        recorder.signal(Signal::SIGHUP);
        recorder.wait_for_words("the filter has changed");
        let sealed = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            segments(&store).len() == 1
        });
        assert!(sealed, "{mode}: the segment of before stays open");
        send(&net, 20..40);
        let ended = recorder.stop();
        balanced(&ended);
        assert_eq!((ended.total("stored"), ended.total("filtered")), (160, 160), "{mode}: {ended:?}");
        assert_eq!(segments(&store).len(), 1, "{mode}");
    }
}
