//! The traces folder, and tshark's reading of its files.
//!
//! `TAPEDECK_TRACES` unset: the caller prints `SKIPPED n`. Set but missing: a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What tshark is asked for, one column each.
pub(crate) const FIELDS: [&str; 20] = [
    "frame.number",
    "frame.protocols",
    "ip.src",
    "ipv6.src",
    "tcp.stream",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.len",
    "tcp.payload",
    "udp.stream",
    "udp.srcport",
    "udp.dstport",
    "udp.payload",
    "tls.handshake.extensions_server_name",
    "dtls.handshake.extensions_server_name",
    "dns.qry.name",
    "http.host",
    "_ws.col.Protocol",
];

/// Parts the folder is read in, each by a test of its own, so that tests share the work.
pub(crate) const PARTS: usize = 8;

/// The folder of real captures; `None` when the environment names none.
pub(crate) fn folder() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES").map(PathBuf::from) else {
        println!("SKIPPED 1 TAPEDECK_TRACES is not set");
        return None;
    };
    assert!(folder.is_dir(), "TAPEDECK_TRACES is set but {} is no folder", folder.display());
    Some(folder)
}

/// All captures below `folder`, as names relative to it, in order.
pub(crate) fn captures(folder: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if is_capture(&path) {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn is_capture(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    std::fs::File::open(path).unwrap().read_exact(&mut magic).is_ok()
        && matches!(
            u32::from_le_bytes(magic),
            0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0x0a0d_0d0a | 0x34cd_b2a1 | 0xa1b2_cd34
        )
}

/// tshark's rows for a capture: [`FIELDS`], several values of one field apart by 0x1f. A run over all captures
/// takes minutes, so rows are kept in Cargo's folder for tests and taken from there while file and tshark are
/// the same.
pub(crate) fn rows(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    let meta = std::fs::metadata(&file).unwrap();
    let changed = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tshark-{}", version()));
    std::fs::create_dir_all(&kept).unwrap();
    let kept = kept.join(format!("{}.{}.{changed}.tsv", name.replace('/', "+"), meta.len()));
    if let Ok(rows) = std::fs::read(&kept) {
        return String::from_utf8_lossy(&rows).into_owned();
    }
    let rows = run(&file);
    // Written beside and renamed: another test may be reading it.
    let beside = kept.with_extension(format!("{}", std::process::id()));
    std::fs::write(&beside, &rows).unwrap();
    std::fs::rename(&beside, &kept).unwrap();
    String::from_utf8_lossy(&rows).into_owned()
}

fn run(file: &Path) -> Vec<u8> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-T", "fields"]);
    command.args(["-E", "separator=/t", "-E", "aggregator=\u{1f}", "-r"]).arg(file);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    // A file that is cut is an error to tshark after all its packets.
    command.stderr(Stdio::null()).output().expect("tshark runs").stdout
}

/// tshark's version, on which depends what it reads.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut command = Command::new("tshark");
        let output = command.arg("--version").stderr(Stdio::null()).output().expect("tshark runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().and_then(|line| line.split(' ').nth(2)).unwrap_or_default().to_owned()
    })
}
