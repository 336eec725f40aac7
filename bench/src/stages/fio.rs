//! What `fio` gets out of the same folder, as the measure of a sink: a new file written once from its beginning to
//! its end, past the page cache, and made durable.
//!
//! Its own report is read; must never make up a figure where there is none.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};

/// How to get it.
pub const REMEDY: &str =
    "fio is not installed, so there is nothing to hold the sink against (Debian: apt install fio)";

/// What it wrote, and what that took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// Seconds, with what it took to make them durable.
    pub seconds: f64,
    /// CPU time of its thread, seconds.
    pub cpu_seconds: f64,
}

/// Its arguments: `bytes` into a new file of `folder` in writes of `block` bytes, `depth` in flight, with O_DIRECT.
#[must_use]
pub fn arguments(folder: &Path, bytes: u64, block: usize, depth: u32) -> Vec<String> {
    let folder = folder.display().to_string().replace(':', "\\:");
    let words = [
        "--name=sink",
        &format!("--directory={folder}"),
        "--filename=fio",
        "--rw=write",
        &format!("--bs={block}"),
        &format!("--iodepth={depth}"),
        "--ioengine=io_uring",
        "--direct=1",
        &format!("--size={bytes}"),
        "--end_fsync=1",
        "--unlink=1",
        "--output-format=json",
    ];
    words.map(str::to_owned).to_vec()
}

/// Runs it.
///
/// # Errors
/// It does not start, fails, or reports what cannot be read.
pub fn run(arguments: &[String]) -> Result<Written> {
    let output = Command::new("fio").args(arguments).stdin(Stdio::null()).output().context("starting fio")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        bail!("fio ended with {}: {said}", output.status);
    }
    parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("fio's report: {said}"))
}

/// The parts of its report that are used.
#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i32,
    /// Shares of the job's time, percent.
    usr_cpu: f64,
    sys_cpu: f64,
    write: Write,
}

#[derive(Deserialize)]
struct Write {
    io_bytes: u64,
    /// Milliseconds.
    runtime: u64,
}

/// Reads its report (`--output-format=json`), which may stand behind notes.
fn parse(text: &str) -> Result<Written> {
    let json = text.find('{').and_then(|start| text.get(start..)).context("no JSON in it")?;
    let report: Report = serde_json::from_str(json).context("not as fio 3 writes it")?;
    let [job] = report.jobs.as_slice() else { bail!("{} jobs, one was asked for", report.jobs.len()) };
    ensure!(job.error == 0, "the job ended with error {}", job.error);
    ensure!(
        job.write.runtime > 0 && job.write.io_bytes > 0,
        "{} bytes in {} ms are too little to tell a rate from; --disk-bytes makes it more",
        job.write.io_bytes,
        job.write.runtime
    );
    let seconds = crate::machine::ratio(job.write.runtime, 1_000);
    Ok(Written {
        bytes: job.write.io_bytes,
        seconds,
        cpu_seconds: seconds * (job.usr_cpu + job.sys_cpu) / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(error: i32, runtime: u64) -> String {
        format!(
            "note: both iodepth >= 1 and synchronous I/O engine\n{{ \"fio version\": \"fio-3.33\", \"jobs\": [{{ \
             \"error\": {error}, \"usr_cpu\": 2.5, \"sys_cpu\": 7.5, \"read\": {{ \"io_bytes\": 0, \"runtime\": 0 }}, \
             \"write\": {{ \"io_bytes\": 1073741824, \"bw_bytes\": 2147483648, \"runtime\": {runtime} }} }}] }}"
        )
    }

    #[test]
    fn a_report_is_read_and_one_that_says_nothing_is_no_figure() {
        let written = parse(&report(0, 500)).unwrap();
        assert_eq!(written, Written { bytes: 1 << 30, seconds: 0.5, cpu_seconds: 0.05 });
        for (text, why) in [
            (report(28, 500), "error 28"),
            (report(0, 0), "--disk-bytes"),
            ("fio: nothing".to_owned(), "no JSON"),
            ("{}".to_owned(), "not as fio 3"),
            ("{ \"jobs\": [] }".to_owned(), "0 jobs"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn its_folder_may_have_any_name() {
        let words = arguments(Path::new("/mnt/a:b"), 1 << 20, 4096, 8);
        assert!(words.contains(&"--directory=/mnt/a\\:b".to_owned()), "{words:?}");
        assert!(words.contains(&"--iodepth=8".to_owned()) && words.contains(&"--bs=4096".to_owned()));
    }
}
