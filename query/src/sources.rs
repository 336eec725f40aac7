//! Where the packets of each segment were taken, and the order that follows from it: interfaces by name,
//! segments in the order of their chain.
//!
//! Sidecars and journals say it. Only where they do not is frame 0 read; and where that is damaged too,
//! the sidecar of another segment of the chain helps out, for all of a run begin alike.

use crate::framewalk;
use crate::out::Source;
use crate::plan::{PlannedSegment, Prologue};
use crate::scan::{Context, FrameReader, ScanError};
use std::collections::BTreeMap;
use std::fs;
use tapedeck_index::mapped;
use tapedeck_index::name::{FileKind, SegmentName};
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
    /// Finds the sources of the segments with these numbers in the plan. Also says of which of them
    /// frame 0 could not be read.
    #[must_use]
    pub(crate) fn find(segments: &[PlannedSegment], numbers: &[usize]) -> (Self, Vec<(usize, ScanError)>) {
        let mut this = Self::default();
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let mut reader = FrameReader::default();
        for number in numbers {
            let Some(segment) = segments.get(*number) else { continue };
            match this.interface(&mut reader, segment) {
                Ok(interface) => found.push((*number, &segment.name, interface)),
                Err(error) => {
                    let missing = matches!(error, ScanError::Gone | ScanError::Open(_));
                    let helped = if missing { None } else { this.of_sister(&mut reader, segments, segment) };
                    found.extend(helped.map(|interface| (*number, &segment.name, interface)));
                    failed.push((*number, error));
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
    ) -> Result<InterfaceInfo, ScanError> {
        if let Prologue::Known(interface) = &segment.prologue {
            return Ok(interface.as_ref().clone());
        }
        let file = segment.handle.open().map_err(ScanError::of_open)?;
        if file.file_len().map_err(ScanError::Read)? == 0 {
            return Err(ScanError::NoEnd);
        }
        let stored_len = framewalk::first(&file).map_err(ScanError::Read)?;
        let stored_len = stored_len.ok_or(ScanError::NoInterface)?;
        self.frames += 1;
        self.bytes += u64::from(stored_len);
        for block in Blocks::new(reader.read(&segment.handle, 0, stored_len)?) {
            if let (_, Block::Interface(interface)) = block? {
                return Ok(interface);
            }
        }
        Err(ScanError::NoInterface)
    }

    /// The interface of another segment of the chain and run: by its sidecar, planned or in the same
    /// folder, or by its frame 0.
    fn of_sister(
        &mut self,
        reader: &mut FrameReader,
        segments: &[PlannedSegment],
        segment: &PlannedSegment,
    ) -> Option<InterfaceInfo> {
        let mut planned = segments.iter().filter(|sister| is_sister(&sister.name, &segment.name));
        let mut frames = planned.clone();
        planned
            .find_map(|sister| match &sister.prologue {
                Prologue::Known(interface) => Some(interface.as_ref().clone()),
                Prologue::FirstFrame => None,
            })
            .or_else(|| in_folder(segment))
            .or_else(|| frames.find_map(|sister| self.interface(reader, sister).ok()))
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

    /// What a scan of the segment with this number in the plan needs; `None` if it is not known.
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

/// The interface that a sister's sidecar beside the segment tells, also of one outside the asked range.
fn in_folder(segment: &PlannedSegment) -> Option<InterfaceInfo> {
    let entries = fs::read_dir(segment.handle.path().parent()?).ok()?;
    entries.flatten().find_map(|entry| {
        let (name, kind) = SegmentName::parse_file(entry.file_name().to_str()?)?;
        if kind != FileKind::Index || !is_sister(&name, &segment.name) {
            return None;
        }
        Some(mapped::open(&entry.path()).ok()?.head().ok()??.interface)
    })
}
