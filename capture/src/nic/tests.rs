//! Which statistics count, by what drivers say: texts of `ethtool -S`.

use super::*;

/// `ethtool -S` as it prints.
fn told(text: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(':')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn check(driver: &str, missed: u64, text: &str, wanted: &[(&str, u64)]) {
    let known = KNOWN.iter().find(|known| known.driver == driver);
    let losses = each_once(raw(missed, known, &told(text)));
    let found: Vec<_> = losses.iter().map(|loss| (loss.counter.as_str(), loss.packets)).collect();
    assert_eq!(found, wanted, "{driver}");
}

#[test]
fn each_driver_says_it_in_its_own_words() {
    check(
        "ixgbe",
        5,
        "     rx_errors: 0\n     rx_dropped: 3\n     rx_over_errors: 0\n     rx_fifo_errors: 0\n     \
         rx_missed_errors: 5\n     rx_no_buffer_count: 9\n     rx_no_dma_resources: 1119\n     rx_fcoe_dropped: 0",
        &[(MISSED, 5), ("rx_no_dma_resources", 1119)],
    );
    // Linux 6.1, and those with "Add rx_missed_errors for buffer exhaustion": what is left of `rx_dropped` was too long.
    check(
        "i40e",
        0,
        "     rx_dropped: 40\n     port.rx_dropped: 7\n     port.rx_crc_errors: 1\n     veb.rx_discards: 99",
        &[(MISSED, 0), ("port.rx_dropped", 7), ("rx_dropped", 40)],
    );
    check(
        "i40e",
        38,
        "     rx_dropped: 2\n     rx_missed_errors: 38\n     port.rx_discards: 7",
        &[(MISSED, 38), ("port.rx_discards", 7)],
    );
    check(
        "ice",
        7,
        "     rx_dropped: 40\n     rx_dropped.nic: 7\n     rx_oversize.nic: 3\n     rx_csum_bad.nic: 1",
        &[(MISSED, 7), ("rx_dropped", 40)],
    );
    check(
        "igb",
        2,
        "     rx_no_buffer_count: 77\n     rx_missed_errors: 2\n     rx_fifo_errors: 79\n     tx_queue_0_restart: 1\n     \
         rx_queue_0_packets: 100\n     rx_queue_0_drops: 3\n     rx_queue_1_drops: 4\n     rx_queue_1_csum_err: 5",
        &[(MISSED, 2), ("rx_queue_*_drops", 7)],
    );
    // Linux 6.1, and 6.9: the same packets twice.
    for (missed, name) in [(0, "rx_out_of_buffer"), (12, MISSED)] {
        check(
            "mlx5_core",
            missed,
            "     rx_out_of_buffer: 12\n     rx_discards_phy: 30\n     rx_prio0_discards: 30\n     \
             rx_steer_missed_packets: 4\n     rx_xdp_drop: 9\n     rx0_buff_alloc_err: 0",
            &[(name, 12), ("rx_discards_phy", 30)],
        );
    }
    check(
        "virtio_net",
        0,
        "     rx0_drops: 6\n     rx0_xdp_drops: 5\n     rx0_hw_drops: 12964\n     rx0_hw_drop_overruns: 0\n     \
         rx1_hw_drops: 36\n     tx0_hw_drops: 1",
        &[(MISSED, 0), ("rx*_hw_drops", 13_000)],
    );
    check(
        "vmxnet3",
        0,
        "     Rx Queue#: 0\n       pkts rx OOB: 632\n       pkts rx err: 1\n     Rx Queue#: 1\n       pkts rx OOB: 8\n       \
         drv dropped rx total: 3",
        &[(MISSED, 0), ("pkts rx OOB", 640)],
    );
}

/// `rx_drops` of a veth are redirects that failed: the ledger has those under their causes.
#[test]
fn of_a_driver_that_is_not_known_the_link_alone_counts() {
    let veth =
        "     peer_ifindex: 3\n     rx_queue_0_drops: 500\n     rx_queue_0_xdp_drops: 3\n     rx_dropped: 4";
    check("veth", 0, veth, &[(MISSED, 0)]);
    check("virtio_net", 0, "     rx0_drops: 6", &[(MISSED, 0)]);
}

#[test]
fn numbers_stand_for_queues_only() {
    assert!(fits("rx_queue_*_drops", "rx_queue_12_drops") && fits("rx*_hw_drops", "rx0_hw_drops"));
    for other in
        ["rx_queue__drops", "rx_queue_x_drops", "rx_queue_0_xdp_drops", "tx_queue_0_drops", "rx_queue_0"]
    {
        assert!(!fits("rx_queue_*_drops", other), "{other}");
    }
    assert!(fits("pkts rx OOB", "  pkts rx OOB") && !fits("rx_dropped", "port.rx_dropped"));
}

#[test]
fn only_what_is_counted_from_the_beginning_on_was_lost() {
    let told = |missed: u64, port: Option<u64>| {
        let loss = |same, counter: &str, packets| (same, Loss { counter: counter.to_owned(), packets });
        let mut told = vec![loss(true, MISSED, missed)];
        told.extend(port.map(|packets| loss(false, "port.rx_dropped", packets)));
        told
    };
    let mut counters = Vec::new();
    let mut lost = |told: &[Raw]| {
        note(&mut counters, told);
        super::lost(&counters).iter().map(|loss| loss.packets).collect::<Vec<_>>()
    };
    assert_eq!(lost(&told(100, None)), [0]);
    // One that could not be read at first begins when it can.
    assert_eq!(lost(&told(103, Some(1_000))), [3, 0]);
    assert_eq!(lost(&told(103, Some(1_007))), [3, 7]);
    // Unreadable for a while: what it counted meanwhile is not missed.
    assert_eq!(lost(&told(104, None)), [4, 7]);
    assert_eq!(lost(&told(104, Some(1_010))), [4, 10]);
    // Set to zero, as by a reset of the card.
    assert_eq!(lost(&told(2, Some(0))), [4, 10]);
    assert_eq!(lost(&told(5, Some(1))), [7, 11]);
}

/// A card whose driver counts what the link does not, and cannot be asked now and then: what it has counted since
/// it is there is not lost again when it can.
#[test]
fn a_driver_that_cannot_be_asked_for_a_while_makes_nothing_up() {
    let known = KNOWN.iter().find(|known| known.driver == "mlx5_core");
    let mut counters = Vec::new();
    let mut lost = |link: u64, out_of_buffer: Option<u64>| {
        let told: Vec<_> =
            out_of_buffer.map(|packets| ("rx_out_of_buffer".to_owned(), packets)).into_iter().collect();
        note(&mut counters, &raw(link, known, &told));
        super::lost(&counters).iter().map(|loss| loss.packets).sum::<u64>()
    };
    assert_eq!(lost(0, None), 0);
    assert_eq!(lost(0, Some(5_000_000)), 0);
    assert_eq!(lost(0, Some(5_000_003)), 3);
    assert_eq!(lost(0, None), 3);
    assert_eq!(lost(0, Some(5_000_007)), 7);
    // The link begins to count the same packets.
    assert_eq!(lost(4, Some(5_000_011)), 11);
}

#[test]
fn the_text_names_what_counted() {
    let losses = each_once(raw(3, KNOWN.first(), &[("rx_no_dma_resources".to_owned(), 8)]));
    assert_eq!(text(&losses), "rx_missed_errors 3, rx_no_dma_resources 8");
}

#[test]
fn of_the_loopback_only_the_link_is_asked() {
    let nic = Nic::new(nix::net::if_::if_nametoindex("lo").unwrap());
    assert_eq!((nic.read(), nic.losses()), (0, Vec::new()));
    assert_eq!(losses("lo").unwrap().len(), 1);
    assert_eq!(losses("no-such-if").unwrap_err().raw_os_error(), Some(libc::ENODEV));
}
