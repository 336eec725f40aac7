//! The command `stages`: from arguments to measurements to words.

use super::steps::Steps;
use super::{Figures, Options, Row, callgrind, scan, sidecar, sink};
use crate::alone::{self, Content, PRESSED, UNHURRIED};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tapedeck_capture::units;
use tapedeck_writer::Level;

/// Least bytes of a measurement of a disk.
const DISK_BYTES_MIN: u64 = 16 << 20;
/// Measurements of each content in memory: copy, raw, and five levels; what a round of all may take, seconds.
const MEMORY_S: f64 = 1.0;
/// CPU time of a packet in a stage of a recording, with the making of the packet, seconds.
const PACKET_S: f64 = 0.7e-6;

/// A part of what can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Copy and compression of frames in memory.
    Memory,
    /// Header walk, session table, append, and all together.
    Recording,
    /// The sidecar of a segment.
    Sidecar,
    /// The way to the disk, beside fio; needs --folder.
    Sink,
    /// `taperead` on a store, beside inflating alone; needs --folder.
    Scan,
}

/// The arguments of `stages`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Numbers of open sessions, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    sessions: Vec<u32>,
    /// Bytes of a packet, 60 to 1514.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(60..=1514))]
    bytes: u16,
    /// Compression: `off`, `auto`, or a zstd level from -7 to 19.
    #[arg(long, default_value = "off", value_parser = units::level, allow_hyphen_values = true)]
    level: Level,
    /// Packets of each measurement.
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    packets: u64,
    /// Packets that a session sends in a row, while 31 others send theirs. 1 is random order, the worst for
    /// caches; links carry trains.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    train: u32,
    /// Measurements of each stage; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A capture, whose bytes are copied, compressed and indexed too, once through, and of which the store of --folder
    /// is made.
    #[arg(long, value_name = "FILE")]
    traffic: Option<PathBuf>,
    /// A folder on the disk to be measured: frames are written there as the recorder writes them, in turn with fio, and a
    /// store, of which `taperead` is asked. All is removed again.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Bytes of each file that is written to --folder, and of the packets of the store.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::size_bytes)]
    disk_bytes: u64,
    /// Only these parts, separated by commas; all by default, those of a disk with --folder.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Count also the instructions of each stage but the sink, with valgrind. Takes minutes.
    #[arg(long)]
    callgrind: bool,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Give packets to this stage once and measure nothing: what --callgrind runs.
    #[arg(long, value_name = "STAGE", hide = true)]
    alone: Option<String>,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    command: Vec<String>,
    machine: crate::result::Machine,
    bytes: u16,
    figures: Vec<Figures>,
    alone: Vec<alone::Row>,
    sidecar: Vec<sidecar::Figures>,
    sink: Option<sink::Figures>,
    scan: Option<scan::Figures>,
    instructions: Option<callgrind::Figures>,
    notes: Vec<String>,
}

/// Measures and prints.
///
/// # Errors
/// A part cannot be measured here, or fails.
pub fn run(args: &Args) -> Result<()> {
    let options = args.options();
    if let Some(name) = &args.alone {
        return super::alone(name, args.sessions.first().copied().unwrap_or(1), &options);
    }
    let parts = args.parts()?;
    if args.callgrind {
        // Said before an hour of measurements and not behind them.
        callgrind::version()?;
    }
    let mut contents = vec![super::content(&options, None)];
    if let Some(path) = &args.traffic {
        contents.push(Content::of_capture(path)?);
    }
    let mut run = Run { args, options, contents, steps: Steps::new(args.weight(&parts)) };
    let document = run.all(&parts)?;
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&document)?)?;
    }
    Ok(())
}

impl Args {
    fn options(&self) -> Options {
        Options {
            bytes: usize::from(self.bytes),
            level: self.level,
            packets: self.packets,
            rounds: self.rounds,
            train: self.train,
        }
    }

    /// What is to be measured.
    fn parts(&self) -> Result<Vec<Part>> {
        let disk = |part: &Part| matches!(part, Part::Sink | Part::Scan);
        if self.only.iter().any(disk) && self.folder.is_none() {
            bail!("--only sink and scan need --folder DIR: a folder on the disk that is to be measured");
        }
        if let Some(folder) = &self.folder {
            ensure!(folder.is_dir(), "--folder {}: no such folder", folder.display());
            ensure!(
                self.disk_bytes >= DISK_BYTES_MIN,
                "--disk-bytes of less than 16MiB say nothing of a disk"
            );
        }
        let all = [Part::Memory, Part::Recording, Part::Sidecar, Part::Sink, Part::Scan];
        let wanted = |part: &Part| {
            if self.only.is_empty() { self.folder.is_some() || !disk(part) } else { self.only.contains(part) }
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    /// The words that say what packets are like, for another process.
    fn words(&self) -> Vec<String> {
        let level = super::level_name(self.level);
        let sessions = self.sessions.first().copied().unwrap_or(1).to_string();
        let (bytes, train) = (self.bytes.to_string(), self.train.to_string());
        ["--bytes", &bytes, "--level", &level, "--train", &train, "--sessions", &sessions]
            .map(str::to_owned)
            .to_vec()
    }

    /// Seconds that all may take.
    fn weight(&self, parts: &[Part]) -> f64 {
        let contents = 1.0 + f64::from(u8::from(self.traffic.is_some()));
        let part = |part: &Part| match part {
            Part::Memory => contents * self.memory_weight(),
            Part::Recording => self.sessions.iter().map(|sessions| self.recording_weight(*sessions)).sum(),
            Part::Sidecar => contents * sidecar::weight(self.rounds),
            Part::Sink => sink::weight(self.disk_bytes, self.rounds),
            Part::Scan => scan::weight(self.disk_bytes, self.rounds),
        };
        let counted = if self.callgrind { callgrind::weight(&counted(parts)) } else { 0.0 };
        parts.iter().map(part).sum::<f64>() + counted
    }

    fn memory_weight(&self) -> f64 {
        MEMORY_S * f64::from(self.rounds + 1)
    }

    fn recording_weight(&self, sessions: u32) -> f64 {
        let opening = 10.0 * f64::from(sessions);
        5.0 * f64::from(self.rounds) * (1.5 + PACKET_S * (crate::machine::ratio(self.packets, 1) + opening))
    }
}

/// The stages of these parts whose instructions can be counted.
fn counted(parts: &[Part]) -> Vec<callgrind::Stage> {
    let scan = parts.contains(&Part::Scan) && scan::missing().is_none();
    let [memory, recording, sidecar] =
        [Part::Memory, Part::Recording, Part::Sidecar].map(|part| parts.contains(&part));
    callgrind::stages([memory, recording, sidecar, scan])
}

/// A run under way.
struct Run<'a> {
    args: &'a Args,
    options: Options,
    contents: Vec<Content>,
    steps: Steps,
}

impl Run<'_> {
    fn all(&mut self, parts: &[Part]) -> Result<Document> {
        let mut document = Document {
            version: 1,
            command: std::env::args().collect(),
            machine: crate::machine::about(),
            bytes: self.args.bytes,
            figures: Vec::new(),
            alone: Vec::new(),
            sidecar: Vec::new(),
            sink: None,
            scan: None,
            instructions: None,
            notes: Vec::new(),
        };
        for part in parts {
            match part {
                Part::Memory => document.alone = self.memory()?,
                Part::Recording => document.figures = self.recording()?,
                Part::Sidecar => document.sidecar = self.sidecar()?,
                Part::Sink => document.sink = Some(self.sink()?),
                Part::Scan => document.scan = self.scan(&mut document.notes)?,
            }
        }
        if self.args.callgrind {
            document.instructions = Some(self.instructions(parts)?);
        }
        Ok(document)
    }

    /// Prints a table, unless the result is to be JSON.
    fn say(&self, text: &str) -> Result<()> {
        if !self.args.json {
            self.steps.aside(|| writeln!(std::io::stdout(), "{text}")).transpose()?;
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<Vec<alone::Row>> {
        let mut rows = Vec::new();
        for content in &self.contents {
            self.steps.step(&format!("copy and levels, {}", content.name()), self.args.memory_weight());
            rows.extend(alone::measure(content, self.args.rounds)?);
        }
        let mut text = format!(
            "one core, of bytes in memory:\n{:<10} {:>9} {:>9}  {:<9} of",
            "", "GB/s", "ratio", "auto"
        );
        for alone::Row { stage, content, gb_per_s, ratio, auto } in &rows {
            let auto = auto.unwrap_or_default();
            text += &format!("\n{stage:<10} {gb_per_s:>9.2} {ratio:>9.3}  {auto:<9} {content}");
        }
        for content in &self.contents {
            text += &format!("\n{}", levels(&rows, content.name())?);
        }
        self.say(&format!("{text}\n"))?;
        Ok(rows)
    }

    fn recording(&mut self) -> Result<Vec<Figures>> {
        let Args { bytes, train, sessions, .. } = self.args;
        let level = super::level_name(self.args.level);
        let (worker, threads, new) = ("worker", "all threads", "a new session");
        self.say(&format!(
            "packets of {bytes} bytes in trains of {train}, level {level}; ns of CPU time a packet\n\n\
             {:>9}  {:<22} {worker:>8} {threads:>12} {new:>14} {:>9}",
            "sessions", "stage", "GB/s"
        ))?;
        let mut all = Vec::new();
        for sessions in sessions {
            self.steps.step(&format!("{sessions} sessions"), self.args.recording_weight(*sessions));
            let figures = super::measure(*sessions, &self.options)?;
            let mut text = String::new();
            for Row { stage, worker_ns, all_ns, gb_per_s, opening_ns } in &figures.rows {
                let numbers = format!("{worker_ns:>8.1} {all_ns:>12.1} {opening_ns:>14.0} {gb_per_s:>9.2}");
                text += &format!("{sessions:>9}  {stage:<22} {numbers}\n");
            }
            let share = 100.0 * (figures.added_share - 1.0);
            self.say(&format!("{text}{sessions:>9}  sessions and statistics add {share:.0} %\n"))?;
            all.push(figures);
        }
        Ok(all)
    }

    fn sidecar(&mut self) -> Result<Vec<sidecar::Figures>> {
        let mut all = Vec::new();
        for content in &self.contents {
            all.push(sidecar::measure(content, self.args.rounds, &mut self.steps)?);
        }
        let mut text = format!(
            "the sidecar of a segment; ns of CPU time a packet, then bytes:\n{:>8} {:>8} {:>8} {:>7}  {:>8} {:>8} \
             {:>8} {:>6}  {:>9} {:>10}  of",
            "rows",
            "frames",
            "seal",
            "GB/s",
            "a row",
            "posting",
            "a frame",
            "fixed",
            "of stored",
            "stored/row"
        );
        for one in &all {
            text += &format!(
                "\n{:>8.1} {:>8.2} {:>8.2} {:>7.2}  {:>8.1} {:>8.2} {:>8.1} {:>6}  {:>7.3} % {:>10.0}  {}",
                one.rows_ns,
                one.frames_ns,
                one.finish_ns,
                one.gb_per_s,
                one.bytes_per_row,
                one.bytes_per_posting,
                one.bytes_per_frame,
                one.fixed_bytes,
                100.0 * one.share_of_stored,
                one.stored_per_row,
                one.content
            );
        }
        self.say(&format!("{text}\n"))?;
        Ok(all)
    }

    /// The folder of the disk; `parts` has seen to it that there is one.
    fn folder(&self) -> Result<&Path> {
        self.args.folder.as_deref().context("--folder is missing")
    }

    fn sink(&mut self) -> Result<sink::Figures> {
        let folder = self.folder()?.to_owned();
        let content = self.contents.first().context("no packets")?;
        let Args { disk_bytes, rounds, .. } = *self.args;
        let figures = sink::measure(&folder, disk_bytes, content, rounds, &mut self.steps)?;
        let sink::Figures { bytes, block, depth, rows, notes, .. } = &figures;
        let mut text = format!(
            "sink, {} MiB in writes of {} KiB, {depth} in flight, made durable; {}:\n{:<10} {:>9} {:>17} {:>17}",
            bytes >> 20,
            block >> 10,
            folder.display(),
            "",
            "GB/s",
            "slowest, fastest",
            "CPU, ns a MB"
        );
        for sink::Row { sink, gb_per_s, spread: [slowest, fastest], cpu_ns_per_mb } in rows {
            let spread = format!("{slowest:.2}, {fastest:.2}");
            text += &format!("\n{sink:<10} {gb_per_s:>9.2} {spread:>17} {cpu_ns_per_mb:>17.0}");
        }
        if let Some(ratio) = figures.ratio_to_fio {
            text += &format!("\nio_uring reaches {:.0} % of fio's rate (goal: 90 %)", 100.0 * ratio);
        }
        for note in notes {
            text += &format!("\nnote: {note}");
        }
        self.say(&format!("{text}\n"))?;
        Ok(figures)
    }

    fn scan(&mut self, notes: &mut Vec<String>) -> Result<Option<scan::Figures>> {
        if let Some(why) = scan::missing() {
            // Who named it wants it.
            ensure!(!self.args.only.contains(&Part::Scan), "{why}");
            writeln!(std::io::stderr(), "note: {why}")?;
            notes.push(why);
            return Ok(None);
        }
        let folder = self.folder()?.to_owned();
        let content = self.contents.last().context("no packets")?;
        let Args { disk_bytes, level, rounds, .. } = *self.args;
        let figures = scan::measure(&folder, disk_bytes, content, level, rounds, &mut self.steps)?;
        let scan::Figures { store, rows, filter, matches, in_order, notes } = &figures;
        let mut text = format!(
            "query of {} packets of {}, {} MB of pcapng in {} MB stored, {} segments of two queues, level {}:\n{:<22} {:>9} \
             {:>12} {:>10} {:>11} {:>11}",
            store.packets,
            store.content,
            store.raw_bytes / 1_000_000,
            store.stored_bytes / 1_000_000,
            store.segments,
            store.level,
            "",
            "GB/s",
            "GB/s of CPU",
            "ns/packet",
            "of inflate",
            "CPU"
        );
        for row in rows {
            let [of, cpu] =
                [row.of_inflate, row.cpu_of_inflate].map(|share| format!("{:.0} %", 100.0 * share));
            text += &format!(
                "\n{:<22} {:>9.2} {:>12.2} {:>10.0} {of:>11} {cpu:>11}",
                row.stage, row.gb_per_s, row.gb_per_cpu_s, row.cpu_ns
            );
        }
        text += &format!(
            "\n`{filter}` finds {matches}; the export was read: {in_order} packets, each later than the one before \
             (goal: 70 % of inflate)"
        );
        for note in notes {
            text += &format!("\nnote: {note}");
        }
        self.say(&format!("{text}\n"))?;
        Ok(Some(figures))
    }

    fn instructions(&mut self, parts: &[Part]) -> Result<callgrind::Figures> {
        let sessions = self.args.sessions.first().copied().unwrap_or(1);
        let figures = callgrind::measure(
            &counted(parts),
            &self.args.words(),
            &self.options,
            sessions,
            &mut self.steps,
        )?;
        let mut text = format!(
            "instructions a packet, {sessions} sessions, {}:\n{:<10} {:>9} {:>12}",
            figures.valgrind, "", "worker", "all threads"
        );
        for callgrind::Row { stage, worker, all } in &figures.rows {
            text += &format!("\n{stage:<10} {worker:>9.0} {all:>12.0}");
        }
        self.say(&format!("{text}\n"))?;
        Ok(figures)
    }
}

/// What `auto` makes of a content: at the lowest level it goes to, and when nothing presses.
fn levels(rows: &[alone::Row], content: &str) -> Result<String> {
    let of = |level: i32| {
        let name = format!("level {level}");
        let row = rows.iter().find(|row| row.content == content && row.stage == name);
        row.with_context(|| format!("no row of {name} for {content}"))
    };
    let (pressed, unhurried, three) = (of(PRESSED)?, of(UNHURRIED)?, of(3)?);
    Ok(format!(
        "{content}: under pressure auto goes down to level {PRESSED}, {:.2} GB/s a core at ratio {:.3} (goal: 1.3 at 1.48 on a \
         mix of applications); unhurried, at level {UNHURRIED}, it stores {:.1} % more than level 3 (goal: 2 %)",
        pressed.gb_per_s,
        pressed.ratio,
        100.0 * (three.ratio / unhurried.ratio - 1.0)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let words = [&["stages"][..], words].concat();
        <Cli as clap::Parser>::parse_from(words).args
    }

    #[test]
    fn parts_of_a_disk_need_a_folder() {
        let cpu = vec![Part::Memory, Part::Recording, Part::Sidecar];
        assert_eq!(args(&[]).parts().unwrap(), cpu);
        let all = [cpu, vec![Part::Sink, Part::Scan]].concat();
        assert_eq!(args(&["--folder", "/tmp"]).parts().unwrap(), all);
        let some = args(&["--folder", "/tmp", "--only", "scan,memory"]);
        assert_eq!(some.parts().unwrap(), [Part::Memory, Part::Scan]);
        for (words, why) in [
            (&["--only", "sink"][..], "--folder DIR"),
            (&["--folder", "/nowhere"], "/nowhere"),
            (&["--folder", "/tmp", "--disk-bytes", "1MiB"], "16MiB"),
        ] {
            let error = args(words).parts().unwrap_err().to_string();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }

    #[test]
    fn another_process_gets_the_same_packets() {
        let some = args(&["--bytes", "60", "--level", "-5", "--train", "8", "--sessions", "7,8"]);
        let words = some.words();
        let again = args(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again.words(), words);
        assert_eq!(
            (again.bytes, again.level, again.train, again.sessions),
            (60, Level::Fixed(-5), 8, vec![7])
        );
    }

    #[test]
    fn the_line_of_auto_names_its_levels() {
        let row = |level: i32, gb_per_s, ratio| alone::Row {
            stage: format!("level {level}"),
            content: "x".to_owned(),
            gb_per_s,
            ratio,
            auto: None,
        };
        let rows = [row(PRESSED, 1.5, 1.49), row(UNHURRIED, 0.6, 1.6), row(3, 0.3, 1.632)];
        let line = levels(&rows, "x").unwrap();
        assert!(line.contains("level -8, 1.50 GB/s a core at ratio 1.490"), "{line}");
        assert!(line.contains("at level 1, it stores 2.0 % more than level 3"), "{line}");
        assert!(levels(&rows, "y").is_err());
    }
}
