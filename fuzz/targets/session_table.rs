//! Any packets at all, at any times, in any table: every packet is counted once, nothing is kept beyond the bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tapedeck_fuzz::session::table(data));
