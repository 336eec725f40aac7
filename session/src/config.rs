//! What a table may hold and how long it waits.
//!
//! The times are Zeek's (`scripts/base/init-bare.zeek`), under Zeek's names, in nanoseconds.

use crate::input::proto;
use crate::ports::ServerPorts;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// How long a session may be silent, and how long a closed one is kept. All in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp_inactivity: u64,
    /// UDP, and TCP before its handshake is done.
    pub udp_inactivity: u64,
    /// DNS and its kin over UDP, looked at once in this time (Zeek's `dns_session_timeout`).
    pub dns_session: u64,
    /// ICMP.
    pub icmp_inactivity: u64,
    /// Every other IP protocol.
    pub other_inactivity: u64,
    /// After a SYN without an answer.
    pub tcp_attempt_delay: u64,
    /// After a complete close.
    pub tcp_close_delay: u64,
    /// First look at a TCP connection that may be half closed, after its start.
    pub tcp_syn_timeout: u64,
    /// Between two such looks.
    pub tcp_session_timer: u64,
    /// How long a half closed one must have been silent.
    pub tcp_connection_linger: u64,
    /// At most this long after the first packet of a record, the next record begins.
    pub interim: u64,
    /// How long later fragments wait for others of their datagram.
    pub fragment: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_inactivity: 5 * MINUTE,
            udp_inactivity: MINUTE,
            dns_session: 10 * SECOND,
            icmp_inactivity: MINUTE,
            other_inactivity: MINUTE,
            tcp_attempt_delay: 5 * SECOND,
            tcp_close_delay: 5 * SECOND,
            tcp_syn_timeout: 5 * SECOND,
            tcp_session_timer: 6 * SECOND,
            tcp_connection_linger: 5 * SECOND,
            interim: 5 * MINUTE,
            fragment: 30 * SECOND,
        }
    }
}

impl Timeouts {
    /// When a DNS session that began at `first` and had its last packet at `last` is found silent.
    pub(crate) fn dns_expiry(&self, first: u64, last: u64) -> u64 {
        // A second less than the time itself, so that request and reply need one look only.
        const EARLY: u64 = SECOND;
        let step = self.dns_session.max(1);
        let silent = last.saturating_add(step.saturating_sub(EARLY));
        let looks = silent.saturating_sub(first).div_ceil(step).max(1);
        first.saturating_add(looks.saturating_mul(step))
    }

    /// For how long a session of an IP protocol other than TCP may be silent.
    pub(crate) const fn inactivity(&self, number: u8) -> u64 {
        match number {
            proto::TCP | proto::UDP => self.udp_inactivity,
            proto::ICMP | proto::ICMPV6 => self.icmp_inactivity,
            _ => self.other_inactivity,
        }
    }
}

/// How a [`crate::Table`] is built.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of the run: first part of every uid.
    pub run: u32,
    /// Number of the (interface, queue) chain in the run: second part of every uid.
    pub chain: u16,
    /// Queue, as the records say it.
    pub queue: u32,
    /// Sessions held at once, 1 to 2^30. Memory follows from it: [`Config::memory_bytes`].
    pub max_sessions: u32,
    /// Sessions per second that may push out another when the table is full; what comes beyond that is
    /// counted in coarse records.
    pub max_evictions_per_second: u32,
    /// Payload inspectors held at once. A session needs one from its first payload until the inspector
    /// knows enough.
    pub max_inspectors: u32,
    /// Datagrams whose fragments are followed at once.
    pub max_datagrams: u32,
    /// Reassembly lists for TCP streams with holes, at once. One that finds none counts its hole at once.
    pub max_holes: u32,
    /// Frames between two packets of a session up to which its first packet reference covers both; with each
    /// further reference four times as many.
    pub ref_gap: u32,
    /// Two packets that differ only in their VLAN tags belong to two sessions.
    pub vlan_in_key: bool,
    /// The directions of a session may reach different tables: keep what [`crate::merge`] needs.
    pub split: bool,
    /// Blocks of the event logs for split sessions, at once.
    pub max_log_blocks: u32,
    /// Secret of the hash. Choose it at random per run: who knows it can make all his sessions collide.
    pub hash_seed: u64,
    /// Ports that tell a server where no handshake does.
    pub server_ports: ServerPorts,
    /// Times.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run: 0,
            chain: 0,
            queue: 0,
            max_sessions: 1 << 18,
            max_evictions_per_second: 1 << 14,
            max_inspectors: 1 << 16,
            max_datagrams: 1 << 12,
            max_holes: 1 << 13,
            ref_gap: 16,
            vlan_in_key: false,
            split: false,
            max_log_blocks: 1 << 16,
            hash_seed: 0x5eed_0f7a_9ede_c000,
            server_ports: ServerPorts::zeek(),
            timeouts: Timeouts::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_sessions_are_looked_at_every_ten_seconds() {
        let times = Timeouts::default();
        assert_eq!(times.dns_expiry(5 * SECOND, 5 * SECOND), 15 * SECOND);
        assert_eq!(times.dns_expiry(5 * SECOND, 6 * SECOND), 15 * SECOND);
        assert_eq!(times.dns_expiry(5 * SECOND, 7 * SECOND), 25 * SECOND);
        assert_eq!(times.dns_expiry(5 * SECOND, 16 * SECOND), 25 * SECOND);
        assert_eq!(times.dns_expiry(5 * SECOND, 3 * SECOND), 15 * SECOND);
    }
}
