//! What passes the mirror in the demo: conversations between two kernels' stacks, or the user's own capture.
//!
//! Either way it ends in one question whose right answer is known from outside the product.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::answer::{self, Expected, Question};
use super::lab::{CLIENT_V4, Lab, SERVER_V4, SERVER_V6, USUAL_MTU};
use super::ledger::grouped;
use super::pcap;
use super::process::{self, Interrupt, Service};
use super::store::Store;
use super::talk::{Conversation, SERVING};

const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
const ETHERNET_HEADER_BYTES: usize = 14;
/// Pace of a replay: quick, and far below what a small machine records without loss.
const REPLAY_PPS: u32 = 20_000;

/// Where the traffic comes from.
#[derive(Debug)]
pub(crate) enum Plan {
    /// The two stacks of the lab talk to each other.
    Talk,
    /// A capture is played onto the mirror port.
    Replay(Replay),
}

/// A capture and the conversation in it to ask for.
#[derive(Debug)]
pub(crate) struct Replay {
    file: PathBuf,
    frames: usize,
    longest_bytes: usize,
    /// `None` if no TCP or UDP conversation shows: then the question is for everything.
    path: Option<pcap::Path>,
    conversation: Vec<Vec<u8>>,
}

impl Plan {
    /// Reads the capture if there is one, so that its faults show before anything is made.
    pub(crate) fn new(file: Option<&Path>, interrupt: &Interrupt) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::Talk) };
        let bytes = answer::as_pcap(file, interrupt)?;
        let frames = pcap::frames(&bytes).with_context(|| format!("{}", file.display()))?;
        let mut conversations: BTreeMap<pcap::Path, Vec<Vec<u8>>> = BTreeMap::new();
        for frame in &frames {
            if let Some(path) = pcap::path(frame) {
                conversations.entry(path.conversation()).or_default().push(frame.to_vec());
            }
        }
        let busiest = conversations.into_iter().max_by_key(|(_, frames)| frames.len());
        let (path, conversation) = match busiest {
            Some((path, frames)) => (Some(path), frames),
            None => (None, frames.iter().map(|frame| frame.to_vec()).collect()),
        };
        let longest_bytes = frames.iter().map(|frame| frame.len()).max().unwrap_or_default();
        let file = file.to_owned();
        Ok(Self::Replay(Replay { file, frames: frames.len(), longest_bytes, path, conversation }))
    }

    /// True if the lab must mirror its own link.
    pub(crate) fn mirrors(&self) -> bool {
        matches!(self, Self::Talk)
    }

    /// Largest frame without its Ethernet header that the mirror must carry, in bytes.
    pub(crate) fn mtu(&self) -> usize {
        match self {
            Self::Talk => USUAL_MTU,
            Self::Replay(replay) => USUAL_MTU.max(replay.longest_bytes.saturating_sub(ETHERNET_HEADER_BYTES)),
        }
    }

    /// The lab as a drawing.
    pub(crate) fn drawing(&self) -> String {
        match self {
            Self::Talk => format!(
                "     client {CLIENT_V4} <--- veth ---> {SERVER_V4} server (and {SERVER_V6})\n\
                 \x20        \\--- mirror, both directions ---> tap0, the sensor's port"
            ),
            Self::Replay(replay) => {
                format!("     {} --- tcpreplay ---> tap0, the sensor's port", replay.file.display())
            }
        }
    }

    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Talk => "Real conversations between two kernels' stacks",
            Self::Replay(_) => "Play the capture onto the mirror port",
        }
    }

    /// Makes the traffic; returns the question whose answer is known.
    pub(crate) fn run(&self, lab: &Lab, store: &Store, interrupt: &Interrupt) -> Result<Question> {
        match self {
            Self::Talk => talk(lab, store, interrupt),
            Self::Replay(replay) => replay.run(lab, interrupt),
        }
    }
}

fn talk(lab: &Lab, store: &Store, interrupt: &Interrupt) -> Result<Question> {
    lab.mirror()?;
    let mut server = Service::start(super::own_half(&lab.server, "demo-serve")?)?;
    server.wait_for(SERVING, SERVER_TIMEOUT, interrupt)?;
    for address in [SERVER_V4, SERVER_V6] {
        let mut ping = process::inside(&lab.client, Path::new("ping"));
        ping.args(["-c", "3", "-i", "0.1", "-W", "5", "-q", address]);
        process::run(ping, Vec::new(), interrupt)?.success("ping")?;
        println!("     {:<26} {address}", "3 pings");
    }
    let mut client = super::own_half(&lab.client, "demo-talk")?;
    client.arg(store.transcripts());
    let said = process::run(client, Vec::new(), interrupt)?.success("the client")?;
    let conversations: Vec<Conversation> = serde_json::from_slice(&said).context("the client's report")?;
    for Conversation { what, client, server, sent_bytes, received_bytes, .. } in &conversations {
        let bytes =
            format!("{} bytes up, {} down", grouped(*sent_bytes as u64), grouped(*received_bytes as u64));
        println!("     {what:<26} {client} > {server}: {bytes}");
    }
    let http = conversations.iter().find(|c| c.name == "http").context("the client reports no download")?;
    let (client, server): (SocketAddr, SocketAddr) = (http.client.parse()?, http.server.parse()?);
    let transcript = |end: &str| {
        let path = store.file(&format!("http.{end}"));
        fs::read(&path).with_context(|| format!("{}", path.display()))
    };
    let expected =
        Expected::Connection { client, server, sent: transcript("sent")?, received: transcript("received")? };
    Ok(Question { filter: flow(client, server, "tcp"), expected })
}

impl Replay {
    fn run(&self, lab: &Lab, interrupt: &Interrupt) -> Result<Question> {
        println!("     {} frames at {} a second", grouped(self.frames as u64), grouped(REPLAY_PPS.into()));
        process::run(lab.replay(&self.file, REPLAY_PPS), Vec::new(), interrupt)?.success("tcpreplay")?;
        let filter = match self.path {
            Some(pcap::Path { proto, from, to }) => {
                let frames = grouped(self.conversation.len() as u64);
                println!(
                    "     the busiest conversation in it: {from} and {to}, {}, {frames} frames",
                    proto.name()
                );
                flow(from, to, proto.name())
            }
            None => {
                println!("     no TCP or UDP conversation shows in it: all of it is asked for");
                Vec::new()
            }
        };
        let expected = Expected::Frames(self.conversation.clone());
        Ok(Question { filter, expected })
    }
}

fn flow(a: SocketAddr, b: SocketAddr, proto: &str) -> Vec<String> {
    vec!["flow".to_owned(), a.to_string(), b.to_string(), proto.to_owned()]
}
