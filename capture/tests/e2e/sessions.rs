//! Sessions and statistics, written by `record` and `import`, asked with `taperead`.

use crate::reference::{RefPacket, read, read_bytes};
use crate::tables::{Packets, number, rows, text};
use crate::tools::{alone, bin, need_root, run, stderr, stdout, together, traces};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tapedeck_bench::link::Link;
use tapedeck_bench::recorder::Recorder;
use tapedeck_capture::ledger::SessionEntry;
use tapedeck_capture::sessions::desk::{Desk, Kind};
use tapedeck_capture::sessions::{SessionCounts, SessionOptions};
use tapedeck_index::catalog::StoreFile;
use tapedeck_packet::{LinkType, Net, Timestamp, Walk};
use tapedeck_session::{Packet, Place};

/// What an answer of `taperead sessions` says: one object a line.
fn sessions(store: &Path, filter: &[&str]) -> Vec<Value> {
    let mut args = vec!["sessions", "--format", "json", "--store", store.to_str().unwrap()];
    args.extend(filter);
    let answer = run(bin("taperead"), &args);
    assert!(matches!(answer.status.code(), Some(0 | 1)), "{}", stderr(&answer));
    stdout(&answer).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Zeek's columns that say what a session was: not when, and not under which uid. With the number of each.
fn as_zeek(store: &Path) -> BTreeMap<String, usize> {
    let answer = run(bin("taperead"), &["sessions", "--format", "zeek", "--store", store.to_str().unwrap()]);
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    let all = stdout(&answer);
    let fields: Vec<&str> =
        all.lines().find_map(|l| l.strip_prefix("#fields\t")).unwrap().split('\t').collect();
    let mut lines = BTreeMap::new();
    for line in all.lines().filter(|line| !line.starts_with('#')) {
        let kept: Vec<&str> = fields
            .iter()
            .zip(line.split('\t'))
            .filter(|(field, _)| !matches!(**field, "ts" | "uid" | "duration" | "tunnel_parents"))
            .map(|(_, value)| value)
            .collect();
        *lines.entry(kept.join(" ")).or_default() += 1;
    }
    lines
}

fn import(store: &Path, files: &[&Path]) -> Value {
    let mut command = std::process::Command::new(bin("tapedeck"));
    let answer = command.args(["import", "--store"]).arg(store).args(files).output().unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// Replays a capture onto a link that is being recorded, as fast as it goes.
fn replay(link: &Link, file: &Path) {
    let mut command = link.command("tcpreplay".as_ref());
    command.args(["--intf1=tx0", "--quiet", "--topspeed"]).arg(file);
    assert!(command.stdout(std::process::Stdio::null()).status().unwrap().success());
}

/// The first half of the packets of a capture, and the second.
fn halves(file: &Path, folder: &Path) -> (PathBuf, PathBuf) {
    let half = read(file).len() / 2;
    let (begin, end) = (folder.join("begin.pcap"), folder.join("end.pcap"));
    let [range, rest] = [format!("1-{half}"), format!("{}-1000000", half + 1)];
    for (part, range) in [(&begin, range), (&end, rest)] {
        let args = ["-r".as_ref(), file.as_os_str(), part.as_os_str(), range.as_ref()];
        let answer = run("editcap", &args);
        assert!(answer.status.success(), "{}", stderr(&answer));
    }
    (begin, end)
}

/// A recording of a capture has the sessions that its import has, and counts the same packets: on one queue, and
/// on four over which the halves of sessions are spread.
#[test]
fn recorded_sessions_are_those_of_the_import() {
    let _turn = alone();
    let Some(folder) = traces("recorded sessions") else { return };
    if !need_root("recorded sessions") {
        return;
    }
    // Conversations that end by themselves, or that the end of the recording ends: nothing waits for a time
    // that a replay at full speed would not have.
    for name in ["ftp__ftp-auth-tls.pcap", "wikipedia.pcap", "postgresql__greenhouse-app.pcap"] {
        let file = folder.join("zeek-traces").join(name);
        let dir = tempfile::tempdir().unwrap();
        import(&dir.path().join("import"), &[&file]);
        let expected = as_zeek(&dir.path().join("import"));
        for queues in [1, 4] {
            let store = dir.path().join(format!("record{queues}"));
            let link = Link::make(queues, 1500).unwrap();
            let recorder = Recorder::start(&link, &store, &[]).unwrap();
            replay(&link, &file);
            let ledger = recorder.stop().unwrap();
            assert_eq!(as_zeek(&store), expected, "{name}, {queues} queues: {ledger}");
            let counted = Packets::of(&store);
            let stored = ledger["total"]["stored"].as_i64().unwrap();
            assert_eq!(counted.in_minutes, stored, "{name}, {queues} queues: {counted:?} {ledger}");
            assert_eq!(counted.in_sessions + counted.not_ip, stored, "{name}, {queues} queues: {counted:?}");
        }
    }
}

/// The packets of a capture through the trackers of an interface with so many queues: with two, each direction of
/// a conversation has its own. What the books say of sessions.
fn track(store: &Path, packets: &[RefPacket], queues: usize) -> SessionEntry {
    let options = SessionOptions::default();
    let mut desk = Desk::start(&[(store, "lab")], 7, Kind::File, options, 99).unwrap();
    let mut trackers = desk.trackers("eth1", &vec![0; queues]).unwrap();
    let mut walk = Walk::new();
    for packet in packets {
        walk.run(LinkType::ETHERNET, &packet.bytes);
        let ends = walk.layers().first().and_then(|layer| match layer.net {
            Net::Ip(ip) => ip.ports.map(|(from, to)| ((ip.src, from), (ip.dst, to))),
            _ => None,
        });
        let queue = usize::from(ends.is_some_and(|(from, to)| from < to)) % queues;
        let ts = Timestamp::from_nanos(u64::try_from(packet.ts_ns).unwrap()).unwrap();
        let original_bytes = packet.orig_len;
        let one = Packet { ts, bytes: &packet.bytes, original_bytes, place: Place::default(), stored: true };
        trackers[queue].batch(|sessions| sessions.push(&walk, &one));
        // All queues have come as far.
        trackers.iter_mut().for_each(|tracker| tracker.pass(ts));
    }
    let mut sum = SessionCounts::default();
    trackers.into_iter().for_each(|tracker| sum.add(&tracker.finish()));
    desk.finish(&sum)
}

/// Sums of a dimension of the statistics: packets, bytes, new sessions.
fn minutes(store: &Path) -> BTreeMap<String, [i64; 3]> {
    let mut sums: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for batch in rows(store, "stats") {
        for row in 0..batch.num_rows() {
            let dimension = text(&batch, "dimension", row).unwrap();
            if matches!(dimension, "total" | "protocol") {
                let key = format!("{dimension} {}", text(&batch, "key", row).unwrap_or_default());
                let columns = ["packets", "bytes", "sessions_new"];
                let sum = sums.entry(key).or_default();
                columns.iter().zip(sum).for_each(|(column, sum)| *sum += number(&batch, column, row));
            }
        }
    }
    sums
}

/// Sessions whose halves came on two queues are written as one queue would have written them, and counted once.
#[test]
fn halves_are_joined_on_their_way_to_the_store() {
    let _turn = together();
    let Some(folder) = traces("halves of sessions") else { return };
    for name in ["ftp__ftp-auth-tls.pcap", "wikipedia.pcap", "tls__google-cert-repeat.pcap"] {
        let packets = read(&folder.join("zeek-traces").join(name));
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for store in [&one, &two] {
            StoreFile::read_or_create(store, "lab").unwrap();
        }
        let (whole, halves) = (track(&one, &packets, 1), track(&two, &packets, 2));
        assert_eq!(as_zeek(&two), as_zeek(&one), "{name}");
        assert_eq!(minutes(&two), minutes(&one), "{name}");
        assert_eq!((whole.split, halves.records, halves.records_lost), (0, whole.records, 0), "{name}");
        assert!(halves.split > 0, "{name}: {halves:?}");
    }
}

/// What goes on is there while it goes on, and its packets with it; in the end every session is there once.
#[test]
fn open_sessions_are_there_while_recording() {
    let _turn = alone();
    let Some(folder) = traces("open sessions") else { return };
    if !need_root("open sessions") {
        return;
    }
    let parts = tempfile::tempdir().unwrap();
    let (begin, end) = halves(&folder.join("zeek-traces/tls__imap-starttls.pcap"), parts.path());
    for queues in [1, 4] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let link = Link::make(queues, 1500).unwrap();
        let recorder = Recorder::start(&link, &store, &[]).unwrap();
        replay(&link, &begin);
        let patience = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        // Both directions, wherever they came.
        while seen.iter().all(|one: &Value| one["resp_pkts_total"] == 0) && Instant::now() < patience {
            seen = sessions(&store, &["tcp"]);
        }
        assert_eq!(seen.len(), 1, "{queues} queues: {seen:?}");
        assert_eq!(seen[0]["record_type"], "open", "{seen:?}");
        replay(&link, &end);
        recorder.stop().unwrap();
        let after = sessions(&store, &["tcp"]);
        assert_eq!(after.len(), 1, "{queues} queues: {after:?}");
        assert_eq!(after[0]["uid"], seen[0]["uid"], "{queues} queues: {seen:?} {after:?}");
        assert_eq!(
            (&after[0]["record_type"], &after[0]["conn_state"]),
            (&"final".into(), &"SF".into()),
            "{after:?}"
        );
        let uid = format!("uid {}", after[0]["uid"].as_str().unwrap());
        let args = ["sessions", &uid, "--packets", "-w", "-", "--store", store.to_str().unwrap()];
        let answer = run(bin("taperead"), &args);
        assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
        assert_eq!(read_bytes(&answer.stdout).len(), read(&begin).len() + read(&end).len());
    }
}

/// SYN packets of so many (address, port) pairs that never come again, as a capture; a thousandth of a second
/// apart.
fn flood(file: &Path, packets: u32) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    // pcap with microseconds, Ethernet.
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    header.iter().for_each(|word| out.write_all(&word.to_le_bytes()).unwrap());
    let mut frame = [0_u8; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
    frame[30..34].copy_from_slice(&[192, 0, 2, 1]);
    frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
    frame[46..49].copy_from_slice(&[0x50, 0x02, 0xff]);
    for number in 0..packets {
        frame[26..30].copy_from_slice(&(0x0a00_0000 + (number >> 8)).to_be_bytes());
        frame[34..36].copy_from_slice(&(1_024 + u16::try_from(number & 0xff).unwrap()).to_be_bytes());
        let head = [1_700_000_000 + number / 1_000_000, number % 1_000_000, 60, 60];
        head.iter().for_each(|word| out.write_all(&word.to_le_bytes()).unwrap());
        out.write_all(&frame).unwrap();
    }
    out.flush().unwrap();
}

/// More conversations than a table holds: the ledger and the records say what was coarsened, and every packet is
/// counted all the same.
#[test]
fn a_flood_is_coarsened_and_the_ledger_says_so() {
    const PACKETS: u32 = 200_000;
    let _turn = together();
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = (dir.path().join("flood.pcap"), dir.path().join("store"));
    flood(&file, PACKETS);
    let answer = std::process::Command::new(bin("tapedeck"))
        .args(["import", "--max-sessions", "1000", "--store"])
        .args([&store, &file])
        .output()
        .unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    let ledger: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let said = |key: &str| ledger["sessions"][key].as_i64().unwrap();
    assert!(said("evicted") > 0 && said("coarse_packets") > 0, "{ledger}");
    assert_eq!((said("records_lost"), said("minutes_lost"), said("open")), (0, 0, 0), "{ledger}");
    // Each packet begins a session, or finds no room for it.
    assert_eq!(said("sessions") + said("coarse_packets"), i64::from(PACKETS), "{ledger}");
    let batches = rows(&store, "sessions");
    let coarse = batches.iter().flat_map(|batch| {
        let coarse = |row: &usize| text(batch, "record_type", *row) == Some("coarse");
        (0..batch.num_rows()).filter(coarse).map(|row| number(batch, "orig_pkts", row)).collect::<Vec<_>>()
    });
    assert_eq!(coarse.sum::<i64>(), said("coarse_packets"), "{ledger}");
    let counted = Packets::of(&store);
    assert_eq!((counted.in_sessions, counted.in_minutes), (i64::from(PACKETS), i64::from(PACKETS)));
}

/// What `taperead sessions` shows of a recording is there after a kill, before a recovery and after it, and its
/// files are whole then.
#[test]
fn sessions_survive_a_kill() {
    let _turn = alone();
    let Some(folder) = traces("sessions after a kill") else { return };
    if !need_root("sessions after a kill") {
        return;
    }
    let file = folder.join("zeek-traces/wikipedia.pcap");
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let link = Link::make(1, 1500).unwrap();
    let recorder = Recorder::start(&link, &store, &[]).unwrap();
    replay(&link, &file);
    let name = |session: &Value| (session["uid"].to_string(), session["orig_pkts_total"].to_string());
    let ask = || sessions(&store, &[]).iter().map(name).collect::<BTreeMap<_, _>>();
    let patience = Instant::now() + Duration::from_secs(20);
    let mut before = ask();
    // Until two answers are the same and hold all packets that were replayed.
    while Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(300));
        let now = ask();
        if now == before && now.len() > 20 {
            break;
        }
        before = now;
    }
    assert!(before.len() > 20, "{before:?}");
    recorder.kill().unwrap();
    assert_eq!(ask(), before, "before the recovery");
    let store_text = store.to_str().unwrap();
    let recovery = run(bin("tapedeck"), &["recover", "--store", store_text]);
    assert_eq!(recovery.status.code(), Some(0), "{}", stderr(&recovery));
    assert_eq!(ask(), before, "after the recovery");
    let check = run(bin("tapedeck"), &["verify", "--store", store_text]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
    // Nobody records here again.
    let left = link.command(&bin("tapedeck")).args(["detach", "rx0"]).output().unwrap();
    assert_eq!(left.status.code(), Some(0), "{}", stderr(&left));
    let ledger: Value = serde_json::from_slice(&left.stdout).unwrap();
    assert_eq!(ledger["total"]["unaccounted"], 0, "{ledger}");
    assert_eq!(ledger["total"]["stored"], ledger["total"]["seen"], "{ledger}");
}
