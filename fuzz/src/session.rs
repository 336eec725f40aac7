//! What the targets of the session's services share: packets out of a fuzzer's bytes, QUIC's protection.

use aes::cipher::BlockCipherEncrypt as _;
use aes::{Aes128, Block};
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes128Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{
    Config, Ends, Merger, Packet, Place, Probe, Record, RecordKind, Service, Table,
};

/// RFC 9001, 5.2.
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
/// The connection id of every packet.
const DCID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Bytes before each packet: side, offset, length.
const HEAD: usize = 5;

/// Ports among which a fuzzer chooses: those that change what is looked for, and one that does not.
const PORTS: [u16; 8] = [53, 137, 5353, 123, 514, 443, 1812, 9];

/// Feeds a probe the packets that `data` describes: a byte for the port, then side, offset, length and payload of
/// each. Checks what holds of every answer.
pub fn packets(proto: u8, data: &[u8]) {
    let Some((port, mut rest)) = data.split_first() else { return };
    let resp_port = PORTS[usize::from(port % 8)];
    let facts = Ends { proto, orig_port: 40_000, resp_port };
    let mut probe = Probe::new();
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let [side, offset @ .., low, high] = *head;
        let len = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (payload, next) = behind.split_at(len);
        probe.feed(facts, side & 1 == 0, u32::from(u16::from_le_bytes(offset)), payload);
        rest = next;
    }
    check(&probe.finish(facts));
}

/// Feeds a probe of UDP these datagrams of the originator, to `port`.
#[must_use]
pub fn datagrams<'a>(port: u16, datagrams: impl IntoIterator<Item = &'a [u8]>) -> Service {
    let facts = Ends { proto: 17, orig_port: 40_000, resp_port: port };
    let mut probe = Probe::new();
    for datagram in datagrams {
        probe.feed(facts, true, 0, datagram);
    }
    let service = probe.finish(facts);
    check(&service);
    service
}

/// What holds of every answer.
///
/// # Panics
/// If it does not hold.
pub fn check(service: &Service) {
    for text in [&service.sni, &service.alpn, &service.ja4, &service.http_host, &service.dns_query] {
        assert!(text.as_ref().is_none_or(|text| text.len() <= 255));
    }
    if let Some(ja4) = &service.ja4 {
        assert_eq!(ja4.len(), 36, "{ja4}");
        assert!(ja4.is_ascii());
    }
}

/// A client's Initial packet of QUIC version 1 with these frames.
///
/// # Panics
/// If the frames are longer than a datagram.
#[must_use]
pub fn initial(number: u8, frames: &[u8]) -> Vec<u8> {
    let expand = |from: &Hkdf<Sha256>, label: &str, out: &mut [u8]| {
        let mut info = vec![0, u8::try_from(out.len()).expect("a key is short")];
        info.push(u8::try_from(label.len()).expect("a label is short"));
        info.extend(label.as_bytes());
        info.push(0);
        from.expand(&info, out).expect("a key is short");
    };
    let mut secret = [0; 32];
    expand(&Hkdf::new(Some(&SALT), &DCID), "tls13 client in", &mut secret);
    let client = Hkdf::<Sha256>::from_prk(&secret).expect("as long as a hash");
    let (mut key, mut nonce, mut hp) = ([0; 16], [0; 12], [0; 16]);
    expand(&client, "tls13 quic key", &mut key);
    expand(&client, "tls13 quic iv", &mut nonce);
    expand(&client, "tls13 quic hp", &mut hp);

    // One byte of packet number; padded, so that there is a sample.
    let mut plain = frames.to_vec();
    plain.resize(plain.len().max(24), 0);
    let len = u16::try_from(1 + plain.len() + 16).expect("fits a datagram") | 0x4000;
    let mut packet = vec![0xc0, 0, 0, 0, 1, 8];
    packet.extend(DCID);
    packet.extend([0, 0]);
    packet.extend(len.to_be_bytes());
    let number_at = packet.len();
    packet.push(number);
    nonce[11] ^= number;
    let buffer = plain.as_mut_slice().into();
    let tag = Aes128Gcm::new(&key.into()).encrypt_inout_detached(&Nonce::from(nonce), &packet, buffer);
    packet.extend(&plain);
    packet.extend(tag.expect("short enough to seal"));
    let mut mask = Block::from(*packet[number_at + 4..].first_chunk::<16>().expect("there is a sample"));
    Aes128::new(&hp.into()).encrypt_block(&mut mask);
    packet[0] ^= mask[0] & 0x0f;
    packet[number_at] ^= mask[1];
    packet
}

/// Bytes before each packet of a table: time, queue and what happens before it, length.
const PACKET_HEAD: usize = 5;

/// Feeds tables, and a merger behind them, the packets that `data` describes: seconds of time to pass, which of
/// two queues, whether it was stored, length, bytes. What they count must be what came.
pub fn table(data: &[u8]) {
    let config = |chain| Config {
        chain,
        split: true,
        max_sessions: 8,
        max_evictions_per_second: 2,
        max_inspectors: 2,
        max_datagrams: 4,
        max_holes: 2,
        max_log_blocks: 8,
        ..Config::default()
    };
    let mut tables: [Table<Probe>; 2] = [0, 1].map(|chain| Table::with_statistics(config(chain), 0));
    let mut merger = Merger::new(config(2));
    let (mut joined, mut pushed) = (Sums::default(), Sums::default());
    let (mut walk, mut clock, mut rest) = (Walk::new(), 1_700_000_000_u64, data);
    while let Some((head, behind)) = rest.split_first_chunk::<PACKET_HEAD>() {
        let [seconds, way, frame, low, high] = *head;
        let len = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (bytes, next) = behind.split_at(len);
        rest = next;
        clock = if way & 2 == 0 { clock + u64::from(seconds) } else { clock - u64::from(seconds) };
        let ts = Timestamp::from_nanos_saturating(clock * 1_000_000_000);
        walk.run(LinkType::ETHERNET, bytes);
        let original_bytes = u32::try_from(len).unwrap_or(u32::MAX);
        let place = Place::new(u32::from(frame >> 6), u32::from(frame));
        let packet = Packet { ts, bytes, original_bytes, place, stored: way & 4 == 0 };
        let mut records = Vec::new();
        let [first, second] = &mut tables;
        let table = if way & 1 == 0 { first } else { second };
        table.stage(&mut |record| records.push(record)).push(&walk, &packet);
        table.expire(ts, 4, &mut |record| records.push(record));
        table.news(2, 2, &mut |record| records.push(record));
        drop(table.close_minutes(ts));
        pushed.packets += 1;
        join(&mut merger, records, ts, &mut joined);
    }
    let end = Timestamp::from_nanos_saturating(clock * 1_000_000_000);
    for table in &mut tables {
        let mut records = Vec::new();
        table.finish(&mut |record| records.push(record));
        drop(table.close_all_minutes());
        pushed.outside += table.counters().non_ip_packets;
        assert!(table.reserved_bytes() <= config(0).memory_bytes());
        join(&mut merger, records, end, &mut joined);
    }
    merger.finish(&mut |record| joined.add(&record));
    assert_eq!(joined.packets, pushed.packets - pushed.outside);
}

/// Packets of sessions that travel in no other, and packets of none.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    packets: u64,
    outside: u64,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        if !record.inner && record.kind != RecordKind::Open {
            self.packets += record.orig.volume.packets + record.resp.volume.packets;
        }
    }
}

fn join(merger: &mut Merger, records: Vec<Record>, now: Timestamp, joined: &mut Sums) {
    for record in records {
        merger.push(record, &mut |record| joined.add(&record));
    }
    merger.expire(now, &mut |record| joined.add(&record));
}
