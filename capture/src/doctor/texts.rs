//! Texts of /proc and /sys, taken apart. Pure: text in, values out; what is not understood is left out.

use super::facts::InterruptFacts;
use crate::units;
use std::path::{Path, PathBuf};

/// Numbers and names in /proc/interrupts.
pub(crate) fn interrupts(text: &str) -> Vec<(u32, String)> {
    let one = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        // Counts of each CPU, controller, pin and trigger; the name comes last.
        Some((number.trim().parse().ok()?, rest.split_whitespace().next_back()?.to_owned()))
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// Of these, the ones that say that packets have arrived: by the card's interrupts where the bus tells
/// them, else by the interface's name.
pub(crate) fn of_card(all: Vec<(u32, String)>, card: &[u32], interface: &str) -> Vec<(u32, String)> {
    let receives = |name: &str| {
        let name = name.to_ascii_lowercase();
        let by_itself = ["rx", "input", "comp", "queue"].iter().any(|word| name.contains(word));
        let others = ["config", "async", "misc", "mgmt", "output"];
        let sends_only = name.contains("tx") && !name.contains("rx");
        (by_itself || name.starts_with(&interface.to_ascii_lowercase()))
            && !sends_only
            && !others.iter().any(|word| name.contains(word))
    };
    // `eth1-rx-0` is of eth1 and not of eth10 or eth.
    let by_name = |name: &str| {
        name.strip_prefix(interface)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '@', ':']))
    };
    let is_ours = |irq: u32, name: &str| if card.is_empty() { by_name(name) } else { card.contains(&irq) };
    all.into_iter().filter(|(irq, name)| is_ours(*irq, name) && receives(name)).collect()
}

/// An interrupt with the CPUs of its `smp_affinity_list`, or of those it really takes.
pub(crate) fn interrupt(irq: u32, name: String, allowed: &str, effective: &str) -> InterruptFacts {
    let effective = cpus(effective);
    let cpus = if effective.is_empty() { cpus(allowed) } else { effective };
    InterruptFacts { irq, name, cpus }
}

/// A list of CPUs, such as `0-3,8`.
pub(crate) fn cpus(text: &str) -> Vec<usize> {
    units::cpus(text.trim()).unwrap_or_default()
}

/// A line `Key:   1234 kB` of /proc/meminfo, bytes.
pub(crate) fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit `Max locked memory` of /proc/self/limits, bytes. `Some(None)` = unlimited.
pub(crate) fn locked_limit(text: &str) -> Option<Option<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

/// Capabilities we may need, and their bits.
const CAPABILITIES: [(&str, u32); 5] =
    [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_IPC_LOCK", 14), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// CAP_SYS_ADMIN, which includes the two newer ones.
const SYS_ADMIN: u32 = 21;

/// Capabilities that `CapEff` in /proc/self/status lacks.
pub(crate) fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(bits) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return Vec::new() };
    let has = |bit: u32| bits & (1 << bit) != 0;
    let missing = |(name, bit): &(&'static str, u32)| {
        let included = *bit > 37 && has(SYS_ADMIN);
        (!has(*bit) && !included).then_some(*name)
    };
    CAPABILITIES.iter().filter_map(missing).collect()
}

/// Whether /proc/net/protocols lists AF_XDP.
pub(crate) fn has_af_xdp(protocols: &str) -> bool {
    protocols.lines().any(|line| line.split_whitespace().next() == Some("XDP"))
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) filesystem: String,
    pub(crate) read_only: bool,
}

/// The mount that `path` lies on, by /proc/self/mountinfo: id, parent, device, root, mount point, options,
/// tags, `-`, type, source, options of the file system.
pub(crate) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let one = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        let point = PathBuf::from(unescape(left.next()?));
        let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
        let options = left.next()?;
        let mut right = right.split(' ');
        let filesystem = right.next()?.to_owned();
        let whole = right.nth(1).unwrap_or_default();
        path.starts_with(&point).then(|| Mount {
            point,
            filesystem,
            read_only: is_ro(options) || is_ro(whole),
        })
    };
    // Of two on one point the later one covers the other; `max_by_key` keeps the last of equals.
    mountinfo.lines().filter_map(one).max_by_key(|mount| mount.point.components().count())
}

/// Blanks and such stand as `\040` in mountinfo.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU1       \n\
        \x20 24:          1          0  IO-APIC   5-edge      ACPI:Ged\n\
        \x20 40:          0          0 PCI-MSIX-0000:00:04.0   0-edge      virtio3-config\n\
        \x20 41:       7335          0 PCI-MSIX-0000:00:04.0   1-edge      virtio3-input.0\n\
        \x20 42:          0      21055 PCI-MSIX-0000:00:04.0   2-edge      virtio3-output.0\n\
        \x20 50:          9          0 PCI-MSIX-0000:3b:00.0   0-edge      eth1-TxRx-0\n\
        \x20 51:          9          0 PCI-MSIX-0000:3b:00.0   1-edge      eth1-tx-0\n\
        \x20 52:          9          0 PCI-MSIX-0000:3b:00.0   2-edge      eth1\n\
        \x20 60:          9          0 PCI-MSIX-0000:5e:00.0   1-edge      mlx5_comp0@pci:0000:5e:00.0\n\
        \x20 61:          9          0 PCI-MSIX-0000:5e:00.0   0-edge      mlx5_async0@pci:0000:5e:00.0\n\
        \x20 70:          9          0 PCI-MSIX-0000:af:00.0   0-edge      eth10-rx-0\n\
        NMI:          0          0   Non-maskable interrupts\n";

    #[test]
    fn interrupts_of_receiving_are_told_from_others() {
        let all = || interrupts(INTERRUPTS);
        assert_eq!(all().len(), 10);
        let numbers = |card: &[u32], interface: &str| {
            of_card(all(), card, interface).iter().map(|(irq, _)| *irq).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[40, 41, 42], "eth0"), [41], "virtio: by the bus");
        assert_eq!(numbers(&[60, 61], "eth2"), [60], "mlx5");
        assert_eq!(numbers(&[], "eth1"), [50, 52], "by name, and not eth10's");
        assert_eq!(numbers(&[], "veth7"), [0; 0]);
    }

    #[test]
    fn an_interrupt_fires_where_it_really_does() {
        assert_eq!(interrupt(7, "x".into(), "0-3,8\n", "2\n").cpus, [2]);
        assert_eq!(interrupt(7, "x".into(), "0-3,8\n", "").cpus, [0, 1, 2, 3, 8]);
        assert_eq!(interrupt(7, "x".into(), "", "\n").cpus, [0; 0]);
    }

    #[test]
    fn memory_and_limits_are_read() {
        let meminfo = "MemTotal:       24117248 kB\nMemFree:  1 kB\nMemAvailable:   23521320 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(23_521_320 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(locked_limit(limits), Some(Some(8_388_608)));
        assert_eq!(locked_limit(&limits.replace("8388608  ", "unlimited")), Some(None));
        assert_eq!(locked_limit(""), None);
    }

    #[test]
    fn capabilities_are_told_by_their_bits() {
        let of = |hex: &str| missing_capabilities(&format!("CapPrm:\t0\nCapEff:\t{hex}\nCapBnd:\t0\n"));
        assert_eq!(of("000001ffffffffff"), [""; 0]);
        let all = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_PERFMON", "CAP_BPF"];
        assert_eq!(of("0000000000000000"), all);
        // NET_ADMIN, NET_RAW and IPC_LOCK with SYS_ADMIN: the old way.
        assert_eq!(of("0000000000207000"), [""; 0]);
        assert_eq!(of("0000000000003000"), ["CAP_IPC_LOCK", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing_capabilities("no such line"), [""; 0]);
    }

    #[test]
    fn protocols_name_af_xdp() {
        let header = "protocol  size sockets  memory press\nPACKET    1600      0\n";
        assert!(has_af_xdp(&format!("{header}XDP       1088      0      -1   NI\n")) && !has_af_xdp(header));
    }

    #[test]
    fn the_last_and_nearest_mount_counts() {
        let mountinfo = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            30 22 0:25 / /data rw,nosuid - tmpfs tmpfs rw,size=10240k\n\
            31 30 8:1 / /data rw - xfs /dev/sda1 rw\n\
            32 31 0:9 / /data/old\\040disk ro,relatime - nfs4 host:/x rw\n\
            33 31 8:2 / /data/broken rw - ext4 /dev/sdb1 ro,errors=remount-ro\n";
        let of = |path: &str| {
            let mount = mount_of(mountinfo, Path::new(path)).unwrap();
            (mount.point.display().to_string(), mount.filesystem, mount.read_only)
        };
        let expected = |point: &str, filesystem: &str, ro| (point.to_owned(), filesystem.to_owned(), ro);
        assert_eq!(of("/data/store"), expected("/data", "xfs", false), "one covers the other");
        assert_eq!(of("/data/old disk/store"), expected("/data/old disk", "nfs4", true));
        assert_eq!(of("/data/broken"), expected("/data/broken", "ext4", true), "the file system itself");
        assert_eq!(of("/database"), expected("/", "ext4", false));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescape("a\\9"), "a\\9");
    }
}
