//! Holds on a running recorder from outside, as an operator, a debugger or another program may have them: a
//! thread that stands still, a slot of the XSKMAP emptied or filled with something else.
//!
//! The recorder has no hooks for this, and must not have any.

use super::run;
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsRawFd as _;
use tapedeck_capture::xsk::XskSocket;

/// A thread of another process that stands still until this is dropped, by the thread that made it.
pub(crate) struct Held(Pid);

impl Held {
    /// Stops every thread of `pid` whose name begins so.
    pub(crate) fn threads(pid: i32, name: &str) -> Vec<Self> {
        let mut held = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads of the recorder") {
            let path = task.expect("a thread").path();
            if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name)) {
                let tid = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                held.push(Self::thread(Pid::from_raw(tid)));
            }
        }
        assert!(!held.is_empty(), "no thread {name} in process {pid}");
        held
    }

    fn thread(tid: Pid) -> Self {
        ptrace::seize(tid, ptrace::Options::empty()).expect("seize a thread");
        ptrace::interrupt(tid).expect("stop a thread");
        waitpid(tid, Some(WaitPidFlag::__WALL)).expect("wait for the thread to stop");
        Self(tid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If it is gone there is nothing to let go of.
        let _ = ptrace::detach(self.0, None);
    }
}

/// The XSKMAP of the program on an interface.
pub(crate) struct Slots(MapHandle);

impl Slots {
    /// The map of whoever has attached there.
    pub(crate) fn of(interface: &str) -> Self {
        let links: serde_json::Value =
            serde_json::from_str(&run("ip", &["-j", "link", "show", "dev", interface])).expect("JSON of ip");
        let program = links.pointer("/0/xdp/prog/id").and_then(serde_json::Value::as_u64);
        let program = program.unwrap_or_else(|| panic!("no program on {interface}: {links}"));
        let options = ProgInfoQueryOptions::default().include_map_ids(true);
        let info = ProgInfoIter::with_query_opts(options).find(|info| u64::from(info.id) == program);
        let maps = info.expect("the program").map_ids;
        let map = maps.into_iter().map(|id| MapHandle::from_map_id(id).expect("a map of the program"));
        let is_ours = |map: &MapHandle| map.name() == "xsks";
        Self(map.into_iter().find(is_ours).expect("an XSKMAP"))
    }

    /// Empties a slot.
    pub(crate) fn clear(&self, queue: u32) {
        self.0.delete(&queue.to_ne_bytes()).expect("empty a slot");
    }

    /// Puts another socket into a slot.
    pub(crate) fn put(&self, queue: u32, socket: &XskSocket) {
        let fd = socket.as_fd().as_raw_fd().to_ne_bytes();
        self.0.update(&queue.to_ne_bytes(), &fd, MapFlags::ANY).expect("fill a slot");
    }
}
