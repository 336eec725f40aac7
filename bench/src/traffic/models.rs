//! Sizes in turn over flows in turn: fixed sizes, and IMIX.

use super::frame::{End, UDP_HEADERS, frame};
use super::random::Random;
use super::{FCS, Model, Payload, Shape, Traffic};
use anyhow::Result;
use tapedeck_ebpf::replay::Template;

/// Seven of 64, four of 594 and one of 1,518 bytes, checksum included: "simple IMIX" as traffic generators have
/// it (Wikipedia, Internet Mix; Ostinato). There is no standard; RFC 6985 asks to state the sequence, which in its
/// notation, with A = 594, is aAaaAagaAaAa.
pub(super) const IMIX: [usize; 12] = [64, 594, 64, 64, 594, 64, 1_518, 64, 594, 64, 594, 64];

/// Random payload comes again only after so many bytes: behind everything that a frame of a segment holds, so that no
/// compression finds it twice.
const FRESH_BYTES: usize = 4 << 20;

/// A sequence of UDP packets whose sizes and flows come in turn.
pub(super) fn cycle(sizes: &[usize], shape: &Shape, model: &Model) -> Result<Traffic> {
    let mut random = Random::new(shape.seed);
    let flows = usize::try_from(shape.flows)?;
    let mean = sizes.iter().sum::<usize>() / sizes.len().max(1);
    let fresh = if shape.payload == Payload::Zero { 0 } else { FRESH_BYTES.div_ceil(mean) };
    // Each flow and each size as often as any other.
    let step = least_common(flows, sizes.len());
    let packets = fresh.max(1).next_multiple_of(step.max(1));
    let templates = (0..packets)
        .zip(sizes.iter().cycle())
        .map(|(index, size)| {
            // With as many sizes as flows each flow would have one size only.
            let flow = (index + index / step) % flows;
            let len = (size - FCS).max(UDP_HEADERS);
            let bytes = frame(ends(flow), None, len, shape.payload, &mut random);
            Template { bytes, ..Template::default() }
        })
        .collect();
    Ok(Traffic::of(model, templates, [u64::from(shape.flows), 0, 0]))
}

fn least_common(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// The ends of a flow: a host of 10.0.0.0/8 and a port of its own.
fn ends(flow: usize) -> [End; 2] {
    let [_, _, _, _, _, high, middle, low] = u64::try_from(flow).unwrap_or(0).to_be_bytes();
    let port = u16::try_from(10_000 + flow % 50_000).unwrap_or(10_000);
    [End { address: [10, high, middle, low], port }, End { address: [172, 16, 0, 1], port: 5_001 }]
}
