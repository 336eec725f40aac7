//! Ports that tell a server: Zeek's `likely_server_ports`.
//!
//! Only asked when a session begins without a handshake; then the side with such a port is the responder.

/// A set of TCP and of UDP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPorts {
    tcp: Box<[u64]>,
    udp: Box<[u64]>,
}

const WORDS: usize = 65_536 / 64;

/// What Zeek's protocol scripts register, as `zeek` without `-b` loads them.
const TCP: &[(u16, u16)] = &[
    (21, 22),
    (25, 25),
    (53, 53),
    (79, 79),
    (80, 81),
    (88, 88),
    (110, 111),
    (135, 135),
    (139, 139),
    (143, 143),
    (389, 389),
    (443, 443),
    (445, 445),
    (502, 502),
    (563, 563),
    (585, 585),
    (587, 587),
    (614, 614),
    (631, 631),
    (636, 636),
    (989, 990),
    (992, 993),
    (995, 995),
    (1080, 1080),
    (1434, 1434),
    (1883, 1883),
    (2811, 2811),
    (3128, 3128),
    (3268, 3268),
    (3306, 3306),
    (3389, 3389),
    (5222, 5223),
    (5269, 5269),
    (5432, 5432),
    (5900, 5901),
    (6379, 6379),
    (6666, 6669),
    (8000, 8000),
    (8080, 8080),
    (8888, 8888),
    (20_000, 20_000),
];

const UDP: &[(u16, u16)] = &[
    (53, 53),
    (67, 67),
    (88, 88),
    (111, 111),
    (123, 123),
    (137, 137),
    (161, 162),
    (389, 389),
    (443, 443),
    (514, 514),
    (1812, 1812),
    (2123, 2123),
    (2152, 2152),
    (3389, 3389),
    (3544, 3544),
    (4789, 4789),
    (5060, 5060),
    (5072, 5072),
    (5353, 5353),
    (5355, 5355),
    (6081, 6081),
    (20_000, 20_000),
];

/// UDP ports whose sessions end after a short silence: Zeek's DNS analyzer has a timer of its own.
pub(crate) const fn is_dns(port: u16) -> bool {
    matches!(port, 53 | 137 | 5353 | 5355)
}

impl ServerPorts {
    /// No port at all.
    #[must_use]
    pub fn none() -> Self {
        Self { tcp: vec![0; WORDS].into(), udp: vec![0; WORDS].into() }
    }

    /// Those of Zeek's protocol scripts.
    #[must_use]
    pub fn zeek() -> Self {
        let mut ports = Self::none();
        for port in TCP.iter().flat_map(|(first, last)| *first..=*last) {
            ports.add_tcp(port);
        }
        for port in UDP.iter().flat_map(|(first, last)| *first..=*last) {
            ports.add_udp(port);
        }
        ports
    }

    /// Adds a TCP port.
    pub fn add_tcp(&mut self, port: u16) {
        set(&mut self.tcp, port);
    }

    /// Adds a UDP port.
    pub fn add_udp(&mut self, port: u16) {
        set(&mut self.udp, port);
    }

    pub(crate) fn tcp(&self, port: u16) -> bool {
        has(&self.tcp, port)
    }

    pub(crate) fn udp(&self, port: u16) -> bool {
        has(&self.udp, port)
    }
}

fn set(words: &mut [u64], port: u16) {
    if let Some(word) = words.get_mut(usize::from(port / 64)) {
        *word |= 1 << (port % 64);
    }
}

fn has(words: &[u64], port: u16) -> bool {
    words.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 == 1)
}
