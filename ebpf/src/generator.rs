//! Numbered frames as fast as the kernel makes them, or paced, for measurements and tests. The recorder does
//! not use it.
//!
//! Live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`, Documentation/bpf/bpf_prog_run.rst): the kernel gives the program
//! pages with a template in them, and the program sends each to an interface as a driver would. Needs Linux 5.18
//! and an interface that takes redirected frames: a veth whose peer has an XDP program attached.
//!
//! It must never send on an interface that the caller has not named.

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{ErrorKind, ProgramInput};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

skeleton!(skel, "generator.skel.rs");

/// `BPF_F_TEST_XDP_LIVE_FRAMES` (linux/bpf.h).
pub(crate) const LIVE_FRAMES: u32 = 1 << 1;
/// Frames the kernel offers the program in one call: some milliseconds, so that an end is not waited for.
pub(crate) const OFFERED: u32 = 1 << 17;
/// Longest template that fits the kernel's page beside what it needs itself, bytes.
const TEMPLATE_MAX: usize = 3_000;
/// Shortest: Ethernet, IPv4, UDP, flow and number.
const TEMPLATE_MIN: usize = 58;

/// Frames to send.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Interface they go out of.
    pub ifindex: u32,
    /// An Ethernet frame with an IPv4 header without options, a UDP header without checksum and at least 16
    /// bytes of payload, into which flow and number are written as big-endian u64; 58 to 3,000 bytes. The
    /// source port becomes 10,000 and the flow, the last four bytes of the source address the lower half of the
    /// number, which so survives a cut to the headers.
    pub template: Vec<u8>,
    /// How many; numbered from 0.
    pub count: u64,
    /// Time between two; zero = as fast as it goes.
    pub gap: Duration,
    /// First flow.
    pub first_flow: u16,
    /// Flows, a power of two; frame i is of flow `first_flow` + i mod `flows`.
    pub flows: u16,
    /// Fill the rest of the payload, up to 1,456 bytes, with random bytes from this seed, anew for each frame.
    pub random: Option<u64>,
}

/// Why frames could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum FloodError {
    /// The template does not fit.
    #[error("a template of {0} bytes; {TEMPLATE_MIN} to {TEMPLATE_MAX} can be sent")]
    Template(usize),
    /// The flows do not.
    #[error("{0} flows; a power of two is wanted")]
    Flows(u16),
    /// The kernel refused the program or its run.
    #[error("the kernel refused to {act}")]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// Its answer.
        #[source]
        source: libbpf_rs::Error,
    },
}

impl Flood {
    /// Sends, on the calling thread, which should be pinned to a CPU: a veth takes the queue by its number. Ends
    /// when all are sent, or soon after `stop` is set. Returns how many were sent; how many of them the
    /// interface did not take, it counts itself (veth: `tx_queue_N_xdp_xmit_errors` of `ethtool -S`).
    ///
    /// # Errors
    /// [`FloodError`].
    pub fn send(&self, stop: &AtomicBool) -> Result<u64, FloodError> {
        if !(TEMPLATE_MIN..=TEMPLATE_MAX).contains(&self.template.len()) {
            return Err(FloodError::Template(self.template.len()));
        }
        if !self.flows.is_power_of_two() {
            return Err(FloodError::Flows(self.flows));
        }
        let kernel = |act| move |source| FloodError::Kernel { act, source };
        let mut storage = MaybeUninit::uninit();
        let builder = skel::GeneratorSkelBuilder::default();
        let mut open = builder.open(&mut storage).map_err(kernel("open the generator"))?;
        if let Some(told) = open.maps.rodata_data.as_deref_mut() {
            told.ifindex = self.ifindex;
            told.count = self.count;
            told.gap = u64::try_from(self.gap.as_nanos() << 10).unwrap_or(u64::MAX);
            told.first_flow = self.first_flow;
            told.flow_mask = self.flows - 1;
            told.random_payload = u32::from(self.random.is_some());
            told.seed = self.random.unwrap_or(1).max(1);
        }
        only(&mut open, "tapedeck_generate");
        let skel = open.load().map_err(kernel("load the generator"))?;
        let made = || skel.maps.bss_data.as_deref().map_or(0, |data| data.made);
        while made() < self.count && !stop.load(Ordering::Relaxed) {
            let input = ProgramInput {
                data_in: Some(&self.template),
                flags: LIVE_FRAMES,
                repeat: OFFERED,
                ..ProgramInput::default()
            };
            match skel.progs.tapedeck_generate.test_run(input) {
                Ok(_) => {}
                // A signal came.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(FloodError::Kernel { act: "run live frames", source }),
            }
        }
        Ok(made())
    }
}

/// Of the programs of this file only these are loaded.
pub(crate) fn only(open: &mut skel::OpenGeneratorSkel<'_>, wanted: &str) {
    for mut program in open.open_object_mut().progs_mut() {
        let is_wanted = program.name().to_str().is_some_and(|name| name.starts_with(wanted));
        program.set_autoload(is_wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let flood = |len, flows| Flood {
            ifindex: 0,
            template: vec![0; len],
            count: 1,
            gap: Duration::ZERO,
            first_flow: 0,
            flows,
            random: None,
        };
        let stop = AtomicBool::new(false);
        for (len, flows) in [(57, 1), (3_001, 1), (100, 0), (100, 3)] {
            let refused = flood(len, flows).send(&stop);
            assert!(matches!(refused, Err(FloodError::Template(_) | FloodError::Flows(_))), "{len} {flows}");
        }
    }
}
