//! The numbers that are watched.

use crate::stats::{Dimension, Row};

/// What has one cause more often than not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Bytes and packets.
    Volume,
    /// Sessions, who opens them and how they fail.
    Attempts,
    /// What is for many, and what is not IP.
    Local,
    /// Pairs that talk again and again.
    Recurring,
    /// Traffic that is missing.
    Quiet,
}

/// A number that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// All bytes.
    Bytes,
    /// All packets.
    Packets,
    /// All sessions that began.
    Sessions,
    /// TCP sessions without a handshake.
    FailedHandshakes,
    /// TCP packets with RST.
    Resets,
    /// Hosts that sent.
    SourceHosts,
    /// Hosts that were sent to.
    DestinationHosts,
    /// Broadcast and multicast packets.
    Broadcast,
    /// Fragments.
    Fragments,
    /// Packets of an EtherType other than IP.
    EtherType,
    /// Bytes of an IP protocol.
    ProtocolBytes,
    /// Sessions of an IP protocol.
    ProtocolSessions,
    /// Bytes of a service.
    ServiceBytes,
    /// Sessions of a service.
    ServiceSessions,
    /// Bytes of a server port.
    PortBytes,
    /// Sessions of a server port.
    PortSessions,
    /// Bytes a host sent.
    SourceBytes,
    /// Bytes a host received.
    DestinationBytes,
    /// Bytes between two hosts.
    PairBytes,
    /// Sessions a host opened.
    Opener,
    /// Handshakes of a host that failed.
    Failing,
    /// Regular talk of a pair.
    Recurring,
    /// Minutes without the usual packets, in a row.
    QuietMinutes,
    /// Packets of the whole hour, too few.
    FewPackets,
    /// Sessions of a service, too few.
    ServiceMissing,
}

impl Kind {
    /// The kinds that are compared upward, number by number.
    pub const UPWARD: [Self; 21] = [
        Self::Bytes,
        Self::Packets,
        Self::Sessions,
        Self::FailedHandshakes,
        Self::Resets,
        Self::SourceHosts,
        Self::DestinationHosts,
        Self::Broadcast,
        Self::Fragments,
        Self::EtherType,
        Self::ProtocolBytes,
        Self::ProtocolSessions,
        Self::ServiceBytes,
        Self::ServiceSessions,
        Self::PortBytes,
        Self::PortSessions,
        Self::SourceBytes,
        Self::DestinationBytes,
        Self::PairBytes,
        Self::Opener,
        Self::Failing,
    ];

    /// What it most often shares a cause with.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Bytes
            | Self::Packets
            | Self::ProtocolBytes
            | Self::ServiceBytes
            | Self::PortBytes
            | Self::SourceBytes
            | Self::DestinationBytes
            | Self::PairBytes => Family::Volume,
            Self::Sessions
            | Self::FailedHandshakes
            | Self::Resets
            | Self::SourceHosts
            | Self::DestinationHosts
            | Self::ProtocolSessions
            | Self::ServiceSessions
            | Self::PortSessions
            | Self::Opener
            | Self::Failing => Family::Attempts,
            Self::Broadcast | Self::Fragments | Self::EtherType => Family::Local,
            Self::Recurring => Family::Recurring,
            Self::QuietMinutes | Self::FewPackets | Self::ServiceMissing => Family::Quiet,
        }
    }

    /// Its key names hosts.
    #[must_use]
    pub const fn is_of_hosts(self) -> bool {
        matches!(
            self,
            Self::SourceBytes
                | Self::DestinationBytes
                | Self::PairBytes
                | Self::Opener
                | Self::Failing
                | Self::Recurring
        )
    }

    /// It comes from a top list: a key that is not listed may have something all the same.
    #[must_use]
    pub const fn is_sketched(self) -> bool {
        matches!(
            self,
            Self::SourceBytes | Self::DestinationBytes | Self::PairBytes | Self::Opener | Self::Failing
        )
    }

    /// In what it is counted.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Bytes
            | Self::ProtocolBytes
            | Self::ServiceBytes
            | Self::PortBytes
            | Self::SourceBytes
            | Self::DestinationBytes
            | Self::PairBytes => "bytes",
            Self::Packets
            | Self::Resets
            | Self::Broadcast
            | Self::Fragments
            | Self::EtherType
            | Self::FewPackets => "packets",
            Self::SourceHosts | Self::DestinationHosts => "hosts",
            Self::Sessions
            | Self::FailedHandshakes
            | Self::ProtocolSessions
            | Self::ServiceSessions
            | Self::PortSessions
            | Self::Opener
            | Self::Failing
            | Self::ServiceMissing => "sessions",
            Self::Recurring => "starts",
            Self::QuietMinutes => "minutes",
        }
    }

    /// As in the column `what`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Sessions => "new sessions",
            Self::FailedHandshakes => "failed handshakes",
            Self::Resets => "TCP resets",
            Self::SourceHosts => "source hosts",
            Self::DestinationHosts => "destination hosts",
            Self::Broadcast => "broadcast and multicast packets",
            Self::Fragments => "fragments",
            Self::EtherType => "packets of EtherType",
            Self::ProtocolBytes => "bytes of protocol",
            Self::ProtocolSessions => "new sessions of protocol",
            Self::ServiceBytes => "bytes of service",
            Self::ServiceSessions => "new sessions of service",
            Self::PortBytes => "bytes of server port",
            Self::PortSessions => "new sessions of server port",
            Self::SourceBytes => "bytes sent by",
            Self::DestinationBytes => "bytes received by",
            Self::PairBytes => "bytes between",
            Self::Opener => "sessions opened by",
            Self::Failing => "failed handshakes of",
            Self::Recurring => "regular talk of",
            Self::QuietMinutes => "quiet minutes in a row",
            Self::FewPackets => "packets missing",
            Self::ServiceMissing => "sessions missing of service",
        }
    }

    /// A departure by less than this many units in an hour is not worth a deviation. Where a count is small,
    /// chance makes large ratios of it.
    #[must_use]
    pub const fn floor(self) -> f64 {
        match self {
            Self::Bytes
            | Self::ProtocolBytes
            | Self::ServiceBytes
            | Self::PortBytes
            | Self::SourceBytes
            | Self::DestinationBytes
            | Self::PairBytes => 4e6,
            Self::Packets | Self::FewPackets | Self::EtherType | Self::Broadcast | Self::Fragments => 200.0,
            Self::Resets => 20.0,
            Self::SourceHosts | Self::DestinationHosts => 8.0,
            Self::Sessions
            | Self::ProtocolSessions
            | Self::ServiceSessions
            | Self::PortSessions
            | Self::Opener => 10.0,
            Self::FailedHandshakes | Self::Failing => 8.0,
            Self::Recurring | Self::QuietMinutes | Self::ServiceMissing => 1.0,
        }
    }

    /// The counted numbers of a row, as (kind, value).
    pub(super) fn of_row(dimension: Dimension, row: &Row) -> Vec<(Self, u64)> {
        let or_zero = |value: Option<u64>| value.unwrap_or_default();
        let (bytes, packets, sessions) =
            (or_zero(row.bytes), or_zero(row.packets), or_zero(row.sessions_new));
        match dimension {
            Dimension::Total => vec![
                (Self::Bytes, bytes),
                (Self::Packets, packets),
                (Self::Sessions, sessions),
                (Self::FailedHandshakes, or_zero(row.failed_handshakes)),
                (Self::Resets, or_zero(row.tcp_resets)),
                (Self::Broadcast, or_zero(row.broadcast_packets) + or_zero(row.multicast_packets)),
                (Self::Fragments, or_zero(row.fragment_packets)),
            ],
            Dimension::Protocol => vec![(Self::ProtocolBytes, bytes), (Self::ProtocolSessions, sessions)],
            Dimension::Service => vec![(Self::ServiceBytes, bytes), (Self::ServiceSessions, sessions)],
            Dimension::ServerPort => vec![(Self::PortBytes, bytes), (Self::PortSessions, sessions)],
            Dimension::EtherType => vec![(Self::EtherType, packets)],
            Dimension::TopSource => vec![(Self::SourceBytes, bytes)],
            Dimension::TopDestination => vec![(Self::DestinationBytes, bytes)],
            Dimension::TopPair => vec![(Self::PairBytes, bytes)],
            Dimension::TopOpener => vec![(Self::Opener, sessions)],
            Dimension::TopFailing => vec![(Self::Failing, or_zero(row.failed_handshakes))],
            Dimension::Size | Dimension::Recurring => Vec::new(),
        }
    }
}
