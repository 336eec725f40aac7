//! Names round trip, stay short, and have one spelling.

use super::*;
use proptest::prelude::*;

fn name(sensor: &str, interface: &str) -> SegmentName {
    SegmentName {
        t0: Timestamp::from_nanos(1_700_000_000_000_000_001).unwrap(),
        sensor: sensor.into(),
        interface: interface.into(),
        queue: 3,
        run: 0x9f,
        seq: 12,
    }
}

#[test]
fn looks_as_documented() {
    let plain = name("lab.one", "eth0");
    assert_eq!(plain.to_string(), "01700000000000000001-lab.one-eth0-q3-0000009f-12");
    assert_eq!(
        name("a-b", "C:\\%\u{e9}/").file(FileKind::Open),
        ".01700000000000000001-a%2Db-C%3A%5C%25%C3%A9%2F-q3-0000009f-12.open"
    );
    let hour = plain.t0.hour();
    assert_eq!(hour_folder(hour), PathBuf::from("packets/dt=2023-11-14/hr=22"));
}

#[test]
fn refuses_a_second_spelling() {
    let good = name("s", "i").to_string();
    assert!(SegmentName::parse(&good).is_some());
    for (from, to) in
        [("-s-", "-%73-"), ("q3", "q03"), ("9f", "9F"), ("-12", "-012"), ("-12", "-12-"), ("-q", "-r")]
    {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(SegmentName::parse(&bad), None, "{bad}");
    }
    assert_eq!(SegmentName::parse(&name("a b", "i").to_string().replace("%20", "%2x")), None);
    assert_eq!(SegmentName::parse_file(&format!("{good}.open")), None);
    assert_eq!(SegmentName::parse_file(&format!(".{good}.idx")), None);
}

#[test]
fn long_names_are_cut_and_stay_distinct() {
    let (a, b) = ("\u{e9}".repeat(100) + "a", "\u{e9}".repeat(100) + "b");
    let (a, b) = (name(&a, &a), name(&b, &b));
    assert_ne!(a.to_string(), b.to_string());
    assert!(a.file(FileKind::Sealed).len() <= 245, "{a}");
    let parsed = SegmentName::parse(&a.to_string()).unwrap();
    assert_eq!(parsed.to_string(), a.to_string());
    assert!(parsed.is_of(&a.interface) && !parsed.is_of(&b.interface) && a.is_of(&a.interface));
}

proptest! {
    #[test]
    fn round_trip(t0 in 0..=i64::MAX as u64, sensor: String, interface: String, queue: u32, run: u32, seq: u32) {
        let t0 = Timestamp::from_nanos(t0).unwrap();
        let name = SegmentName { t0, sensor, interface, queue, run, seq };
        for kind in [FileKind::Sealed, FileKind::Index, FileKind::Open, FileKind::Journal] {
            let file = name.file(kind);
            prop_assert!(file.len() <= 255);
            let (parsed, found) = SegmentName::parse_file(&file).unwrap();
            prop_assert_eq!(found, kind);
            prop_assert_eq!(parsed.to_string(), name.to_string());
            let long = |text: &str| escape(text) != text && escape(text).contains("..");
            if !long(&name.sensor) && !long(&name.interface) {
                prop_assert_eq!(&parsed, &name);
            }
        }
    }

    #[test]
    fn any_text_parses_or_not(text in "[-.%q0-9a-fA-F]{0,120}") {
        if let Some(name) = SegmentName::parse(&text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
