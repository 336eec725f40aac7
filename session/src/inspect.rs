//! What looks at the first payload bytes of a session.

use crate::record::Service;

/// Bytes of each direction's payload that an inspector is shown.
pub const WINDOW: u64 = 64 * 1024;

/// What is known of a session without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// IP protocol.
    pub proto: u8,
    /// The originator's port.
    pub orig_port: u16,
    /// The responder's port.
    pub resp_port: u16,
}

/// Finds the service of one session. The table makes a value of it at a session's first payload.
pub trait Inspector: Default {
    /// Shows payload; says whether more may tell more. `offset` is where it begins in the stream of its
    /// direction (TCP), or how many payload bytes that direction has sent before (else). TCP payload may
    /// come twice and out of order.
    fn feed(&mut self, ends: Ends, from_orig: bool, offset: u64, payload: &[u8]) -> bool;

    /// What was found. Also asked of a value that was shown nothing.
    fn finish(self, ends: Ends) -> Service;
}

/// Looks at nothing.
impl Inspector for () {
    fn feed(&mut self, _ends: Ends, _from_orig: bool, _offset: u64, _payload: &[u8]) -> bool {
        false
    }

    fn finish(self, _ends: Ends) -> Service {
        Service::default()
    }
}
