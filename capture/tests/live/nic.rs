//! What a driver tells of itself, and that it is not taken for more than it is.

use crate::support::{Net, live, numbered};
use std::time::{Duration, Instant};
use tapedeck_capture::nic::{Loss, driver_statistics, losses};
use tapedeck_capture::xsk::{BindMode, ChunkSize, XskConfig, XskSocket};
use tapedeck_ebpf::{Mode, Program};

/// The statistic of this name.
fn statistic(interface: &str, name: &str) -> Option<u64> {
    let all = driver_statistics(interface).unwrap();
    all.into_iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

#[test]
fn a_driver_tells_its_statistics_by_name() {
    live!();
    let net = Net::new(2, 1500);
    // The one number of a veth that is known beforehand.
    let ends = [(&net.rx, &net.tx), (&net.tx, &net.rx)];
    for (end, peer) in ends {
        let index = nix::net::if_::if_nametoindex(peer.as_str()).unwrap();
        assert_eq!(statistic(end, "peer_ifindex"), Some(index.into()));
    }
    let names = driver_statistics(&net.rx).unwrap();
    assert!(names.len() > 10 && names.iter().all(|(name, _)| !name.is_empty()), "{names:?}");
    assert_eq!(statistic(&net.rx, "rx_queue_1_drops"), Some(0), "{names:?}");
    let none = driver_statistics("no-such-if").unwrap_err();
    assert_eq!(none.raw_os_error(), Some(nix::libc::ENODEV));
}

/// A veth counts redirects that failed among its drops, in the link's `rx_dropped` too: the program has seen those
/// packets, and the ledger has them under their cause.
#[test]
fn what_is_refused_behind_the_program_is_not_lost_by_the_card() {
    live!();
    const CHUNKS: u32 = 64;
    const SENT: u64 = 200;
    let net = Net::new(1, 1500);
    let ifindex = net.rx_index();
    let mut program = Program::load(0).unwrap();
    let (chunk, rx_entries) = (ChunkSize::Small, 4 * CHUNKS);
    let config = XskConfig { ifindex, queue: 0, chunk, fragments: false, rx_entries, chunks: CHUNKS };
    let mut socket = XskSocket::open(config).unwrap();
    socket.bind(BindMode::Copy).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    program.attach(ifindex, Mode::Native).unwrap();
    let sender = net.sender();
    for number in 0..SENT {
        assert!(sender.send(&numbered(0, number, 60, &[])));
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while program.totals(0).unwrap().packets < SENT {
        assert!(Instant::now() < deadline, "{:?}", program.totals(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = SENT - u64::from(CHUNKS);
    let link = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = link.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", net.rx))).unwrap();
    let dropped: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(dropped >= refused, "{line}");
    assert!(statistic(&net.rx, "rx_queue_0_drops") >= Some(refused));
    let missed = Loss { counter: "rx_missed_errors".to_owned(), packets: 0 };
    assert_eq!(losses(&net.rx).unwrap(), [missed]);
}
