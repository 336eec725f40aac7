//! Times as data: what is read, and what is said about the rest.

use super::*;

const NOW_NS: u64 = 1_795_284_000_000_000_000; // 2026-11-21T18:00:00Z

fn shown(text: &str) -> String {
    let now = Timestamp::from_nanos_saturating(NOW_NS);
    match parse_time(text, now) {
        Ok(t) => t.to_string(),
        Err(e) => format!("{e}"),
    }
}

#[test]
fn every_form_is_read_to_the_nanosecond() {
    for (text, want) in [
        ("2026-11-21T18:00:00Z", "2026-11-21T18:00:00.000000000Z"),
        ("2026-11-21t18:00:00.123456789z", "2026-11-21T18:00:00.123456789Z"),
        ("2026-11-21T18:00:00.5+02:00", "2026-11-21T16:00:00.500000000Z"),
        ("2026-11-21T18:00:00-05:30", "2026-11-21T23:30:00.000000000Z"),
        ("2026-11-21 18:00", "2026-11-21T18:00:00.000000000Z"),
        ("2026-11-21 18:00:07", "2026-11-21T18:00:07.000000000Z"),
        ("2026-11-21 18:00:07.000000001", "2026-11-21T18:00:07.000000001Z"),
        ("2026-11-21 18:00Z", "2026-11-21T18:00:00.000000000Z"),
        ("2026-11-21", "2026-11-21T00:00:00.000000000Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000000000Z"),
        ("1795284000", "2026-11-21T18:00:00.000000000Z"),
        ("1795284000.000000001", "2026-11-21T18:00:00.000000001Z"),
        ("1795284000.1000000000", "2026-11-21T18:00:00.100000000Z"),
        ("0", "1970-01-01T00:00:00.000000000Z"),
        ("9223372036.854775807", "2262-04-11T23:47:16.854775807Z"),
        ("2h ago", "2026-11-21T16:00:00.000000000Z"),
        ("90s ago", "2026-11-21T17:58:30.000000000Z"),
        ("1h30m ago", "2026-11-21T16:30:00.000000000Z"),
        ("1.5h ago", "2026-11-21T16:30:00.000000000Z"),
        ("1ns ago", "2026-11-21T17:59:59.999999999Z"),
        ("3 days ago", "2026-11-18T18:00:00.000000000Z"),
        (" now ", "2026-11-21T18:00:00.000000000Z"),
    ] {
        assert_eq!(shown(text), want, "{text}");
    }
}

#[test]
fn what_is_no_time_is_named() {
    for (text, want) in [
        ("", "'' is not a time"),
        ("yesterday", "'yesterday' is not a time"),
        ("2h", "'2h' is a duration, not a time"),
        ("ago", "'ago' is not a time"),
        ("-5", "'-5' is before 1970"),
        ("1.2.3", "'1.2.3' is not a time"),
        ("1795284000.", "'1795284000.' is not a time"),
        ("1795284000123", "'1795284000123' is too large for a Unix time in seconds"),
        ("99999999999999999999999", "'99999999999999999999999' is too large for a Unix time in seconds"),
        ("9223372036.854775808", "'9223372036.854775808' is after the year 2262"),
        ("1.0000000001", "'1.0000000001' is finer than a nanosecond"),
        ("2026-02-30", "'2026-02-30' is not in the calendar or not on the clock"),
        ("2026-13-01", "'2026-13-01' is not in the calendar or not on the clock"),
        ("2026-11-21 24:00", "'2026-11-21 24:00' is not in the calendar or not on the clock"),
        ("2026-11-21 18:00:60", "'2026-11-21 18:00:60' is not in the calendar or not on the clock"),
        ("2026-11-21T18", "'2026-11-21T18' is not a time"),
        ("2026-11-21  18:00", "'2026-11-21  18:00' is not a time"),
        ("2026-11-21 18:00 CET", "'2026-11-21 18:00 CET' is not a time"),
        ("2026-11-21 18:00.5", "'2026-11-21 18:00.5' is not a time"),
        ("1969-12-31", "'1969-12-31' is before 1970"),
        ("2300-01-01", "'2300-01-01' is after the year 2262"),
        ("999999999d ago", "'999999999d ago' is not a time"),
        ("100000d ago", "'100000d ago' is before 1970"),
        ("2026-11-21\u{e9}18:00", "'2026-11-21\u{e9}18:00' is not a time"),
        ("\u{e9}\u{e9}ago", "'\u{e9}\u{e9}ago' is not a time"),
    ] {
        assert_eq!(shown(text), want, "{text}");
    }
}

#[test]
fn durations_are_exact() {
    for (text, want) in [
        ("90s", Some(90_000_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        ("0.000000001s", Some(1)),
        ("0.0000000001s", None),
        ("1d", Some(86_400_000_000_000)),
        ("2", None),
        ("h", None),
        ("1.h", None),
        ("", None),
        ("-1h", None),
        ("300000000000000000000d", None),
    ] {
        assert_eq!(parse_duration_ns(text).ok(), want, "{text}");
    }
}

proptest::proptest! {
    /// jiff reads what the answer prints, and so do we, to the nanosecond.
    #[test]
    fn agrees_with_jiff(nanos in 0..=Timestamp::MAX.nanos()) {
        let t = Timestamp::from_nanos(nanos).unwrap();
        let text = t.to_string();
        proptest::prop_assert_eq!(parse_time(&text, Timestamp::ZERO), Ok(t));
        let oracle: jiff::Timestamp = text.parse().unwrap();
        proptest::prop_assert_eq!(oracle.as_nanosecond(), i128::from(nanos));
        let unix = format!("{}.{:09}", nanos / NANOS_PER_SEC, nanos % NANOS_PER_SEC);
        proptest::prop_assert_eq!(parse_time(&unix, Timestamp::ZERO), Ok(t));
    }

    #[test]
    fn never_panics(text in "\\PC{0,30}") {
        let _ = parse_time(&text, Timestamp::MAX);
        let _ = parse_duration_ns(&text);
    }
}
