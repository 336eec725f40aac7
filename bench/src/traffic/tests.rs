//! The models against what they promise: sizes, flows, shares, checksums.

use super::frame::sum;
use super::internet::{ENDLESS, PACKETS, UP_TO};
use super::*;
use std::collections::HashMap;
use tapedeck_packet::{FlowKey, LinkType, Walk};

fn flow_of(bytes: &[u8]) -> FlowKey {
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, bytes);
    walk.layers()[0].flow().unwrap().0
}

fn packets_by_flow(traffic: &Traffic) -> HashMap<FlowKey, Vec<&Template>> {
    let mut flows: HashMap<_, Vec<_>> = HashMap::new();
    for template in &traffic.templates {
        flows.entry(flow_of(&template.bytes)).or_default().push(template);
    }
    flows
}

/// Both checksums of every frame, over what the headers say is there.
fn checksums_hold(traffic: &Traffic) {
    for template in &traffic.templates {
        let bytes = &template.bytes;
        let end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        assert_eq!(sum(0, &bytes[14..34]), 0xffff, "{bytes:02x?}");
        let pseudo = u32::from(bytes[23]) + u32::try_from(end - 34).unwrap();
        assert_eq!(sum(pseudo, &bytes[26..end]), 0xffff, "{bytes:02x?}");
    }
}

#[test]
fn models_are_named() {
    assert_eq!("64".parse(), Ok(Model::Fixed(64)));
    assert_eq!("9018".parse(), Ok(Model::Fixed(9_018)));
    assert_eq!("imix".parse(), Ok(Model::Imix));
    assert_eq!("internet".parse(), Ok(Model::Internet));
    for wrong in ["63", "9019", "imax", "/nowhere/x.pcap"] {
        assert!(wrong.parse::<Model>().is_err(), "{wrong}");
    }
}

#[test]
fn fixed_sizes_have_their_size_and_flows() {
    for (size, flows, payload) in
        [(64, 7, Payload::Random), (1_518, 1_000, Payload::Text), (9_018, 2, Payload::Zero)]
    {
        let shape = Shape { flows, payload, ..Shape::default() };
        let traffic = Traffic::new(&Model::Fixed(size), &shape).unwrap();
        assert!(traffic.templates.iter().all(|template| template.bytes.len() == size - FCS), "{size}");
        let by_flow = packets_by_flow(&traffic);
        assert_eq!(by_flow.len(), usize::try_from(flows).unwrap());
        let each = traffic.templates.len() / by_flow.len();
        assert!(by_flow.values().all(|packets| packets.len() == each), "{size}: as many of each flow");
        checksums_hold(&traffic);
    }
    assert!(Traffic::new(&Model::Imix, &Shape { flows: 0, ..Shape::default() }).is_err());
}

#[test]
fn imix_is_seven_to_four_to_one_in_every_flow() {
    for flows in [1, 12, 100] {
        let traffic = Traffic::new(&Model::Imix, &Shape { flows, ..Shape::default() }).unwrap();
        let of = |len: usize| traffic.templates.iter().filter(|template| template.bytes.len() == len).count();
        let (small, middle, large) = (of(60), of(590), of(1_514));
        assert_eq!((small, middle), (7 * large, 4 * large));
        assert_eq!(small + middle + large, traffic.templates.len());
        assert!((traffic.about.mean_bytes - (7.0 * 60.0 + 4.0 * 590.0 + 1_514.0) / 12.0).abs() < 0.01);
        for packets in packets_by_flow(&traffic).values() {
            assert!(packets.iter().any(|packet| packet.bytes.len() == 60));
            assert!(packets.iter().any(|packet| packet.bytes.len() == 590));
        }
        checksums_hold(&traffic);
    }
}

#[test]
fn the_internet_is_that_of_the_measurement() {
    let traffic = Traffic::new(&Model::Internet, &Shape::default()).unwrap();
    assert_eq!(traffic.templates.len(), PACKETS);
    checksums_hold(&traffic);
    let flows = packets_by_flow(&traffic);
    let (renewed, endless): (Vec<_>, Vec<_>) = flows.values().partition(|flow| flow[0].renew.is_some());
    assert!(flows.values().all(|flow| flow.iter().all(|p| p.renew.is_some() == flow[0].renew.is_some())));
    assert_eq!(endless.len(), ENDLESS);
    assert_eq!(traffic.about.renewed, u64::try_from(renewed.len()).unwrap());
    // 0.87 kB of IP a packet, 78.6 packets a flow of those that are counted as flows.
    assert!((800.0..960.0).contains(&traffic.about.mean_bytes), "{:?}", traffic.about);
    let wanted = f64::from(u32::try_from(PACKETS).unwrap()) / 78.578_37;
    let count = f64::from(u32::try_from(renewed.len()).unwrap());
    assert!((count / wanted - 1.0).abs() < 0.08, "{count} flows, {wanted} wanted");
    for (up_to, of_flows, of_packets, _) in UP_TO {
        let within = renewed.iter().filter(|flow| flow.len() as f64 <= up_to);
        let share = 100.0 * within.clone().count() as f64 / count;
        assert!(
            (share - of_flows).abs() < 4.0,
            "{share} % of flows have up to {up_to} packets, not {of_flows}"
        );
        let packets: usize = within.map(|flow| flow.len()).sum();
        let share = 100.0 * packets as f64 / PACKETS as f64;
        assert!((share - of_packets).abs() < 0.15 * of_packets + 0.1, "{share} % of packets: {of_packets}");
    }
    let tcp = traffic.templates.iter().filter(|template| template.bytes[23] == 6).count();
    let share = tcp as f64 / PACKETS as f64;
    assert!((0.75..0.9).contains(&share), "{share} of the packets are of TCP");
}

#[test]
fn the_share_of_random_payload_is_what_was_asked_for() {
    for encrypted in [0.0, 0.5, 0.9, 1.0] {
        let traffic = Traffic::new(&Model::Internet, &Shape { encrypted, ..Shape::default() }).unwrap();
        let full = traffic.templates.iter().filter(|template| template.bytes.len() == 1_514);
        // Words are of letters and blanks.
        let is_text =
            |template: &&Template| template.bytes[100..].iter().all(|b| b.is_ascii_lowercase() || *b == b' ');
        let (all, text) = (full.clone().count(), full.filter(is_text).count());
        let share = 1.0 - text as f64 / all as f64;
        assert!((share - encrypted).abs() < 0.03, "{share} of the full packets are random, not {encrypted}");
    }
}

#[test]
fn endless_flows_go_on_where_the_round_before_ended() {
    let traffic = Traffic::new(&Model::Internet, &Shape::default()).unwrap();
    let mut frames = Vec::new();
    for flow in packets_by_flow(&traffic).values().filter(|flow| flow[0].tcp.is_some()) {
        let mut next = HashMap::new();
        for round in 0..3 {
            for template in flow {
                template.frame(0, 0, round, &mut frames);
                let number = |at: usize| u32::from_be_bytes(*frames[at..].first_chunk().unwrap());
                let (seq, payload) = (number(38), if frames.len() <= 60 { 0 } else { frames.len() - 54 });
                let side = frames[26];
                assert_eq!(seq, *next.get(&side).unwrap_or(&seq), "round {round}");
                next.insert(side, seq.wrapping_add(u32::try_from(payload).unwrap()));
            }
        }
        assert_eq!(next.len(), 2, "both sides send");
    }
}

#[test]
fn the_same_seed_is_the_same_sequence() {
    for model in [Model::Imix, Model::Internet] {
        let make = |seed| Traffic::new(&model, &Shape { seed, ..Shape::default() }).unwrap().templates;
        assert!(make(5) == make(5) && make(5) != make(6), "{model}");
    }
}

#[test]
fn a_capture_is_sent_as_it_is_but_for_addresses() {
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES") else {
        println!("SKIPPED 1: no traces");
        return;
    };
    let path = PathBuf::from(folder).join("large/mix_apps_A.pcap");
    let traffic = Traffic::new(&Model::File(path), &Shape::default()).unwrap();
    let about = &traffic.about;
    assert_eq!(about.packets + about.left_out, 29_699);
    assert!(about.left_out < 300 && about.flows > 2_000, "{about:?}");
    let mut other = Vec::new();
    for template in traffic.templates.iter().filter(|template| template.renew.is_some()) {
        template.frame(0, 9, 1, &mut other);
        assert_ne!(flow_of(&other), flow_of(&template.bytes));
        let ipv6 = template.renew.unwrap().ipv6;
        let (net, addresses) = (usize::from(template.renew.unwrap().net), if ipv6 { 8..40 } else { 12..20 });
        assert_eq!(other[net + addresses.end..], template.bytes[net + addresses.end..]);
    }
}
