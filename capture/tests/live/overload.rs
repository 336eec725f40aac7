//! Overload: the compressor stands still, the frame buffers fill, and the payload of long flows goes first.
//!
//! The oracle of what was kept is tshark; the packets say in their IP headers which they are.

use crate::disk::{status_when, tapedeck};
use crate::support::hold::Held;
use crate::support::recorder::{Recorder, captured, segments};
use crate::support::{Net, Sender, live, numbered, run};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tapedeck_bench::recorder::binary;

/// Packets of the long flow: more than the buffers hold, less than their identification can tell apart.
const LONG: u16 = 24_000;
const LONG_BYTES: usize = 1400;
/// Short flows: each stays below what is kept of every flow.
const SHORT: u16 = 20;
const SHORT_PACKETS: u16 = 60;
const SHORT_BYTES: usize = 1000;
/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

/// A packet whose number also stands in the identification of its IP header.
fn marked(flow: u16, number: u16, len: usize) -> Vec<u8> {
    let mut packet = numbered(flow, number.into(), len, &[]);
    packet[18..20].copy_from_slice(&number.to_be_bytes());
    packet[24..26].fill(0);
    let words = packet[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn send(sender: &Sender, packet: &[u8], nth: u16) {
    assert!(sender.send(packet));
    // The veth's own ring has 256 places.
    if nth.is_multiple_of(64) {
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Waits for words in `status`.
fn status_says(store: &str, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, text, _) = tapedeck(&["status", "--store", store]);
        if text.contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "no `{words}` in: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// More than the buffers hold.
fn send_all(sender: &Sender) {
    for number in 0..LONG {
        send(sender, &marked(0, number, LONG_BYTES), number);
    }
    for number in 0..SHORT_PACKETS {
        for flow in 1..=SHORT {
            send(sender, &marked(flow, number, SHORT_BYTES), flow);
        }
    }
}

/// A recorder with so much packet memory whose compressor stands still, and to whom all of that was sent; what must live
/// as long.
fn overwhelmed(mode: &str, packet_memory: &str) -> (Net, tempfile::TempDir, Recorder, Sender, Vec<Held>) {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", mode, "--packet-memory", packet_memory]);
    let sender = net.sender();
    let held = Held::threads(recorder.pid(), "tapedeck-stage");
    send_all(&sender);
    (net, dir, recorder, sender, held)
}

/// What packet memory holds costs no byte: packets wait there, however the recording goes on.
fn time_goes_before_payload(mode: &str, ends_meanwhile: bool) {
    let (_net, dir, recorder, _sender, held) = overwhelmed(mode, "64MiB");
    let store = dir.path().to_str().unwrap();
    let sent = i64::from(LONG) + i64::from(SHORT * SHORT_PACKETS);
    status_when(store, |ledger| ledger["total"]["seen"] == sent);
    if ends_meanwhile {
        // Longer than a drain that gets nowhere lasts otherwise.
        recorder.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_secs(2));
    }
    drop(held);
    let ended = if ends_meanwhile { recorder.wait() } else { recorder.stop() };
    assert_eq!(ended.code, Some(0), "{mode}: {}", ended.stderr);
    let total = |key| ended.total(key);
    assert_eq!((total("seen"), total("stored"), total("cut_packets")), (sent, sent, 0), "{mode}: {ended:?}");
    assert_eq!((total("unaccounted"), total("stored_bytes")), (0, total("seen_bytes")), "{mode}: {ended:?}");
    assert!(
        !ended.stderr.contains("behind") && !ended.stderr.contains("never came"),
        "{mode}: {}",
        ended.stderr
    );
}

fn payload_goes_first(mode: &str) {
    // So little that it does not bridge the pause.
    let (_net, dir, recorder, sender, held) = overwhelmed(mode, "8MiB");
    let store = dir.path().to_str().unwrap();
    status_says(store, "payload is being shed: ");
    drop(held);
    status_says(store, "payload was shed: ");
    for number in LONG..LONG + 50 {
        send(&sender, &marked(0, number, LONG_BYTES), number);
    }
    let sent = i64::from(LONG) + 50 + i64::from(SHORT * SHORT_PACKETS);
    status_when(store, |ledger| ledger["total"]["stored"] == sent);
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let total = |key| ended.total(key);
    assert_eq!((total("seen"), total("stored"), total("unaccounted")), (sent, sent, 0), "{mode}: {ended:?}");
    assert_eq!(total("stored_bytes") + total("cut_bytes"), total("seen_bytes"), "{mode}: {ended:?}");
    for words in ["compressor or disk is behind", "payload of long flows is stored again"] {
        assert_eq!(ended.stderr.matches(words).count(), 1, "{mode}, {words}: {}", ended.stderr);
    }
    let over = format!("packets={} bytes={}", total("cut_packets"), total("cut_bytes"));
    assert!(ended.stderr.contains(&over), "{mode}, {over}: {}", ended.stderr);
    let cut = what_is_kept(dir.path());
    assert!(cut.len() > 1_000, "{mode}: {} packets cut", cut.len());
    assert_eq!(total("cut_packets"), i64::try_from(cut.len()).unwrap(), "{mode}: {ended:?}");
    let missing = cut.values().sum::<usize>();
    assert_eq!(total("cut_bytes"), i64::try_from(missing).unwrap(), "{mode}: {ended:?}");
    in_the_records(store, missing);
    headers_are_whole(dir.path(), cut.len());
    the_index_is_of_what_is_stored(dir.path());
}

/// Compares every packet in the store with what was sent. Returns the numbers of those that were cut, with
/// the bytes they lost.
fn what_is_kept(store: &Path) -> BTreeMap<u16, usize> {
    let (mut cut, mut whole) = (BTreeMap::new(), 0);
    for segment in segments(store) {
        for (_, bytes, original) in captured(&segment) {
            let port = u16::from_be_bytes([bytes[34], bytes[35]]);
            let (flow, number) = (port - 10_000, u16::from_be_bytes([bytes[18], bytes[19]]));
            let sent = marked(flow, number, if flow == 0 { LONG_BYTES } else { SHORT_BYTES });
            assert_eq!(original, sent.len());
            assert_eq!(bytes, sent[..bytes.len()], "flow {flow}, packet {number}");
            if bytes.len() == sent.len() {
                whole += 1;
                continue;
            }
            assert_eq!((flow, bytes.len()), (0, HEADERS), "only headers, only of the long flow");
            assert!(cut.insert(number, original - HEADERS).is_none(), "packet {number} twice");
        }
    }
    assert_eq!(whole + cut.len(), usize::from(LONG + 50 + SHORT * SHORT_PACKETS));
    let numbers: Vec<u16> = cut.keys().copied().collect();
    // Cut is one stretch to the end of the pressure, and it is not the beginning.
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
    assert!(numbers.first() > Some(&10_000) && numbers.last() == Some(&(LONG - 1)), "{numbers:?}");
    cut
}

/// The records of sessions tell the same sum, and of one session only.
fn in_the_records(store: &str, cut_bytes: usize) {
    let query = "SELECT src_port, sum(cut_bytes) AS cut FROM sessions WHERE cut_bytes > 0 GROUP BY 1";
    let out = Command::new(binary("taperead"))
        .args(["sql", query, "--format", "json", "--store", store])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(text, format!("{{\"src_port\":10000,\"cut\":{cut_bytes}}}\n"), "{said}");
}

/// tshark finds every header, no malformed packet, and as many cut ones.
fn headers_are_whole(store: &Path, cut: usize) {
    let mut found = (0, 0);
    for segment in segments(store) {
        let file = store.join("segment.pcapng");
        run("zstd", &["-dqf", segment.to_str().unwrap(), "-o", file.to_str().unwrap()]);
        let fields = [
            "-T",
            "fields",
            "-e",
            "udp.length",
            "-e",
            "frame.cap_len",
            "-e",
            "frame.len",
            "-e",
            "_ws.malformed",
        ];
        let text = run("tshark", &[&["-n", "-r", file.to_str().unwrap()], &fields[..]].concat());
        for line in text.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let [udp, kept, original] = [0, 1, 2].map(|column| columns[column].parse::<usize>().unwrap());
            assert_eq!(udp + 34, original, "{line}");
            assert_eq!(columns.get(3).copied().unwrap_or_default(), "", "{line}");
            found = (found.0 + 1, found.1 + usize::from(kept < original));
        }
    }
    assert_eq!(found, (usize::from(LONG + 50 + SHORT * SHORT_PACKETS), cut));
}

fn the_index_is_of_what_is_stored(store: &Path) {
    let name = store.to_str().unwrap();
    let indexes = || -> Vec<Vec<u8>> {
        segments(store)
            .iter()
            .map(|path| path.to_str().unwrap().replace(".pcapng.zst", ".idx"))
            .map(|path| std::fs::read(path).unwrap())
            .collect()
    };
    let before = indexes();
    assert!(!before.is_empty());
    let (code, _, said) = tapedeck(&["reindex", "--store", name]);
    assert_eq!(code, Some(0), "{said}");
    assert!(indexes() == before, "the index of cut packets comes out otherwise");
    let (code, _, said) = tapedeck(&["verify", "--store", name]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn time_goes_before_payload_in_copy_mode() {
    live!();
    time_goes_before_payload("copy", false);
}

#[test]
fn time_goes_before_payload_in_packet_mode() {
    live!();
    time_goes_before_payload("packet", false);
}

#[test]
fn time_goes_before_payload_at_the_end() {
    live!();
    for mode in ["copy", "packet"] {
        time_goes_before_payload(mode, true);
    }
}

#[test]
fn payload_goes_first_in_copy_mode() {
    live!();
    payload_goes_first("copy");
}

#[test]
fn payload_goes_first_in_skb_mode() {
    live!();
    payload_goes_first("skb");
}

#[test]
fn payload_goes_first_in_packet_mode() {
    live!();
    payload_goes_first("packet");
}
