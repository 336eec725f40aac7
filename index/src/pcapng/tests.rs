//! Our blocks against pcap-parser, and our decoder against damage.

use super::*;
use pcap_parser::pcapng::parse_block_le;
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block as Parsed, PcapNGOption};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(any::<String>())
}

fn section() -> impl Strategy<Value = SectionInfo> {
    (text(), text(), text()).prop_map(|(hardware, os, application)| SectionInfo { hardware, os, application })
}

fn interface() -> impl Strategy<Value = InterfaceInfo> {
    (any::<String>(), any::<u16>(), any::<u32>(), text(), text(), text(), any::<Option<u64>>()).prop_map(
        |(name, link, snaplen, description, filter, hardware, speed_bps)| InterfaceInfo {
            name,
            link_type: LinkType(link),
            snaplen,
            description,
            filter,
            hardware,
            speed_bps,
        },
    )
}

type Owned = (Timestamp, Vec<u8>, u32, u64, Option<u32>);

fn packet() -> impl Strategy<Value = Owned> {
    (
        0..=i64::MAX as u64,
        any::<Vec<u8>>(),
        any::<u32>(),
        prop_oneof![Just(0), any::<u64>()],
        any::<Option<u32>>(),
    )
        .prop_map(|(ns, bytes, orig, dropped, flags)| {
            (Timestamp::from_nanos(ns).unwrap(), bytes, orig, dropped, flags)
        })
}

fn record(owned: &Owned) -> PacketRecord<'_> {
    PacketRecord { ts: owned.0, bytes: &owned.1, orig_len: owned.2, dropped: owned.3, flags: owned.4 }
}

fn counters() -> impl Strategy<Value = Counters> {
    any::<[u64; 4]>().prop_map(|[received, interface_dropped, os_dropped, delivered]| Counters {
        received,
        interface_dropped,
        os_dropped,
        delivered,
    })
}

proptest! {
    #[test]
    fn round_trip(section in section(), interface in interface(), packets in prop::collection::vec(packet(), 0..6),
                  counters in counters()) {
        let mut out = Vec::new();
        encode_section(&mut out, &section);
        encode_interface(&mut out, &interface);
        let mut expected = vec![Block::Section(section), Block::Interface(interface)];
        for owned in &packets {
            let record = record(owned);
            let before = out.len();
            encode_packet(&mut out, &record);
            prop_assert_eq!(out.len() - before, packet_block_len(&record));
            expected.push(Block::Packet(record));
        }
        let at = Timestamp::MAX;
        encode_statistics(&mut out, at, &counters);
        expected.push(Block::Statistics(at, counters));
        let decoded = Blocks::new(&out).map(|block| block.unwrap().1).collect::<Vec<_>>();
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn pcap_parser_agrees(owned in packet(), interface in interface(), counters in counters()) {
        let record = record(&owned);
        let mut out = Vec::new();
        encode_packet_on(&mut out, 5, &record);
        let (rest, block) = parse_block_le(&out).unwrap();
        prop_assert!(rest.is_empty());
        let Parsed::EnhancedPacket(epb) = block else { panic!("{block:?}") };
        prop_assert_eq!(epb.if_id, 5);
        prop_assert_eq!((u64::from(epb.ts_high) << 32) | u64::from(epb.ts_low), record.ts.nanos());
        prop_assert_eq!(epb.packet_data(), record.bytes);
        prop_assert_eq!(epb.origlen, record.orig_len);
        let value = |options: &[PcapNGOption<'_>], code| {
            options.iter().find(|option| option.code.0 == code).map(|option| option.value[..usize::from(option.len)].to_vec())
        };
        prop_assert_eq!(value(&epb.options, 2), record.flags.map(|flags| flags.to_le_bytes().to_vec()));
        let dropped = Some(record.dropped).filter(|count| *count != 0);
        prop_assert_eq!(value(&epb.options, 4), dropped.map(|count| count.to_le_bytes().to_vec()));

        out.clear();
        encode_interface(&mut out, &interface);
        let Parsed::InterfaceDescription(idb) = parse_block_le(&out).unwrap().1 else { panic!() };
        prop_assert_eq!(idb.if_tsresol, 9);
        prop_assert_eq!(idb.snaplen, interface.snaplen);
        let filter = interface.filter.as_ref().map(|text| [&[0], text.as_bytes()].concat());
        prop_assert_eq!(value(&idb.options, 11), filter);

        out.clear();
        encode_statistics(&mut out, record.ts, &counters);
        let Parsed::InterfaceStatistics(isb) = parse_block_le(&out).unwrap().1 else { panic!() };
        for (code, count) in [(4, counters.received), (5, counters.interface_dropped), (8, counters.delivered)] {
            prop_assert_eq!(value(&isb.options, code), Some(count.to_le_bytes().to_vec()));
        }
    }

    #[test]
    fn damage_is_an_error_or_other_blocks(owned in packet(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut out = Vec::new();
        encode_interface(&mut out, &InterfaceInfo {
            name: "eth0".into(), link_type: LinkType::ETHERNET, snaplen: 0,
            description: None, filter: Some("ip".into()), hardware: None, speed_bps: Some(1),
        });
        encode_packet(&mut out, &record(&owned));
        let at = at.index(out.len());
        out[at] = byte;
        out.truncate(cut.index(out.len() + 1));
        let (mut end, mut failed) = (0, false);
        for block in Blocks::new(&out) {
            prop_assert!(!failed);
            match block {
                Ok((offset, _)) => { prop_assert!(offset >= end); end = offset; }
                Err(error) => { prop_assert!(error.offset >= end); failed = true; }
            }
        }
    }

    #[test]
    fn any_bytes_end(bytes: Vec<u8>) {
        prop_assert!(Blocks::new(&bytes).count() <= bytes.len() / 12 + 1);
    }
}

#[test]
fn encoding_a_packet_does_not_allocate() {
    let bytes = [9; 1501];
    let record =
        PacketRecord { ts: Timestamp::ZERO, bytes: &bytes, orig_len: 1501, dropped: 7, flags: Some(1) };
    let mut out = Vec::with_capacity(packet_block_len(&record));
    let (capacity, address) = (out.capacity(), out.as_ptr());
    encode_packet(&mut out, &record);
    assert_eq!((out.capacity(), out.as_ptr()), (capacity, address));
}

#[test]
fn a_packet_longer_than_a_block_is_cut() {
    let bytes = vec![1; PACKET_BYTES_MAX + 5];
    let record =
        PacketRecord { ts: Timestamp::ZERO, bytes: &bytes, orig_len: 1 << 30, dropped: 1, flags: Some(0) };
    let mut out = Vec::new();
    encode_packet(&mut out, &record);
    assert_eq!(out.len(), packet_block_len(&record));
    assert!(out.len() <= 16 * 1024 * 1024);
    let (_, block) = Blocks::new(&out).next().unwrap().unwrap();
    let Block::Packet(kept) = block else { panic!() };
    assert_eq!((kept.bytes.len(), kept.orig_len), (PACKET_BYTES_MAX, 1 << 30));
}
