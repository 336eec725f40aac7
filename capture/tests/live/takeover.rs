//! A recorder that is killed: its program counts on, the next one takes it over, and every numbered packet is
//! stored once or stands in one line of a ledger.

use crate::ledger::table_tells;
use crate::support::recorder::{Ended, Recorder, packets, pins, record_on, segments};
use crate::support::{Net, join, live, number_of, numbered, pin_dir, run};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tapedeck_ebpf::{Mode, Pins, Program};
use tapedeck_index::table::ledger::{LedgerCounts, RowKind};

/// Flows and numbers in all stores; none twice.
pub(super) fn stored(stores: &[&Path]) -> BTreeSet<(u16, u64)> {
    let mut found = BTreeSet::new();
    for segment in stores.iter().flat_map(|store| segments(store)) {
        for (_, bytes) in packets(&segment) {
            let number = number_of(&bytes, 0).expect("only numbered packets travel here");
            assert!(found.insert(number), "{number:?} is stored twice");
        }
    }
    found
}

/// Frames that the sending end could not hand over: nobody beyond it has seen them.
pub(super) fn not_placed(net: &Net) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", net.tx))).unwrap();
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}

fn send(net: &Net, flows: u16, numbers: std::ops::Range<u64>) {
    let sender = net.sender();
    for number in numbers {
        for flow in 0..flows {
            assert!(sender.send(&numbered(flow, number, 100, &[])));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn tapedeck(args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(args).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// Runs a command of ours with the pins of this test.
pub(super) fn with_pins(args: &[&str]) -> (Option<i32>, String, String) {
    let dir = pin_dir();
    tapedeck(&[args, &["--pin-dir", dir.to_str().unwrap()]].concat())
}

fn wait_until_stored(store: &Path, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let (_, text, _) = with_pins(&["status", "--json", "--store", store.to_str().unwrap()]);
        let ledgers = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if ledgers.into_iter().any(|ledger| ledger["total"]["stored"] == count) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{count} packets are not stored");
}

/// The signal reaches the threads of a process one after the other.
fn wait_until_stopped(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let stopped = |task: std::fs::DirEntry| {
        // Process, name in brackets, state.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(stopped) {
        assert!(Instant::now() < deadline, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn xdp_on(net: &Net) -> bool {
    run("ip", &["-d", "link", "show", &net.rx]).contains("prog/xdp")
}

/// It balances, per queue too, and is the end of an orderly run.
pub(super) fn balances(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((ended.total("unaccounted"), ended.total("pending")), (0, 0), "{ended:?}");
    for queue in ended.ledger["queues"].as_array().unwrap() {
        assert_eq!(queue["unaccounted"], 0, "{ended:?}");
    }
}

pub(super) fn dropped(ledger: &serde_json::Value) -> u64 {
    let causes = ledger["total"]["dropped"].as_object().unwrap();
    causes.values().map(|count| count.as_u64().unwrap()).sum()
}

pub(super) fn verify(store: &Path) {
    let (code, _, said) = tapedeck(&["verify", "--store", store.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_passes_while_nobody_records_is_down_to_the_packet() {
    live!();
    let net = Net::new(2, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net, 4, 0..50);
    wait_until_stored(dir.path(), 200);
    recorder.kill();
    assert!(xdp_on(&net), "the program outlives its recorder");
    send(&net, 4, 50..125);
    let (code, _, said) = with_pins(&["status", "--store", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(said.contains("its program counts on: 300 packets have passed unrecorded"), "{said}");
    let (code, report, _) = with_pins(&["doctor", "--interface", &net.rx]);
    assert_eq!(code, Some(1));
    assert!(report.contains("left-pinned") && report.contains("300 packets have passed"), "{report}");
    assert!(
        report.contains(&format!("tapedeck detach {}", net.rx)) && !report.contains("xdp-attached"),
        "{report}"
    );
    let next = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    assert!(next.said.contains("ended without a ledger"), "{}", next.said);
    send(&net, 4, 125..150);
    let ended = next.stop();
    balances(&ended);
    assert_eq!((ended.total("seen"), ended.total("stored")), (400, 100), "{ended:?}");
    assert_eq!((ended.total("dropped/down"), dropped(&ended.ledger)), (300, 300), "{ended:?}");
    let whole = |number: &u64| (0..4).map(|flow| (flow, *number)).collect::<Vec<_>>();
    let expected: BTreeSet<_> = (0..50).chain(125..150).flat_map(|number| whole(&number)).collect();
    assert_eq!(stored(&[dir.path()]), expected);
    let rows = table_tells(&[dir.path()], &ended.ledger, 600);
    let down: Vec<_> = rows.iter().filter(|row| row.kind == RowKind::Down).collect();
    let queues: BTreeSet<_> = down.iter().map(|row| row.queue).collect();
    let seen: i64 = down.iter().map(|row| row.counts.seen).sum();
    assert_eq!((down.len(), seen), (queues.len(), 300), "one a queue: {rows:#?}");
    assert!(down.iter().all(|row| ended.ledger["run"] == *row.run), "{rows:#?}");
    // Nothing is untold: what has no second is of the crash, and then nobody listened.
    for down in down {
        let crash = rows.iter().find(|row| (row.kind, row.queue) == (RowKind::Crash, down.queue)).unwrap();
        let last = rows
            .iter()
            .filter(|row| (row.kind, &row.run, row.queue) == (RowKind::Second, &crash.run, down.queue));
        assert!(last.map(|row| row.ts_end).max().is_none_or(|end| end == crash.ts), "{rows:#?}");
        assert!(crash.ts_end >= down.ts, "{rows:#?}");
    }
    assert_eq!(rows.iter().map(|row| row.counts.seen_bytes).sum::<i64>(), 600 * 100, "{rows:#?}");
    assert!(!xdp_on(&net) && pins().is_empty(), "{:?}", pins());
}

#[test]
fn what_a_killed_recorder_had_in_its_ring_is_crash_to_the_packet() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net, 1, 0..100);
    wait_until_stored(dir.path(), 100);
    recorder.signal(Signal::SIGSTOP);
    wait_until_stopped(recorder.pid());
    send(&net, 1, 100..600);
    recorder.signal(Signal::SIGKILL);
    drop(recorder);
    send(&net, 1, 600..700);
    let ended = Recorder::start(&net, dir.path(), &["--mode", "copy"]).stop();
    balances(&ended);
    let total = |key| ended.total(key);
    assert_eq!((total("dropped/crash"), total("dropped/down")), (500, 100), "{ended:?}");
    assert_eq!((total("seen"), total("stored"), dropped(&ended.ledger)), (600, 0, 600), "{ended:?}");
    assert_eq!(stored(&[dir.path()]).len(), 100);
    let rows = table_tells(&[dir.path()], &ended.ledger, 700);
    let crash: Vec<_> = rows.iter().filter(|row| row.kind == RowKind::Crash).collect();
    assert_eq!(crash.iter().map(|row| row.counts.crash).sum::<i64>(), 500, "{rows:#?}");
    assert!(crash.iter().all(|row| ended.ledger["run"] != *row.run), "of the dead: {rows:#?}");
}

#[test]
fn the_losses_of_several_dead_are_told_once() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let mut at = 0;
    // Not the same number twice: the status of the one before is believed for some seconds.
    for stored in [10, 11, 12] {
        let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
        send(&net, 1, at..at + stored);
        wait_until_stored(dir.path(), stored);
        recorder.kill();
        send(&net, 1, at + stored..at + stored + 20);
        at += stored + 20;
    }
    // One that did not live long enough to be in its second note.
    Recorder::start(&net, dir.path(), &["--mode", "copy"]).kill();
    send(&net, 1, at..at + 5);
    let ended = Recorder::start(&net, dir.path(), &["--mode", "copy"]).stop();
    balances(&ended);
    assert_eq!((ended.total("dropped/down"), dropped(&ended.ledger)), (65, 65), "{ended:?}");
    assert_eq!(stored(&[dir.path()]).len(), 33);
    table_tells(&[dir.path()], &ended.ledger, 98);
}

#[test]
fn another_mode_books_what_the_old_program_counted() {
    live!();
    for mode in ["skb", "packet"] {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
        send(&net, 1, 0..100);
        wait_until_stored(dir.path(), 100);
        recorder.kill();
        send(&net, 1, 100..140);
        let next = Recorder::start(&net, dir.path(), &["--mode", mode]);
        // Killed again: what it carries must not be forgotten, whatever the mode.
        next.kill();
        let next = Recorder::start(&net, dir.path(), &["--mode", mode]);
        send(&net, 1, 200..220);
        let ended = next.stop();
        balances(&ended);
        assert_eq!((ended.total("stored"), ended.total("seen")), (20, 60), "{mode}: {ended:?}");
        assert_eq!((ended.total("dropped/down"), dropped(&ended.ledger)), (40, 40), "{mode}: {ended:?}");
        assert!(!xdp_on(&net) && pins().is_empty(), "{mode}");
        table_tells(&[dir.path()], &ended.ledger, 160);
    }
}

#[test]
fn a_program_of_another_build_is_replaced_and_its_counts_are_booked() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    Recorder::start(&net, dir.path(), &["--mode", "copy"]).kill();
    send(&net, 1, 0..30);
    let [folder] = pins().try_into().unwrap();
    let pinned = Pins::open(&folder).unwrap();
    let mut note: serde_json::Value = serde_json::from_str(&pinned.note().unwrap()).unwrap();
    note["build"] = "another".into();
    pinned.set_note(&note.to_string()).unwrap();
    let program = std::fs::metadata(folder.join("program")).is_ok();
    assert!(program && pinned.ifindex() == Some(net.rx_index()));
    let next = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    assert!(next.said.contains("is taken off: it is another program"), "{}", next.said);
    send(&net, 1, 30..40);
    let ended = next.stop();
    balances(&ended);
    assert_eq!((ended.total("dropped/down"), ended.total("stored")), (30, 10), "{ended:?}");
    assert!(pins().is_empty());
    table_tells(&[dir.path()], &ended.ledger, 40);
}

#[test]
fn an_interface_made_anew_inherits_the_books_of_its_name() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    Recorder::start(&net, dir.path(), &["--mode", "copy"]).kill();
    send(&net, 1, 0..30);
    run("ip", &["link", "del", &net.rx]);
    join(&net.tx, &net.rx);
    let ended = Recorder::start(&net, dir.path(), &["--mode", "copy"]).stop();
    balances(&ended);
    assert_eq!((ended.total("dropped/down"), ended.total("seen")), (30, 30), "{ended:?}");
    assert!(pins().is_empty());
    table_tells(&[dir.path()], &ended.ledger, 30);
}

#[test]
fn rows_of_the_dead_have_the_name_under_which_they_knew_a_renamed_interface() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net, 1, 0..60);
    wait_until_stored(dir.path(), 60);
    recorder.kill();
    send(&net, 1, 60..70);
    run("ip", &["link", "set", &net.rx, "down"]);
    run("ip", &["link", "set", &net.rx, "name", "renamed"]);
    run("ip", &["link", "set", "renamed", "up"]);
    let next = || Recorder::spawn(&mut record_on("renamed", dir.path(), &["--mode", "copy"]));
    next().kill();
    let ended = next().stop();
    balances(&ended);
    let rows = table_tells(&[dir.path()], &ended.ledger, 70);
    let of = |kind: RowKind, what: fn(&LedgerCounts) -> i64| {
        let rows = rows.iter().filter(|row| row.kind == kind && what(&row.counts) != 0);
        rows.map(|row| row.interface.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of(RowKind::Crash, |counts| counts.stored), [net.rx.as_str()], "{rows:#?}");
    assert_eq!(of(RowKind::Down, |counts| counts.down), ["renamed"], "{rows:#?}");
    assert!(pins().is_empty());
}

#[test]
fn two_interfaces_and_two_stores_are_taken_over_together() {
    live!();
    let net = Net::new(2, 1500);
    join("tx-b", "rx-b");
    let dir = tempfile::tempdir().unwrap();
    let stores = ["disk1", "disk2"].map(|name| dir.path().join(name));
    for store in &stores {
        std::fs::create_dir(store).unwrap();
    }
    let (glob, more) = (dir.path().join("disk*"), ["--mode", "copy", "--interface", "rx-b"]);
    let recorder = Recorder::start(&net, &glob, &more);
    let other = crate::support::Sender::on("tx-b");
    let both = |numbers: std::ops::Range<u64>| {
        for number in numbers.clone() {
            assert!(other.send(&numbered(100, number, 100, &[])));
        }
        send(&net, 8, numbers);
    };
    both(0..20);
    wait_until_stored(&stores[0], 180);
    recorder.kill();
    assert_eq!(pins().len(), 2);
    both(20..30);
    let ended = Recorder::start(&net, &glob, &more).stop();
    balances(&ended);
    assert_eq!((ended.total("dropped/down"), dropped(&ended.ledger)), (90, 90), "{ended:?}");
    let queues = ended.ledger["queues"].as_array().unwrap();
    let of_b = queues.iter().find(|queue| queue["interface"] == "rx-b").unwrap();
    assert_eq!(of_b["dropped"]["down"], 10, "{ended:?}");
    assert_eq!(stored(&[&stores[0], &stores[1]]).len(), 180);
    table_tells(&[&stores[0], &stores[1]], &ended.ledger, 270);
    assert!(pins().is_empty());
}

#[test]
fn a_store_that_is_gone_makes_everything_delivered_a_crash() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let recorder = Recorder::start(&net, &old, &["--mode", "copy"]);
    send(&net, 1, 0..50);
    wait_until_stored(&old, 50);
    recorder.kill();
    std::fs::remove_dir_all(&old).unwrap();
    let next = Recorder::start(&net, &new, &["--mode", "copy"]);
    assert!(next.said.contains("is not there: what was delivered to it counts as `crash`"), "{}", next.said);
    let ended = next.stop();
    balances(&ended);
    assert_eq!((ended.total("dropped/crash"), ended.total("seen")), (50, 50), "{ended:?}");
    // Its rows went with its store: the one of the crash tells everything.
    table_tells(&[&new], &ended.ledger, 50);
}

#[test]
fn detach_takes_off_the_dead_and_refuses_the_living() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net, 1, 0..60);
    wait_until_stored(dir.path(), 60);
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains(&format!("is being recorded by process {}", recorder.pid())), "{said}");
    let (code, out, said) = with_pins(&["detach", "--all"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("records it; left alone"), "{said}");
    recorder.kill();
    send(&net, 1, 60..100);
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("60 are stored, 0 were lost in the crash, 40 passed while nobody recorded"),
        "{said}"
    );
    let ledger: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ledger["total"]["unaccounted"], 0, "{ledger}");
    let count = |key: &str| ledger["total"].pointer(key).and_then(serde_json::Value::as_u64);
    assert_eq!([count("/seen"), count("/stored"), count("/dropped/down")], [Some(100), Some(60), Some(40)]);
    assert_eq!(stored(&[dir.path()]).len(), 60, "what it stored is sealed");
    let rows = table_tells(&[dir.path()], &ledger, 100);
    assert_eq!(count("/seen_bytes"), Some(100 * 100), "{ledger}");
    let bytes = rows.iter().map(|row| row.counts.seen_bytes).sum::<i64>();
    assert_eq!(bytes, 100 * 100, "{rows:#?}");
    assert!(!xdp_on(&net) && pins().is_empty());
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!((code, out.as_str(), said.trim()), (Some(0), "", "nothing is pinned"));
    // The next one has nothing to tell of it.
    let ended = Recorder::start(&net, dir.path(), &["--mode", "copy"]).stop();
    assert_eq!((ended.total("seen"), dropped(&ended.ledger)), (0, 0), "{ended:?}");
    table_tells(&[dir.path()], &ledger, 100);
}

#[test]
fn a_second_signal_leaves_the_books_to_the_next_recorder() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net, 1, 0..50);
    wait_until_stored(dir.path(), 50);
    recorder.signal(Signal::SIGTERM);
    recorder.wait_for_words("stopping: ");
    recorder.signal(Signal::SIGTERM);
    let cut = recorder.wait();
    // Where sealing was faster than the second signal, the ledger is printed and nothing is left.
    let ended = Recorder::start(&net, dir.path(), &["--mode", "copy"]).stop();
    balances(&ended);
    let left = if cut.code == Some(2) { 50 - stored(&[dir.path()]).len() } else { 0 };
    assert_eq!(ended.total("seen"), i64::try_from(left).unwrap(), "{cut:?} {ended:?}");
    assert!(pins().is_empty());
    table_tells(&[dir.path()], &ended.ledger, 50);
}

#[test]
fn without_a_bpf_file_system_it_records_and_says_that_nothing_is_pinned() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (store, plain) = (dir.path().join("store"), dir.path().join("pins"));
    let command = record_on(&net.rx, &store, &["--mode", "copy"]);
    let at = command.get_args().position(|arg| arg == "--pin-dir").unwrap();
    let mut args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    args[at + 1] = plain.clone().into();
    let mut other = Command::new(command.get_program());
    other.args(args).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let recorder = Recorder::spawn(&mut other);
    assert!(recorder.said.contains("nothing is pinned: "), "{}", recorder.said);
    assert!(recorder.said.contains("is not in a BPF file system"), "{}", recorder.said);
    send(&net, 1, 0..50);
    wait_until_stored(&store, 50);
    recorder.kill();
    assert!(!xdp_on(&net) && !plain.exists());
}

#[test]
fn a_pinned_program_counts_on_for_whoever_takes_it() {
    live!();
    let net = Net::new(1, 1500);
    let folder = pin_dir().join("library");
    let pinned = match Pins::create(&folder) {
        Ok(pinned) => pinned,
        Err(error) => {
            println!("SKIPPED 1: {error}");
            return;
        }
    };
    let mut program = Program::load(0).unwrap();
    pinned.pin(&mut program).unwrap();
    assert_eq!(pinned.ifindex(), None, "nothing is attached");
    program.attach(net.rx_index(), Mode::Native).unwrap();
    send(&net, 1, 0..10);
    program.leave();
    drop(program);
    assert_eq!(pinned.ifindex(), Some(net.rx_index()));
    send(&net, 1, 10..15);
    let empty = |tally: &tapedeck_ebpf::Tally| tally["slot_empty"];
    assert_eq!(empty(&pinned.tallies(&Program::fields()).unwrap()[0]), 15);
    assert!(pinned.take(net.rx_index() + 1).is_err());
    let mut program = Pins::open(&folder).unwrap().take(net.rx_index()).unwrap();
    let of_seconds = |program: &Program| -> u64 {
        program.seconds(0).unwrap().values().map(|counts| counts.slot_empty).sum()
    };
    assert_eq!((program.totals(0).unwrap().packets, of_seconds(&program)), (15, 15));
    program.begin().unwrap();
    assert_eq!((program.totals(0).unwrap().packets, program.seconds(0).unwrap().len()), (0, 0));
    assert_eq!(program.before(0).slot_empty, 15);
    send(&net, 1, 15..18);
    assert_eq!((program.totals(0).unwrap().slot_empty, of_seconds(&program)), (3, 3));
    assert_eq!((program.settle_empty(0).unwrap(), program.settle_empty(0).unwrap()), (3, 0));
    assert_eq!((program.totals(0).unwrap().packets, of_seconds(&program)), (0, 0));
    program.detach().unwrap();
    assert!(!xdp_on(&net) && pinned.ifindex().is_none());
    pinned.remove().unwrap();
    assert!(!folder.exists());
}

/// A driver without native XDP: the program runs in mode skb, and so does the next one's, which must find that out before
/// it closes the books of the dead.
#[test]
fn on_a_driver_without_native_xdp_the_next_one_starts_too() {
    live!();
    let net = Net::new(1, 1500);
    run("ip", &["link", "add", "br0", "type", "bridge"]);
    run("ip", &["link", "set", &net.rx, "master", "br0"]);
    run("ip", &["link", "set", "br0", "up"]);
    let sender = net.sender();
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let mut frame = numbered(1, number, 100, &[]);
            frame[..6].fill(0xff);
            assert!(sender.send(&frame));
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let start = || Recorder::spawn(&mut record_on("br0", dir.path(), &[]));
    let recorder = start();
    assert!(recorder.said.ends_with("ready: br0 queues=1 mode=skb\n"), "{}", recorder.said);
    send(0..100);
    wait_until_stored(dir.path(), 100);
    recorder.kill();
    send(100..150);
    let recorder = start();
    assert!(recorder.said.ends_with("ready: br0 queues=1 mode=skb\n"), "{}", recorder.said);
    assert!(!recorder.said.contains("taken off"), "{}", recorder.said);
    send(150..200);
    let ended = recorder.stop();
    balances(&ended);
    assert_eq!((ended.total("stored"), ended.total("dropped/down")), (50, 50), "{ended:?}");
    assert_eq!(stored(&[dir.path()]).len(), 150);
    assert!(pins().is_empty());
}
