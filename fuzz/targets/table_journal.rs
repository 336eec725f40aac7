//! Journals of tables: a damaged one with right checksums, and any bytes as one. Rows up to the first record that
//! does not hold, and no more than there are bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use tapedeck_index::table::journal::Replay;
use tapedeck_index::table::live::LiveReplay;
use tapedeck_index::table::SESSIONS;

static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();

fn ask(file: &[u8]) {
    if let Ok(replay) = Replay::read(file) {
        assert!(replay.good_len <= file.len());
        assert!(replay.batches.iter().all(|batch| batch.schema() == replay.schema));
    }
    if let Ok(replay) = LiveReplay::read(&SESSIONS, file) {
        assert!(replay.good_len <= file.len());
    }
}

fuzz_target!(|data: &[u8]| {
    let mut file = WHOLE.get_or_init(tapedeck_fuzz::table_journal).clone();
    tapedeck_fuzz::damage(&mut file, data);
    tapedeck_fuzz::mend_journal(&mut file);
    ask(&file);
    let mut any = data.to_vec();
    tapedeck_fuzz::mend_journal(&mut any);
    ask(&any);
});
