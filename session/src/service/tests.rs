//! The probe as its callers use it.

use super::hello::tests::{Maker, alpn, sni};
use super::*;
use proptest::prelude::*;

const ORIG: bool = true;
const RESP: bool = false;

const fn tcp(resp_port: u16) -> Ends {
    Ends { proto: app::TCP, orig_port: 40_000, resp_port }
}

const fn udp(resp_port: u16) -> Ends {
    Ends { proto: app::UDP, orig_port: 40_000, resp_port }
}

/// What a probe says of whole payloads, each the next of its side.
fn speak(facts: Ends, payloads: &[(bool, &[u8])]) -> Service {
    let mut probe = Probe::new();
    let mut at = [0_u32; 2];
    for (from_orig, payload) in payloads {
        let offset = &mut at[usize::from(*from_orig)];
        probe.feed(facts, *from_orig, *offset, payload);
        *offset += u32::try_from(payload.len()).unwrap();
    }
    probe.finish(facts)
}

/// The name, if the payload says it.
fn name(facts: Ends, payloads: &[(bool, &[u8])]) -> Option<&'static str> {
    let service = speak(facts, payloads);
    service.name.filter(|_| service.source == ServiceSource::Payload)
}

/// A client hello of about `padding` bytes.
fn maker(padding: usize) -> Maker {
    let extensions = vec![sni(b"www.example.org"), alpn(b"h2"), (21, vec![0; padding])];
    Maker { legacy: 0x0303, ciphers: vec![0x1301, 0x1302], extensions }
}

/// A message in records of at most `most` bytes.
fn records(message: &[u8], most: usize) -> Vec<u8> {
    let record =
        |part: &[u8]| [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
    message.chunks(most).flat_map(record).collect()
}

fn names(service: &Service) -> (Option<&str>, Option<&str>, bool) {
    (service.sni.as_deref(), service.alpn.as_deref(), service.ja4.is_some())
}

const WHOLE: (Option<&str>, Option<&str>, bool) = (Some("www.example.org"), Some("h2"), true);

#[test]
fn first_words_that_prove() {
    let cases: [(&str, Ends, bool, &[u8]); 37] = [
        ("http", tcp(8000), ORIG, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("http", tcp(8000), ORIG, b"VERSION-CONTROL /x HTTP/1.1\n\n"),
        ("http", tcp(8000), RESP, b"HTTP/1.0 200 OK\r\n"),
        ("http2", tcp(8000), ORIG, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"),
        ("ssh", tcp(9), RESP, b"SSH-1.99-x\r\n"),
        ("smtp", tcp(9), RESP, b"220 mail.example.org ESMTP\r\n"),
        ("smtp", tcp(9), ORIG, b"ehlo a\r\n"),
        ("ftp", tcp(9), RESP, b"220 smtp.example.org FTP server (Version 6.4) ready.\r\n"),
        ("ftp", tcp(9), RESP, b"220-\xc2\xa1Hola! ProFTPD\r\n"),
        ("pop3", tcp(9), RESP, b"+OK POP3 ready\r\n"),
        ("imap", tcp(9), RESP, b"* OK [CAPABILITY IMAP4rev1] hi\r\n"),
        ("irc", tcp(9), ORIG, b"PASS x\r\nNICK a\r\nUSER a 0 * :A\r\n"),
        ("irc", tcp(9), RESP, b":irc.example.org 001 a :Welcome\r\n"),
        ("sip", tcp(9), ORIG, b"REGISTER sip:a SIP/2.0\r\n"),
        ("redis", tcp(9), ORIG, b"*1\r\n$4\r\nPING\r\n"),
        ("rfb", tcp(9), RESP, b"RFB 003.008\n"),
        ("xmpp", tcp(9), ORIG, b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>"),
        ("bittorrent", tcp(9), ORIG, b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0"),
        ("mqtt", tcp(9), ORIG, b"\x10\x10\x00\x04MQTT\x04\x02\0\x3c\0\x04abcd"),
        ("postgresql", tcp(9), ORIG, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("smb", tcp(9), ORIG, b"\0\0\0\x40\xfeSMB\x40\0\0\0\0\0\0\0"),
        ("rdp", tcp(9), ORIG, b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0"),
        ("syslog", tcp(9), ORIG, b"52 <34>1 2003-10-11T22:14:15.003Z host"),
        ("dns", tcp(9), ORIG, b"\0\x21\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01"),
        ("ldap_tcp", tcp(9), ORIG, b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x80\0"),
        ("dnp3_tcp", tcp(9), ORIG, b"\x05\x64\x05\xc0\x01\x00\x00\x04\xe9\x21"),
        ("stun", udp(9), ORIG, b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl"),
        (
            "snmp",
            udp(9),
            ORIG,
            b"0\x1b\x02\x01\0\x04\x06public\xa0\x0e\x02\x01\x01\x02\x01\0\x02\x01\0\x30\x03\x30\x01\0",
        ),
        ("tftp", udp(9), ORIG, b"\0\x01file\0octet\0"),
        ("sip", udp(9), ORIG, b"INVITE sip:bob@example.org SIP/2.0\r\n"),
        ("ssdp", udp(9), ORIG, b"M-SEARCH * HTTP/1.1\r\n"),
        ("bittorrent", udp(9), ORIG, b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe"),
        ("syslog", udp(9), ORIG, b"<34>Oct 11 22:14:15 host su: x"),
        ("syslog", udp(514), ORIG, b"<34>no date"),
        ("ntp", udp(123), ORIG, &[0x1b; 48]),
        ("dns", udp(5353), RESP, b"\0\0\x84\0\0\0\0\0\0\0\0\0"),
        ("dns", udp(9), ORIG, b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01"),
    ];
    for (want, facts, from_orig, payload) in cases {
        assert_eq!(name(facts, &[(from_orig, payload)]), Some(want), "{}", payload.escape_ascii());
    }
}

#[test]
fn words_that_prove_only_together() {
    let cases: [(&str, &[u8], &[u8]); 9] = [
        ("ftp", b"220 ready\r\n", b"USER a\r\n"),
        ("ftp", b"220 ready\r\n", b"AUTH TLS\r\n"),
        ("ftp", b"220 smtp.example.org ready\r\n", b"USER a\r\n"),
        ("smtp", b"220 ftp.example.org ready\r\n", b"STARTTLS\r\n"),
        ("pop3", b"+OK ready\r\n", b"USER a\r\n"),
        ("smtp", b"220 ready\r\n", b"MAIL FROM:<a>\r\n"),
        ("imap", b"* OK ready\r\n", b"a1 CAPABILITY\r\n"),
        ("socks", b"\x05\0", b"\x05\x02\0\x02"),
        ("socks", b"\0\x5a\0\0\0\0\0\0", b"\x04\x01\0\x50\x01\x02\x03\x04\0"),
    ];
    for (want, server, client) in cases {
        assert_eq!(name(tcp(9), &[(RESP, server)]), None, "{want}");
        assert_eq!(name(tcp(9), &[(ORIG, client)]), None, "{want}");
        assert_eq!(name(tcp(9), &[(RESP, server), (ORIG, client)]), Some(want));
        assert_eq!(name(tcp(9), &[(ORIG, client), (RESP, server)]), Some(want));
    }
    let [vpn_request, vpn_reply] =
        [b"\x38abcdefgh\0\0\0\0\0".to_vec(), b"\x40ijklmnop\x01\0\0\0\0abcdefgh\0\0\0\0".to_vec()];
    assert_eq!(name(udp(9), &[(ORIG, &vpn_request), (RESP, &vpn_reply)]), Some("openvpn"));
    assert_eq!(name(udp(9), &[(ORIG, &vpn_request), (RESP, &[0x40; 26])]), None);
    let [wg_request, wg_reply] =
        [[&[1, 0, 0, 0][..], &[9; 144]].concat(), [&[2, 0, 0, 0][..], &[9; 88]].concat()];
    assert_eq!(name(udp(9), &[(ORIG, &wg_request), (RESP, &wg_reply)]), Some("wireguard"));
    let wg_data = [&[4, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0][..], &[9; 80]].concat();
    assert_eq!(name(udp(9), &[(ORIG, &wg_data), (RESP, &wg_data)]), Some("wireguard"));
    assert_eq!(name(udp(9), &[(ORIG, &wg_data), (ORIG, &wg_data)]), None);
    let modbus = b"\0\x01\0\0\0\x06\x01\x03\0\x01\0\x02";
    assert_eq!(name(tcp(9), &[(ORIG, modbus), (RESP, modbus)]), Some("modbus"));
    // On its own port one side is enough.
    assert_eq!(name(tcp(502), &[(ORIG, modbus)]), Some("modbus"));
    assert_eq!(name(tcp(21), &[(RESP, b"220 ready\r\n")]), Some("ftp"));
}

#[test]
fn what_proves_nothing() {
    let cases: [(Ends, &[u8]); 11] = [
        (tcp(9), b"hello there, how are you today\r\n"),
        (tcp(9), b"GET / HTTQ/1.1\r\n\r\n"),
        (tcp(9), b"GET\r\n\r\n        "),
        (tcp(9), b"\x16\x03\x09\0\x50\x01\0\0\x4c\x03\x03"),
        (tcp(9), b"\x05\x64\x05\xc0\x01\x00\x00\x04\xe9\x22"),
        (tcp(9), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (tcp(9), b"OPTIONS rtsp://a RTSP/1.0\r\n\r\n"),
        (udp(9), b"\x80\x60\0\x01\0\0\0\xa0\x12\x34\x56\x78payload of a call"),
        (udp(9), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (udp(9), b"<999>Oct 11 22:14:15 host su: x"),
        (Ends { proto: 132, orig_port: 1, resp_port: 80 }, b"GET / HTTP/1.1\r\n\r\n"),
    ];
    for (facts, payload) in cases {
        for from_orig in [ORIG, RESP] {
            assert_eq!(
                speak(facts, &[(from_orig, payload)]),
                Service::default(),
                "{}",
                payload.escape_ascii()
            );
        }
    }
}

#[test]
fn nothing_known_means_the_port() {
    let service = speak(tcp(443), &[(ORIG, b"something else entirely")]);
    assert_eq!((service.name, service.source), (Some("ssl"), ServiceSource::Port));
    let silent = Probe::new().finish(udp(53));
    assert_eq!((silent.name, silent.source), (Some("dns"), ServiceSource::Port));
    assert_eq!(Probe::new().finish(Ends { proto: 1, orig_port: 8, resp_port: 53 }), Service::default());
}

#[test]
fn no_memory_for_what_matches_nothing() {
    let mut probe = Probe::new();
    assert_eq!(probe.feed(tcp(9), ORIG, 0, b"some protocol of its own\n"), Progress::More);
    assert_eq!(probe.feed(tcp(9), ORIG, 25, &[0; 1400]), Progress::More);
    assert!(probe.work.is_none());
    assert_eq!(probe.feed(tcp(9), RESP, 0, b"answers in kind\n"), Progress::Done);
    let mut datagrams = Probe::new();
    for _ in 1..UNKNOWN_MAX {
        assert_eq!(datagrams.feed(udp(9), ORIG, 0, &[0x80; 172]), Progress::More);
        assert!(datagrams.work.is_none());
    }
    assert_eq!(datagrams.feed(udp(9), ORIG, 0, &[0x80; 172]), Progress::Done);
}

#[test]
fn a_hello_in_any_records_and_segments() {
    let message = maker(3000).message();
    for record in [16_384, 1000, 64, 1] {
        let stream = records(&message, record);
        for segment in [stream.len(), 1400, 600] {
            let mut pieces: Vec<_> = stream
                .chunks(segment)
                .scan(0_u32, |at, piece| {
                    let offset = *at;
                    *at += u32::try_from(piece.len()).unwrap();
                    Some((offset, piece))
                })
                .collect();
            for _ in 0..3 {
                let mut probe = Probe::new();
                for (offset, piece) in &pieces {
                    probe.feed(tcp(9), ORIG, *offset, piece);
                }
                if stream.len() <= gather::LIMIT {
                    let service = probe.finish(tcp(9));
                    assert_eq!((service.name, names(&service)), (Some("ssl"), WHOLE), "{record} {segment}");
                }
                // Backwards, then rotated; some twice.
                pieces.reverse();
                pieces.rotate_left(1);
                pieces.push(pieces[0]);
            }
        }
    }
}

#[test]
fn a_hello_beyond_the_bound_gives_what_stands_in_it() {
    let stream = records(&maker(20_000).message(), 16_384);
    let mut probe = Probe::new();
    let mut at = 0;
    for piece in stream.chunks(1400) {
        probe.feed(tcp(9), ORIG, at, piece);
        at += 1400;
        assert!(probe.work.as_ref().map_or(0, |work| held(work)) <= HELD_MAX);
    }
    assert_eq!(names(&probe.finish(tcp(9))), (Some("www.example.org"), Some("h2"), false));
}

fn held(work: &Work) -> usize {
    work.streams.iter().flatten().map(Gather::held).sum()
}

#[test]
fn a_hello_that_stays_cut_gives_what_stands_in_it() {
    let stream = records(&maker(3000).message(), 16_384);
    let mut probe = Probe::new();
    assert_eq!(probe.feed(tcp(9), ORIG, 0, &stream[..200]), Progress::More);
    assert_eq!(names(&probe.service(tcp(9))), (Some("www.example.org"), Some("h2"), false));
    // The record of a session that goes on does not end the search.
    assert_eq!(probe.feed(tcp(9), ORIG, 200, &stream[200..]), Progress::Done);
    assert_eq!(names(&probe.finish(tcp(9))), WHOLE);
}

#[test]
fn a_servers_hello_alone_is_tls_and_waits_for_the_clients() {
    let server = records(&[&[2, 0, 0, 70, 3, 3][..], &[7; 68]].concat(), 16_384);
    let client = records(&maker(0).message(), 16_384);
    assert_eq!(name(tcp(9), &[(RESP, &server)]), Some("ssl"));
    assert_eq!(names(&speak(tcp(9), &[(RESP, &server), (ORIG, &client)])), WHOLE);
}

#[test]
fn a_session_that_goes_on_as_tls_or_carries_another() {
    let client = records(&maker(2000).message(), 16_384);
    let (first, second) = client.split_at(1400);
    let smtp: [(bool, &[u8]); 7] = [
        (RESP, b"220 mail ESMTP\r\n"),
        (ORIG, b"EHLO a\r\n"),
        (RESP, b"250-mail\r\n250 STARTTLS\r\n"),
        (ORIG, b"STARTTLS\r\n"),
        (RESP, b"220 go ahead\r\n"),
        (ORIG, first),
        (ORIG, second),
    ];
    let service = speak(tcp(25), &smtp);
    assert_eq!((service.name, names(&service)), (Some("smtp"), WHOLE));

    let connect: [(bool, &[u8]); 4] = [
        (ORIG, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (RESP, b"HTTP/1.1 200 OK\r\n\r\n"),
        (ORIG, first),
        (ORIG, second),
    ];
    let service = speak(tcp(3128), &connect);
    assert_eq!((service.name, service.http_host.as_deref()), (Some("http"), Some("a:443")));
    assert_eq!(names(&service), WHOLE);

    let socks: [(bool, &[u8]); 5] = [
        (ORIG, b"\x05\x01\0"),
        (RESP, b"\x05\0"),
        (ORIG, b"\x05\x01\0\x01\x01\x02\x03\x04\0\x50"),
        (RESP, b"\x05\0\0\x01\x01\x02\x03\x04\0\x50"),
        (ORIG, b"GET / HTTP/1.1\r\nHost: inner\r\n\r\n"),
    ];
    let service = speak(tcp(9), &socks);
    assert_eq!((service.name, service.http_host.as_deref()), (Some("socks"), Some("inner")));
}

#[test]
fn behind_the_header_of_a_relay() {
    let client = records(&maker(0).message(), 16_384);
    let one = [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", &client[..]].concat();
    let two = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[9; 12][..], &client].concat();
    for stream in [&one, &two] {
        for cut in [1, 14, 20, 40, stream.len()] {
            let (head, tail) = stream.split_at(cut.min(stream.len()));
            assert_eq!(names(&speak(tcp(9), &[(ORIG, head), (ORIG, tail)])), WHOLE, "{cut}");
            let unfinished = tail.split_last().map_or(tail, |(_, rest)| rest);
            let part = speak(tcp(9), &[(ORIG, head), (ORIG, unfinished)]);
            assert!(tail.is_empty() || names(&part) == (WHOLE.0, WHOLE.1, false), "{cut}");
        }
    }
}

#[test]
fn a_request_in_pieces() {
    let request = b"POST /long HTTP/1.1\r\nAccept: */*\r\nhOsT:  www.example.org \r\nX: y\r\n\r\n";
    for cut in 1..request.len() {
        let (head, tail) = request.split_at(cut);
        let service = speak(tcp(9), &[(ORIG, head), (ORIG, tail)]);
        assert_eq!(
            (service.name, service.http_host.as_deref()),
            (Some("http"), Some("www.example.org")),
            "{cut}"
        );
    }
    let cut = speak(tcp(9), &[(ORIG, &request[..50])]);
    assert_eq!((cut.name, cut.http_host), (Some("http"), None));
}

#[test]
fn a_datagram_hello_in_fragments_after_a_cookie() {
    let body = maker(600).body(true);
    let record = |number: u8, from: usize, to: usize| {
        let lens = [body.len(), from, to - from].map(|len| u32::try_from(len).unwrap().to_be_bytes());
        let mut fragment = vec![1];
        fragment.extend(&lens[0][1..]);
        fragment.extend([0, number]);
        fragment.extend(&lens[1][1..]);
        fragment.extend(&lens[2][1..]);
        fragment.extend(&body[from..to]);
        let len = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0][..], &len, &fragment].concat()
    };
    let (one, two, three) = (record(0, 0, 200), record(1, 300, body.len()), record(1, 0, 350));
    let service = speak(udp(9), &[(ORIG, &one), (ORIG, &two), (ORIG, &three)]);
    assert_eq!((service.name, names(&service)), (Some("dtls"), WHOLE));
}

#[test]
fn datagrams_that_may_come_before_quic() {
    let hello = quic::tests::rfc_hello();
    let initial = quic::tests::initial(1, &[1; 8], 0, &quic::tests::crypto(0, &hello), 1162);
    let negotiation = b"\x80\0\0\0\0\0\x08\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\x01";
    let service = speak(udp(9), &[(ORIG, &[0xcb; 40]), (RESP, negotiation), (ORIG, &initial)]);
    assert_eq!((service.name, service.sni.as_deref()), (Some("quic"), Some("example.com")));
    let part = quic::tests::initial(1, &[1; 8], 0, &quic::tests::crypto(0, &hello[..80]), 1162);
    let service = speak(udp(9), &[(ORIG, &part)]);
    assert_eq!((service.name, names(&service)), (Some("quic"), (Some("example.com"), None, false)));
}

#[test]
fn dns_names() {
    let query = |name: &[u8], port: u16| {
        let message = [b"\0\x01\x01\0\0\x01\0\0\0\0\0\0", name, b"\0\x01\0\x01"].concat();
        speak(udp(port), &[(ORIG, &message)]).dns_query
    };
    let cases: [(&[u8], u16, Option<&str>); 7] = [
        (b"\x03www\x07example\x03org\0", 53, Some("www.example.org")),
        (b"\0", 53, Some(".")),
        (b"\x04a.b\\\x02\x01\xff\0", 53, Some("a\\.b\\\\.\\001\\255")),
        (b"\x05caf\xc3\xa9\x05local\0", 5353, Some("caf\u{e9}.local")),
        (b"\x20ENEEEKFCDJDICACACACACACACACACAAA\0", 137, Some("MDJR98")),
        // A pointer to itself; a label that is cut.
        (b"\xc0\x0c", 53, None),
        (b"\x3fabc\0", 53, None),
    ];
    for (name, port, want) in cases {
        assert_eq!(query(name, port).as_deref(), want, "{}", name.escape_ascii());
    }
    let long: Vec<u8> = [&[63][..], &[1; 63], &[63], &[1; 63], &[63], &[1; 63], &[0]].concat();
    assert_eq!(query(&long, 53).map(|name| name.len()), Some(TEXT_MAX));
}

#[test]
fn dns_over_tcp_in_pieces() {
    let message = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
    let stream = [&[0, u8::try_from(message.len()).unwrap()][..], message].concat();
    for cut in 1..stream.len() {
        let (head, tail) = stream.split_at(cut);
        // On another port it takes a few bytes, or a whole name, to wait for the rest.
        for (port, least) in [(53, 0), (9, 31)] {
            if (8..least).contains(&head.len()) {
                continue;
            }
            let service = speak(tcp(port), &[(ORIG, head), (ORIG, tail)]);
            assert_eq!(service.dns_query.as_deref(), Some("www.example.org"), "{cut} {port}");
        }
    }
}

#[test]
fn a_dns_message_that_stays_cut_gives_its_question() {
    let stream = b"\x01\0\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
    let service = speak(tcp(53), &[(ORIG, stream)]);
    assert_eq!(
        (service.source, service.dns_query.as_deref()),
        (ServiceSource::Payload, Some("www.example.org"))
    );
    let odd = speak(tcp(53), &[(ORIG, b"\x01\0\0\x01\x78\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0")]);
    assert_eq!((odd.source, odd.dns_query), (ServiceSource::Port, None));
}

#[test]
fn smb_behind_a_request_for_a_session() {
    let name = [&[32][..], &[b'C'; 32], &[0]].concat();
    let request = [&[0x81, 0, 0, 68][..], &name, &name].concat();
    let smb = b"\0\0\0\x40\xffSMB\x72\0\0\0\0";
    assert_eq!(name_of(&request, smb), Some("smb"));
    assert_eq!(name_of(&request, b"\0\0\0\x40\xffXMB\x72\0\0\0\0"), None);
}

fn name_of(head: &[u8], tail: &[u8]) -> Option<&'static str> {
    name(tcp(9), &[(ORIG, head), (ORIG, tail)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Any bytes at any offsets: no panic, no more memory than the bound, an end.
    #[test]
    fn any_packets(
        proto in prop_oneof![Just(6_u8), Just(17), any::<u8>()],
        ports in (any::<u16>(), prop_oneof![Just(53_u16), Just(443), Just(137), Just(514), any::<u16>()]),
        packets in proptest::collection::vec((any::<bool>(), 0_u32..20_000, piece()), 0..70),
    ) {
        let facts = Ends { proto, orig_port: ports.0, resp_port: ports.1 };
        let mut probe = Probe::new();
        for (from_orig, offset, bytes) in &packets {
            let progress = probe.feed(facts, *from_orig, *offset, bytes);
            prop_assert_eq!(progress, probe.progress());
            prop_assert!(probe.work.as_ref().map_or(0, |work| held(work)) <= HELD_MAX);
        }
        let now = probe.service(facts);
        let service = probe.finish(facts);
        prop_assert_eq!(&now, &service);
        for text in [&service.sni, &service.alpn, &service.ja4, &service.http_host, &service.dns_query] {
            prop_assert!(text.as_ref().is_none_or(|text| text.len() <= TEXT_MAX));
        }
    }
}

/// Beginnings of protocols with anything behind them, and anything.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let starts = prop_oneof![
        Just(records(&maker(100).message(), 40)),
        Just(b"GET / HTTP/1.1\r\nHost".to_vec()),
        Just(b"\xc0\0\0\0\x01\x08\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x40".to_vec()),
        Just(b"\0\x21\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www".to_vec()),
        Just(b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x20\x01\0\0\x60\0\0\0\0\0\0\0\x14".to_vec()),
        Just(b"220 x\r\n".to_vec()),
        Just(b"\x30\x82\x01\x02\x02\x01\x01\x60".to_vec()),
        Just(Vec::new()),
    ];
    (starts, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(start, rest)| [start, rest].concat())
}
