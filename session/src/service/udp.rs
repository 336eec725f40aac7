//! What a datagram is.

use super::app::App;
use super::hints::Hints;
use super::{Ends, ber, binary, dns, dtls, lines, quic};

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing we know.
    No,
    /// Not enough on its own.
    Hint(Hints),
    /// This protocol.
    Is(App),
    /// DNS, with the first name asked for.
    Dns(dns::Message),
    /// QUIC with Initial packets that may be opened.
    QuicInitial,
    /// A handshake of DTLS.
    Dtls,
}

/// Looks at one datagram.
pub(super) fn look(facts: Ends, from_orig: bool, datagram: &[u8]) -> Look {
    let ports = [facts.orig_port, facts.resp_port];
    if ports.iter().any(|port| dns::is_port(*port))
        && let Some(message) = dns::datagram(datagram, ports)
    {
        return Look::Dns(message);
    }
    match quic::look(datagram) {
        quic::Look::Initial => return Look::QuicInitial,
        quic::Look::Quic => return Look::Is(App::Quic),
        quic::Look::No => {}
    }
    if dtls::is_hello(datagram) {
        return Look::Dtls;
    }
    let app = by_payload(ports, datagram);
    if app != App::Unknown {
        return Look::Is(app);
    }
    if let Some(hint) =
        binary::wireguard(datagram, from_orig).or_else(|| binary::openvpn(datagram, from_orig))
    {
        return Look::Hint(hint);
    }
    dns::datagram(datagram, ports).map_or(Look::No, Look::Dns)
}

fn by_payload(ports: [u16; 2], datagram: &[u8]) -> App {
    let on = |known: &[u16]| ports.iter().any(|port| known.contains(port));
    match datagram.first() {
        Some(b'<') if lines::is_syslog(datagram, on(&[514])) => return App::Syslog,
        Some(b'A'..=b'Z' | b'd') => {
            let app = lines::udp(datagram);
            if app != App::Unknown {
                return app;
            }
        }
        _ => {}
    }
    if binary::is_stun(datagram) || binary::is_old_stun(datagram, on(&[3478])) {
        App::Stun
    } else if binary::is_dhcp(datagram) {
        App::Dhcp
    } else if on(&[546, 547]) && binary::is_dhcpv6(datagram) {
        App::DhcpV6
    } else if on(&[123]) && binary::is_ntp(datagram) {
        App::Ntp
    } else if on(&[1645, 1646, 1812, 1813, 3799]) && binary::is_radius(datagram) {
        App::Radius
    } else if binary::is_tftp(datagram) {
        App::Tftp
    } else if binary::is_dnp3(datagram) {
        App::Dnp3Udp
    } else if binary::is_rdp_udp(datagram) {
        App::RdpUdp
    } else if ber::is_snmp(datagram) {
        App::Snmp
    } else if ber::is_ldap(datagram) {
        App::LdapUdp
    } else if ber::is_kerberos(datagram) {
        App::Kerberos
    } else {
        App::Unknown
    }
}
