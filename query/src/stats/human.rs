//! Numbers and times for people.

use tapedeck_packet::Timestamp;

/// `1.23 G`: three digits and an SI prefix.
pub(super) fn si(value: f64) -> String {
    let mut value = value;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1000.0, next);
    }
    match prefix {
        "" if value < 9.95 && value.fract() > 1e-9 => format!("{value:.1}"),
        "" => format!("{value:.0}"),
        _ if value < 9.995 => format!("{value:.2}{prefix}"),
        _ if value < 99.95 => format!("{value:.1}{prefix}"),
        _ => format!("{value:.0}{prefix}"),
    }
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

/// `2026-11-21 18:00`.
pub(super) fn minute(ts: Timestamp) -> String {
    let text: String = ts.to_string().chars().take(16).collect();
    text.replace('T', " ")
}

/// `18:00`.
pub(super) fn clock(ts: Timestamp) -> String {
    ts.to_string().chars().skip(11).take(5).collect()
}

/// `11-21`.
pub(super) fn date(ts: Timestamp) -> String {
    ts.to_string().chars().skip(5).take(5).collect()
}

/// The name of an IP protocol, as far as it has a common one.
pub(super) fn protocol(number: &str) -> String {
    let name = match number {
        "1" => "icmp",
        "2" => "igmp",
        "6" => "tcp",
        "17" => "udp",
        "41" => "ip6-in-ip",
        "47" => "gre",
        "50" => "esp",
        "58" => "icmp6",
        "89" => "ospf",
        "112" => "vrrp",
        "132" => "sctp",
        other => return format!("proto {other}"),
    };
    name.to_owned()
}

/// The name of an EtherType, as far as it has a common one.
pub(super) fn ethertype(key: &str) -> String {
    let name = match key {
        "0x0806" => "ARP",
        "0x8035" => "RARP",
        "0x8809" => "slow protocols",
        "0x88cc" => "LLDP",
        "0x888e" => "EAPOL",
        "0x88e5" => "MACsec",
        "0x88f7" => "PTP",
        "llc" => "LLC",
        other => return other.to_owned(),
    };
    format!("{name} ({key})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, want) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (999.0, "999"),
            (999.6, "1.00k"),
            (12_345.0, "12.3k"),
            (9_999_999.0, "10.0M"),
            (1.5e9, "1.50G"),
        ] {
            assert_eq!(si(value), want, "{value}");
        }
    }
}
