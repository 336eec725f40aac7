//! Which application protocol a session speaks, by its payload.
//!
//! A [`Probe`] is fed the first payload packets of a session, of both sides. It looks at the beginning of each
//! side's TCP stream, or at single datagrams, and knows a protocol by a signature that chance does not pass;
//! where one side's word is no proof (`220 `), it waits for the other's. No answer is better than a wrong one:
//! what no signature matches gets the name that belongs to the responder's port, marked as such.
//!
//! A session that matches nothing costs a few comparisons and no memory. Memory is taken only where the
//! beginning of a stream is not whole: a client hello in several segments, segments out of order. It is
//! bounded by [`HELD_MAX`] bytes and given back as soon as the answer is there or cannot come any more.
//!
//! Every byte here is hostile: nothing is trusted beyond the slice it came in, and every loop ends with it.

mod app;
mod ber;
mod binary;
mod cursor;
mod dns;
mod dtls;
mod gather;
mod hello;
mod hints;
mod http;
mod lines;
mod quic;
mod tcp;
mod tls;
mod udp;

use crate::inspect::{Ends, Inspector};
use crate::record::{Service, ServiceSource};
use app::App;
use gather::Gather;
use hello::Hello;
use hints::Hints;

/// Bytes of payload that one session may have held at a time; what is kept beside them is small.
pub const HELD_MAX: usize = 2 * gather::LIMIT;
/// Longest text of a [`Service`], in bytes.
pub const TEXT_MAX: usize = 255;

/// Payload packets that are looked at while nothing is known.
const UNKNOWN_MAX: u8 = 12;
/// Payload packets that are looked at for the rest of a handshake, or for one that follows.
const KNOWN_MAX: u8 = 48;

/// Whether a probe wants to see more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Feed it the next payload packet.
    More,
    /// It has seen enough; further feeding changes nothing.
    Done,
}

/// How far a probe is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Looking for a signature.
    #[default]
    Unknown,
    /// The protocol is known; a client hello or a request may come yet.
    Known,
    /// Nothing more to see.
    Done,
}

/// The state of finding out what a session speaks: 16 bytes, and memory only while a handshake is gathered.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    work: Option<Box<Work>>,
    hints: Hints,
    app: App,
    stage: Stage,
    /// Payload packets seen.
    fed: u8,
    /// Sides whose beginning has been judged: 1 originator, 2 responder.
    judged: u8,
}

const _: () = assert!(size_of::<Probe>() <= 16, "one per session of the table");

/// What is held beside the protocol's name.
#[derive(Clone, Debug, Default)]
struct Work {
    found: Found,
    /// The streams of TCP, originator's and responder's, where they must be gathered.
    streams: [Option<Gather>; 2],
    quic: Option<quic::Quic>,
    dtls: Option<dtls::Dtls>,
}

/// What has been read out of the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    hello: Hello,
    host: Option<Box<str>>,
    query: Option<Box<str>>,
}

impl Work {
    fn stream(&mut self, from_orig: bool) -> &mut Option<Gather> {
        let [orig, resp] = &mut self.streams;
        if from_orig { orig } else { resp }
    }
}

impl Probe {
    /// A probe that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the payload of one packet.
    ///
    /// `from_orig`: the originator sent it. `stream_offset`: for TCP the place of its first byte in that side's
    /// stream, from 0 at the first payload byte, modulo 2^32; not looked at for UDP. Packets may come twice and
    /// in any order. `payload` may be cut; an empty one changes nothing.
    pub fn feed(&mut self, facts: Ends, from_orig: bool, stream_offset: u32, payload: &[u8]) -> Progress {
        if self.stage == Stage::Done {
            return Progress::Done;
        }
        if payload.is_empty() {
            return Progress::More;
        }
        self.fed = self.fed.saturating_add(1);
        match facts.proto {
            app::TCP => self.segment(facts, from_orig, stream_offset, payload),
            app::UDP => self.datagram(facts, from_orig, payload),
            _ => self.stage = Stage::Done,
        }
        let most = if self.stage == Stage::Unknown { UNKNOWN_MAX } else { KNOWN_MAX };
        if self.stage == Stage::Done || self.fed >= most {
            self.stop(facts);
            return Progress::Done;
        }
        Progress::More
    }

    /// Whether the probe wants to see more.
    #[must_use]
    pub fn progress(&self) -> Progress {
        if self.stage == Stage::Done { Progress::Done } else { Progress::More }
    }

    /// What is known so far: for the record of a session that goes on.
    #[must_use]
    pub fn service(&self, facts: Ends) -> Service {
        let mut probe = self.clone();
        probe.stop(facts);
        probe.into_service(facts)
    }

    /// What is known in the end. Without a signature: the protocol of the responder's port.
    #[must_use]
    pub fn finish(mut self, facts: Ends) -> Service {
        self.stop(facts);
        self.into_service(facts)
    }

    fn into_service(self, facts: Ends) -> Service {
        let by_port = App::by_port(facts.proto, facts.resp_port);
        let (app, source) = match (self.app, by_port) {
            (App::Unknown, App::Unknown) => (App::Unknown, ServiceSource::None),
            (App::Unknown, by_port) => (by_port, ServiceSource::Port),
            (app, _) => (app, ServiceSource::Payload),
        };
        let Found { hello, host, query } = self.work.map(|work| work.found).unwrap_or_default();
        Service {
            name: app.name(),
            source,
            sni: hello.sni,
            alpn: hello.alpn,
            ja4: hello.ja4,
            http_host: host,
            dns_query: query,
        }
    }

    fn found(&mut self) -> &mut Found {
        &mut self.work.get_or_insert_default().found
    }

    /// Ends the search: what is held gives up what it has, and its memory.
    fn stop(&mut self, facts: Ends) {
        self.stage = Stage::Done;
        if self.app == App::Unknown {
            self.app = self.hints.at_home(facts);
        }
        let Some(mut work) = self.work.take() else { return };
        for stream in std::mem::take(&mut work.streams).into_iter().flatten() {
            let head = tcp::behind_relay(stream.prefix()).unwrap_or_default();
            if tls::start(head) == tls::Start::ClientHello && work.found.hello == Hello::default() {
                let (tls::Read::Whole(hello) | tls::Read::Part(hello, _) | tls::Read::Broken(hello)) =
                    tls::client_hello(head);
                work.found.hello = hello;
            } else if self.app == App::Unknown && dns::is_port(facts.resp_port) {
                work.found.query = dns::partial(head);
                self.app = if work.found.query.is_some() { App::Dns } else { App::Unknown };
            }
        }
        if let Some(quic) = work.quic.take() {
            work.found.hello = quic.partial();
        }
        if let Some(dtls) = work.dtls.take() {
            work.found.hello = dtls.partial();
        }
        if work.found != Found::default() {
            self.work = Some(work);
        }
    }

    fn segment(&mut self, facts: Ends, from_orig: bool, offset: u32, payload: &[u8]) {
        if let Some(work) = &mut self.work
            && let Some(mut stream) = work.stream(from_orig).take()
        {
            if stream.add(offset, payload) {
                match self.examine(facts, from_orig, stream.prefix()) {
                    Some(wanted) => stream.wanted = wanted,
                    None => return,
                }
            }
            self.keep(from_orig, stream);
            return;
        }
        let side = if from_orig { 1 } else { 2 };
        let at_start = offset == 0 || (self.stage == Stage::Known && begins_session(self.app, payload));
        if at_start {
            if let Some(wanted) = self.examine(facts, from_orig, payload) {
                self.gather(from_orig, offset, wanted, offset, payload);
            }
        } else if self.judged & side == 0 && usize::try_from(offset).is_ok_and(|at| at < gather::LIMIT) {
            // The beginning of this side comes later.
            self.gather(from_orig, 0, 1, offset, payload);
        }
    }

    fn gather(&mut self, from_orig: bool, base: u32, wanted: usize, offset: u32, payload: &[u8]) {
        let mut stream = Gather::new(base, wanted);
        stream.add(offset, payload);
        self.keep(from_orig, stream);
    }

    /// Holds a stream for its next segment, unless what is wanted of it can never come.
    fn keep(&mut self, from_orig: bool, stream: Gather) {
        if stream.hopeless() {
            self.judged |= if from_orig { 1 } else { 2 };
            if self.stage == Stage::Unknown {
                return;
            }
            // It does not get better: what is there of it counts.
            self.stage = Stage::Done;
        }
        *self.work.get_or_insert_default().stream(from_orig) = Some(stream);
    }

    /// Looks at the beginning of a side's stream, or of a session inside it. `Some`: it should be looked at
    /// again with so many bytes.
    fn examine(&mut self, facts: Ends, from_orig: bool, stream: &[u8]) -> Option<usize> {
        let head = match tcp::behind_relay(stream) {
            Ok(head) => head,
            Err(wanted) => return Some(wanted),
        };
        let wanted = self.judge(facts, from_orig, head)?;
        Some(stream.len() - head.len() + wanted)
    }

    fn judge(&mut self, facts: Ends, from_orig: bool, head: &[u8]) -> Option<usize> {
        if self.stage == Stage::Unknown {
            match tcp::look(facts, from_orig, head) {
                tcp::Look::Need(wanted) => return Some(wanted),
                tcp::Look::No => {}
                tcp::Look::Hint(hints) => {
                    self.hints |= hints;
                    self.app = self.hints.together();
                }
                tcp::Look::Is(app) => self.app = app,
                tcp::Look::Dns(message) => {
                    self.dns(message);
                    return None;
                }
            }
        }
        self.judged |= if from_orig { 1 } else { 2 };
        if self.app == App::Unknown {
            if self.judged == 3 {
                self.stage = Stage::Done;
            }
            return None;
        }
        self.stage = Stage::Known;
        self.details(head)
    }

    /// Reads what a known protocol tells; `Some`: it takes so many bytes.
    fn details(&mut self, head: &[u8]) -> Option<usize> {
        match tls::start(head) {
            tls::Start::ClientHello => return self.client_hello(head),
            // The client's hello may come yet, late or from the other queue.
            tls::Start::ServerHello => return None,
            tls::Start::OldClientHello => {
                self.stage = Stage::Done;
                return None;
            }
            tls::Start::Short | tls::Start::No => {}
        }
        match http::start(head) {
            http::Start::Request if matches!(self.app, App::Http | App::Socks) => self.request(head),
            http::Start::Response if self.app == App::Http => None,
            _ => {
                if !self.app.upgrades() {
                    self.stage = Stage::Done;
                }
                None
            }
        }
    }

    fn client_hello(&mut self, head: &[u8]) -> Option<usize> {
        match tls::client_hello(head) {
            tls::Read::Whole(hello) | tls::Read::Broken(hello) => {
                self.found().hello = hello;
                self.stage = Stage::Done;
                None
            }
            tls::Read::Part(_, wanted) => Some(wanted),
        }
    }

    fn request(&mut self, head: &[u8]) -> Option<usize> {
        let request = http::request(head);
        if !request.whole {
            return Some(head.len() + 1);
        }
        if request.host.is_some() {
            self.found().host = request.host;
        }
        if !request.connect {
            self.stage = Stage::Done;
        }
        None
    }

    fn dns(&mut self, message: dns::Message) {
        self.app = App::Dns;
        self.stage = Stage::Known;
        if message.query.is_some() {
            self.found().query = message.query;
            self.stage = Stage::Done;
        }
    }

    fn datagram(&mut self, facts: Ends, from_orig: bool, datagram: &[u8]) {
        match udp::look(facts, from_orig, datagram) {
            udp::Look::No => {}
            udp::Look::Hint(hints) if self.app == App::Unknown => {
                self.hints |= hints;
                self.app = self.hints.together();
                if self.app != App::Unknown {
                    self.stage = Stage::Done;
                }
            }
            udp::Look::Dns(message) if matches!(self.app, App::Unknown | App::Dns) => self.dns(message),
            udp::Look::QuicInitial if matches!(self.app, App::Unknown | App::Quic) => self.quic(datagram),
            udp::Look::Is(App::Quic) if matches!(self.app, App::Unknown | App::Quic) => {
                // A version negotiation, a server's packet: the client's hello may come yet.
                self.app = App::Quic;
                self.stage = Stage::Known;
            }
            udp::Look::Dtls if matches!(self.app, App::Unknown | App::Dtls | App::Stun) => {
                self.dtls(datagram)
            }
            udp::Look::Is(app) if self.app == App::Unknown => {
                self.app = app;
                // Media sessions begin with STUN and go on with DTLS.
                self.stage = if app == App::Stun { Stage::Known } else { Stage::Done };
            }
            _ => {}
        }
    }

    fn quic(&mut self, datagram: &[u8]) {
        self.app = App::Quic;
        self.stage = Stage::Known;
        let work = self.work.get_or_insert_default();
        let quic = work.quic.get_or_insert_with(quic::Quic::new);
        if let Some(hello) = quic.datagram(datagram) {
            work.found.hello = hello;
            work.quic = None;
            self.stage = Stage::Done;
        } else if quic.hopeless() {
            self.stage = Stage::Done;
        }
    }

    fn dtls(&mut self, datagram: &[u8]) {
        if self.app == App::Unknown {
            self.app = App::Dtls;
        }
        self.stage = Stage::Known;
        let work = self.work.get_or_insert_default();
        let dtls = work.dtls.get_or_insert_with(dtls::Dtls::new);
        if let Some(hello) = dtls.datagram(datagram) {
            work.found.hello = hello;
            work.dtls = None;
            self.stage = Stage::Done;
        } else if dtls.hopeless() {
            self.stage = Stage::Done;
        }
    }
}

impl Inspector for Probe {
    fn feed(&mut self, ends: Ends, from_orig: bool, offset: u64, payload: &[u8]) -> bool {
        // The table shows the first 64 KiB of each side only.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        Self::feed(self, ends, from_orig, offset, payload) == Progress::More
    }

    fn finish(self, ends: Ends) -> Service {
        Self::finish(self, ends)
    }
}

/// Whether a segment in the middle of a known session begins a session inside it.
fn begins_session(app: App, payload: &[u8]) -> bool {
    tls::start(payload) == tls::Start::ClientHello
        || (app == App::Socks && http::start(payload) == http::Start::Request)
}

#[cfg(test)]
mod tests;
