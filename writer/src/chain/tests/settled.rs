//! What a live file states as whole is whole, whatever disk and compressor do.

use super::*;
use crate::sink::double::{Doubles, Trouble};
use crate::testing::id_of;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use tapedeck_index::catalog::{self, State};
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::live::{self, RUN_FOLDER};
use tapedeck_index::pcapng::{Block, Blocks};

/// The ids in raw blocks with times up to `until`.
fn ids_of_blocks(raw: &[u8], until: u64, ids: &mut Vec<u64>) {
    for block in Blocks::new(raw) {
        if let Ok((_, Block::Packet(packet))) = block
            && packet.ts.nanos() <= until
        {
            ids.push(id_of(packet.bytes));
        }
    }
}

fn ids_of_frames(mut stored: &[u8], until: u64, ids: &mut Vec<u64>) {
    let (mut decoder, mut raw) = (Decoder::new().unwrap(), Vec::new());
    while !stored.is_empty() {
        let (frame, rest) = stored.split_at(frame_len(stored).unwrap());
        decoder.decompress(frame, &mut raw, RAW_BYTES_MAX).unwrap();
        ids_of_blocks(&raw, until, ids);
        stored = rest;
    }
}

/// The time that the live file of the only chain states.
fn stated(store: &Path) -> u64 {
    let name = "sensor%2D1-eth1-q0-abcd0123.live";
    let bytes = std::fs::read(store.join(RUN_FOLDER).join(name)).unwrap();
    // Overwritten while we read: the next read is whole.
    live::decode(&bytes).map_or_else(|| stated(store), Timestamp::nanos)
}

/// A reader's view: the time stated, and the ids that can be read up to it. `None` if something moved
/// while it looked.
fn view(store: &Path) -> Option<(u64, Vec<u64>)> {
    let until = stated(store);
    let gone = |e: std::io::Error| assert_eq!(e.kind(), ErrorKind::NotFound);
    let (mut open, mut ids) = (Vec::new(), Vec::new());
    for found in catalog::all(&[store.to_owned()]).unwrap().segments {
        let read = |path: PathBuf| std::fs::read(path).map_err(gone).ok();
        match found.state {
            State::Sealed => ids_of_frames(&read(found.packets_path())?, u64::MAX, &mut ids),
            State::Open => {
                // The journal first: it speaks of bytes that are in the file already.
                let replay = Replay::read(&read(found.index_path())?).ok()?;
                open.push((read(found.packets_path())?, replay));
            }
        }
    }
    for (mut file, replay) in open {
        file.resize(usize::try_from(replay.stored_len()).unwrap(), 0);
        replay.overlay(0, &mut file);
        ids_of_frames(&file, until, &mut ids);
        replay.open_blocks().for_each(|(_, blocks)| ids_of_blocks(blocks, until, &mut ids));
    }
    ids.sort_unstable();
    Some((until, ids))
}

/// Pours packets of a microsecond each in bursts, looks after each, and checks that nothing is missing
/// before the time stated. Returns the views that stated one.
fn check(config: ChainConfig, trouble: &Arc<Trouble>, mut between: impl FnMut(u64)) -> usize {
    let store = config.store.clone();
    let sinks = Box::new(Doubles(Arc::clone(trouble)));
    let mut chain = Chain::start_with(config, sinks, SinkKind::Plain, None).unwrap();
    let (mut id, mut views) = (0, 0);
    for round in 0..120 {
        between(round);
        for _ in 0..(round * 37) % 900 {
            // A packet that is shed is no hole: the ledger has it.
            if append(&mut chain, id, T18 + id * 1_000, 1400) == Appended::Stored {
                id += 1;
            }
        }
        let last = at(T18 + id.saturating_sub(1) * 1_000);
        chain.settle(last);
        chain.tick(last, Counters::default());
        std::thread::sleep(Duration::from_millis(round % 3 * 20));
        let Some((settled, ids)) = view(&store) else { continue };
        // At first the file states the time of day, which lies behind all these packets' times.
        if round == 0 || settled > T18 + 1_000_000_000 {
            continue;
        }
        let whole = (settled - T18) / 1_000;
        let ids: Vec<u64> = ids.into_iter().filter(|id| *id <= whole).collect();
        assert!(ids.iter().copied().eq(0..=whole), "round {round}: {} of {}", ids.len(), whole + 1);
        views += 1;
    }
    trouble.stuck.store(false, Ordering::SeqCst);
    let report = finished(chain);
    assert_eq!(report.counters.stored.packets, id);
    views
}

#[test]
fn what_is_stated_is_whole_at_any_pace() {
    let dir = tempfile::tempdir().unwrap();
    let base = config(dir.path(), SinkChoice::Plain);
    let small = ChainConfig { segment_bytes: 2 << 20, ..base };
    assert!(check(small, &Arc::default(), |_| ()) > 20);
}

#[test]
fn what_is_stated_is_whole_while_the_disk_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    let base = config(dir.path(), SinkChoice::Plain);
    let small = ChainConfig { segment_bytes: 2 << 20, ..base };
    let views = check(small, &trouble, |round| trouble.stuck.store(round % 10 > 6, Ordering::SeqCst));
    assert!(views > 20);
}

#[test]
fn an_idle_chain_states_that_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::start(config(dir.path(), SinkChoice::Plain)).unwrap();
    let states = |chain: &mut Chain, nanos: u64| {
        wait_for("the time", || {
            chain.settle(at(nanos));
            chain.tick(at(nanos), Counters::default());
            stated(dir.path()) == nanos
        });
    };
    states(&mut chain, T18);
    append(&mut chain, 0, T18 + 1, 100);
    states(&mut chain, T18 + SECOND);
    // Also when its segment has ended.
    chain.end_all_segments();
    states(&mut chain, T18 + 2 * SECOND);
    finished(chain);
    assert!(std::fs::read_dir(dir.path().join(RUN_FOLDER)).unwrap().next().is_none());
}

#[test]
fn an_import_states_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain =
        Chain::start(ChainConfig { live: false, ..config(dir.path(), SinkChoice::Plain) }).unwrap();
    append(&mut chain, 0, T18, 100);
    chain.settle(at(T18));
    finished(chain);
    assert!(!dir.path().join(RUN_FOLDER).exists());
}
