//! The runs of two directions as one sequence, in order of time.
//!
//! Where two packets have the same time, what they say decides: nobody acknowledges what has not been sent, a
//! handshake has its order, data comes before bare ACKs. Within a direction the order is that of arrival.

use super::{Piece, Run};
use crate::input::{Facts, Origin, Transport, flag, is_request};
use crate::pair::{End, Pair};
use std::collections::VecDeque;
use tapedeck_packet::Macs;

/// A run, or the end of one.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) piece: &'a Piece,
    run: &'a Run,
    ts: u64,
    /// The last packet of a run: its data and acknowledgement are taken when it came.
    tail: bool,
}

/// All steps of a key.
pub(crate) struct Steps<'a> {
    queues: Pair<VecDeque<Step<'a>>>,
    /// One past what each side has sent.
    sent: Pair<Option<u32>>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(pieces: &'a [Piece]) -> Self {
        let mut queues: Pair<VecDeque<Step<'a>>> = Pair { a: VecDeque::new(), b: VecDeque::new() };
        for piece in pieces {
            let queue = queues.of_mut(piece.half.from);
            for run in &piece.half.runs {
                queue.push_back(Step { piece, run, ts: run.first, tail: false });
                if run.packets > 1 {
                    queue.push_back(Step { piece, run, ts: run.last, tail: true });
                }
            }
        }
        // Pieces come in order of their ends.
        queues.a.make_contiguous().sort_by_key(|step| step.ts);
        queues.b.make_contiguous().sort_by_key(|step| step.ts);
        Self { queues, sent: Pair::default() }
    }

    /// Which side's step comes first, when both have one.
    fn first(&self, a: &Step<'_>, b: &Step<'_>) -> End {
        let key = |step: &Step<'_>, end| (step.ts, self.too_early(step, end), step.rank());
        if key(b, End::B) < key(a, End::A) { End::B } else { End::A }
    }

    /// Acknowledges what the other side has not sent yet.
    fn too_early(&self, step: &Step<'_>, end: End) -> bool {
        let Some(tcp) = step.run.tcp.filter(|tcp| tcp.flags & flag::ACK != 0) else { return false };
        let ack = if step.tail { step.run.last_ack } else { tcp.ack };
        self.sent.of(end.other()).is_some_and(|sent| ack.wrapping_sub(sent).cast_signed() > 0)
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let end = match (self.queues.a.front(), self.queues.b.front()) {
            (Some(a), Some(b)) => self.first(a, b),
            (Some(_), None) => End::A,
            (None, _) => End::B,
        };
        let step = self.queues.of_mut(end).pop_front()?;
        if step.run.tcp.is_some() {
            *self.sent.of_mut(end) = Some(step.sent());
        }
        Some(step)
    }
}

impl Step<'_> {
    /// One past what has been sent with this step.
    fn sent(&self) -> u32 {
        let flags = self.run.tcp.unwrap_or_default().flags;
        let control = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        let later = if self.tail { 0 } else { self.run.last_payload_bytes };
        self.run.next_seq.wrapping_sub(later).wrapping_add(control)
    }

    /// Which of two steps of the same time comes first.
    fn rank(&self) -> u8 {
        let flags = self.run.tcp.unwrap_or_default().flags;
        match (flags & flag::SYN != 0, flags & flag::ACK != 0) {
            (true, false) => 0,
            (true, true) => 1,
            _ if flags & (flag::FIN | flag::RST) != 0 => 4,
            _ if self.run.payload_bytes > 0 => 2,
            _ => 3,
        }
    }

    /// What the merger's table takes: at its beginning all packets of a run, at its end the last one's data
    /// and acknowledgement.
    pub(crate) fn facts(&self) -> Facts {
        let (record, half, run, tail) = (&self.piece.record, &self.piece.half, self.run, self.tail);
        let from_orig = record.orig.volume.packets > 0;
        let (own, peer) = if from_orig { (&record.orig, &record.resp) } else { (&record.resp, &record.orig) };
        let transport = match run.tcp {
            Some(_) if tail => Transport::Tail {
                seq: run.next_seq.wrapping_sub(run.last_payload_bytes),
                ack: run.last_ack,
                len: run.last_payload_bytes,
            },
            Some(header) => Transport::Tcp(header),
            None => Transport::Other,
        };
        let some = |value: u32| if tail { 0 } else { value };
        let later = if run.tcp.is_some() { run.last_payload_bytes } else { 0 };
        Facts {
            key: half.key,
            from: half.from,
            inner: half.key.inner(),
            ts: self.ts,
            packets: some(run.packets),
            ip_bytes: some(run.ip_bytes),
            wire_bytes: some(run.wire_bytes),
            cut_bytes: some(run.cut_bytes),
            payload_bytes: some(run.payload_bytes.saturating_sub(later)),
            transport,
            more_flags: run.all_flags,
            ttl: run.ttl,
            request: is_request(half.key.proto(), *half.key.ports().of(half.from)),
            stored: true,
            place: if tail { run.last_place } else { run.first_place },
            origin: Origin {
                macs: own.mac.zip(peer.mac).map(|(src, dst)| Macs { src, dst }),
                vlans: record.vlans,
                mpls: record.mpls,
                tunnel: record.tunnel,
                tunnel_id: record.tunnel_id,
            },
            tagged: true,
            ..Facts::default()
        }
    }
}
