//! A damaged journal with right checksums, and any bytes as one: records up to the first bad one, and a
//! replay that stays inside what was written.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tapedeck_index::journal::{Records, Replay};
use tapedeck_index::sidecar::Head;

static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();

fn ask(file: &[u8]) {
    let mut records = Records::new(file);
    let count = records.by_ref().count();
    assert!(records.good_len() <= file.len() && (count == 0) == (records.good_len() == 0));
    assert!(records.stop().is_some());
    let Ok(replay) = Replay::read(file) else { return };
    assert!(replay.good_len() <= file.len());
    let _ = (replay.start(), replay.frames(), replay.stored_len(), replay.file_bytes_needed());
    let _ = replay.open_blocks().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let mut segment = [0; 512];
    for offset in [0, 100, u64::MAX - 100] {
        replay.overlay(offset, &mut segment);
    }
    let start = replay.start().clone();
    let head = Head::encode(&start.section, &start.interface);
    let _ = replay.into_builder().finish(&start.name, &head);
}

fuzz_target!(|data: &[u8]| {
    let mut file = WHOLE.get_or_init(tapedeck_fuzz::journal).clone();
    tapedeck_fuzz::damage(&mut file, data);
    tapedeck_fuzz::mend_journal(&mut file);
    ask(&file);
    ask(data);
});
