//! The demo's own little network: three namespaces, two links, one mirror.
//!
//! ```text
//! client: wire0 10.71.0.1, fd71::1  <--- veth --->  10.71.0.2, fd71::2 wire0 :server
//!              \--- tc mirror, both directions ---> span0 <--- veth ---> tap0 :sensor
//! ```
//!
//! The namespaces carry the process id in their names, and both ends of every link are made inside them. This
//! must never touch an interface that was there before.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::process::{self, Interrupt};
use crate::packages;

/// The port the sensor listens on.
pub(crate) const TAP: &str = "tap0";
pub(crate) const CLIENT_V4: &str = "10.71.0.1";
pub(crate) const SERVER_V4: &str = "10.71.0.2";
pub(crate) const SERVER_V6: &str = "fd71::2";
const CLIENT_V6: &str = "fd71::1";
const WIRE: &str = "wire0";
const SPAN: &str = "span0";
/// Largest frame without its Ethernet header on an ordinary link, in bytes.
pub(crate) const USUAL_MTU: usize = 1500;

/// The network; gone when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) sensor: String,
    interrupt: Interrupt,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A link dies with the namespace of either end, so the namespaces are all there is to remove.
        for namespace in [&self.client, &self.server, &self.sensor] {
            if Path::new("/run/netns").join(namespace).exists() {
                let removed = packages::tool("ip").args(["netns", "delete", namespace]).status();
                if !removed.is_ok_and(|status| status.success()) {
                    eprintln!("warning: cannot remove the network namespace {namespace}");
                }
            }
        }
    }
}

impl Lab {
    /// Makes the network; frames up to `mtu` bytes pass the mirror.
    pub(crate) fn new(mtu: usize, interrupt: &Interrupt) -> Result<Self> {
        let name = |role: &str| format!("tapedeck-demo-{}-{role}", std::process::id());
        let interrupt = interrupt.clone();
        let lab = Self { client: name("client"), server: name("server"), sensor: name("sensor"), interrupt };
        let Self { client, server, sensor, .. } = &lab;
        for namespace in [client, server, sensor] {
            lab.ip(&["netns", "add", namespace])?;
        }
        lab.tool(
            client,
            &["ip", "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", server],
        )?;
        lab.tool(client, &["ip", "link", "add", SPAN, "type", "veth", "peer", "name", TAP, "netns", sensor])?;
        // The kernel's stacks must put whole, checksummed, wire-sized frames on the link.
        for (namespace, link) in [(client, WIRE), (server, WIRE), (client, SPAN), (sensor, TAP)] {
            lab.tool(
                namespace,
                &["ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"],
            )?;
        }
        let mtu = mtu.to_string();
        for (namespace, link) in [(client, SPAN), (sensor, TAP)] {
            lab.tool(namespace, &["ethtool", "-K", link, "rxvlan", "off", "txvlan", "off"])?;
            // Nothing but mirrored frames on the mirror: no IPv6 address, so no neighbour discovery.
            lab.tool(namespace, &["ip", "link", "set", link, "addrgenmode", "none", "mtu", &mtu, "up"])?;
        }
        for (namespace, v4, v6) in [(client, CLIENT_V4, CLIENT_V6), (server, SERVER_V4, SERVER_V6)] {
            lab.tool(namespace, &["ip", "link", "set", "lo", "up"])?;
            lab.tool(namespace, &["ip", "address", "add", &format!("{v4}/24"), "dev", WIRE])?;
            lab.tool(namespace, &["ip", "address", "add", &format!("{v6}/64"), "dev", WIRE, "nodad"])?;
            lab.tool(namespace, &["ip", "link", "set", WIRE, "up"])?;
        }
        Ok(lab)
    }

    /// Starts to copy what passes the client's link, both ways, to the mirror port.
    pub(crate) fn mirror(&self) -> Result<()> {
        self.tool(&self.client, &["tc", "qdisc", "add", "dev", WIRE, "clsact"])
            .context("the kernel needs the modules sch_ingress, cls_u32 and act_mirred")?;
        for direction in ["ingress", "egress"] {
            let filter = ["tc", "filter", "add", "dev", WIRE, direction, "protocol", "all", "u32", "match"];
            let action = ["u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", SPAN];
            self.tool(&self.client, &[&filter[..], &action[..]].concat())?;
        }
        Ok(())
    }

    /// Ends the copying, if it was started.
    pub(crate) fn stop_mirror_if(&self, started: bool) -> Result<()> {
        if !started {
            return Ok(());
        }
        self.tool(&self.client, &["tc", "qdisc", "delete", "dev", WIRE, "clsact"])
    }

    /// Frames that the kernel has put on the mirror port so far, by its own count.
    pub(crate) fn mirrored_frames(&self) -> Result<u64> {
        let shown = self.output(&self.client, &["ip", "-s", "-j", "link", "show", SPAN])?;
        let shown: serde_json::Value = serde_json::from_slice(&shown).context("ip -j link")?;
        shown
            .pointer("/0/stats64/tx/packets")
            .and_then(serde_json::Value::as_u64)
            .context("ip -s -j link: no count")
    }

    /// A command that plays `file` onto the mirror port.
    pub(crate) fn replay(&self, file: &Path, packets_per_second: u32) -> Command {
        let mut command = process::inside(&self.client, Path::new("tcpreplay"));
        command.args(["--intf1", SPAN, "--pps", &packets_per_second.to_string()]).arg(file);
        command
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut command = process::bound("ip");
        command.args(arguments);
        let done = process::run(command, Vec::new(), &self.interrupt)?;
        done.success(&format!("ip {}", arguments.join(" "))).map(drop)
    }

    fn tool(&self, namespace: &str, words: &[&str]) -> Result<()> {
        self.output(namespace, words).map(drop)
    }

    fn output(&self, namespace: &str, words: &[&str]) -> Result<Vec<u8>> {
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = process::inside(namespace, Path::new(program));
        command.args(arguments);
        process::run(command, Vec::new(), &self.interrupt)?.success(&words.join(" "))
    }
}
