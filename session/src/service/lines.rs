//! Protocols that speak in lines of text: what their first line says.

use super::app::App;
use super::hints::Hints;
use super::tcp::Look;

/// Longest stretch of a stream that is looked at.
const SPAN: usize = 512;

/// Looks at the beginning of a TCP stream of text.
pub(super) fn tcp(head: &[u8]) -> Look {
    let head = head.get(..SPAN.min(head.len())).unwrap_or_default();
    let line = first_line(head);
    if line.starts_with(b"SSH-1.") || line.starts_with(b"SSH-2.") {
        return Look::Is(App::Ssh);
    }
    if let Some(app) = by_greeting(head, line).or_else(|| by_request(head, line)) {
        return Look::Is(app);
    }
    let hints = hints(line);
    if hints == Hints::NONE { Look::No } else { Look::Hint(hints) }
}

/// What a server says first, where it is beyond doubt.
fn by_greeting(head: &[u8], line: &[u8]) -> Option<App> {
    let has = |word: &[u8]| contains(line, word);
    match line.first()? {
        b'2' if is_greeting_220(line) => by_greeting_220(line),
        b'+' if line.starts_with(b"+OK ") && (has(b"POP3") || has(b"POP server")) => Some(App::Pop3),
        b'*' if (line.starts_with(b"* OK") || line.starts_with(b"* PREAUTH")) && has(b"IMAP") => {
            Some(App::Imap)
        }
        b'R' if matches!(head.first_chunk(), Some(b"RFB 003.0" | b"RFB 004.0")) => Some(App::Rfb),
        b':' if is_irc_reply(line) => Some(App::Irc),
        b'N' if line.starts_with(b"NOTICE AUTH :") || line.starts_with(b"NOTICE * :") => Some(App::Irc),
        b'<' if contains(head, b"http://etherx.jabber.org/streams") => Some(App::Xmpp),
        _ => None,
    }
}

/// What a client says first, where it is beyond doubt.
fn by_request(head: &[u8], line: &[u8]) -> Option<App> {
    let is = |command: &[u8]| starts_with(line, command);
    match line.first()?.to_ascii_uppercase() {
        b'E' if is(b"EHLO ") => Some(App::Smtp),
        b'H' if is(b"HELO ") => Some(App::Smtp),
        b'L' if is(b"LHLO ") => Some(App::Smtp),
        // Both are needed to register; PASS, CAP or USER may stand before NICK.
        b'N' | b'P' | b'C' | b'U' if irc_registers(head) => Some(App::Irc),
        b'S' if line.starts_with(b"SIP/2.0 ") => Some(App::Sip),
        b'*' if is_resp(head) => Some(App::Redis),
        _ if is_sip_request(line) => Some(App::Sip),
        _ => None,
    }
}

/// What is no proof on its own.
fn hints(line: &[u8]) -> Hints {
    let is = |command: &[u8]| starts_with(line, command);
    if is_greeting_220(line) {
        Hints::GREETING_220
    } else if line.starts_with(b"+OK") {
        Hints::GREETING_OK
    } else if line.starts_with(b"* OK") || line.starts_with(b"* BYE") {
        Hints::GREETING_STAR
    } else if is(b"USER ") {
        Hints::FTP_REQUEST | Hints::POP_REQUEST
    } else if is(b"CAPA") || is(b"APOP ") || is(b"STLS") {
        Hints::POP_REQUEST
    } else if is(b"AUTH ") {
        Hints::FTP_REQUEST | Hints::POP_REQUEST
    } else if is(b"FEAT") || is(b"SYST") || is(b"OPTS ") || is(b"HOST ") {
        Hints::FTP_REQUEST
    } else if is(b"MAIL FROM:") || is(b"STARTTLS") {
        Hints::SMTP_REQUEST
    } else if is_imap_request(line) {
        Hints::IMAP_REQUEST
    } else if is(b"NICK ") || is(b"CAP LS") || is(b"CAP REQ ") {
        Hints::IRC_REQUEST
    } else {
        Hints::NONE
    }
}

/// Looks at a datagram of text.
pub(super) fn udp(datagram: &[u8]) -> App {
    let head = datagram.get(..SPAN.min(datagram.len())).unwrap_or_default();
    let line = first_line(head);
    match head.first() {
        Some(b'S') if line.starts_with(b"SIP/2.0 ") => App::Sip,
        Some(b'M') if line == b"M-SEARCH * HTTP/1.1" => App::Ssdp,
        Some(b'N') if line == b"NOTIFY * HTTP/1.1" => App::Ssdp,
        Some(b'H') if line.starts_with(b"HTTP/1.1 200") && contains(head, b"\nST:") => App::Ssdp,
        // BEP 14: peers in the same network.
        Some(b'B') if line == b"BT-SEARCH * HTTP/1.1" => App::BitTorrent,
        Some(b'A'..=b'Z') if is_sip_request(line) => App::Sip,
        Some(b'd') if is_dht(head) => App::BitTorrent,
        _ => App::Unknown,
    }
}

/// Syslog over TCP (RFC 6587): a message, or its length and the message. Its port is also that of rsh: without a
/// date it is no proof there either.
pub(super) fn is_syslog_stream(head: &[u8]) -> bool {
    let digits = head.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
    let message = if digits == 0 {
        head
    } else {
        head.get(digits..).and_then(|rest| rest.strip_prefix(b" ")).unwrap_or_default()
    };
    is_syslog(message, false)
}

/// A syslog message: a priority, and a date as one of its two RFCs (3164, 5424) has it; at home also without.
pub(super) fn is_syslog(message: &[u8], at_home: bool) -> bool {
    let Some(rest) = message.strip_prefix(b"<") else { return false };
    let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let priority = rest.iter().take(digits).fold(0_u32, |value, digit| value * 10 + u32::from(*digit - b'0'));
    if !(1..=3).contains(&digits) || priority > 191 || rest.get(digits) != Some(&b'>') {
        return false;
    }
    let rest = rest.get(digits + 1..).unwrap_or_default();
    let printable = rest.iter().take(16).all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
    (at_home && printable) || is_date(rest)
}

fn is_date(text: &[u8]) -> bool {
    const MONTHS: [&[u8]; 12] = [
        b"Jan ", b"Feb ", b"Mar ", b"Apr ", b"May ", b"Jun ", b"Jul ", b"Aug ", b"Sep ", b"Oct ", b"Nov ",
        b"Dec ",
    ];
    let old = MONTHS.iter().any(|month| text.starts_with(month)) && text.get(9) == Some(&b':');
    // RFC 5424 puts its version before the date; rsyslog writes such a date without one too.
    let date = text.strip_prefix(b"1 ").unwrap_or(text).first_chunk::<5>();
    old || date.is_some_and(|[year @ .., dash]| year.iter().all(u8::is_ascii_digit) && *dash == b'-')
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default().trim_ascii_end()
}

/// Whether `text` begins with `word`, in letters of either case.
fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Whether `word` stands in `text`, in letters of either case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// SMTP or FTP by what a greeting says beside the name of its host, which may be `smtp.` or `ftp.` on either.
fn by_greeting_220(line: &[u8]) -> Option<App> {
    let text = line.get(4..).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    let is_host =
        first.contains(&b'.') && first.iter().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(b));
    let said = if is_host { rest } else { text };
    if contains(said, b"SMTP") || contains(said, b"LMTP") {
        Some(App::Smtp)
    } else {
        contains(said, b"FTP").then_some(App::Ftp)
    }
}

fn is_greeting_220(line: &[u8]) -> bool {
    line.strip_prefix(b"220").is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'-')))
}

/// `:server NNN `, `:server NOTICE ` or `:server CAP `.
fn is_irc_reply(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let server = words.next().is_some_and(|word| word.len() > 1 && word.is_ascii());
    let number = |word: &[u8]| word.len() == 3 && word.iter().all(u8::is_ascii_digit);
    server && words.next().is_some_and(|word| number(word) || matches!(word, b"NOTICE" | b"CAP"))
}

/// A client's NICK and USER, each at the beginning of a line.
fn irc_registers(head: &[u8]) -> bool {
    let line_with = |word: &[u8]| {
        head.split(|byte| *byte == b'\n').any(|line| starts_with(line.trim_ascii_start(), word))
    };
    line_with(b"NICK ") && line_with(b"USER ")
}

/// A tag and a command that a client may give before it has logged in.
fn is_imap_request(line: &[u8]) -> bool {
    const COMMANDS: [&[u8]; 7] =
        [b"CAPABILITY", b"LOGIN ", b"AUTHENTICATE ", b"STARTTLS", b"ID ", b"NOOP", b"LOGOUT"];
    let Some(end) = line.iter().position(|byte| *byte == b' ') else { return false };
    let (tag, rest) = line.split_at(end);
    let command = rest.get(1..).unwrap_or_default();
    (1..=16).contains(&tag.len())
        && tag.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
        && COMMANDS.iter().any(|known| starts_with(command, known))
}

/// A request line that ends in `SIP/2.0`.
fn is_sip_request(line: &[u8]) -> bool {
    let uri = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    line.ends_with(b" SIP/2.0") && [&b"sip:"[..], b"sips:", b"tel:"].iter().any(|kind| starts_with(uri, kind))
}

/// An array of bulk strings, as every client of Redis sends its commands: `*1\r\n$4\r\nPING\r\n`.
fn is_resp(head: &[u8]) -> bool {
    let number = |line: &[u8], sign: u8| {
        line.strip_prefix(&[sign])
            .and_then(|rest| rest.strip_suffix(b"\r"))
            .is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.next().is_some_and(|line| number(line, b'*')) && lines.next().is_some_and(|line| number(line, b'$'))
}

/// A query or answer of BitTorrent's DHT (BEP 5): a dictionary with a node's id.
fn is_dht(head: &[u8]) -> bool {
    (head.starts_with(b"d1:") || head.starts_with(b"d2:ip")) && contains(head, b"2:id20:")
}
