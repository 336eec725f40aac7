//! HTTP/1: the request line and the host, the status line; the preface of HTTP/2 (RFC 9112, RFC 9113).

use super::cursor::text;

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest request line we wait for.
const LINE_MAX: usize = 8 * 1024;
/// Shortest and longest method that is believed (`GET`, `UPDATEREDIRECTREF`).
const METHOD: std::ops::RangeInclusive<usize> = 3..=20;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Request,
    Response,
    /// The preface of HTTP/2.
    Preface,
    /// A request line so far, but it is not whole.
    Short,
    No,
}

/// Looks at the beginning of a stream.
pub(super) fn start(head: &[u8]) -> Start {
    if head.starts_with(b"PRI ") {
        return match head.len() {
            0..24 if PREFACE.starts_with(head) => Start::Short,
            _ if head.starts_with(PREFACE) => Start::Preface,
            _ => Start::No,
        };
    }
    if is_response(head) {
        return Start::Response;
    }
    let Some(method) = head.iter().position(|byte| !byte.is_ascii_uppercase() && *byte != b'-') else {
        return if head.len() <= *METHOD.end() && !head.is_empty() { Start::Short } else { Start::No };
    };
    if !METHOD.contains(&method) || head.get(method) != Some(&b' ') {
        return Start::No;
    }
    match line(head) {
        Some(line) if is_request_line(line) => Start::Request,
        Some(_) => Start::No,
        // A target has no control characters.
        None if head.len() < LINE_MAX && !head.iter().any(u8::is_ascii_control) => Start::Short,
        None if head.last() == Some(&b'\r') && head.len() < LINE_MAX => Start::Short,
        None => Start::No,
    }
}

/// `HTTP/`, a version, a status of three digits.
fn is_response(head: &[u8]) -> bool {
    head.strip_prefix(b"HTTP/").and_then(|rest| rest.first_chunk::<7>()).is_some_and(|rest| {
        let [major, dot, minor, space, status @ ..] = *rest;
        major.is_ascii_digit()
            && dot == b'.'
            && minor.is_ascii_digit()
            && space == b' '
            && status.iter().all(u8::is_ascii_digit)
    })
}

/// A method, a target, `HTTP/` and a version.
fn is_request_line(line: &[u8]) -> bool {
    let Some(at) = line.iter().rposition(|byte| *byte == b' ') else { return false };
    let Some(version) = line.get(at + 1..).and_then(|version| version.strip_prefix(b"HTTP/")) else {
        return false;
    };
    matches!(version, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The first line without its end, if the end is there.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = bytes.get(..end)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The header of the first request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) host: Option<Box<str>>,
    /// The method is CONNECT: what follows is another session.
    pub(super) connect: bool,
    /// The host is known, or the header has ended without one.
    pub(super) whole: bool,
}

/// Reads the request that `head` begins with.
pub(super) fn request(head: &[u8]) -> Request {
    let mut request = Request { connect: head.starts_with(b"CONNECT "), ..Request::default() };
    let mut rest = head;
    while let Some(line) = line(rest) {
        if line.is_empty() {
            request.whole = true;
            break;
        }
        if let Some(host) = host(line) {
            request.host = Some(text(host)).filter(|host| !host.is_empty());
            request.whole = true;
            break;
        }
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        rest = rest.get(end..).unwrap_or_default();
    }
    request
}

/// The value of a `Host` line.
fn host(line: &[u8]) -> Option<&[u8]> {
    let (name, value) = line.split_at_checked(5)?;
    name.eq_ignore_ascii_case(b"host:").then(|| value.trim_ascii())
}
