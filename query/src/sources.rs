//! Where the packets of each segment were taken, read from its first frame, and the order that follows
//! from it: interfaces by name, segments in the order of their chain.

use crate::out::Source;
use crate::plan::{PlannedSegment, Prologue};
use crate::scan::{Context, ScanError, Scanner};
use crate::filter::Filter;
use crate::range::TimeRange;
use std::collections::BTreeMap;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo};

/// What is known of the segments of a plan that have something to read.
#[derive(Debug, Default)]
pub struct Sources {
    /// By number in the plan.
    known: BTreeMap<usize, (Source, Context)>,
    /// By rank.
    ranked: Vec<usize>,
    /// Frames read to find out.
    pub frames: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl Sources {
    /// Reads the first frame of every segment with something to read. Also says which could not be read.
    #[must_use]
    pub fn read(segments: &[PlannedSegment]) -> (Self, Vec<(usize, ScanError)>) {
        let mut this = Self::default();
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let nothing = Filter::all();
        let mut scanner = Scanner::new(&nothing, TimeRange::ALL);
        for (number, segment) in segments.iter().enumerate().filter(|(_, s)| !s.tasks.is_empty()) {
            match this.interface(&mut scanner, segment) {
                Ok(interface) => found.push((number, &segment.name, interface)),
                Err(e) => failed.push((number, e)),
            }
        }
        this.rank(found);
        (this, failed)
    }

    fn interface(
        &mut self,
        scanner: &mut Scanner<'_>,
        segment: &PlannedSegment,
    ) -> Result<InterfaceInfo, ScanError> {
        match &segment.prologue {
            Prologue::Known(interface) => Ok(interface.as_ref().clone()),
            Prologue::Frame { offset, stored_len } => {
                self.frames += 1;
                self.bytes += u64::from(*stored_len);
                let raw = scanner.raw(&segment.handle, *offset, *stored_len)?;
                for block in Blocks::new(raw) {
                    if let (_, Block::Interface(interface)) = block? {
                        return Ok(interface);
                    }
                }
                Err(ScanError::NoInterface)
            }
        }
    }

    fn rank(&mut self, mut found: Vec<(usize, &SegmentName, InterfaceInfo)>) {
        found.sort_by(|x, y| {
            let key = |(_, name, interface): &(usize, &SegmentName, InterfaceInfo)| {
                let SegmentName { sensor, queue, run, seq, .. } = (*name).clone();
                (interface.name.clone(), sensor, queue, run, seq)
            };
            key(x).cmp(&key(y))
        });
        let mut interface_rank = 0;
        let mut previous: Option<String> = None;
        for (number, name, interface) in found {
            if previous.as_ref().is_some_and(|p| *p != interface.name) {
                interface_rank += 1;
            }
            previous = Some(interface.name.clone());
            let segment = u32::try_from(self.ranked.len()).unwrap_or(u32::MAX);
            let context = Context { link: interface.link_type, interface: interface_rank, segment };
            let source = Source { interface, queue: name.queue, sensor: name.sensor.clone() };
            self.ranked.push(number);
            self.known.insert(number, (source, context));
        }
    }

    /// What a scan of the segment with this number in the plan needs; `None` if it could not be read.
    #[must_use]
    pub fn context(&self, number: usize) -> Option<Context> {
        self.known.get(&number).map(|(_, context)| *context)
    }

    /// The source of the segment with this rank.
    #[must_use]
    pub fn source(&self, rank: u32) -> Option<&Source> {
        let number = self.ranked.get(usize::try_from(rank).ok()?)?;
        self.known.get(number).map(|(source, _)| source)
    }
}
