//! Initial packets as the RFCs show them, and as a client may cut its hello.

use super::keys::{Keys, Suite};
use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The connection id of both RFCs' examples.
const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// RFC 9001, A.2: the CRYPTO frame of the client's Initial packet, without its padding.
const CRYPTO: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100\
    000a00080006001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9\
    caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306\
    030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ff\
    ff0801100104800075300901100f088394c8f03e51570806048000ffff";

const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;

/// A client's Initial packet with these frames, padded to `size` bytes of payload.
pub(in crate::service) fn initial(
    version: u32,
    dcid: &[u8],
    number: u32,
    frames: &[u8],
    size: usize,
) -> Vec<u8> {
    let suite = Suite::of(version).unwrap();
    let mut plain = frames.to_vec();
    plain.resize(size.max(frames.len()), 0);
    let mut header = vec![0xc3 | (suite.initial << 4)];
    header.extend(version.to_be_bytes());
    header.push(u8::try_from(dcid.len()).unwrap());
    header.extend(dcid);
    header.extend([0, 0]);
    let len = u16::try_from(4 + plain.len() + TAG).unwrap() | 0x4000;
    header.extend(len.to_be_bytes());
    Keys::of_client(&suite, dcid).unwrap().seal(&header, number, &plain)
}

/// A CRYPTO frame.
pub(in crate::service) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let long = |value: usize| (u32::try_from(value).unwrap() | 0x8000_0000).to_be_bytes();
    [&[6][..], &long(offset), &long(data.len()), data].concat()
}

/// The client hello of RFC 9001, A.2.
pub(in crate::service) fn rfc_hello() -> Vec<u8> {
    unhex(CRYPTO)[4..].to_vec()
}

fn expected() -> Hello {
    Hello {
        sni: Some("example.com".into()),
        alpn: Some("alpn".into()),
        ja4: Some(Quic::whole(&rfc_hello()).ja4.unwrap()),
    }
}

impl Quic {
    fn whole(message: &[u8]) -> Hello {
        hello::read(&message[4..], message.len() - 4, Carrier::Quic)
    }
}

#[test]
fn keys_of_rfc_9001_and_9369() {
    let show = |version| {
        let mut text = String::new();
        for bytes in Keys::secrets(&Suite::of(version).unwrap(), &DCID).unwrap() {
            text.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
            text.push(' ');
        }
        text
    };
    let v1 = "1f369613dd76d5467730efcbe3b1a22d fa044b2f42a3fd3b46fb255c 9f50449e04a0e810283a1e9933adedd2 ";
    let v2 = "8b1a0bc121284290a29e0971b5cd045d 91f73e2351d8fa91660e909f 45b95e15235d6f45a6b19cbcb0294ba9 ";
    assert_eq!((show(V1), show(V2)), (v1.to_owned(), v2.to_owned()));
}

#[test]
fn the_packet_of_rfc_9001_a2() {
    let packet = initial(V1, &DCID, 2, &unhex(CRYPTO), 1162);
    let begins = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c\
        0bab7df5976d27cd449f63300099f3991c260ec4c60d17b31f8429157bb35a1282a643a8d2262cad67500cadb8e7378c";
    assert_eq!(packet.len(), 1200);
    assert_eq!(packet[..96], unhex(begins));
    assert_eq!(look(&packet), Look::Initial);
    assert_eq!(Quic::new().datagram(&packet), Some(expected()));
}

#[test]
fn each_version_we_open() {
    for version in [V1, V2, 0xff00_001d, 0xff00_0017, 0xface_b002] {
        let packet = initial(version, &DCID, 0, &unhex(CRYPTO), 1162);
        assert_eq!(Quic::new().datagram(&packet), Some(expected()), "{version:#x}");
    }
}

#[test]
fn pieces_in_any_order_over_packets_and_datagrams() {
    let hello = rfc_hello();
    let third = hello.len() / 3;
    // A PING and an ACK stand between.
    let frames =
        [&crypto(third * 2, &hello[third * 2..])[..], &[1, 2, 5, 0, 0, 0], &crypto(0, &hello[..9])].concat();
    let first = initial(V1, &DCID, 0, &frames, 300);
    let second = initial(V1, &DCID, 1, &crypto(9, &hello[9..third * 2 + 4]), 300);
    for order in [[&first, &second], [&second, &first]] {
        let mut quic = Quic::new();
        assert_eq!(quic.datagram(order[0]), None);
        assert_eq!(quic.datagram(order[1]), Some(expected()));
        let together = [&order[0][..], &order[1][..]].concat();
        assert_eq!(Quic::new().datagram(&together), Some(expected()));
    }
}

#[test]
fn a_hello_whose_end_is_missing_has_a_name_and_no_fingerprint() {
    let hello = rfc_hello();
    let mut quic = Quic::new();
    assert_eq!(quic.datagram(&initial(V1, &DCID, 0, &crypto(0, &hello[..100]), 1162)), None);
    let partial = quic.partial();
    assert_eq!((partial.sni.as_deref(), partial.ja4), (Some("example.com"), None));
}

#[test]
fn the_first_id_serves_after_the_server_has_named_another() {
    let hello = rfc_hello();
    let mut quic = Quic::new();
    assert_eq!(quic.datagram(&initial(V1, &DCID, 0, &crypto(0, &hello[..50]), 1162)), None);
    let suite = Suite::of(V1).unwrap();
    let mut header = vec![0xc3, 0, 0, 0, 1, 3, 9, 9, 9, 0, 0];
    let plain = crypto(50, &hello[50..]);
    header.extend((u16::try_from(20 + plain.len()).unwrap() | 0x4000).to_be_bytes());
    let packet = Keys::of_client(&suite, &DCID).unwrap().seal(&header, 1, &plain);
    assert_eq!(quic.datagram(&packet), Some(expected()));
}

#[test]
fn looks() {
    let version_negotiation = unhex("80 00000000 00 08 0102030405060708 1a2a3a4a 00000001 6b3343cf");
    let google = unhex("0d 0102030405060708 51303433 01 0000000000000000000000");
    let q046 = unhex("c3 51303436 50 0102030405060708 00000001 000000000000");
    let retry = unhex("f0 00000001 00 04 01020304 aabbccdd 00112233445566778899aabbccddeeff");
    let short = unhex("40 0102030405060708 0102030405060708 0102030405060708");
    let unknown = unhex("c3 12345678 08 0102030405060708 00 00 40 00 00000000000000");
    let looks = [&version_negotiation, &google, &retry, &short, &unknown].map(|datagram| look(datagram));
    assert_eq!(looks, [Look::Quic, Look::Quic, Look::Quic, Look::No, Look::No]);
    assert_eq!(look(&q046), Look::Quic);
}

/// A datagram that claims to hold many packets costs no more than the bound, and ends the search.
#[test]
fn tries_are_bounded() {
    let forged = [&[0xc0, 0, 0, 0, 1, 1, 1, 0, 0, 24][..], &[0; 24]].concat();
    let mut quic = Quic::new();
    assert_eq!(quic.datagram(&forged.repeat(usize::from(TRIES) - 1)), None);
    assert!(!quic.hopeless());
    assert_eq!(quic.datagram(&forged.repeat(40)), None);
    assert!(quic.hopeless());
}
