//! Identity under force: each cause of loss is made to happen while numbered packets come, and exactly those
//! that are missing in the store stand under exactly that cause; none is there twice, `unaccounted` is 0.
//!
//! The recorder that is tested is the one that is shipped: what happens to it happens from outside. Only
//! what nobody outside can do (a reader that gives no chunk back, a socket that is closed while the recorder
//! lives) is done with the recorder's library.

use crate::disk::{fill, small_disk, status_when};
use crate::support::hold::{Held, Slots};
use crate::support::recorder::{Ended, Recorder, drops, packets, segments};
use crate::support::{Net, Sender, live, number_of, numbered, run};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};
use tapedeck_capture::xsk::{BindMode, ChunkSize, XskConfig, XskSocket};
use tapedeck_ebpf::{Counts, Mode, Program, Refusal};

/// Entries of a queue's RX ring (`ladder`).
const RING: u64 = 8192;

/// A recorder at work, and what was sent to it.
struct Scene {
    net: Net,
    recorder: Recorder,
    sender: Sender,
    store: tempfile::TempDir,
    sent: u64,
    mode: &'static str,
}

impl Scene {
    fn begin(mode: &'static str, mtu: u32, args: &[&str]) -> Self {
        let (net, store) = (Net::new(1, mtu), tempfile::tempdir().unwrap());
        Self::begin_in(mode, net, store, args)
    }

    fn begin_in(mode: &'static str, net: Net, store: tempfile::TempDir, args: &[&str]) -> Self {
        let mut all = vec!["--mode", mode];
        all.extend(args);
        let recorder = Recorder::start(&net, &store.path().join("store"), &all);
        let sender = net.sender();
        let mut scene = Self { net, recorder, sender, store, sent: 0, mode };
        scene.send_stored(100);
        scene
    }

    fn folder(&self) -> std::path::PathBuf {
        self.store.path().join("store")
    }

    /// Sends the next packets; returns their numbers.
    fn send(&mut self, count: u64, len: impl Fn(u64) -> usize) -> Range<u64> {
        self.send_paced(count, len, Duration::from_micros(300))
    }

    /// As [`Scene::send`], with a pause after each 64 packets.
    fn send_paced(&mut self, count: u64, len: impl Fn(u64) -> usize, pause: Duration) -> Range<u64> {
        let numbers = self.sent..self.sent + count;
        for number in numbers.clone() {
            assert!(self.sender.send(&numbered(0, number, len(number), &[])));
            // The veth's own ring has 256 places.
            if number % 64 == 0 {
                std::thread::sleep(pause);
            }
        }
        self.sent = numbers.end;
        numbers
    }

    /// Sends packets that nothing happens to, and waits until they are stored.
    fn send_stored(&mut self, count: u64) {
        let before = self.stored();
        self.send(count, |_| 60);
        let wanted = before + i64::try_from(count).unwrap();
        self.status_when(|ledger| ledger["total"]["stored"].as_i64() >= Some(wanted));
    }

    fn stored(&self) -> i64 {
        self.status_when(|_| true)["total"]["stored"].as_i64().unwrap()
    }

    fn status_when(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        status_when(self.folder().to_str().unwrap(), wanted)
    }

    /// Waits until the recorder has counted everything that was sent.
    fn wait_seen(&self) {
        let sent = i64::try_from(self.sent).unwrap();
        self.status_when(|ledger| ledger["total"]["seen"].as_i64() >= Some(sent));
    }

    /// Ends the recording; `missing` must be missing, no other, and stand under `cause`.
    fn judge(self, cause: &str, missing: Option<Range<u64>>) -> Ended {
        let (folder, mode, sent) = (self.folder(), self.mode, self.sent);
        let ended = self.recorder.stop();
        assert_eq!(ended.code, Some(0), "{mode}: {}", ended.stderr);
        let there = on_disk(&folder);
        let gone: Vec<u64> = (0..sent).filter(|number| !there.contains(number)).collect();
        assert!(there.range(sent..).next().is_none(), "{mode}: packets that were never sent");
        assert!(!gone.is_empty(), "{mode} {cause}: nothing was lost: {ended:?}");
        if let Some(missing) = missing {
            assert!(gone.iter().copied().eq(missing.clone()), "{mode} {cause}: {missing:?}, not {gone:?}");
        }
        let count = |count: usize| i64::try_from(count).unwrap();
        each_says_what_was_lost_before_it(&folder, mode, cause);
        assert_eq!(ended.total("seen"), i64::try_from(sent).unwrap(), "{mode} {cause}: {ended:?}");
        assert_eq!(ended.total("stored"), count(there.len()), "{mode} {cause}: {ended:?}");
        assert_eq!((ended.total("pending"), ended.total("unaccounted")), (0, 0), "{mode} {cause}: {ended:?}");
        for (name, number) in ended.ledger["total"]["dropped"].as_object().unwrap() {
            let wanted = if name == cause { count(gone.len()) } else { 0 };
            assert_eq!(number.as_i64(), Some(wanted), "{mode} {cause}, {name}: {ended:?}");
        }
        ended
    }
}

/// `epb_dropcount` of each packet is the number of those that are missing between the one before and it.
fn each_says_what_was_lost_before_it(store: &Path, mode: &str, cause: &str) {
    let mut next = 0;
    for (packet, lost) in segments(store).iter().flat_map(|segment| drops(segment)) {
        let (_, number) = number_of(&packet, 0).expect("a numbered packet");
        let missing = number - next;
        let holds = match (mode, cause) {
            // The kernel does not say where in the row it dropped.
            ("packet", "ring_full") => lost == 0,
            // What failed after it was taken in was known too late.
            (_, "write_error") => lost <= missing,
            _ => lost == missing,
        };
        assert!(holds, "{mode} {cause}: epb_dropcount of packet {number} is {lost}, {missing} are missing");
        next = number + 1;
    }
}

/// Numbers in the store; none may be there twice.
fn on_disk(store: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for segment in segments(store) {
        for (_, packet) in packets(&segment) {
            let (_, number) = number_of(&packet, 0).expect("a numbered packet");
            assert!(found.insert(number), "packet {number} is there twice");
        }
    }
    found
}

/// The worker stands still: the ring takes as many as it has places.
#[test]
fn ring_full() {
    live!();
    for mode in ["copy", "skb"] {
        let mut scene = Scene::begin(mode, 1500, &["--packet-memory", "16MiB"]);
        let held = Held::threads(scene.recorder.pid(), "q0-");
        let numbers = scene.send(RING + 2_000, |_| 60);
        scene.wait_seen();
        drop(held);
        scene.send_stored(100);
        scene.judge("ring_full", Some(numbers.start + RING..numbers.end));
    }
    // Here the ring is one of bytes, and the kernel counts a packet that is on its way as it likes.
    let mut scene = Scene::begin("packet", 1500, &[]);
    let held = Held::threads(scene.recorder.pid(), "q0-");
    scene.send(60_000, |_| 1400);
    drop(held);
    scene.send_stored(100);
    scene.judge("ring_full", None);
}

/// Somebody empties the slot.
#[test]
fn slot_deleted() {
    live!();
    for mode in ["copy", "skb"] {
        let mut scene = Scene::begin(mode, 1500, &[]);
        Slots::of(&scene.net.rx).clear(0);
        let numbers = scene.send(300, |_| 60);
        scene.wait_seen();
        scene.judge("unbound", Some(numbers));
    }
}

fn spare_on(interface: &str) -> XskSocket {
    let ifindex = nix::net::if_::if_nametoindex(interface).unwrap();
    open(ifindex, 64, 64)
}

fn open(ifindex: u32, rx_entries: u32, chunks: u32) -> XskSocket {
    let config =
        XskConfig { ifindex, queue: 0, chunk: ChunkSize::Small, fragments: false, rx_entries, chunks };
    XskSocket::open(config).unwrap()
}

/// Somebody puts a socket into the slot that is bound nowhere.
#[test]
fn unbound() {
    live!();
    for mode in ["copy", "skb"] {
        let mut scene = Scene::begin(mode, 1500, &[]);
        let spare = spare_on(&scene.net.rx);
        Slots::of(&scene.net.rx).put(0, &spare);
        let numbers = scene.send(300, |_| 60);
        scene.wait_seen();
        scene.judge("unbound", Some(numbers));
    }
}

/// Somebody puts a socket into the slot that is bound elsewhere.
#[test]
fn wrong_queue() {
    live!();
    for mode in ["copy", "skb"] {
        let mut scene = Scene::begin(mode, 1500, &[]);
        let mut spare = spare_on(&scene.net.tx);
        spare.bind(BindMode::Copy).unwrap();
        Slots::of(&scene.net.rx).put(0, &spare);
        let numbers = scene.send(300, |_| 60);
        scene.wait_seen();
        scene.judge("wrong_queue", Some(numbers));
    }
}

/// The MTU grows under a recorder whose sockets take packets in one buffer.
#[test]
fn oversize() {
    live!();
    for mode in ["copy", "skb"] {
        let mut scene = Scene::begin(mode, 1500, &[]);
        for end in [&scene.net.rx, &scene.net.tx] {
            run("ip", &["link", "set", end, "mtu", "9000"]);
        }
        let numbers = scene.send(300, |_| 9014);
        scene.wait_seen();
        scene.send_stored(100);
        scene.judge("oversize", Some(numbers));
    }
}

/// The disk is full for a while.
#[test]
fn write_error() {
    live!();
    for mode in ["copy", "skb", "packet"] {
        let (net, dir) = (Net::new(1, 1500), tempfile::tempdir().unwrap());
        if !small_disk(dir.path(), "size=24m") {
            println!("SKIPPED 1: no mount namespaces here");
            return;
        }
        let mut scene = Scene::begin_in(mode, net, dir, &[]);
        let filler = scene.store.path().join("filler");
        fill(&filler);
        scene.send(2_000, |_| 1000);
        scene.status_when(|ledger| ledger["total"]["dropped"]["write_error"].as_i64() > Some(0));
        scene.wait_seen();
        std::fs::remove_file(filler).unwrap();
        let (before, deadline) = (scene.stored(), Instant::now() + Duration::from_secs(30));
        while scene.stored() < before + 10 {
            assert!(Instant::now() < deadline, "{mode}: nothing is stored again");
            scene.send(10, |_| 60);
        }
        scene.judge("write_error", None);
    }
}

/// The compressor stands still, no payload may be shed, and packet memory is not large enough for the pause.
#[test]
fn shed() {
    const MEMORY: i64 = 32 << 20;
    live!();
    for mode in ["copy", "skb", "packet"] {
        let mut scene = Scene::begin(mode, 1500, &["--strict", "--packet-memory", "32MiB"]);
        let held = Held::threads(scene.recorder.pid(), "tapedeck-stage");
        // A worker that is behind has a tenth of the memory to find out, 2,340 packets: 55 ms at this pace, so that it
        // sheds before the kernel must drop, also on a busy machine.
        let numbers = scene.send_paced(50_000, |_| 1400, Duration::from_micros(1_500));
        scene.wait_seen();
        scene.status_when(|ledger| ledger["total"]["dropped"]["shed"].as_i64() > Some(0));
        drop(held);
        scene.send_stored(100);
        let ended = scene.judge("shed", None);
        assert_eq!((ended.total("cut_packets"), ended.total("cut_bytes")), (0, 0), "{ended:?}");
        // They fill what buffers there are, 364 of them each, and nine tenths of the memory, chunks of 2 KiB or blocks
        // without gaps; what comes then is shed.
        let kept = i64::try_from(numbers.end - numbers.start).unwrap() - ended.total("dropped/shed");
        let (least, most) = (62 * 364 + MEMORY / 2048 * 8 / 10, 64 * 366 + MEMORY / 1400);
        assert!((least..=most).contains(&kept), "{mode}: {kept} kept, not {least} to {most}");
    }
}

/// The counts of the program once it has seen `packets`.
fn settled(program: &Program, packets: u64) -> Counts {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let counts = program.totals(0).unwrap();
        if counts.packets >= packets {
            return counts;
        }
        assert!(Instant::now() < deadline, "{packets} packets: {counts:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes what waits.
fn take(socket: &mut XskSocket, into: &mut Vec<u64>) {
    let mut batch = socket.peek(64);
    for packet in batch.packets() {
        into.push(number_of(packet.bytes, 0).expect("a numbered packet").1);
    }
}

fn send(sender: &Sender, numbers: Range<u64>) {
    for number in numbers {
        assert!(sender.send(&numbered(0, number, 60, &[])));
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

/// A reader that gives no chunk back: places in its ring, but no chunks.
#[test]
fn fill_empty() {
    live!();
    const CHUNKS: u32 = 64;
    for mode in [Mode::Native, Mode::Skb] {
        let net = Net::new(1, 1500);
        let mut program = Program::load(0).unwrap();
        let mut socket = open(net.rx_index(), 4 * CHUNKS, CHUNKS);
        socket.bind(BindMode::Copy).unwrap();
        program.set_socket(0, socket.as_fd()).unwrap();
        program.attach(net.rx_index(), mode).unwrap();
        let sender = net.sender();
        send(&sender, 0..200);
        let starved = settled(&program, 200);
        let refused = 200 - u64::from(CHUNKS);
        assert_eq!(
            (starved.packets, starved.refused(Refusal::FillEmpty)),
            (200, refused),
            "{mode:?} {starved:?}"
        );
        let mut got = Vec::new();
        while got.len() < CHUNKS as usize {
            take(&mut socket, &mut got);
        }
        // With its chunks back it goes on.
        send(&sender, 200..250);
        let totals = settled(&program, 250);
        while got.len() < CHUNKS as usize + 50 {
            take(&mut socket, &mut got);
        }
        assert!(got.iter().copied().eq((0..u64::from(CHUNKS)).chain(200..250)), "{mode:?} {got:?}");
        assert_eq!((totals.packets, totals.delivered()), (250, got.len() as u64), "{mode:?} {totals:?}");
        assert_eq!(totals.refused(Refusal::FillEmpty), refused, "{mode:?} {totals:?}");
    }
}

/// A socket that is closed in the middle of traffic: what was delivered to it and not read yet is gone with it;
/// everything after that is counted as unbound.
#[test]
fn closed_while_packets_come() {
    live!();
    const SENT: u64 = 20_000;
    for mode in [Mode::Native, Mode::Skb] {
        let net = Net::new(1, 1500);
        let mut program = Program::load(0).unwrap();
        let mut socket = open(net.rx_index(), 1024, 2048);
        socket.bind(BindMode::Copy).unwrap();
        program.set_socket(0, socket.as_fd()).unwrap();
        program.attach(net.rx_index(), mode).unwrap();
        let sender = net.sender();
        let mut got = Vec::new();
        let sending = std::thread::spawn(move || send(&sender, 0..SENT));
        while got.len() < 3_000 {
            take(&mut socket, &mut got);
        }
        drop(socket);
        sending.join().unwrap();
        let totals = settled(&program, SENT);
        let read = got.len() as u64;
        assert!(got.iter().copied().eq(0..read), "{mode:?}: a hole before the close");
        let unbound = totals.slot_empty + totals.refused(Refusal::Unbound);
        assert_eq!(totals.delivered() + unbound, SENT, "{mode:?} {totals:?}");
        assert_eq!(totals.packets, SENT, "{mode:?} {totals:?}");
        let in_ring = totals.delivered() - read;
        assert!(in_ring <= 1024 && unbound > 0, "{mode:?}: {in_ring} in the ring, {totals:?}");
    }
}
