//! The link between the guest's two cards: two taps in a network namespace, one copied into the other.
//!
//! ```text
//! guest: sender  ---> tap tx --- tc redirect ---> tap rx ---> recorder :guest
//! ```
//!
//! Taps and not QEMU's own hub, because only they have several queues; the one that is recorded does. The namespace carries the process id
//! and a number in its name. This must never touch an interface that was there before.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::output_of;
use crate::demo::process;
use crate::packages;

/// Card the guest sends on; also the name of its tap.
pub(crate) const TX: &str = "tx";
/// Card the guest records.
pub(crate) const RX: &str = "rx";
/// Longest IP packet that passes, in bytes.
const MTU: &str = "9000";
/// Frames a tap keeps for a guest that is slow.
const WAITING: &str = "16384";

/// The namespace with the taps; gone when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) namespace: String,
}

impl Drop for Network {
    fn drop(&mut self) {
        // The taps die with their namespace.
        if Path::new("/run/netns").join(&self.namespace).exists() {
            let removed = packages::tool("ip").args(["netns", "delete", &self.namespace]).status();
            if !removed.is_ok_and(|status| status.success()) {
                eprintln!("warning: cannot remove the network namespace {}", self.namespace);
            }
        }
    }
}

impl Network {
    /// Makes namespace, taps and redirect.
    pub(crate) fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number counts.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self { namespace: format!("tapedeck-vm-{}-{number}", std::process::id()) };
        output_of(packages::tool("ip").args(["netns", "add", &network.namespace]))?;
        for tap in [TX, RX] {
            let mut add = vec!["ip", "tuntap", "add", "dev", tap, "mode", "tap"];
            add.extend((tap == RX).then_some("multi_queue"));
            network.inside(&add).context("a tap")?;
            // No address, no neighbour discovery: only the guest's packets travel here.
            let settings = ["addrgenmode", "none", "mtu", MTU, "txqueuelen", WAITING, "up"];
            network.inside(&[&["ip", "link", "set", "dev", tap], &settings[..]].concat())?;
        }
        network
            .inside(&["tc", "qdisc", "add", "dev", TX, "clsact"])
            .context("the kernel needs the modules sch_ingress, cls_u32 and act_mirred")?;
        let filter = ["tc", "filter", "add", "dev", TX, "ingress", "protocol", "all", "u32", "match"];
        let action = ["u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", RX];
        network.inside(&[&filter[..], &action[..]].concat())?;
        Ok(network)
    }

    fn inside(&self, words: &[&str]) -> Result<()> {
        let (program, arguments) = words.split_first().context("no command")?;
        let program = packages::find(program).with_context(|| format!("no {program}"))?;
        output_of(process::inside(&self.namespace, &program).args(arguments)).map(drop)
    }
}
