//! The running kernel takes the programs. Needs root; nothing is attached.

use std::io::Write as _;
use tapedeck_ebpf::{Program, QUEUES_MAX};

#[test]
fn the_kernel_takes_the_programs() {
    if std::fs::read_dir("/proc/1/fd").is_err() {
        let _ = writeln!(std::io::stdout(), "SKIPPED 1: not root");
        return;
    }
    let program = match Program::load(0) {
        Ok(program) => program,
        Err(err) => panic!("{err:?}"),
    };
    assert_eq!(program.without_refusals(), None);
    for queue in 0..=QUEUES_MAX {
        assert_eq!(program.totals(queue).unwrap().packets, 0);
        assert!(program.seconds(queue).unwrap().is_empty());
    }
    assert!(program.totals(QUEUES_MAX + 1).is_err());
    assert!(program.set_socket(0, std::os::fd::AsFd::as_fd(&std::io::stderr())).is_err());
}
