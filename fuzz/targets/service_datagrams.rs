//! Services of UDP: datagrams of both sides.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tapedeck_fuzz::session::packets(17, data));
