//! What is sent: sequences of packets whose sizes, flows and payload follow a model, or come from a capture.
//!
//! A model is made into templates before anything is sent ([`Traffic`]); a sender repeats them and numbers each packet
//! ([`tapedeck_ebpf::replay`]). The same model with the same seed is the same sequence, byte for byte. It must never
//! read a clock or a random source of the system.

mod file;
mod frame;
mod internet;
mod models;
pub(crate) mod random;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tapedeck_ebpf::replay::Template;

/// Longest frame of a model without its checksum, bytes.
pub const FRAME_MAX: usize = 9_014;
/// The checksum behind a frame of Ethernet, which sizes of RFC 2544 count and captures do not hold.
pub const FCS: usize = 4;

/// Whose traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// All frames of one size, checksum included as RFC 2544 counts: 64 to 9,018 bytes.
    Fixed(usize),
    /// Simple IMIX: of twelve frames seven of 64 bytes, four of 594 and one of 1,518.
    Imix,
    /// Flows as a campus network's link to the Internet has them.
    Internet,
    /// The packets of a capture file, with other addresses each time they are sent again.
    File(PathBuf),
}

impl std::str::FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => Ok(Self::Imix),
            "internet" => Ok(Self::Internet),
            _ => match text.parse() {
                Ok(size) if (64..=FRAME_MAX + FCS).contains(&size) => Ok(Self::Fixed(size)),
                Ok(size) => Err(format!("frames of {size} bytes; 64 to {} can be sent", FRAME_MAX + FCS)),
                Err(_) if std::path::Path::new(text).is_file() => Ok(Self::File(text.into())),
                Err(_) => Err("a frame size, imix, internet, or a capture file is wanted".to_owned()),
            },
        }
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Imix => f.write_str("imix"),
            Self::Internet => f.write_str("internet"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is in a packet behind its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// Random bytes: as encrypted or compressed traffic, which no compression makes smaller.
    Random,
    /// Words, which compress as text does.
    Text,
    /// Zeroes.
    Zero,
}

/// What a model leaves open.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Flows of `Fixed` and `Imix`, 1 to 1,000,000.
    pub flows: u32,
    /// Payload of `Fixed` and `Imix`.
    pub payload: Payload,
    /// Share of the payload bytes of `Internet` that is random, 0 to 1; the rest is text.
    pub encrypted: f64,
    /// Of all that is drawn.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { flows: 1_000, payload: Payload::Random, encrypted: 0.9, seed: 1 }
    }
}

/// A sequence to send, and what it is like.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The packets, in order.
    pub templates: Vec<Template>,
    /// What it is like.
    pub about: About,
}

/// What a sequence is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The model, or the capture's path.
    pub model: String,
    /// Packets of the sequence.
    pub packets: u64,
    /// Mean bytes of a packet, without the checksum behind it.
    pub mean_bytes: f64,
    /// Longest packet, bytes.
    pub longest: usize,
    /// Conversations of the sequence.
    pub flows: u64,
    /// Of them those that are new ones each time the sequence is sent again.
    pub renewed: u64,
    /// Packets of a capture that are not sent, because they are longer than a frame may be or not of Ethernet.
    pub left_out: u64,
}

impl Traffic {
    /// Makes the sequence.
    ///
    /// # Errors
    /// The capture cannot be read or has no packet that can be sent; the shape makes no sense.
    pub fn new(model: &Model, shape: &Shape) -> Result<Self> {
        if !(1..=1_000_000).contains(&shape.flows) {
            bail!("{} flows; 1 to 1000000 can be sent", shape.flows);
        }
        if !(0.0..=1.0).contains(&shape.encrypted) {
            bail!("a share of {}; 0 to 1 is wanted", shape.encrypted);
        }
        match model {
            Model::Fixed(size) => models::cycle(&[*size], shape, model),
            Model::Imix => models::cycle(&models::IMIX, shape, model),
            Model::Internet => Ok(internet::sequence(shape)),
            Model::File(path) => file::sequence(path),
        }
    }

    fn of(model: &Model, templates: Vec<Template>, [flows, renewed, left_out]: [u64; 3]) -> Self {
        let packets = u64::try_from(templates.len()).unwrap_or(u64::MAX);
        let bytes: usize = templates.iter().map(|template| template.bytes.len()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a mean that is read, of counts far below 2^52")]
        let mean_bytes = bytes as f64 / templates.len().max(1) as f64;
        let longest = templates.iter().map(|template| template.bytes.len()).max().unwrap_or(0);
        let about =
            About { model: model.to_string(), packets, mean_bytes, longest, flows, renewed, left_out };
        Self { templates, about }
    }

    /// The MTU that its longest packet needs; at least that of Ethernet.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        u32::try_from(self.about.longest.saturating_sub(14)).unwrap_or(u32::MAX).max(1_500)
    }
}

#[cfg(test)]
mod tests;
