//! What is written is read, and an answer out of order is found.

use super::super::Options;
use super::*;
use tapedeck_index::pcapng::{SectionInfo, encode_interface, encode_packet, encode_section};

fn content() -> Content {
    let options = Options { bytes: 400, level: Level::Off, packets: 5_000, rounds: 1, train: 1 };
    super::super::content(&options, Some(5_000))
}

#[test]
fn a_store_has_two_queues_that_alternate_and_holds_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = (folder.path().join("store"), content());
    let store = write(&path, 4 << 20, &content, Level::Fixed(1)).unwrap();
    // Ten frames of 432-byte blocks: what is begun is written to its end.
    assert!(store.packets >= (4 << 20) / 432 && store.segments == 2, "{store:?}");
    assert!(store.raw_bytes > store.packets * 432 && store.stored_bytes < store.raw_bytes, "{store:?}");
    let mut times = [Vec::new(), Vec::new()];
    crate::stored::packets(&path, &mut |found, packet| {
        times[usize::try_from(found.name.queue)?].push(packet.ts.nanos());
        Ok(())
    })
    .unwrap();
    let [even, odd] = &times;
    assert_eq!(even.len() + odd.len(), usize::try_from(store.packets).unwrap());
    assert!(even.iter().max() > odd.iter().min() && odd.iter().max() > even.iter().min());
    let (bytes, spent) = inflate(&segments(&path).unwrap()).unwrap();
    assert!(bytes == store.raw_bytes && !spent.is_zero());
}

#[test]
fn an_export_out_of_order_is_no_answer() {
    let export = |times: &[u64]| {
        let mut out = Vec::new();
        encode_section(&mut out, &SectionInfo::default());
        encode_interface(&mut out, &InterfaceInfo::named("bench", LinkType::ETHERNET));
        for ts in times {
            let ts = Timestamp::from_nanos_saturating(*ts);
            let record = PacketRecord { ts, bytes: &[0; 60], orig_len: 60, dropped: 0, flags: None };
            encode_packet(&mut out, &record);
        }
        ordered(out.as_slice())
    };
    assert_eq!(export(&[1_000, 2_000, 2_001]).unwrap(), 3);
    for times in [&[1_000, 3_000, 2_000][..], &[1_000, 1_000]] {
        let error = export(times).unwrap_err().to_string();
        assert!(error.contains("comes behind"), "{error}");
    }
}

#[test]
fn a_child_that_fails_is_no_answer() {
    assert!(answered(Some(2), "why").unwrap_err().to_string().contains("why"));
    assert!(answered(None, "").is_err());
    for code in [0, 1, 3] {
        answered(Some(code), "").unwrap();
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo said; exit 7"]).stdout(Stdio::piped());
    let (took, code, said) = child(shell).unwrap();
    assert_eq!((code, said.as_str()), (Some(7), "said\n"));
    assert!(took.wall > 0.0 && took.cpu >= 0.0, "{took:?}");
}

#[test]
fn shares_are_of_the_same_round() {
    let store = Store {
        content: "synthetic".to_owned(),
        level: "1".to_owned(),
        packets: 1_000,
        raw_bytes: 2_000_000_000,
        stored_bytes: 1,
        segments: 1,
    };
    let took = |wall, cpu| Took { wall, cpu };
    let row = row("x".to_owned(), &store, &[took(2.0, 4.0)], &[took(1.0, 1.0)]);
    assert_eq!((row.gb_per_s, row.gb_per_cpu_s, row.cpu_ns), (1.0, 0.5, 4e6));
    assert_eq!((row.of_inflate, row.cpu_of_inflate), (0.5, 0.25));
}
