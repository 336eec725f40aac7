//! The record of a session: one row of `sessions/`, before it becomes a row.
//!
//! Names are Zeek's where Zeek has one: the side that opened the session is the originator, the other the
//! responder; `conn_state` and `history` mean what they mean in its conn.log.

use crate::merge::Half;
use std::fmt;
use std::net::IpAddr;
use tapedeck_packet::{Timestamp, Tunnel};

/// Which of a session's records this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// The session goes on: what came since its last record.
    Interim,
    /// The session has ended: what came since its last record.
    Final,
    /// No record yet but the state of a session that goes on: what came since its last record, with the
    /// number that its next record will have. Each replaces the one before; the record replaces them all.
    Open,
    /// No record: the state that was told under this uid is told, or recorded, under another one by now.
    Withdrawn,
    /// Not one session: all packets of a stretch of time that found no room in the table.
    Coarse,
}

impl RecordKind {
    /// As in the column `record_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interim => "interim",
            Self::Final => "final",
            Self::Open => "open",
            Self::Withdrawn => "withdrawn",
            Self::Coarse => "coarse",
        }
    }
}

/// Zeek's `conn_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnState {
    /// Attempt seen, no reply.
    S0,
    /// Established, not ended.
    S1,
    /// Established, the originator has closed, no reply from the responder.
    S2,
    /// Established, the responder has closed, no reply from the originator.
    S3,
    /// Ordinary establishment and end.
    Sf,
    /// Attempt rejected.
    Rej,
    /// Established, the originator aborted.
    Rsto,
    /// The responder aborted.
    Rstr,
    /// The originator sent SYN then RST; no SYN-ACK from the responder.
    Rstos0,
    /// The responder sent SYN-ACK then RST; no SYN from the originator.
    Rstrh,
    /// The originator sent SYN then FIN; no SYN-ACK from the responder.
    Sh,
    /// The responder sent SYN-ACK then FIN; no SYN from the originator.
    Shr,
    /// No SYN seen: midstream.
    #[default]
    Oth,
}

impl ConnState {
    /// Zeek's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::Sf => "SF",
            Self::Rej => "REJ",
            Self::Rsto => "RSTO",
            Self::Rstr => "RSTR",
            Self::Rstos0 => "RSTOS0",
            Self::Rstrh => "RSTRH",
            Self::Sh => "SH",
            Self::Shr => "SHR",
            Self::Oth => "OTH",
        }
    }
}

/// Why a record was written: the values 1 to 5 of IPFIX flowEndReason (RFC 5102, 5.11.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EndReason {
    /// Nothing came any more.
    IdleTimeout = 1,
    /// It goes on; an interim record was due.
    ActiveTimeout = 2,
    /// Its end was seen (FIN on both sides, RST).
    EndOfFlow = 3,
    /// The recorder ended.
    Forced = 4,
    /// The table was full and this session was the one to go.
    LackOfResources = 5,
}

/// Number of a session, unique over all runs of all sensors as far as `run` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    /// The run that saw it begin.
    pub run: u32,
    /// Number of the (interface, queue) chain in the run.
    pub chain: u16,
    /// Number of the session in the chain, from 0. Only the lower 48 bits are kept in the text.
    pub number: u64,
}

/// `C` and 17 base-62 digits: as long as Zeek's, always the same length, in order of run, chain, number.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let number = u128::from(self.number & 0xffff_ffff_ffff);
        let mut rest = (u128::from(self.run) << 64) | (u128::from(self.chain) << 48) | number;
        let mut text = [b'C'; 18];
        for place in text.iter_mut().skip(1).rev() {
            let digit = usize::try_from(rest % 62).unwrap_or_default();
            *place = DIGITS.get(digit).copied().unwrap_or(b'0');
            rest /= 62;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// What one side sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on, as the IP header says (Zeek's `orig_ip_bytes`).
    pub ip_bytes: u64,
    /// Payload bytes (Zeek's `orig_bytes`: for TCP from the sequence numbers, else what was seen).
    pub payload_bytes: u64,
    /// Bytes of the captured packets, link layer included, as on the wire.
    pub wire_bytes: u64,
    /// TCP segments that carried nothing new.
    pub retransmissions: u64,
    /// Bytes that were not kept, under pressure or by the snap length.
    pub cut_bytes: u64,
}

impl Volume {
    /// The sum of both.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            ip_bytes: self.ip_bytes + other.ip_bytes,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            retransmissions: self.retransmissions + other.retransmissions,
            cut_bytes: self.cut_bytes + other.cut_bytes,
        }
    }
}

/// One side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Address.
    pub address: IpAddr,
    /// Port; for ICMP as Zeek has it: type (originator) and code (responder); 0 where there is none.
    pub port: u16,
    /// What it sent since the session's last record.
    pub volume: Volume,
    /// What it sent since the session began.
    pub total: Volume,
    /// OR of its TCP flags, CWR (0x80) to FIN (0x01).
    pub tcp_flags: u8,
    /// TTL or hop limit of its first packet; `None` if it sent none.
    pub ttl: Option<u8>,
    /// Link-layer address of its first packet (of the peer's destination, if it sent none).
    pub mac: Option<[u8; 6]>,
}

/// How the service was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceSource {
    /// By the payload's signature.
    Payload,
    /// By the responder's port.
    Port,
    /// Not at all.
    #[default]
    None,
}

impl ServiceSource {
    /// As in the column `service_source`; `None` is null there.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Payload => Some("payload"),
            Self::Port => Some("port"),
            Self::None => None,
        }
    }
}

/// What the payload says of the service. Text comes from packets: it is hostile, and at most 255 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Zeek's name of it (`ssl`, `http`, `dns`, `ssh`, `quic`, ...).
    pub name: Option<&'static str>,
    /// How it was found.
    pub source: ServiceSource,
    /// TLS or QUIC server name.
    pub sni: Option<Box<str>>,
    /// First application protocol the client offers (ALPN).
    pub alpn: Option<Box<str>>,
    /// JA4 of the TLS client hello.
    pub ja4: Option<Box<str>>,
    /// HTTP host.
    pub http_host: Option<Box<str>>,
    /// First DNS name asked for.
    pub dns_query: Option<Box<str>>,
}

/// Packets of a session: frames `first` to `last` of one segment hold all those between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketRef {
    /// Number of the segment in the run (`seq` of its name; run, sensor are the record's).
    pub segment: u32,
    /// First frame with a packet of the session.
    pub first_frame: u32,
    /// Last frame with one.
    pub last_frame: u32,
}

/// A row of `sessions/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which record of the session.
    pub kind: RecordKind,
    /// Number of this record in the session, from 0.
    pub number: u32,
    /// The session.
    pub uid: Uid,
    /// The session in whose payload this one travels: the tunnel.
    pub parent: Option<Uid>,
    /// It travels inside another IP packet: its packets are counted there too. The records that are not
    /// inner add up to the packets of the link.
    pub inner: bool,
    /// First packet of the session.
    pub ts: Timestamp,
    /// First packet of this record; at most five minutes before `ts_last`.
    pub ts_interval: Timestamp,
    /// Last packet.
    pub ts_last: Timestamp,
    /// IP protocol.
    pub proto: u8,
    /// Who opened it.
    pub orig: Side,
    /// Who answered.
    pub resp: Side,
    /// The originator is known by a SYN, a request or the like, not only for having come first.
    pub originator_known: bool,
    /// Zeek's `conn_state`, of the session so far.
    pub conn_state: ConnState,
    /// Zeek's `history`, of the session so far.
    pub history: Box<str>,
    /// Bytes missing between sequence numbers, of the session so far (Zeek's `missed_bytes`).
    pub missed_bytes: u64,
    /// Why this record was written.
    pub end_reason: EndReason,
    /// Service, as far as known.
    pub service: Service,
    /// Round trip of the handshake at this sensor, SYN to the ACK of the SYN-ACK, ns.
    pub syn_rtt_ns: Option<u64>,
    /// VLAN ids of the session's layer, outermost first; at most two.
    pub vlans: [Option<u16>; 2],
    /// Top MPLS label.
    pub mpls: Option<u32>,
    /// What carried the session's layer.
    pub tunnel: Tunnel,
    /// Identifier of that tunnel (VNI, GRE key, TEID).
    pub tunnel_id: Option<u32>,
    /// Queue the session was seen on (the originator's, where its two halves came on two).
    pub queue: u32,
    /// The two directions came on different queues and were joined.
    pub split: bool,
    /// Packets of this record that are in the store: all, but for loss behind the session table.
    pub stored_packets: u64,
    /// The ledger shows loss on its queue while it lived.
    pub loss_during: bool,
    /// Statistics count packets under this session: not all of them carry a further IP packet. Only known to
    /// tables with statistics.
    pub counted: bool,
    /// Where its packets are, since the last record; in order.
    pub refs: Vec<PacketRef>,
    /// With `Config::split`, of a session of which this table has seen one direction only: what the merger
    /// needs of it.
    pub half: Option<Box<Half>>,
    /// Some references were left out for want of room: a scan of the time between finds all packets.
    pub refs_incomplete: bool,
}
