//! Where the packets of each segment were taken, read from its first frame, and the order that follows
//! from it: interfaces by name, segments in the order of their chain.

use crate::out::Source;
use crate::plan::{PlannedSegment, Prologue};
use crate::scan::{Context, FrameReader, ScanError};
use std::collections::BTreeMap;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo};

/// What is known of the segments of a plan that have something to read.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// By number in the plan.
    known: BTreeMap<usize, (Source, Context)>,
    /// By rank.
    ranked: Vec<usize>,
    /// Frames read to find out.
    pub(crate) frames: u64,
    /// Their stored bytes.
    pub(crate) bytes: u64,
}

impl Sources {
    /// Reads the first frame of the segments with these numbers in the plan; `prologues` says where it is. Also
    /// says which could not be read. All segments of a chain and run begin alike, so a sister segment
    /// helps out where one is damaged.
    #[must_use]
    pub(crate) fn read(
        segments: &[PlannedSegment],
        prologues: Vec<(usize, Prologue)>,
    ) -> (Self, Vec<(usize, ScanError)>) {
        let mut this = Self::default();
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let mut reader = FrameReader::default();
        for (number, prologue) in prologues {
            let Some(segment) = segments.get(number) else { continue };
            match this.interface(&mut reader, segment, &prologue) {
                Ok(interface) => found.push((number, &segment.name, interface)),
                Err(error) => {
                    let missing = matches!(error, ScanError::Gone | ScanError::Open(_));
                    let mut sisters =
                        segments.iter().filter(|s| !missing && is_sister(&s.name, &segment.name));
                    let helped = sisters.find_map(|s| this.interface(&mut reader, s, &s.prologue).ok());
                    found.extend(helped.map(|interface| (number, &segment.name, interface)));
                    failed.push((number, error));
                }
            }
        }
        this.rank(found);
        (this, failed)
    }

    fn interface(
        &mut self,
        reader: &mut FrameReader,
        segment: &PlannedSegment,
        prologue: &Prologue,
    ) -> Result<InterfaceInfo, ScanError> {
        match prologue {
            Prologue::Walk => Err(ScanError::NoInterface),
            Prologue::Known(interface) => Ok(interface.as_ref().clone()),
            Prologue::Frame { offset, stored_len } => {
                self.frames += 1;
                self.bytes += u64::from(*stored_len);
                let raw = reader.read(&segment.handle, *offset, *stored_len)?;
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
    pub(crate) fn context(&self, number: usize) -> Option<Context> {
        self.known.get(&number).map(|(_, context)| *context)
    }

    /// The source of the segment with this rank.
    #[must_use]
    pub(crate) fn source(&self, rank: u32) -> Option<&Source> {
        let number = self.ranked.get(usize::try_from(rank).ok()?)?;
        self.known.get(number).map(|(source, _)| source)
    }
}

/// Another segment of the same chain, written in the same run.
fn is_sister(a: &SegmentName, b: &SegmentName) -> bool {
    a.seq != b.seq && (&a.sensor, &a.interface, a.queue, a.run) == (&b.sensor, &b.interface, b.queue, b.run)
}
