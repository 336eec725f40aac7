//! What looks at the first payload bytes of a session.

use crate::record::Service;

/// Whether a probe wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More payload may tell more.
    More,
    /// It knows what it can know.
    Done,
}

/// Bytes of each direction's payload that a probe is shown.
pub const PROBE_WINDOW: u64 = 16 * 1024;

/// Finds the service of one session. The table makes a value of it at a session's first payload.
pub trait Probe: Default {
    /// Shows payload. `offset` is where it begins in the stream of its direction (TCP), or how many
    /// payload bytes that direction has sent before (else). TCP payload may come twice and out of order.
    fn feed(&mut self, from_orig: bool, offset: u64, payload: &[u8]) -> Progress;

    /// What was found.
    fn finish(&mut self) -> Service;
}

/// Looks at nothing.
impl Probe for () {
    fn feed(&mut self, _from_orig: bool, _offset: u64, _payload: &[u8]) -> Progress {
        Progress::Done
    }

    fn finish(&mut self) -> Service {
        Service::default()
    }
}
