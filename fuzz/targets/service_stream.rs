//! Services of TCP: segments of both sides, in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tapedeck_fuzz::session::packets(6, data));
