//! How whole an answer is: coverage, gaps by cause, and the exit status that follows from them.

use crate::range::{Span, TimeRange, subtract, union};
use serde::Serialize;
use std::fmt;
use tapedeck_packet::Timestamp;

/// Why the store cannot vouch for an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A frame does not decompress to what was written.
    CorruptFrame,
    /// A segment is not there; its index still is.
    SegmentMissing,
    /// A segment is shorter than it was when it was sealed.
    SegmentCut,
    /// A file of a table cannot be decoded.
    CorruptFile,
    /// A segment that was there when the answer began, or that the ledger knows to have been stored, is gone.
    Vanished,
    /// The operating system does not let us open a segment.
    Unreadable,
    /// Files are being imported into this time: more packets may come.
    Importing,
    /// The card lost packets before any program. This and the following are the causes of the ledger.
    Nic,
    /// The worker of a queue did not keep up.
    RingFull,
    /// The kernel had no room to put packets in.
    FillEmpty,
    /// No socket listened on a queue.
    Unbound,
    /// Packets were redirected to a socket of another queue.
    WrongQueue,
    /// Packets were longer than the socket takes.
    Oversize,
    /// The program could not handle packets.
    Program,
    /// Compressor or disk did not keep up.
    Shed,
    /// Writing failed, or what was written was taken away.
    WriteError,
    /// The recorder died before packets were recoverable.
    Crash,
    /// No recorder was there.
    Down,
    /// Too little was recorded before, or of the hour itself, to say what is usual.
    ShortHistory,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CorruptFrame => "damaged frame",
            Self::SegmentMissing => "missing segment",
            Self::SegmentCut => "cut segment",
            Self::CorruptFile => "damaged file",
            Self::Vanished => "segment that is gone",
            Self::Unreadable => "segment that cannot be opened",
            Self::Importing => "an import that is still running",
            Self::Nic => "lost by the network card (nic)",
            Self::RingFull => "lost by a recorder that did not keep up (ring_full)",
            Self::FillEmpty => "lost for want of packet memory (fill_empty)",
            Self::Unbound => "came on a queue that nobody listened on (unbound)",
            Self::WrongQueue => "steered to the wrong queue (wrong_queue)",
            Self::Oversize => "longer than the recorder takes (oversize)",
            Self::Program => "not handled by the program (program)",
            Self::Shed => "shed: compressor or disk did not keep up (shed)",
            Self::WriteError => "not written, or taken away (write_error)",
            Self::Crash => "lost in a crash (crash)",
            Self::Down => "passed while no recorder ran (down)",
            Self::ShortHistory => "history too short to judge",
        })
    }
}

/// An interval in which packets may be missing from the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When.
    pub span: Span,
    /// Why.
    pub cause: Cause,
    /// How many packets stood there, matching or not, where it is known.
    pub packets: Option<u64>,
}

/// Everything known about an answer once it is finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The asked range, cut to the store's life.
    pub range: Option<Span>,
    /// Stopped early: `--limit` was reached or the reader of stdout went away.
    pub limited: bool,
    /// Where it was stopped: what lies at or behind this time was not looked at.
    pub until: Option<Timestamp>,
    /// Spans of the segments that were asked, and what the ledger says was watched.
    pub asked: Vec<Span>,
    /// Where packets may be missing.
    pub gaps: Vec<Gap>,
    /// Why there is no answer.
    pub error: Option<String>,
    /// Packets in the answer.
    pub matched: u64,
    /// Frames read.
    pub scanned_frames: u64,
    /// Bytes read from disk.
    pub scanned_bytes: u64,
    /// Time it took.
    pub elapsed_ms: u64,
}

/// Exit status: matches, whole answer.
pub const EXIT_MATCHES: u8 = 0;
/// Exit status: no match, whole answer.
pub const EXIT_NONE: u8 = 1;
/// Exit status: an error, nothing to believe.
pub const EXIT_ERROR: u8 = 2;
/// Exit status: the answer is not whole.
pub const EXIT_NOT_WHOLE: u8 = 3;

impl Verdict {
    /// Is nothing missing?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty() && self.error.is_none()
    }

    /// The exit status of `taperead packets`.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match (self.is_complete(), self.matched) {
            (false, _) if self.error.is_some() => EXIT_ERROR,
            (false, _) => EXIT_NOT_WHOLE,
            (true, 0) => EXIT_NONE,
            (true, _) => EXIT_MATCHES,
        }
    }

    /// The intervals the answer vouches for: what was asked for, was looked at and is in no gap.
    #[must_use]
    pub fn coverage(&self) -> Vec<Span> {
        let inside = self.within_range(self.asked.iter().copied());
        let holes: Vec<Span> = self.gaps.iter().map(|g| g.span).collect();
        subtract(&union(inside), &holes)
    }

    fn within_range(&self, spans: impl Iterator<Item = Span>) -> Vec<Span> {
        let Some(range) = self.range else { return Vec::new() };
        let to = self.until.map_or(range.to, |until| until.clamp(range.from, range.to));
        let range = TimeRange { from: range.from, to: Some(to) };
        spans.filter_map(|s| s.within(&range)).collect()
    }

    /// The verdict as the contract's JSON object, without a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let range = self.range.unwrap_or(Span { from: Timestamp::ZERO, to: Timestamp::ZERO });
        let json = VerdictJson {
            version: 1,
            complete: self.is_complete(),
            limited: self.limited,
            range: SpanJson::from(range),
            coverage: self.coverage().into_iter().map(SpanJson::from).collect(),
            gaps: self.gaps.iter().map(GapJson::from).collect(),
            matched: self.matched,
            scanned_frames: self.scanned_frames,
            scanned_bytes: self.scanned_bytes,
            elapsed_ms: self.elapsed_ms,
            error: self.error.as_deref(),
        };
        // Plain strings and numbers: serialising them cannot fail.
        serde_json::to_string(&json).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct SpanJson {
    from: String,
    to: String,
}

impl From<Span> for SpanJson {
    fn from(span: Span) -> Self {
        Self { from: span.from.to_string(), to: span.to.to_string() }
    }
}

#[derive(Serialize)]
struct GapJson {
    #[serde(flatten)]
    span: SpanJson,
    cause: Cause,
    packets: Option<u64>,
}

impl From<&Gap> for GapJson {
    fn from(gap: &Gap) -> Self {
        Self { span: gap.span.into(), cause: gap.cause, packets: gap.packets }
    }
}

#[derive(Serialize)]
struct VerdictJson<'a> {
    version: u32,
    complete: bool,
    limited: bool,
    range: SpanJson,
    coverage: Vec<SpanJson>,
    gaps: Vec<GapJson>,
    matched: u64,
    scanned_frames: u64,
    scanned_bytes: u64,
    elapsed_ms: u64,
    /// An addition to the keys of every verdict: only where there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from: Timestamp::from_nanos_saturating(from), to: Timestamp::from_nanos_saturating(to) }
    }

    #[test]
    fn exit_status_follows_the_contract() {
        let gap = Gap { span: span(0, 1), cause: Cause::CorruptFrame, packets: Some(1) };
        for (matched, gaps, want) in [(1, vec![], 0), (0, vec![], 1), (0, vec![gap], 3), (5, vec![gap], 3)] {
            assert_eq!(Verdict { matched, gaps, ..Verdict::default() }.exit_status(), want);
        }
    }

    #[test]
    fn an_error_is_no_answer() {
        let verdict = Verdict { error: Some("no \"store\"".into()), ..Verdict::default() };
        assert_eq!(verdict.exit_status(), EXIT_ERROR);
        insta::assert_snapshot!(verdict.to_json(), @r#"{"version":1,"complete":false,"limited":false,"range":{"from":"1970-01-01T00:00:00.000000000Z","to":"1970-01-01T00:00:00.000000000Z"},"coverage":[],"gaps":[],"matched":0,"scanned_frames":0,"scanned_bytes":0,"elapsed_ms":0,"error":"no \"store\""}"#);
    }

    #[test]
    fn json_is_the_contracts() {
        let verdict = Verdict {
            range: Some(span(0, 3_000_000_000)),
            limited: true,
            until: Some(Timestamp::from_nanos_saturating(2_000_000_000)),
            asked: vec![span(0, 1_000_000_000), span(500_000_000, 9_000_000_000)],
            gaps: vec![Gap { span: span(7, 9), cause: Cause::Vanished, packets: None }],
            error: None,
            matched: 2,
            scanned_frames: 3,
            scanned_bytes: 4,
            elapsed_ms: 5,
        };
        insta::assert_snapshot!(verdict.to_json(), @r#"{"version":1,"complete":false,"limited":true,"range":{"from":"1970-01-01T00:00:00.000000000Z","to":"1970-01-01T00:00:03.000000000Z"},"coverage":[{"from":"1970-01-01T00:00:00.000000000Z","to":"1970-01-01T00:00:00.000000007Z"},{"from":"1970-01-01T00:00:00.000000009Z","to":"1970-01-01T00:00:02.000000000Z"}],"gaps":[{"from":"1970-01-01T00:00:00.000000007Z","to":"1970-01-01T00:00:00.000000009Z","cause":"vanished","packets":null}],"matched":2,"scanned_frames":3,"scanned_bytes":4,"elapsed_ms":5}"#);
    }
}
