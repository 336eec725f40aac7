//! A damaged index file with right checksums, and any bytes as one: lookups give rows or errors.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tapedeck_index::sidecar::{Property, Sidecar};
use tapedeck_packet::{CommunityId, FlowKey};

static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();

fn ask(file: Vec<u8>) {
    let Ok(sidecar) = Sidecar::from_bytes(file) else { return };
    let _ = (sidecar.summary(), sidecar.verify(), sidecar.frames(), sidecar.head(), sidecar.always_rows());
    let v4 = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let (flow, _) = FlowKey::new((v4(1), 12345), (v4(2), 53), 17, false);
    let id: CommunityId = flow.community_id(true, 0);
    let mut rows = Vec::new();
    for found in [
        sidecar.rows_of_address(v4(1)),
        sidecar.rows_of_net(v4(0)..=v4(255)),
        sidecar.rows_of_mac([2, 0, 0, 0, 0, 1]),
        sidecar.rows_of_flow(&flow, true),
        sidecar.rows_of_community(id),
        sidecar.rows_with(Property::Port, 0..=u32::from(u16::MAX)),
        sidecar.rows_with(Property::Vlan, 100..=100),
        sidecar.rows_with(Property::Label, 0..=u32::MAX),
    ] {
        rows.extend(found.unwrap_or_default());
    }
    for row in rows {
        let _ = sidecar.row(row);
        if let Ok(frames) = sidecar.frames_of(row) {
            let _ = frames.take_while(Result::is_ok).count();
        }
    }
    let _ = sidecar.frames_of(u32::MAX).map(drop);
    let _ = sidecar.row(u32::MAX);
}

fuzz_target!(|data: &[u8]| {
    let mut file = WHOLE.get_or_init(tapedeck_fuzz::sidecar).clone();
    tapedeck_fuzz::damage(&mut file, data);
    tapedeck_fuzz::mend_sidecar(&mut file);
    ask(file);
    ask(data.to_vec());
});
