//! The protocols we have names for, and the ports they are at home on.

/// Declares `App` with Zeek's names of the protocols.
macro_rules! apps {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An application protocol.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub(super) enum App {
            /// Not known.
            #[default]
            Unknown,
            $($(#[$doc])* $variant,)*
        }

        impl App {
            /// Zeek's name; ours in Zeek's manner where it has none (docs/services.md).
            pub(super) const fn name(self) -> Option<&'static str> {
                match self {
                    Self::Unknown => None,
                    $(Self::$variant => Some($name),)*
                }
            }
        }
    };
}

apps! {
    BitTorrent = "bittorrent",
    DceRpc = "dce_rpc",
    Dhcp = "dhcp",
    DhcpV6 = "dhcpv6",
    Dnp3Tcp = "dnp3_tcp",
    Dnp3Udp = "dnp3_udp",
    Dns = "dns",
    Dtls = "dtls",
    Ftp = "ftp",
    FtpData = "ftp-data",
    Geneve = "geneve",
    Gtp = "gtpv1",
    Http = "http",
    Http2 = "http2",
    Imap = "imap",
    Irc = "irc",
    Kerberos = "krb",
    KerberosTcp = "krb_tcp",
    LdapTcp = "ldap_tcp",
    LdapUdp = "ldap_udp",
    Modbus = "modbus",
    Mqtt = "mqtt",
    Mysql = "mysql",
    Ntp = "ntp",
    OpenVpn = "openvpn",
    Pop3 = "pop3",
    Postgresql = "postgresql",
    Quic = "quic",
    Radius = "radius",
    Rdp = "rdp",
    RdpUdp = "rdpeudp",
    Redis = "redis",
    Rfb = "rfb",
    Sip = "sip",
    Smb = "smb",
    Smtp = "smtp",
    Snmp = "snmp",
    Socks = "socks",
    Ssdp = "ssdp",
    Ssh = "ssh",
    Ssl = "ssl",
    Stun = "stun",
    Syslog = "syslog",
    Telnet = "telnet",
    Teredo = "teredo",
    Tftp = "tftp",
    Vxlan = "vxlan",
    WireGuard = "wireguard",
    Xmpp = "xmpp",
}

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// IP protocol number of UDP.
pub(super) const UDP: u8 = 17;

impl App {
    /// The protocol at home on the responder's port: IANA's registry, where it is also what one meets there.
    pub(super) const fn by_port(proto: u8, port: u16) -> Self {
        match proto {
            TCP => Self::by_tcp_port(port),
            UDP => Self::by_udp_port(port),
            _ => Self::Unknown,
        }
    }

    const fn by_tcp_port(port: u16) -> Self {
        match port {
            20 => Self::FtpData,
            21 => Self::Ftp,
            22 => Self::Ssh,
            23 => Self::Telnet,
            25 | 587 => Self::Smtp,
            53 => Self::Dns,
            80 | 8080 => Self::Http,
            88 => Self::KerberosTcp,
            110 => Self::Pop3,
            135 => Self::DceRpc,
            139 | 445 => Self::Smb,
            143 => Self::Imap,
            389 | 3268 => Self::LdapTcp,
            443 | 465 | 563 | 636 | 853 | 989 | 990 | 992 | 993 | 995 | 3269 | 5061 | 8443 | 8883 => {
                Self::Ssl
            }
            502 => Self::Modbus,
            1080 => Self::Socks,
            1194 => Self::OpenVpn,
            1883 => Self::Mqtt,
            3306 => Self::Mysql,
            3389 => Self::Rdp,
            3478 => Self::Stun,
            5060 => Self::Sip,
            5222 | 5269 => Self::Xmpp,
            5432 => Self::Postgresql,
            5900 => Self::Rfb,
            6379 => Self::Redis,
            6667 => Self::Irc,
            20000 => Self::Dnp3Tcp,
            _ => Self::Unknown,
        }
    }

    const fn by_udp_port(port: u16) -> Self {
        match port {
            53 | 137 | 5353 | 5355 => Self::Dns,
            67 | 68 => Self::Dhcp,
            69 => Self::Tftp,
            88 => Self::Kerberos,
            123 => Self::Ntp,
            161 | 162 => Self::Snmp,
            389 => Self::LdapUdp,
            443 => Self::Quic,
            514 => Self::Syslog,
            546 | 547 => Self::DhcpV6,
            1194 => Self::OpenVpn,
            1645 | 1646 | 1812 | 1813 => Self::Radius,
            1900 => Self::Ssdp,
            2123 | 2152 => Self::Gtp,
            3389 => Self::RdpUdp,
            3478 => Self::Stun,
            3544 => Self::Teredo,
            4789 => Self::Vxlan,
            5060 => Self::Sip,
            6081 => Self::Geneve,
            20000 => Self::Dnp3Udp,
            51820 => Self::WireGuard,
            _ => Self::Unknown,
        }
    }

    /// Whether a session of this protocol may go on as TLS, or carry another session.
    pub(super) const fn upgrades(self) -> bool {
        matches!(
            self,
            Self::Ftp
                | Self::Imap
                | Self::Irc
                | Self::LdapTcp
                | Self::Mysql
                | Self::Pop3
                | Self::Postgresql
                | Self::Rdp
                | Self::Smtp
                | Self::Socks
                | Self::Xmpp
        )
    }
}
