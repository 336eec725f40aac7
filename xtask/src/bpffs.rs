//! The BPF file system in which recorders pin their programs. systemd mounts it; a bare system has none, and a
//! recorder mounts one only among the first mounts, where it would outlive it.
//!
//! It stays mounted: another run, or a recorder of this machine, may have come to use it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where it belongs.
const PLACE: &str = "/sys/fs/bpf";

/// Mounts it where none is. Returns what it did, in words.
///
/// # Errors
/// There is none and it cannot be mounted.
pub(crate) fn ready() -> Result<String> {
    let place = Path::new(PLACE);
    if is_there() {
        return Ok("mounted".to_owned());
    }
    if !fs::metadata(place).is_ok_and(|meta| meta.is_dir()) {
        bail!("there is no {PLACE}: /sys is not mounted, or this kernel has no BPF");
    }
    let mounted = mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), Some("mode=0700"));
    mounted.with_context(|| format!("no BPF file system at {PLACE}; as root: mount -t bpf bpf {PLACE}"))?;
    Ok(format!("mounted it at {PLACE}"))
}

/// Whether one is mounted.
pub(crate) fn is_there() -> bool {
    statfs(PLACE).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}
