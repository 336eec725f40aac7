//! Conversations written by hand: what Zeek's logic makes of them.

use crate::common::{self, Captured};
use crate::packets::{at, ethernet, ip4, script, tcp, udp};
use tapedeck_session::{
    Config, Ends, Inspector, Packet, Place, Record, RecordKind, ServerPorts, Service, Table, Timeouts,
};

/// A record in a line: history, state, packets, payload bytes, missed bytes, reason.
fn line(r: &Record) -> String {
    let history = if r.history.is_empty() { "-" } else { &r.history };
    let kind = match r.kind {
        RecordKind::Final => "",
        RecordKind::Interim => "interim ",
        RecordKind::Open => "open ",
        RecordKind::Withdrawn => "withdrawn ",
        RecordKind::Coarse => "coarse ",
    };
    let missed = if r.missed_bytes > 0 { format!(" missed {}", r.missed_bytes) } else { String::new() };
    format!(
        "{kind}{history} {} {}/{} {}/{}{missed} {:?}",
        r.conn_state.as_str(),
        r.orig.volume.packets,
        r.resp.volume.packets,
        r.orig.volume.payload_bytes,
        r.resp.volume.payload_bytes,
        r.end_reason
    )
}

fn lines(packets: &[Captured]) -> Vec<String> {
    common::records(Config::default(), packets).iter().map(line).collect()
}

#[test]
fn conversations_become_records() {
    let cases = [
        // An ordinary connection: SYN, data, close.
        (
            "0.00 > S 100
             0.01 < SA 500 101
             0.02 > A 101 501
             0.03 > A 101 501 10
             0.04 < A 501 111 20
             0.05 > FA 111 521
             0.06 < FA 521 112
             0.07 > A 112 522",
            vec!["ShADdFf SF 5/3 10/20 EndOfFlow"],
        ),
        ("0.00 > S 100", vec!["S S0 1/0 0/0 Forced"]),
        // An attempt ends after five seconds; what comes then is another session.
        ("0 > S 100\n 6 > A 101 501 3", vec!["S S0 1/0 0/0 IdleTimeout", "D OTH 1/0 3/0 Forced"]),
        ("0 > S 100\n 0.1 < RA 0 101", vec!["Sr REJ 1/1 0/0 EndOfFlow"]),
        ("0 > S 100\n 0.1 > R 101", vec!["SR RSTOS0 2/0 0/0 EndOfFlow"]),
        ("0 > S 100\n 0.1 > FA 101 1", vec!["SF SH 2/0 0/0 Forced"]),
        (
            "0 > S 100\n 0.1 < SA 500 101\n 0.2 > A 101 501\n 0.3 > RA 101 501",
            vec!["ShAR RSTO 3/1 0/0 EndOfFlow"],
        ),
        ("0 > S 100\n 0.1 < SA 500 101\n 0.2 > A 101 501\n 0.3 < R 501", vec!["ShAr RSTR 2/2 0/0 EndOfFlow"]),
        ("0 > S 100\n 0.1 < SA 500 101\n 0.2 > FA 101 501", vec!["ShF S2 2/1 0/0 Forced"]),
        ("0 > S 100\n 0.1 < SA 500 101\n 0.2 < FA 501 101", vec!["Shf S3 1/2 0/0 Forced"]),
        // SYN-ACK alone stays; an ACK or data behind it turns the roles.
        ("0 < SA 500 101", vec!["H OTH 1/0 0/0 Forced"]),
        ("0 < SA 500 101\n 0.1 > A 101 501", vec!["^hA S1 1/1 0/0 Forced"]),
        ("0 < SA 500 101\n 0.1 < FA 501 101", vec!["HF SH 2/0 0/0 Forced"]),
        // SYN and SYN-ACK in the wrong order.
        ("0 < SA 500 101\n 0.1 > S 100", vec!["Hs^ S1 1/1 0/0 Forced"]),
        // A SYN with another number is another connection.
        ("0 > S 100\n 1 > S 100\n 2 > S 900", vec!["S S0 2/0 0/0 EndOfFlow", "S S0 1/0 0/0 Forced"]),
        ("0 > FR 1\n 0.1 > SF 1", vec!["I OTH 1/0 0/0 EndOfFlow", "Q SH 1/0 0/0 Forced"]),
    ];
    check(&cases);
}

/// Each script gives exactly these records.
fn check(cases: &[(&str, Vec<&str>)]) {
    let wrong: Vec<_> = cases.iter().map(|(text, wanted)| (text, wanted, lines(&script(text)))).collect();
    let wrong: Vec<_> = wrong.iter().filter(|(_, wanted, got)| *wanted != got).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn streams_are_followed_by_their_numbers() {
    check(&[
        // Retransmission, zero window, and a gap that an acknowledgement tells of.
        (
            "0.0 > S 100
             0.1 < SA 500 101
             0.2 > A 101 501
             0.3 > A 101 501 10
             0.4 > A 101 501 10
             0.5 < AW 501 111
             0.6 > A 211 501 10
             0.7 < A 501 221",
            vec!["ShADTawG S1 5/3 120/0 missed 100 Forced"],
        ),
        // A hole that is filled is none.
        (
            "0.0 > S 100
             0.1 < SA 500 101
             0.2 > A 111 501 10
             0.3 > A 101 501 10
             0.4 < A 501 121",
            vec!["ShDTa S1 3/2 20/0 Forced"],
        ),
        // Sequence numbers over their end.
        (
            "0.0 > S 4294967290
             0.1 < SA 500 4294967291
             0.2 > A 4294967291 501 20
             0.3 < A 501 15
             0.4 > FA 15 501
             0.5 < FA 501 16",
            vec!["ShDaFf SF 3/3 20/0 EndOfFlow"],
        ),
    ]);
}

#[test]
fn sessions_end_in_silence() {
    let cases = [
        ("0 > udp 10\n 59 < udp 20", vec!["Dd SF 1/1 10/20 Forced"]),
        ("0 > udp 10\n 60 < udp 20", vec!["D S0 1/0 10/0 IdleTimeout", "D S0 1/0 20/0 Forced"]),
        // Established connections wait for five minutes; closed ones for five seconds.
        (
            "0 > S 100\n 0.1 < SA 500 101\n 0.2 > A 101 501\n 300 > A 101 501",
            vec!["interim ShA S1 2/1 0/0 ActiveTimeout", "ShA S1 1/0 0/0 Forced"],
        ),
        (
            "0 > S 100\n 0.1 < RA 0 101\n 5.2 < RA 0 101",
            vec!["Sr REJ 1/1 0/0 EndOfFlow", "R OTH 1/0 0/0 EndOfFlow"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(lines(&script(text)), expected, "{text}");
    }
}

#[test]
fn ended_sessions_are_written_without_another_packet() {
    let close = "
        0.0 > S 100
        0.1 < SA 500 101
        0.2 > A 101 501
        20.0 > FA 101 501
        20.1 < FA 501 102";
    let cases = [
        // When it is written, s after the start; one tick of the wheel later at most.
        ("0 > S 100", 5.0),
        (close, 25.1),
        ("0 > S 100\n 0.1 < RA 0 101", 5.1),
        ("0 > udp 10\n 30 > udp 10", 90.0),
        ("0 > S 100\n 0.1 < SA 500 101\n 0.2 > A 101 501\n 30 > A 101 501 5", 330.0),
    ];
    for (text, end) in cases {
        let mut table: Table = Table::new(Config::default());
        common::push(&mut table, &script(text), &mut |record| panic!("{record:?}"));
        let mut finals = 0;
        let mut expire = |table: &mut Table, seconds| {
            let time = at(seconds, Vec::new()).ts;
            table.expire(time, 100, &mut |record| finals += u32::from(record.kind == RecordKind::Final));
            finals
        };
        assert_eq!(expire(&mut table, end - 0.01), 0, "{text}");
        assert_eq!(expire(&mut table, end + 0.2), 1, "{text}");
    }
}

#[test]
fn long_sessions_have_interim_records() {
    let text: String = (0..20).map(|minute| format!("{} > udp 10\n", minute * 50)).collect();
    let records = common::records(Config::default(), &script(&text));
    let kinds: Vec<_> =
        records.iter().map(|r| (r.kind, r.orig.volume.packets, r.orig.total.packets)).collect();
    use RecordKind::{Final, Interim};
    assert_eq!(kinds, [(Interim, 6, 6), (Interim, 6, 12), (Interim, 6, 18), (Final, 2, 20)]);
    assert!(records.iter().all(|r| r.ts_last.nanos() - r.ts_interval.nanos() < 300_000_000_000));
}

/// 1: an answer to a lone SYN-ACK turned the roles behind an interim record, whose sums then were the other's.
#[test]
fn roles_stay_as_the_first_record_says() {
    let text = "0 < SA 500 101\n 2 < SA 500 101\n 3 > A 101 501 5";
    let timeouts = Timeouts { interim: 1_000_000_000, ..Timeouts::default() };
    let records = common::records(Config { timeouts, ..Config::default() }, &script(text));
    let got: Vec<String> = records.iter().map(line).collect();
    let expected = [
        "interim H OTH 1/0 0/0 ActiveTimeout",
        "interim H OTH 1/0 0/0 ActiveTimeout",
        "Hd OTH 0/1 0/5 Forced",
    ];
    assert_eq!(got, expected);
    assert_eq!((records[2].orig.total.packets, records[2].resp.total.packets), (2, 1));
}

#[test]
fn ports_of_servers_tell_who_answers() {
    let mut ports = ServerPorts::none();
    ports.add_tcp(9_999);
    ports.add_udp(9_999);
    let config = || Config { server_ports: ports.clone(), ..Config::default() };
    let run = |text| common::records(config(), &script(text)).iter().map(line).collect::<Vec<_>>();
    assert_eq!(run("0 < A 501 101 5"), ["^d OTH 0/1 0/5 Forced"]);
    assert_eq!(run("0 < udp 5"), ["^d SHR 0/1 0/5 Forced"]);
    assert_eq!(run("0 < SA 500 101"), ["^h OTH 0/1 0/0 Forced"]);
    // A SYN is worth more than a port.
    assert_eq!(run("0 < S 500"), ["S S0 1/0 0/0 Forced"]);
}

#[test]
fn fragments_follow_their_first() {
    let ends = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let fragment =
        |seconds, field, bytes: &[u8]| at(seconds, ethernet(&ip4(ends.0, ends.1, 17, field, 77, bytes)));
    let mut datagram = udp((1_000, 2_000), 32);
    let rest = datagram.split_off(24);
    let packets = [fragment(0.0, 0x2000, &datagram), fragment(0.1, 3, &rest)];
    assert_eq!(lines(&packets), ["D S0 2/0 32/0 Forced"]);
    // Without its first one a later fragment has no ports.
    let records = common::records(Config::default(), &packets[1..]);
    assert_eq!((records.len(), records[0].orig.port, records[0].orig.volume.packets), (1, 0, 1));
    // TCP: the data of later fragments belongs to the stream.
    let mut segment = tcp((1_000, 2_000), 0x10, 101, 501, 9, 40);
    let rest = segment.split_off(40);
    let fragment =
        |seconds, field, bytes: &[u8]| at(seconds, ethernet(&ip4(ends.0, ends.1, 6, field, 78, bytes)));
    let packets = [fragment(0.0, 0x2000, &segment), fragment(0.1, 5, &rest)];
    assert_eq!(lines(&packets), ["D OTH 2/0 40/0 Forced"]);
}

#[test]
fn tunnels_have_an_outer_and_an_inner_session() {
    let inner = ip4([192, 168, 0, 1], [192, 168, 0, 2], 17, 0, 0, &udp((5, 6), 10));
    let outer = ethernet(&ip4([10, 0, 0, 1], [10, 0, 0, 2], 4, 0, 0, &inner));
    let direct = ethernet(&inner);
    let records = common::records(Config::default(), &[at(0.0, outer), at(0.1, direct)]);
    let [tunnel, inside, outside] = &records[..] else { panic!("{records:?}") };
    assert_eq!((tunnel.proto, tunnel.inner, tunnel.parent), (4, false, None));
    assert_eq!((inside.proto, inside.inner, inside.parent), (17, true, Some(tunnel.uid)));
    assert_eq!((outside.proto, outside.inner, outside.parent), (17, false, None));
    assert_ne!(inside.uid, outside.uid);
}

#[test]
fn vlans_tell_sessions_apart_where_asked() {
    let ip = ip4([10, 0, 0, 1], [10, 0, 0, 2], 17, 0, 0, &udp((5, 6), 10));
    let tagged = |id: u8| {
        let mut bytes = ethernet(&ip);
        bytes.splice(12..14, [0x81, 0, 0, id, 8, 0]);
        bytes
    };
    let packets = [at(0.0, tagged(5)), at(0.1, tagged(6))];
    let one = common::records(Config::default(), &packets);
    assert_eq!((one.len(), one[0].vlans), (1, [Some(5), None]));
    assert_eq!(common::records(Config { vlan_in_key: true, ..Config::default() }, &packets).len(), 2);
}

#[test]
fn an_ip_length_of_zero_is_the_length_on_the_wire() {
    let mut bytes = ethernet(&ip4([10, 0, 0, 1], [10, 0, 0, 2], 6, 0, 0, &tcp((1, 2), 0x10, 1, 1, 9, 3_000)));
    bytes[16..18].fill(0);
    let records = common::records(Config::default(), &[at(0.0, bytes)]);
    assert_eq!((records[0].orig.volume.ip_bytes, records[0].orig.volume.payload_bytes), (3_040, 3_000));
}

#[test]
fn cut_packets_say_what_was_cut() {
    let mut packets = script("0 > S 100\n 0.1 < SA 500 101\n 0.2 > A 101 501 900\n 0.3 < A 501 1001");
    packets[2].bytes.truncate(96);
    let records = common::records(Config::default(), &packets);
    let orig = records[0].orig.volume;
    assert_eq!((orig.cut_bytes, orig.payload_bytes, records[0].missed_bytes), (954 - 96, 900, 0));
    assert_eq!(records[0].syn_rtt_ns, Some(200_000_000));
}

#[test]
fn open_sessions_are_shown_and_left_alone() {
    let packets = script("0 > udp 10\n 30 < udp 20");
    let mut table: Table = Table::new(Config::default());
    let mut stage_sink = |record: Record| panic!("{record:?}");
    common::push(&mut table, &packets, &mut stage_sink);
    for _ in 0..2 {
        let mut open = Vec::new();
        table.news(1, 1, &mut |record| open.push(line(&record)));
        // Once as a new one, then once a round.
        open.dedup();
        assert_eq!(open, ["open Dd SF 1/1 10/20 ActiveTimeout"]);
    }
}

/// Writes down what it is shown.
#[derive(Default)]
struct Witness(String);

impl Inspector for Witness {
    fn feed(&mut self, ends: Ends, from_orig: bool, offset: u64, payload: &[u8]) -> bool {
        let direction = if from_orig { '>' } else { '<' };
        self.0 += &format!("{direction}{}@{offset}/{} ", payload.len(), ends.resp_port);
        self.0.len() < 40
    }

    fn finish(self, _: Ends) -> Service {
        Service { http_host: Some(self.0.trim_end().into()), ..Service::default() }
    }
}

#[test]
fn inspectors_see_payload_and_where_it_stands() {
    let cases = [
        (
            "0.0 > S 100
             0.1 < SA 500 101
             0.2 > A 111 501 10
             0.3 > A 101 501 10
             0.4 < A 501 121 7
             0.5 > A 121 501",
            ">10@10/9999 >10@0/9999 <7@0/9999",
        ),
        ("0 > udp 10\n 1 > udp 5\n 2 < udp 7\n 3 > udp 0", ">10@0/9999 >5@10/9999 <7@0/9999"),
        // A record between two packets changes nothing.
        (
            "0 > udp 10\n 50 > udp 1\n 100 > udp 1\n 150 > udp 1",
            ">10@0/9999 >1@10/9999 >1@11/9999 >1@12/9999",
        ),
    ];
    let mut walk = tapedeck_packet::Walk::new();
    for (text, expected) in cases {
        let timeouts = Timeouts { interim: 60_000_000_000, ..Timeouts::default() };
        let mut table: Table<Witness> = Table::new(Config { timeouts, ..Config::default() });
        let (packets, mut seen) = (script(text), String::new());
        let mut sink = |record: Record| seen = record.service.http_host.unwrap_or_default().into();
        let mut stage = table.stage(&mut sink);
        for packet in &packets {
            walk.run(packet.link, &packet.bytes);
            let (bytes, original_bytes) = (&packet.bytes[..], packet.original_bytes);
            stage.push(
                &walk,
                &Packet { ts: packet.ts, bytes, original_bytes, place: Place::default(), stored: true },
            );
        }
        drop(stage);
        table.finish(&mut sink);
        assert_eq!(seen, expected, "{text}");
    }
}
