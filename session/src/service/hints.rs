//! Evidence that is no proof on its own: it takes that of the other side, or the protocol's own port.

use super::Ends;
use super::app::App;
use std::ops::{BitAnd, BitOr, BitOrAssign};

/// Pieces of evidence that only count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints(u32);

impl Hints {
    pub(super) const NONE: Self = Self(0);
    pub(super) const GREETING_220: Self = Self(1);
    pub(super) const GREETING_OK: Self = Self(1 << 1);
    pub(super) const GREETING_STAR: Self = Self(1 << 2);
    pub(super) const FTP_REQUEST: Self = Self(1 << 3);
    pub(super) const POP_REQUEST: Self = Self(1 << 4);
    pub(super) const SMTP_REQUEST: Self = Self(1 << 5);
    pub(super) const IMAP_REQUEST: Self = Self(1 << 6);
    pub(super) const IRC_REQUEST: Self = Self(1 << 7);
    pub(super) const SOCKS4_REQUEST: Self = Self(1 << 8);
    pub(super) const SOCKS4_REPLY: Self = Self(1 << 9);
    pub(super) const SOCKS5_REQUEST: Self = Self(1 << 10);
    pub(super) const SOCKS5_REPLY: Self = Self(1 << 11);
    pub(super) const MODBUS_ONE: Self = Self(1 << 12);
    pub(super) const MODBUS_OTHER: Self = Self(1 << 13);
    pub(super) const VPN_REQUEST: Self = Self(1 << 14);
    pub(super) const VPN_REPLY: Self = Self(1 << 15);
    pub(super) const WIREGUARD_REQUEST: Self = Self(1 << 16);
    pub(super) const WIREGUARD_REPLY: Self = Self(1 << 17);
    pub(super) const TLS_ONE: Self = Self(1 << 18);
    pub(super) const TLS_OTHER: Self = Self(1 << 19);

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the hints of both sides amount to.
    pub(super) fn together(self) -> App {
        const BOTH: [(Hints, Hints, App); 10] = [
            (Hints::GREETING_220, Hints::SMTP_REQUEST, App::Smtp),
            (Hints::GREETING_220, Hints::FTP_REQUEST, App::Ftp),
            (Hints::GREETING_OK, Hints::POP_REQUEST, App::Pop3),
            (Hints::GREETING_STAR, Hints::IMAP_REQUEST, App::Imap),
            (Hints::SOCKS4_REQUEST, Hints::SOCKS4_REPLY, App::Socks),
            (Hints::SOCKS5_REQUEST, Hints::SOCKS5_REPLY, App::Socks),
            (Hints::MODBUS_ONE, Hints::MODBUS_OTHER, App::Modbus),
            (Hints::VPN_REQUEST, Hints::VPN_REPLY, App::OpenVpn),
            (Hints::WIREGUARD_REQUEST, Hints::WIREGUARD_REPLY, App::WireGuard),
            (Hints::TLS_ONE, Hints::TLS_OTHER, App::Ssl),
        ];
        BOTH.iter()
            .find(|(one, other, _)| self.has(*one) && self.has(*other))
            .map_or(App::Unknown, |(_, _, app)| *app)
    }

    /// What the hints amount to on the protocol's own port. Who opened a session is not always known, so it
    /// may be the port of either side.
    pub(super) fn at_home(self, facts: Ends) -> App {
        let on = |port| self.on_port_of(App::by_port(facts.proto, port));
        match on(facts.resp_port) {
            App::Unknown => on(facts.orig_port),
            app => app,
        }
    }

    fn on_port_of(self, app: App) -> App {
        let agrees = match app {
            App::Smtp => Self::GREETING_220 | Self::SMTP_REQUEST,
            App::Ftp => Self::GREETING_220 | Self::FTP_REQUEST,
            App::Pop3 => Self::GREETING_OK | Self::POP_REQUEST,
            App::Imap => Self::GREETING_STAR | Self::IMAP_REQUEST,
            App::Irc => Self::IRC_REQUEST,
            App::Socks => Self::SOCKS4_REQUEST | Self::SOCKS5_REQUEST,
            App::Modbus => Self::MODBUS_ONE | Self::MODBUS_OTHER,
            App::OpenVpn => Self::VPN_REQUEST | Self::VPN_REPLY,
            App::WireGuard => Self::WIREGUARD_REQUEST | Self::WIREGUARD_REPLY,
            App::Ssl => Self::TLS_ONE | Self::TLS_OTHER,
            _ => Self::NONE,
        };
        if (self & agrees) == Self::NONE { App::Unknown } else { app }
    }
}

impl BitAnd for Hints {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Hints {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Hints {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
