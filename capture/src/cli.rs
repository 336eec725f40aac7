//! What can be typed. Parsing touches nothing: no file, no clock, no network.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use tapedeck_writer::Level;

/// Full-content packet recorder.
///
/// Records every packet of a network interface into compressed, indexed segments that any tool opens
/// (`zstd -dc SEGMENT | tcpdump -r -`), and accounts for each one. `taperead` retrieves them.
#[derive(Debug, Parser)]
#[command(name = "tapedeck", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store the packets of capture files: pcap, pcapng, snoop; plain, .gz, .zst or .lz4.
    ///
    /// Same pipeline as a recording. Ends with the ledger as JSON on stdout. Exit code 0: all files
    /// whole; 3: some file cut or damaged, its whole packets and the other files are stored; 2: nothing
    /// stored.
    Import(ImportArgs),
    /// Seal what a crash left open. Also runs by itself when a recording starts.
    Recover(StoreArgs),
    /// Build the index of segments anew from their packets.
    ///
    /// The index is a pure function of the packets: a healthy one comes out byte for byte the same.
    Reindex(ReindexArgs),
    /// Check every frame, checksum and index of a store. Exit code 0 only if all hold, 3 if something is
    /// damaged, 2 if it cannot be looked at.
    Verify(StoreArgs),
}

/// A store that is there already.
#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Folder of the store; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Stored bytes at which a segment is cut, e.g. 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub segment_size: u64,
    /// Compression: `auto`, `off`, or a zstd level from -7 to 19.
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = level, allow_hyphen_values = true)]
    pub level: Level,
    /// Capture files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Arguments of `reindex`.
#[derive(Debug, clap::Args)]
pub struct ReindexArgs {
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Segments (`.pcapng.zst`) to do; all of the store by default.
    #[arg(value_name = "SEGMENT")]
    pub segments: Vec<PathBuf>,
}

/// A size in bytes: a number with `KiB`, `MiB`, `GiB`, `TiB` (or K, M, G, T, meaning the same), or none.
///
/// # Errors
/// Says what is accepted.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        other => return Err(format!("unknown unit `{other}`; use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{digits}` is no whole number of bytes"))?;
    let bytes = number.checked_mul(1 << shift).ok_or("too large")?;
    if bytes < 1 << 20 { Err("at least 1MiB".into()) } else { Ok(bytes) }
}

/// A compression level as typed.
///
/// # Errors
/// Says what is accepted.
pub fn level(text: &str) -> Result<Level, String> {
    match text {
        "auto" => Ok(Level::Auto),
        "off" => Ok(Level::Off),
        number => match number.parse::<i32>() {
            Ok(level @ -7..=19) => Ok(Level::Fixed(level)),
            _ => Err("use `auto`, `off` or a number from -7 to 19".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_levels_are_read() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1048576"), Ok(1 << 20));
        for bad in ["", "G", "1GB", "10", "-1M", "99999999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(level("-7"), Ok(Level::Fixed(-7)));
        assert!(level("20").is_err() && level("fast").is_err());
    }
}
