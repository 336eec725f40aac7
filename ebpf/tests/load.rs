//! The running kernel takes the programs. Needs root; nothing is attached.

use std::io::Write as _;
use tapedeck_ebpf::{Filter, Program, QUEUES_MAX};

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

/// Run by [`less_than_root_is_enough`], and harmless otherwise: root may do it, too.
#[test]
fn child_loads_what_it_may() {
    if std::env::var_os(CHILD).is_some() {
        let program = Program::load(0).unwrap();
        assert!(program.without_refusals().is_some(), "the tracepoint wants CAP_PERFMON");
        let generation = program.prepare_filter(&Filter::default()).unwrap();
        program.switch_filter(generation).unwrap();
    }
}

const CHILD: &str = "TAPEDECK_TEST_CHILD";

/// The verifier asks more of a program that is loaded without CAP_PERFMON; docs/operations.md promises that the
/// three other capabilities are enough.
#[test]
fn less_than_root_is_enough() {
    if std::fs::read_dir("/proc/1/fd").is_err() {
        let _ = writeln!(std::io::stdout(), "SKIPPED 1: not root");
        return;
    }
    let all = "-all,+bpf,+net_admin,+net_raw";
    let out = std::process::Command::new("setpriv")
        .args([&format!("--bounding-set={all}"), &format!("--inh-caps={all}"), "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_loads_what_it_may", "--nocapture"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let end = said.len().saturating_sub(3_000);
    assert!(out.status.success() && said.contains("1 passed"), "{}", said.get(end..).unwrap_or(&said));
}
