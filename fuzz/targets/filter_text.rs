//! The filter language: what is read prints as a filter that reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_query::filter::Filter;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(filter) = Filter::parse(text) {
        let printed = filter.to_string();
        assert_eq!(Filter::parse(&printed).as_ref(), Ok(&filter), "{printed}");
    }
});
