//! Both real sinks over the same table of pieces.

use super::plain::PlainSink;
use super::uring::UringSink;
use super::*;
use crate::buffer::Pool;
use std::os::unix::fs::OpenOptionsExt as _;

const BLOCK: usize = 4096;

fn file(dir: &std::path::Path, direct: bool) -> Arc<File> {
    let mut options = File::options();
    options.create_new(true).read(true).write(true);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    Arc::new(options.open(dir.join("bytes")).unwrap())
}

fn pattern(at: u64) -> u8 {
    u8::try_from(at.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap()
}

fn pool() -> Pool {
    Pool::new(10, 16 * BLOCK, BLOCK).unwrap()
}

/// Writes 40 buffers of `pool` in unequal pieces and reads them back.
fn round_trip(sink: &mut dyn Sink, pool: &Pool, dir: &std::path::Path) {
    let mut offset = 0_u64;
    for round in 0..40_usize {
        let mut buf = loop {
            match pool.try_take() {
                Some(buf) => break buf,
                None => sink.wait(Duration::from_secs(5)),
            }
        };
        let blocks = 1 + round % 16;
        let bytes: Vec<u8> = (offset..offset + to_u64(blocks * BLOCK)).map(pattern).collect();
        buf.fill(&bytes);
        let cut = blocks / 2 * BLOCK;
        for (start, len) in [(0, cut), (cut, bytes.len() - cut)] {
            if len > 0 {
                sink.submit(Piece { view: buf.view(), start, len, offset: offset + to_u64(start) });
            }
        }
        offset += to_u64(bytes.len());
        sink.reap();
        assert!(sink.completed() <= offset);
    }
    while sink.in_flight() > 0 {
        sink.wait(Duration::from_secs(5));
    }
    assert!(sink.failure().is_none());
    assert_eq!(sink.completed(), offset);
    sink.durable().truncate(offset - 100).unwrap();
    sink.durable().sync().unwrap();
    let back = std::fs::read(dir.join("bytes")).unwrap();
    assert_eq!(to_u64(back.len()), offset - 100);
    assert!(back.iter().zip(0_u64..).all(|(byte, at)| *byte == pattern(at)));
    assert_eq!(pool.free(), 10);
}

#[test]
fn plain_writes_what_it_is_given() {
    for root in [std::path::Path::new("/dev/shm"), &std::env::temp_dir()] {
        let dir = tempfile::tempdir_in(root).unwrap();
        round_trip(&mut PlainSink::new(file(dir.path(), false), 1 << 20), &pool(), dir.path());
    }
}

#[test]
fn uring_writes_what_it_is_given() {
    if UringSink::probe().is_err() {
        println!("SKIPPED 1: this host refuses io_uring");
        return;
    }
    // From memory that the ring knows, and from other memory.
    let (pool, other) = (pool(), pool());
    for from in [&pool, &other] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = UringSink::new(file(dir.path(), true), BLOCK, 1 << 20, pool.arena()).unwrap();
        if !sink.registers() {
            println!("SKIPPED 1: this process may lock no memory");
        }
        round_trip(&mut sink, from, dir.path());
    }
}
