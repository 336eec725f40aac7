//! Outputs against readers that were not written here, and the printed forms as data.

use super::*;
use crate::out::json::Json;
use crate::out::pcap::Pcap;
use crate::out::pcapng::Pcapng;
use crate::out::text::Text;
use std::process::{Command, Stdio};

/// TCP SYN 10.0.0.1:1234 > 10.0.0.2:443 in VLAN 100.
const SYN: &str = "020000000002020000000001 8100 0064 0800 \
    45000028000040004006 26ce 0a000001 0a000002 04d201bb 00000001 00000000 5002 ffff 0000 0000";
/// ARP who-has 10.0.0.2 tell 10.0.0.1.
const ARP: &str =
    "ffffffffffff020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002";
/// LLDP, cut after 20 bytes.
const LLDP: &str = "0180c200000e020000000001 88cc 020704020000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn source(name: &str, link_type: LinkType) -> Source {
    let interface = InterfaceInfo {
        name: name.to_owned(),
        link_type,
        snaplen: 0,
        description: Some("queue 0".to_owned()),
        filter: None,
        hardware: None,
        speed_bps: Some(10_000_000_000),
    };
    Source { interface, queue: 3, sensor: "lab".to_owned() }
}

fn record(ts: u64, bytes: &[u8]) -> PacketRecord<'_> {
    let ts = Timestamp::from_nanos_saturating(ts);
    PacketRecord { ts, bytes, orig_len: u32::try_from(bytes.len()).unwrap(), dropped: 7, flags: Some(1) }
}

/// Writes the three packets, the middle one on another interface.
fn fill(output: &mut dyn Output) {
    let t = 1_795_284_000_123_456_789;
    output.packet(&source("eth1", LinkType::ETHERNET), &record(t, &bytes(SYN))).unwrap();
    output.packet(&source("eth2\u{1b}", LinkType::ETHERNET), &record(t + 1, &bytes(ARP))).unwrap();
    let lldp = bytes(LLDP);
    let cut = PacketRecord { orig_len: 99, ..record(t + 2, &lldp) };
    output.packet(&source("eth1", LinkType::ETHERNET), &cut).unwrap();
    output.finish().unwrap();
}

/// Feeds `input` to a program and gives its stdout.
fn pipe(program: &str, args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn text_on_a_pipe_and_on_a_terminal() {
    let mut out = Vec::new();
    fill(&mut Text::new(Box::new(&mut out), true));
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    2026-11-21T18:00:00.123456789Z eth1 vlan 100, IP 10.0.0.1.1234 > 10.0.0.2.443: tcp [S], length 58
    2026-11-21T18:00:00.123456790Z eth2\u{1b} ARP 10.0.0.1 > 10.0.0.2, length 42
    2026-11-21T18:00:00.123456791Z eth1 02:00:00:00:00:01 > 01:80:c2:00:00:0e: ethertype 0x88cc, length 99 (20 kept)
    "#);
    let mut raw = Vec::new();
    fill(&mut Text::new(Box::new(&mut raw), false));
    assert!(String::from_utf8(raw).unwrap().contains("eth2\u{1b} ARP"));
}

#[test]
fn json_lines() {
    let mut out = Vec::new();
    fill(&mut Json::new(Box::new(&mut out)));
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    {"ts":"2026-11-21T18:00:00.123456789Z","interface":"eth1","queue":3,"sensor":"lab","link_type":1,"length":58,"captured":58,"eth_src":"02:00:00:00:00:01","eth_dst":"02:00:00:00:00:02","vlan":[100],"ethertype":2048,"src":"10.0.0.1","dst":"10.0.0.2","proto":6,"src_port":1234,"dst_port":443,"tcp_flags":2,"community_id":"1:ykQ1ME2JeKb+7Ccjc9ugF3NGISE=","data":"AgAAAAACAgAAAAABgQAAZAgARQAAKAAAQABABibOCgAAAQoAAAIE0gG7AAAAAQAAAABQAv//AAAAAA=="}
    {"ts":"2026-11-21T18:00:00.123456790Z","interface":"eth2\u001b","queue":3,"sensor":"lab","link_type":1,"length":42,"captured":42,"eth_src":"02:00:00:00:00:01","eth_dst":"ff:ff:ff:ff:ff:ff","ethertype":2054,"src":"10.0.0.1","dst":"10.0.0.2","data":"////////AgAAAAABCAYAAQgABgQAAQIAAAAAAQoAAAEAAAAAAAAKAAAC"}
    {"ts":"2026-11-21T18:00:00.123456791Z","interface":"eth1","queue":3,"sensor":"lab","link_type":1,"length":99,"captured":20,"eth_src":"02:00:00:00:00:01","eth_dst":"01:80:c2:00:00:0e","ethertype":35020,"data":"AYDCAAAOAgAAAAABiMwCBwQCAAA="}
    "#);
}

#[test]
fn tcpdump_reads_the_exports() {
    let mut ng = Vec::new();
    fill(&mut Pcapng::new(Box::new(&mut ng)).unwrap());
    let mut nanos = Vec::new();
    fill(&mut Pcap::new(Box::new(&mut nanos), false));
    let mut micros = Vec::new();
    fill(&mut Pcap::new(Box::new(&mut micros), true));
    let args = ["-n", "-tttt", "-r", "-"];
    let want = pipe("tcpdump", &["-n", "-tttt", "--nano", "-r", "-"], &nanos);
    insta::assert_snapshot!(want, @r#"
    2026-11-21 18:00:00.123456789 IP 10.0.0.1.1234 > 10.0.0.2.443: Flags [S], seq 1, win 65535, length 0
    2026-11-21 18:00:00.123456790 ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28
    2026-11-21 18:00:00.123456791 LLDP, length 85 [|lldp]
    "#);
    assert_eq!(pipe("tcpdump", &["-n", "-tttt", "--nano", "-r", "-"], &ng), want);
    assert_eq!(
        pipe("tcpdump", &args, &micros),
        want.replace("789 ", " ").replace("790 ", " ").replace("791 ", " ")
    );
}

#[test]
fn capinfos_finds_the_interfaces() {
    let mut ng = Vec::new();
    fill(&mut Pcapng::new(Box::new(&mut ng)).unwrap());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&ng).unwrap();
    let path = file.path().to_str().unwrap();
    let told = pipe("capinfos", &["-F", "-c", "-I", "-E", path], &[]);
    for line in ["Number of packets:   3", "Number of interfaces in file: 2", "Name = eth1"] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
    assert!(!told.contains("Description"), "{told}");
}

#[test]
fn empty_answers_open_too() {
    let mut ng = Vec::new();
    Pcapng::new(Box::new(&mut ng)).unwrap().finish().unwrap();
    let mut classic = Vec::new();
    Pcap::new(Box::new(&mut classic), false).finish().unwrap();
    for file in [ng, classic] {
        assert_eq!(pipe("tcpdump", &["-n", "-r", "-"], &file), "");
    }
}

#[test]
fn several_link_types_are_told_or_refused() {
    let (ethernet, raw) = (source("eth1", LinkType::ETHERNET), source("tun0", LinkType::RAW));
    let packet = bytes(SYN);
    let mut ng = Pcapng::new(Box::new(Vec::new())).unwrap();
    let mut classic = Pcap::new(Box::new(Vec::new()), false);
    ng.packet(&ethernet, &record(1, &packet)).unwrap();
    classic.packet(&ethernet, &record(1, &packet)).unwrap();
    assert!(!ng.has_several_link_types());
    ng.packet(&raw, &record(2, &packet)).unwrap();
    assert!(ng.has_several_link_types());
    let refused = classic.packet(&raw, &record(2, &packet)).unwrap_err();
    assert!(refused.hint().unwrap().contains("--format pcapng"), "{refused}");
}

#[test]
fn pcap_ends_in_2106() {
    let mut classic = Pcap::new(Box::new(Vec::new()), false);
    let source = source("eth1", LinkType::ETHERNET);
    let last = (u64::from(u32::MAX) + 1) * 1_000_000_000 - 1;
    classic.packet(&source, &record(last, &[0; 60])).unwrap();
    let refused = classic.packet(&source, &record(last + 1, &[0; 60])).unwrap_err();
    assert!(matches!(refused, OutputError::PcapTime { .. }), "{refused}");
}
