//! The stores: does the disk take what the link brings?

use super::facts::{Facts, StoreFacts};
use super::finding::{Finding, path_word};
use super::host::mib;

/// File systems that are gone with the power.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// File systems on the other side of a network, or of another process.
const REMOTE: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "glusterfs", "lustre", "afs", "gfs2", "fuse"];

/// Each store.
pub(crate) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    for store in &facts.stores {
        writable(store, found);
        kind(&facts.interface, store, found);
        space(facts, store, found);
        if let Some(reason) = &store.sink_reason {
            let what = format!("{}: plain writes", store.store.display());
            let why = "without io_uring and O_DIRECT, the writer waits when the page cache is written back";
            found.push(slow(store, what, &format!("{reason}: {why}")));
        }
    }
}

/// A store whose writes are slow, by what refused the fast ones.
fn slow(store: &StoreFacts, what: String, why: &str) -> Finding {
    let by_setting = store.sink_reason.as_deref().is_some_and(|reason| reason.starts_with("io_uring"));
    if by_setting {
        Finding::warning("store-writes", what, why, "sysctl -w kernel.io_uring_disabled=0".into())
    } else {
        Finding::note("store-writes", what, why)
    }
}

fn writable(store: &StoreFacts, found: &mut Vec<Finding>) {
    let name = store.store.display();
    if store.read_only {
        found.push(Finding::error(
            "store-read-only",
            format!("{name} is on a file system mounted read-only"),
            "nothing can be stored; a disk with errors ends up like this, too: see dmesg",
            format!("mount -o remount,rw {}", path_word(&store.mount)),
        ));
    } else if let Some(refused) = &store.refused {
        let path = path_word(&store.folder);
        let mend = if store.is_file {
            format!("mv {path} {path}.old")
        } else {
            format!("mkdir -p {0} && chown \"$(id -un)\" {0}", path_word(&store.store))
        };
        let (what, why) =
            (format!("{name}: {refused}"), "no file can be made there: `record` does not start");
        found.push(Finding::error("store-refused", what, why, mend));
    }
}

fn kind(interface: &str, store: &StoreFacts, found: &mut Vec<Finding>) {
    let (name, filesystem) = (store.store.display(), store.filesystem.as_str());
    let is_remote = REMOTE.contains(&filesystem) || filesystem.starts_with("fuse.");
    let (id, why) = if IN_MEMORY.contains(&filesystem) {
        ("store-memory", "what is stored there is gone with the power, and takes memory meanwhile")
    } else if is_remote {
        ("store-remote", "a network that stalls stalls the writer, and packets are shed meanwhile")
    } else {
        return;
    };
    // Which disk to take instead is not ours to say.
    let interface = super::finding::word(interface);
    let mend = format!(
        "findmnt --real --types ext4,xfs,btrfs --output TARGET,FSTYPE,AVAIL \
         # choose one, then: tapedeck record --interface {interface} --store DIR"
    );
    found.push(Finding::warning(id, format!("{name} is on {filesystem}"), why, mend));
}

fn space(facts: &Facts, store: &StoreFacts, found: &mut Vec<Finding>) {
    let (Some(free), Some(size)) = (store.free_bytes, store.size_bytes) else { return };
    let need = facts.segment_bytes.saturating_mul(u64::from(facts.card.queues.max(1)));
    if free >= need.max(size / 20) {
        return;
    }
    let what = format!("{}: {} free of {}", store.store.display(), mib(free), mib(size));
    let mend = format!("du -xh --max-depth=3 {} | sort -h | tail -20", path_word(&store.mount));
    let then = "what finds no room counts as `write_error`. The command shows what takes the room";
    found.push(if free < need {
        let why = format!("the open segments of all queues take up to {}: {then}", mib(need));
        Finding::error("store-space", what, why, mend)
    } else {
        Finding::warning("store-space", what, format!("less than a twentieth is left; {then}"), mend)
    });
}
