//! Times and durations as typed: a time or an error, never a wrap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_packet::Timestamp;
use tapedeck_query::time_arg::{parse_duration_ns, parse_time};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Timestamp::from_nanos_saturating(1_800_000_000_000_000_000);
    if text.ends_with(" ago")
        && let Ok(time) = parse_time(text, now)
    {
        assert!(time <= now, "{text:?} is {time:?}");
    }
    let _ = (parse_time(text, now), parse_duration_ns(text));
});
