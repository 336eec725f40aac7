//! Client hellos made to order, and the fingerprints that the authors of JA4 publish.

use super::*;

/// A client hello's body: versions, ciphers and extensions as given.
pub(in crate::service) struct Maker {
    pub(in crate::service) legacy: u16,
    pub(in crate::service) ciphers: Vec<u16>,
    pub(in crate::service) extensions: Vec<(u16, Vec<u8>)>,
}

fn list16(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// `bytes` behind their length.
fn with_len16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

pub(in crate::service) fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    (SERVER_NAME, with_len16(&[&[0][..], &with_len16(name)].concat()))
}

pub(in crate::service) fn alpn(name: &[u8]) -> (u16, Vec<u8>) {
    (ALPN, with_len16(&[&[u8::try_from(name.len()).unwrap()], name].concat()))
}

fn versions(values: &[u16]) -> (u16, Vec<u8>) {
    let list = list16(values);
    (SUPPORTED_VERSIONS, [&[u8::try_from(list.len()).unwrap()], &list[..]].concat())
}

fn signatures(values: &[u16]) -> (u16, Vec<u8>) {
    (SIGNATURE_ALGORITHMS, with_len16(&list16(values)))
}

impl Maker {
    pub(in crate::service) fn body(&self, cookie: bool) -> Vec<u8> {
        let mut body = self.legacy.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        if cookie {
            body.extend([2, 1, 1]);
        }
        body.extend(with_len16(&list16(&self.ciphers)));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for (kind, data) in &self.extensions {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(with_len16(data));
        }
        body.extend(with_len16(&extensions));
        body
    }

    /// A handshake message.
    pub(in crate::service) fn message(&self) -> Vec<u8> {
        let body = self.body(false);
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1][..], &len[1..], &body].concat()
    }

    /// Of the raw form of a JA4: the hello it describes, with GREASE wherever a client may put it.
    fn of_raw(raw: &str) -> Self {
        let (head, lists) = raw.split_once('_').unwrap();
        let mut lists = lists.split('_').map(|list| -> Vec<u16> {
            list.split(',').filter(|v| !v.is_empty()).map(|v| u16::from_str_radix(v, 16).unwrap()).collect()
        });
        let mut ciphers = lists.next().unwrap();
        let mut kinds = lists.next().unwrap();
        let signature_list = lists.next().unwrap_or_default();
        ciphers.reverse();
        ciphers.insert(0, 0x1a1a);
        if &head[3..4] == "d" {
            kinds.insert(0, SERVER_NAME);
        }
        if &head[8..] != "00" {
            kinds.insert(3, ALPN);
        }
        kinds.reverse();
        let real = match &head[1..3] {
            "13" => 0x0304,
            "12" => 0x0303,
            other => panic!("no sample has version {other}"),
        };
        let mut extensions = vec![(0x2a2a, vec![0])];
        extensions.extend(kinds.into_iter().map(|kind| match kind {
            SERVER_NAME => sni(b"example.com"),
            ALPN => alpn(&head.as_bytes()[8..]),
            SUPPORTED_VERSIONS => versions(&[0x3a3a, 0x0303, real, 0x0302]),
            SIGNATURE_ALGORITHMS => {
                let mut list = signature_list.clone();
                list.insert(list.len() / 2, 0x4a4a);
                signatures(&list)
            }
            kind => (kind, vec![0]),
        }));
        Self { legacy: 0x0303, ciphers, extensions }
    }
}

fn ja4(maker: &Maker, carrier: Carrier) -> String {
    let body = maker.body(carrier == Carrier::Dtls);
    read(&body, body.len(), carrier).ja4.unwrap().into()
}

/// Samples that the authors of JA4 publish: specification and expected outputs of their own captures
/// (`latest`, `sigalg-grease`, `badcurveball`), hashed and raw.
const PUBLISHED: [(&str, &str); 5] = [
    (
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,\
         000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t12d190800_d83cc789557e_7af1ed941c26",
        "t12d190800_000a,002f,0035,003c,003d,009c,009d,c009,c00a,c013,c014,c023,c024,c027,c028,c02b,c02c,c02f,\
         c030_0005,000a,000b,000d,0017,0023,ff01_0804,0805,0806,0401,0501,0201,0403,0503,0203,0202,0601,0603",
    ),
    (
        "t13d1516h2_8daaf6152771_9b887d9acb53",
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,\
         000d,0012,0017,001b,0023,0029,002b,002d,0033,4469,ff01_0403,0804,0401,0503,0805,0501,0806,0601",
    ),
    (
        "t13d1517h2_8daaf6152771_cb7bf5808d99",
        "t13d1517h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,000b,\
         000d,0012,0017,001b,0023,002b,002d,0033,44cd,ca34,fe0d,ff01_0904,0905,0906,0403,0804,0401,0503,0805,\
         0501,0806,0601",
    ),
    (
        "t13d1615h2_46e7e9700bed_45f260be83e2",
        "t13d1615h2_000a,002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_0005,000a,\
         000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,ff01_0403,0804,0401,0503,0805,0501,0806,0601,0201",
    ),
];

#[test]
fn published_fingerprints() {
    for (hashed, raw) in PUBLISHED {
        assert_eq!(ja4(&Maker::of_raw(raw), Carrier::Tcp), hashed);
    }
}

/// The specification's examples of first values whose ends are not alphanumeric.
#[test]
fn odd_protocol_names() {
    let cases: [(&[u8], &str); 9] = [
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"0\xab", "3b"),
        (b"01\xab\xcd", "3d"),
        (b"0\xab\xcd1", "01"),
        (b"h", "hh"),
        (b"http/1.1", "h1"),
        (b"", "00"),
        (b"h-", "6d"),
    ];
    for (name, want) in cases {
        let (first, last) = alpn_ends(name);
        assert_eq!(String::from_iter([first, last]), want, "{}", name.escape_ascii());
    }
}

/// The specification's example of a hello without signature algorithms; and one with nothing to hash.
#[test]
fn empty_lists() {
    let raw = "t13d1516h2_002f_0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01";
    assert!(ja4(&Maker::of_raw(raw), Carrier::Tcp).ends_with("_6d807ffa2a79"));
    let nothing = Maker { legacy: 0x0300, ciphers: vec![0x0a0a], extensions: vec![sni(b"a"), alpn(b"")] };
    assert_eq!(ja4(&nothing, Carrier::Tcp), "ts3d000200_000000000000_000000000000");
}

#[test]
fn carriers_and_versions() {
    let maker = |legacy, list: &[u16]| Maker { legacy, ciphers: vec![1], extensions: vec![versions(list)] };
    let head = |maker: &Maker, carrier| ja4(maker, carrier)[..4].to_owned();
    assert_eq!(head(&maker(0xfefd, &[0xfefd]), Carrier::Dtls), "dd2i");
    assert_eq!(head(&maker(0x0303, &[0x0304]), Carrier::Quic), "q13i");
    assert_eq!(head(&maker(0x0301, &[]), Carrier::Tcp), "t10i");
    // Drafts of TLS 1.3 are unknown versions, and higher than any known one.
    assert_eq!(head(&maker(0x0303, &[0x7f17, 0x0303]), Carrier::Tcp), "t00i");
    let many = Maker { legacy: 0x0303, ciphers: (0x100..0x200).collect(), extensions: Vec::new() };
    assert_eq!(&ja4(&many, Carrier::Tcp)[..10], "t12i990000");
}

/// Whatever is cut off: the names that stand before the cut, and a fingerprint only of the whole.
#[test]
fn cut_anywhere() {
    let maker = Maker::of_raw(PUBLISHED[0].1);
    let body = maker.body(false);
    let whole = read(&body, body.len(), Carrier::Tcp);
    for cut in 0..body.len() {
        let part = read(&body[..cut], body.len(), Carrier::Tcp);
        assert_eq!(part.ja4, None);
        assert!(part.sni.is_none() || part.sni == whole.sni);
        assert!(part.alpn.is_none() || part.alpn == whole.alpn);
    }
    assert_eq!(whole.sni.as_deref(), Some("example.com"));
    assert_eq!(whole.alpn.as_deref(), Some("h2"));
}
