//! What people and programs get to see.

use super::*;
use crate::sessions::row::Packets;
use tapedeck_packet::Timestamp;

/// A session between two addresses, with a hostile name.
fn session(src: &str, dst: &str) -> Session {
    Session {
        ts: Timestamp::from_nanos(1_795_284_005_123_456_789).unwrap(),
        ts_last: Timestamp::from_nanos(1_795_284_007_623_456_789).unwrap(),
        duration_ns: 2_500_000_000,
        uid: "C0000000000000abcd".into(),
        record_type: "final".into(),
        records: 1,
        as_of: None,
        parent_uid: None,
        community_id: Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".into()),
        src_ip: src.parse().unwrap(),
        src_port: 51_544,
        dst_ip: dst.parse().unwrap(),
        dst_port: 443,
        proto: 6,
        initiator_known: true,
        orig_pkts: 12,
        resp_pkts: 15,
        orig_ip_bytes: 1_500,
        resp_ip_bytes: 12_345_678,
        orig_bytes: 900,
        resp_bytes: 12_340_000,
        missed_bytes: 0,
        conn_state: "SF".into(),
        history: "ShADadFf".into(),
        orig_tcp_flags: 0x1b,
        resp_tcp_flags: 0x1b,
        end_reason: 3,
        syn_rtt_ns: Some(7),
        service: Some("ssl".into()),
        service_source: Some("payload".into()),
        sni: Some("www.exa\u{1b}[31mmple.org\nnext".into()),
        alpn: None,
        ja4: None,
        http_host: None,
        dns_query: None,
        vlan: None,
        inner_vlan: None,
        mpls: None,
        tunnel_type: None,
        tunnel_id: None,
        src_mac: None,
        dst_mac: None,
        sensor: "lab".into(),
        interface: "eth1".into(),
        queue: 0,
        loss_during: false,
        packets: Packets::default(),
        number: 0,
    }
}

fn shown(sessions: &[Session], width: Option<usize>, terminal: bool) -> String {
    let mut out = Vec::new();
    table(sessions, &mut out, width, terminal).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_table_fits_its_terminal() {
    let sessions = [
        session("10.1.2.3", "203.0.113.9"),
        Session { record_type: "interim".into(), sni: None, ..session("192.168.100.200", "198.51.100.77") },
    ];
    for width in [80, 100, 120, 160, 250] {
        let text = shown(&sessions, Some(width), true);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}\n{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        for whole in ["10.1.2.3:51544", "203.0.113.9:443", "192.168.100.200:51544", "2026-11-21 18:00:05"] {
            assert!(text.contains(whole), "{width}: {whole}\n{text}");
        }
    }
    let narrow = shown(&sessions, Some(80), true);
    assert!(narrow.contains("SF+") && !narrow.contains("UID"), "{narrow}");
    assert!(shown(&sessions, Some(250), true).contains("C0000000000000abcd"));
}

#[test]
fn addresses_that_do_not_fit_beside_each_other_stand_below() {
    let long = "2001:db8:1234:5678:9abc:def0:1234:5678";
    let text = shown(&[session(long, long)], Some(80), true);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(&format!("    > [{long}]:443")), "{text}");
}

#[test]
fn a_terminal_sees_no_controls_and_a_pipe_no_broken_line() {
    let sessions = [session("10.1.2.3", "203.0.113.9")];
    assert!(!shown(&sessions, Some(250), true).contains('\u{1b}'));
    let piped = shown(&sessions, None, false);
    assert_eq!(piped.lines().count(), 2, "{piped}");
    let mut out = Vec::new();
    csv(&sessions, &mut out, true).unwrap();
    assert!(!out.contains(&0x1b));
    out.clear();
    json(&sessions, &mut out).unwrap();
    assert!(!out.contains(&0x1b) && out.iter().filter(|byte| **byte == b'\n').count() == 1);
    out.clear();
    zeek(&sessions, &mut out, Timestamp::ZERO).unwrap();
    assert!(!out.contains(&0x1b));
}

#[test]
fn nothing_found_is_no_heading() {
    assert_eq!(shown(&[], Some(80), true), "");
}
