//! A writer in another process, killed with SIGKILL at random moments.

use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells this test binary to be the writer.
const STORE: &str = "TAPEDECK_TEST_WRITER_STORE";
/// Its packets per millisecond.
const RATE: &str = "TAPEDECK_TEST_WRITER_RATE";
/// Its sink.
const SINK: &str = "TAPEDECK_TEST_WRITER_SINK";
/// Age from which a packet must survive.
const KEPT_NANOS: u64 = 250_000_000;

fn now_nanos() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Not a test by itself: the writer, when [`kill_round`] starts it. Appends until it is killed; each
/// millisecond it says how far it has come: time, packets appended, packets counted stored.
#[test]
fn writer_process() {
    let Ok(store) = std::env::var(STORE) else { return };
    let rate: u64 = std::env::var(RATE).unwrap().parse().unwrap();
    let sink = if std::env::var(SINK).unwrap() == "plain" { SinkChoice::Plain } else { SinkChoice::Auto };
    let base = config(Path::new(&store), sink);
    let mut chain = Chain::start(ChainConfig {
        frame_buffers: 32,
        frame_age: Duration::from_millis(400),
        segment_bytes: 6 << 20,
        ..base
    })
    .unwrap();
    let (counters, mut id, mut out) = (chain.counters(), 0, std::io::stdout());
    loop {
        for _ in 0..rate {
            // Shed packets get no id, so ids without a gap are what must come back.
            if append(&mut chain, id, now_nanos(), 700) == Appended::Stored {
                id += 1;
            }
        }
        let stored = counters.snapshot().stored.packets;
        if writeln!(out, "at {} {id} {stored}", now_nanos()).and_then(|()| out.flush()).is_err() {
            return;
        }
        chain.tick(crate::testing::at(now_nanos()), Counters::default());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A line of the writer: (time, appended, stored).
fn parse(line: &str) -> Option<(u64, u64, u64)> {
    // The test harness prints its own beginning of the first line.
    let mut words = line.split("at ").last()?.split(' ').map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?))
}

/// Starts a writer, kills it after about `life`, recovers. Whether every packet older than 250 ms at the
/// kill was there; everything else must hold in any case.
fn kill_round(root: &Path, sink: &str, rate: u64, life: Duration) -> bool {
    let dir = tempfile::tempdir_in(root).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recover::tests::kill::writer_process", "--nocapture"])
        .env(STORE, dir.path())
        .env(RATE, rate.to_string())
        .env(SINK, sink)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut log = Vec::new();
    let mut until = None;
    while let Some(Ok(line)) = lines.next() {
        log.extend(parse(&line));
        let until = *until.get_or_insert_with(|| Instant::now() + life);
        if Instant::now() >= until {
            break;
        }
    }
    child.kill().unwrap();
    let killed = now_nanos();
    child.wait().unwrap();
    log.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));

    let report = recover_twice(dir.path());
    assert!(report.errors.is_empty(), "{report:?}");
    clean(dir.path());
    let found = ids(dir.path());
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "a packet twice");
    let count = u64::try_from(found.len()).unwrap();
    let stored = log.last().map_or(0, |line| line.2);
    assert!(count >= stored, "{count} found, {stored} were counted stored");
    let old = log.iter().filter(|line| line.0 + KEPT_NANOS <= killed).map(|line| line.1).max().unwrap_or(0);
    let kept = found.iter().zip(0..).take_while(|(id, at)| **id == *at).count();
    u64::try_from(kept).unwrap() >= old
}

#[test]
fn what_is_older_than_250_ms_survives_kill_9() {
    let memory = Path::new("/dev/shm");
    let disk = std::env::temp_dir();
    let rounds: [(&Path, &str, u64); 4] =
        [(&disk, "auto", 2), (&disk, "auto", 60), (memory, "plain", 2), (memory, "plain", 60)];
    let seed = u64::from(std::process::id());
    let mut late = 0;
    for (number, (root, sink, rate)) in (1..).zip(rounds.iter().cycle().take(12)) {
        let life = Duration::from_millis(seed.wrapping_mul(number * 7919) % 1500);
        let kept = kill_round(root, sink, *rate, life);
        println!("round {number}: {sink} {rate}/ms killed after {life:?} (seed {seed}): kept {kept}");
        late += u32::from(!kept);
    }
    // A machine that is busy elsewhere may hold the journal up now and then; a fault would always.
    assert!(late <= 3, "{late} of 12 rounds lost packets older than 250 ms");
}
