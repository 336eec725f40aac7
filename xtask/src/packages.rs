//! The Debian packages that building, testing and the demo need, each with its reason, and their installation.
//!
//! A package counts as there when the file it is needed for is there, whoever put it there. This must never
//! remove or upgrade anything.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What something is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Building the product.
    Build,
    /// The tests, as tools or as oracles that nobody here wrote.
    Test,
    /// The demo.
    Demo,
    /// The demo with a trace of the user's.
    Replay,
    /// Guests with other kernels.
    Guest,
}

/// What shows that a package is there.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Program(&'static str),
    Header(&'static str),
    /// A module of the system's Python.
    Module(&'static str),
    File(&'static str),
}

#[derive(Debug)]
struct Package {
    name: &'static str,
    sign: Sign,
    needed: &'static [For],
    reason: &'static str,
}

const fn program(
    name: &'static str,
    program: &'static str,
    needed: &'static [For],
    reason: &'static str,
) -> Package {
    Package { name, sign: Sign::Program(program), needed, reason }
}

const fn header(name: &'static str, header: &'static str, reason: &'static str) -> Package {
    Package { name, sign: Sign::Header(header), needed: &[For::Build], reason }
}

const PACKAGES: &[Package] = &[
    program("gcc", "gcc", &[For::Build], "C parts of zstd and libbpf"),
    header("libc6-dev", "stdlib.h", "headers for the C parts"),
    header("linux-libc-dev", "linux/bpf.h", "the kernel's headers for the XDP program"),
    program("clang", "clang", &[For::Build], "compiles the XDP program"),
    program("make", "make", &[For::Build], "builds the vendored libbpf"),
    program("pkg-config", "pkg-config", &[For::Build], "finds the libraries that libbpf links"),
    header("libelf-dev", "libelf.h", "libbpf reads ELF objects"),
    header("zlib1g-dev", "zlib.h", "libbpf reads compressed ELF sections"),
    program("iproute2", "tc", &[For::Test, For::Demo, For::Guest], "namespaces, veth links, the mirror"),
    program(
        "ethtool",
        "ethtool",
        &[For::Test, For::Demo, For::Guest],
        "turns offloads off: frames as on the wire",
    ),
    program("iputils-ping", "ping", &[For::Test, For::Demo], "ICMP traffic"),
    program("tcpdump", "tcpdump", &[For::Test, For::Demo], "reads what we wrote: oracle for filters"),
    Package {
        name: "netbase",
        sign: Sign::File("/etc/services"),
        needed: &[For::Test, For::Demo],
        reason: "names of ports and protocols, which tcpdump looks up",
    },
    program("zstd", "zstd", &[For::Test, For::Demo, For::Guest], "reads what we wrote: oracle for segments"),
    program("tshark", "tshark", &[For::Test], "reads what we wrote: oracle for pcapng and dissection"),
    program("wireshark-common", "capinfos", &[For::Test], "reads what we wrote: oracle for counts and times"),
    program("tcpreplay", "tcpreplay", &[For::Test, For::Replay], "plays captures onto a link"),
    program("python3", "python3", &[For::Test], "a conversation partner that is not ours"),
    program("qemu-system-x86", "qemu-system-x86_64", &[For::Guest], "guests with other kernels"),
    program("kmod", "modprobe", &[For::Guest], "which modules a guest loads, in which order"),
    program("xz-utils", "xz", &[For::Guest], "unpacks modules"),
    program("binutils", "strip", &[For::Guest], "makes programs small for a guest's memory"),
    Package {
        name: "python3-venv",
        sign: Sign::Module("ensurepip"),
        needed: &[For::Test],
        reason: "an environment for engines that read our tables",
    },
];

/// Packages of Python's index that tests use as oracles: they read the tables that we wrote.
const PYTHON: &[&str] = &["duckdb", "pyarrow"];

/// The authorities that the system trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes `target/python`, an environment with what is in [`PYTHON`], where it is not there yet. Returns what
/// it did, in words.
pub(crate) fn install_python(root: &Path) -> Result<String> {
    let home = root.join("target/python");
    let python = home.join("bin/python3");
    let imports = format!("import {}", PYTHON.join(", "));
    let complete = || Command::new(&python).args(["-c", &imports]).output().is_ok_and(|o| o.status.success());
    if complete() {
        return Ok("nothing missing".to_owned());
    }
    run_quietly(tool("python3").args(["-m", "venv"]).arg(&home))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(PYTHON);
    // pip trusts a list of its own; the system's may know more, such as a proxy's.
    if Path::new(CERTIFICATES).exists() && env::var_os("PIP_CERT").is_none() {
        pip.env("PIP_CERT", CERTIFICATES);
    }
    run_quietly(&mut pip)?;
    if !complete() {
        bail!("{} are installed, but `{imports}` fails", PYTHON.join(" "));
    }
    Ok(format!("installed {}", PYTHON.join(" ")))
}

fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{:?} does not start", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The search path with the folders of system programs, which `su` may leave out.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// A command that also finds system programs.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| name.into()));
    command.env("PATH", search_path());
    command
}

/// Installs what is missing for `needed`. Returns what it did, in words.
pub(crate) fn install_missing(needed: &[For]) -> Result<String> {
    let missing: Vec<&Package> =
        PACKAGES.iter().filter(|p| p.needed.iter().any(|n| needed.contains(n)) && !is_there(p)).collect();
    if missing.is_empty() {
        return Ok("nothing missing".to_owned());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let line = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
    if find("apt-get").is_none() {
        bail!("missing: {}; this is no Debian, install what they stand for", names.join(" "));
    }
    if !is_root() {
        bail!("missing: {}; run as root: {line}", names.join(" "));
    }
    for package in &missing {
        eprintln!("    installing {}: {}", package.name, package.reason);
    }
    apt_get(&["update", "-q"])?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(&names);
    apt_get(&arguments)?;
    if let Some(package) = missing.iter().find(|package| !is_there(package)) {
        bail!("{} is installed, but {:?} is still missing", package.name, package.sign);
    }
    Ok(format!("installed {}", names.join(" ")))
}

/// True if this process may do everything.
pub(crate) fn is_root() -> bool {
    // Fields of the line `Uid:`: real, effective, saved, file system.
    fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1).map(|effective| effective == "0"))
        .unwrap_or(false)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = tool("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("apt-get does not start")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

fn is_there(package: &Package) -> bool {
    match package.sign {
        Sign::Program(name) => find(name).is_some(),
        Sign::Module(name) => {
            let import = format!("import {name}");
            tool("python3").args(["-c", &import]).output().is_ok_and(|output| output.status.success())
        }
        Sign::File(path) => Path::new(path).exists(),
        Sign::Header(name) => {
            let folder = Path::new("/usr/include");
            let by_target = format!("{}-linux-gnu", env::consts::ARCH);
            folder.join(name).exists() || folder.join(by_target).join(name).exists()
        }
    }
}

/// The first file named `name` on the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        assert!(is_there(&program("any", "sh", &[For::Test], "")));
        assert!(!is_there(&program("any", "no-such-program-anywhere", &[For::Test], "")));
        assert!(!is_there(&header("any", "no/such/header.h", "")));
    }

    #[test]
    fn every_package_has_a_reason_and_a_use() {
        for package in PACKAGES {
            assert!(!package.reason.is_empty() && !package.needed.is_empty(), "{}", package.name);
        }
    }
}
