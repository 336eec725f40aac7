//! Where a packet goes, when frames and segments end: the slow path of the worker, once a frame.

use super::open::{OpenFrame, OpenSegment, end_bytes, fits_hour, hour_over};
use super::{BACK_OFF, BACK_OFF_MAX, Chain, Refused, row_table};
use crate::config::WhenFull;
use crate::segment::Link;
use crate::sink::to_u64;
use crate::stage::{Job, OpenJob};
use crossbeam_channel::SendError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tapedeck_index::frame::{FRAME_BYTES_MAX, compress_bound};
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{self, PacketRecord};
use tapedeck_packet::Timestamp;

impl Chain {
    /// Sees to it that the last segment takes a packet of this time and its frame has room.
    pub(super) fn place(&mut self, packet: &PacketRecord<'_>) -> Result<(), Refused> {
        let need = pcapng::packet_block_len(packet) + self.statistics_len(packet.ts);
        if let (Some(segment), Some(frame)) = (self.open.last(), self.frame.as_ref())
            && fits_hour(segment.hour, packet.ts)
            && frame.raw.len() + need <= FRAME_BYTES_MAX
        {
            return Ok(());
        }
        self.cut_frame();
        self.end_failed_segments();
        self.end_full_segment(need);
        // The buffer before the segment: a segment without a frame would be a job without a bound.
        let raw = self.take_buffer()?;
        match self.choose_segment(packet.ts) {
            Ok(()) => self.begin_frame(raw),
            Err(refused) => {
                self.spare_raw.push(raw);
                return Err(refused);
            }
        }
        Ok(())
    }

    fn take_buffer(&mut self) -> Result<Vec<u8>, Refused> {
        if let Some(raw) = self.spare_raw() {
            return Ok(raw);
        }
        match self.config.when_full {
            WhenFull::Shed => Err(Refused::Full),
            // An error means the stage is gone: nothing can be written any more.
            WhenFull::Wait => self.raw.recv().map_err(|_| Refused::Failing),
        }
    }

    /// An empty buffer, if there is one: the one that came back last, of which most is still in a cache.
    pub(super) fn spare_raw(&mut self) -> Option<Vec<u8>> {
        self.spare_raw.extend(self.raw.try_iter());
        self.spare_raw.pop()
    }

    /// An empty buffer becomes the open frame of the last segment.
    pub(super) fn begin_frame(&mut self, raw: Vec<u8>) {
        if let Some(segment) = self.open.last_mut() {
            self.frame = Some(OpenFrame::new(segment.next_number, raw, self.wall));
            segment.next_number += 1;
        }
    }

    /// Hands the open frame to the stage.
    pub(super) fn cut_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        let Some(segment) = self.open.last_mut() else { return };
        let mut rows = self.rows.try_recv().unwrap_or_default();
        segment.rows.cut_frame(&mut rows);
        segment.bound_sent += to_u64(compress_bound(frame.raw.len()));
        let job = Job::Frame(Box::new(frame.into_job(segment.seq, rows)));
        if let Err(SendError(Job::Frame(job))) = self.jobs.send(job) {
            // The stage has died; its death shows in `finish`.
            self.counters.fail(&job.info.runs);
        }
    }

    /// Makes the segment for packets of time `ts` the last one: the one in use if it fits, another open
    /// one, or a new one.
    fn choose_segment(&mut self, ts: Timestamp) -> Result<(), Refused> {
        if self.open.last().is_some_and(|segment| fits_hour(segment.hour, ts)) {
            return Ok(());
        }
        let exact = self.open.iter().position(|segment| segment.hour == ts.hour());
        let near = || self.open.iter().position(|segment| fits_hour(segment.hour, ts));
        if let Some(at) = exact.or_else(near) {
            let segment = self.open.remove(at);
            self.open.push(segment);
            return Ok(());
        }
        self.wait_back_off()?;
        while self.open.len() >= self.config.open_segments {
            self.end_segment(0);
        }
        self.open_segment(ts);
        Ok(())
    }

    /// After a failed segment the next one has to wait.
    fn wait_back_off(&mut self) -> Result<(), Refused> {
        let Some(retry_at) = self.retry_at else { return Ok(()) };
        let left = retry_at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            match self.config.when_full {
                WhenFull::Shed => return Err(Refused::Failing),
                WhenFull::Wait => std::thread::sleep(left),
            }
        }
        self.retry_at = None;
        Ok(())
    }

    fn open_segment(&mut self, ts: Timestamp) {
        // Relaxed: only the uniqueness of each number matters.
        let seq = self.config.seq.fetch_add(1, Ordering::Relaxed);
        self.latest_seq = Some(seq);
        let link = Arc::new(Link::default());
        let name = SegmentName {
            t0: ts,
            sensor: self.config.sensor.clone(),
            interface: self.config.interface.name.clone(),
            queue: self.config.queue,
            run: self.config.run,
            seq,
        };
        let counters = self.statistics();
        let job = OpenJob {
            link: Arc::clone(&link),
            name,
            hour: ts.hour(),
            interface: Arc::clone(&self.interface),
            counters,
        };
        let _ = self.jobs.send(Job::Open(Box::new(job)));
        self.open.push(OpenSegment {
            seq,
            hour: ts.hour(),
            link,
            rows: self.spare_tables.pop().unwrap_or_else(row_table),
            // Frame 0 is the header, made by the stage.
            next_number: 1,
            last_statistics: ts,
            last_packet: ts,
            opened: self.wall,
            bound_sent: 0,
        });
    }

    /// Ends an open segment, by its place; its frame must have been cut.
    fn end_segment(&mut self, at: usize) {
        if at + 1 == self.open.len() {
            self.cut_frame();
        }
        if at >= self.open.len() {
            return;
        }
        let mut segment = self.open.remove(at);
        let ts = segment.last_packet.max(segment.last_statistics);
        let _ = self.jobs.send(Job::Seal { seq: segment.seq, ts, counters: self.statistics() });
        segment.rows.clear();
        self.spare_tables.push(segment.rows);
        if segment.link.lost.load(Ordering::Relaxed) && self.back_off == BACK_OFF {
            // The disk is not at fault: the next one is tried at once, and only the one after it waits.
            self.back_off = BACK_OFF * 2;
        } else if segment.link.failed.load(Ordering::Relaxed) {
            self.retry_at = Some(Instant::now() + self.back_off);
            self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        } else {
            self.back_off = BACK_OFF;
        }
    }

    /// Ends every segment.
    pub(super) fn end_all_segments(&mut self) {
        while !self.open.is_empty() {
            self.end_segment(0);
        }
    }

    /// Ends the last segment if a further frame, which begins with `need` bytes, could make it too long.
    pub(super) fn end_full_segment(&mut self, need: usize) {
        let frame = to_u64(compress_bound(need.max(FRAME_BYTES_MAX)));
        let rest = self.header_bytes.saturating_add(frame).saturating_add(end_bytes());
        let full = |segment: &OpenSegment| {
            // A segment without a frame takes the first one, however long it is.
            let some = segment.bound_sent > 0;
            some && segment.stored_at_most().saturating_add(rest) > self.config.segment_bytes
        };
        if self.open.last().is_some_and(full) {
            self.end_segment(self.open.len() - 1);
        }
    }

    /// Ends segments whose disk has failed them.
    pub(super) fn end_failed_segments(&mut self) {
        self.end_segments_if(|segment| segment.link.failed.load(Ordering::Relaxed));
    }

    /// Ends segments that are too old, and of a live source those whose hour is over.
    pub(super) fn end_old_segments(&mut self, now: Timestamp) {
        let (wall, age, live) = (self.wall, self.config.segment_age, self.config.live);
        self.end_segments_if(|segment| {
            let old = age.is_some_and(|age| wall.saturating_duration_since(segment.opened) >= age);
            old || (live && hour_over(segment.hour, now))
        });
    }

    fn end_segments_if(&mut self, over: impl Fn(&OpenSegment) -> bool) {
        for at in (0..self.open.len()).rev() {
            if self.open.get(at).is_some_and(&over) {
                self.end_segment(at);
            }
        }
    }
}
