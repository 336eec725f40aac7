//! Whole answers of the real binary over small stores: time edges, order, limit, forms, exit status.

mod support;

use support::packets::tcp4;
use support::{Left, Packet, Spec, Store, T};

/// `n` packets a second apart; ports count up.
fn steady(n: u16) -> Vec<Packet> {
    (0..n).map(|i| Packet::new(T + u64::from(i) * 1_000_000_000, tcp4(1, 1000 + i, 2, 443))).collect()
}

#[test]
fn text_of_everything() {
    let mut store = Store::new();
    store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(3));
    insta::assert_snapshot!(store.taperead(&["packets"]).shown(store.path()), @r#"
    2026-11-21T18:00:00.000000000Z eth1 IP 10.0.0.1.1000 > 10.0.0.2.443: tcp, length 54
    2026-11-21T18:00:01.000000000Z eth1 IP 10.0.0.1.1001 > 10.0.0.2.443: tcp, length 54
    2026-11-21T18:00:02.000000000Z eth1 IP 10.0.0.1.1002 > 10.0.0.2.443: tcp, length 54
    --- stderr, exit 0
    3 packets; whole answer from 1 segment, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:02.000000001Z
    "#);
}

#[test]
fn explain_reads_nothing() {
    let mut store = Store::new();
    let path = store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(30));
    let mut later = steady(3);
    later.iter_mut().for_each(|p| p.ts += 60_000_000_000);
    store.segment(&Spec::default(), &later);
    std::fs::write(path, b"no frame can be read from this").unwrap();
    let args = ["packets", "port", "1003", "or", "vlan", "--to", "2026-11-21 18:00:30", "--explain"];
    insta::assert_snapshot!(store.taperead(&args).shown(store.path()), @r#"
    filter    port 1003 or vlan
    range     1970-01-01T00:00:00.000000000Z to 2026-11-21T18:00:30.000000000Z
    store     2026-11-21T18:00:00.000000000Z to 2026-11-21T18:01:02.000000001Z
    segments  2 considered: 1 outside the range, 0 without a match by the index, 1 to read
    frames    1 of 15
    bytes     99 of 1623
      STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: 1 of 15 frames, 99 of 1623 bytes; 1 of 30 rows can match
    --- stderr, exit 0
    "#);
}
