//! A clock that is stepped while packets come: only in a guest of `cargo xtask vm`, because it is the machine's.

use super::disk::status_when;
use super::guest::{balances, cards, count, send, stored, verify};
use super::ledger::rows_add_up;
use crate::support::recorder::{Ended, Recorder, interface_option, packets, segments};
use crate::support::{Net, Sender, number_of, set_tai_offset};
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tapedeck_bench::recorder::binary;
use tapedeck_index::table::ledger::RowKind;

const HOUR_S: i64 = 3600;
/// A multiple of the 64 seconds that the program has slots for.
const YEARS_30: i64 = 30 * 365 * 24 * HOUR_S;
const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * SECOND_NS;
/// A segment holds its hour, and this much more on both sides.
const SLACK_NS: u64 = 2 * SECOND_NS;
/// Packets sent at a time.
const EACH: u64 = 100;
/// Each step, and what the recorder says of it.
const STEPS: [(i64, &str); 6] = [
    (HOUR_S, "was stepped forward by 3"),
    (-HOUR_S, "was stepped back by 3"),
    (-HOUR_S, "was stepped back by 3"),
    (HOUR_S, "was stepped forward by 3"),
    (YEARS_30, "clock: quarantined: the system clock jumped by 262"),
    (-YEARS_30, "is back, and believed again"),
];

fn now_s() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).unwrap().tv_sec()
}

fn step_clock(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    let to = nix::sys::time::TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, to).unwrap();
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn status(store: &Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(["status", "--store"]).arg(store).output();
    String::from_utf8(out.unwrap().stdout).unwrap()
}

/// The TAI offset of the latest row of the clock, as anybody reads it while the recorder runs.
fn latest_tai(store: &Path) -> String {
    let query = "SELECT tai_offset_s FROM ledger WHERE kind = 'clock' ORDER BY number DESC LIMIT 1";
    let mut command = Command::new(binary("taperead"));
    command.args(["sql", query, "--format", "csv", "--store"]).arg(store);
    let out = command.output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// Numbers sent so far.
struct Numbers {
    sender: Sender,
    sent: u64,
}

impl Numbers {
    /// Sends the next ones and returns them.
    fn send(&mut self) -> std::ops::Range<u64> {
        let numbers = self.sent..self.sent + EACH;
        send(&self.sender, 1, numbers.clone(), 200, &[]);
        self.sent = numbers.end;
        numbers
    }
}

/// Steps the clock of this machine while packets come: at once after each step, and again once the recorder has
/// noticed it.
fn stepped(mode: &str) {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let began = now_s();
    let mut recorder = Recorder::start(&net, dir.path(), &["--mode", mode, "--segment-age", "2s"]);
    let mut numbers = Numbers { sender: net.sender(), sent: 0 };
    numbers.send();
    // Sent while it was known that the clock is not believed, and just after each change.
    let (mut doubted, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for (seconds, words) in STEPS {
        step_clock(seconds);
        let at_once = numbers.send();
        recorder.wait_for_words(words);
        let later = numbers.send();
        let quarantined = seconds == YEARS_30;
        if quarantined {
            doubted.extend(later);
        }
        if seconds.abs() == YEARS_30 {
            unknown.extend(at_once);
        }
        wait_until("status", || status(dir.path()).contains("clock: quarantined") == quarantined);
    }
    set_tai_offset(37);
    numbers.send();
    wait_until("a row with the TAI offset", || latest_tai(dir.path()) == "37");
    numbers.send();
    set_tai_offset(0);
    wait_until("a row without it", || latest_tai(dir.path()) == "0");
    let ended = recorder.stop();
    nothing_is_lost(dir.path(), &ended, numbers.sent);
    let life = life(began, now_s());
    well_filed(dir.path(), |time| life.contains(&time));
    doubt_is_written(dir.path(), &doubted, &unknown);
    rows_tell_of_the_clock(dir.path(), &ended, began, now_s());
}

/// A host whose clock is 30 years behind until the network sets it, and once more behind.
fn accepted(mode: &str) {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let began = now_s();
    let args = ["--mode", mode, "--segment-age", "2s", "--accept-clock"];
    let mut recorder = Recorder::start(&net, dir.path(), &args);
    let mut numbers = Numbers { sender: net.sender(), sent: 0 };
    numbers.send();
    for (seconds, words) in [(YEARS_30, "was stepped forward by 946"), (-YEARS_30, "was stepped back by 946")]
    {
        step_clock(seconds);
        numbers.send();
        recorder.wait_for_words(words);
        numbers.send();
        let sent = i64::try_from(numbers.sent).unwrap();
        status_when(dir.path().to_str().unwrap(), |ledger| ledger["total"]["stored"] == sent);
        assert!(!status(dir.path()).contains("quarantined"));
    }
    let ended = recorder.stop();
    assert!(!ended.stderr.contains("quarantined"), "{}", ended.stderr);
    nothing_is_lost(dir.path(), &ended, numbers.sent);
    as_the_clock_said(dir.path(), began);
    rows_add_up(dir.path(), &ended);
}

/// A clock that is right after its jump is doubted, until the operator says so in the file.
fn accepted_later(mode: &str) {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (store, config) = (dir.path().join("store"), dir.path().join("tapedeck.toml"));
    std::fs::write(&config, "accept-clock = false\n").unwrap();
    let began = now_s();
    let args = ["--mode", mode, "--segment-age", "2s", "--config", config.to_str().unwrap()];
    let mut recorder = Recorder::start(&net, &store, &args);
    let mut numbers = Numbers { sender: net.sender(), sent: 0 };
    numbers.send();
    step_clock(YEARS_30);
    recorder.wait_for_words("clock: quarantined: the system clock jumped by 262");
    numbers.send();
    std::fs::write(&config, "accept-clock = true\n").unwrap();
    recorder.signal(nix::sys::signal::Signal::SIGHUP);
    recorder.wait_for_words("by more than a day are believed now");
    recorder.wait_for_words("was stepped forward by 946");
    numbers.send();
    wait_until("status", || !status(&store).contains("clock: quarantined"));
    step_clock(-YEARS_30);
    recorder.wait_for_words("was stepped back by 946");
    let ended = recorder.stop();
    nothing_is_lost(&store, &ended, numbers.sent);
    as_the_clock_said(&store, began);
    rows_add_up(&store, &ended);
}

/// Every packet stands in the folder of its hour, in one of the two lives of a clock that jumped and came back.
fn as_the_clock_said(store: &Path, began: i64) {
    let life = life(began, now_s());
    let years = u64::try_from(YEARS_30).unwrap() * SECOND_NS;
    well_filed(store, |time| life.contains(&time) || life.contains(&(time - years)));
}

fn nothing_is_lost(store: &Path, ended: &Ended, sent: u64) {
    balances(ended);
    assert_eq!(u64::try_from(ended.total("stored")).unwrap(), sent, "{ended:?}");
    assert_eq!(count(store, "udp"), sent);
    verify(store);
    let mut numbers = stored(store, 0).remove(&0).unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
}

/// What the clock said in this run, but for the 30 years: in nanoseconds.
fn life(began_s: i64, ended_s: i64) -> std::ops::Range<u64> {
    let ns = |seconds: i64| u64::try_from(seconds).unwrap() * SECOND_NS;
    ns(began_s) - HOUR_NS - SLACK_NS..ns(ended_s) + HOUR_NS + SLACK_NS
}

/// Every packet stands in the folder of its hour, and none outside what the clock ever said.
fn well_filed(store: &Path, said: impl Fn(u64) -> bool) {
    for segment in segments(store) {
        let path = segment.to_str().unwrap();
        let part = |name: &str| path.split(name).nth(1).unwrap().split('/').next().unwrap().to_owned();
        let folder: jiff::Timestamp = format!("{}T{}:00:00Z", part("/dt="), part("/hr=")).parse().unwrap();
        let hour = u64::try_from(folder.as_second()).unwrap() * SECOND_NS;
        for (time, _) in packets(&segment) {
            assert!((hour - SLACK_NS..hour + HOUR_NS + SLACK_NS).contains(&time), "{time} in {path}");
            assert!(said(time), "{time} is not of this run: {path}");
        }
    }
}

/// The headers of the segments with the numbers `doubted`, and of no others, say that the clock is not believed;
/// those of `unknown` may.
fn doubt_is_written(store: &Path, doubted: &BTreeSet<u64>, unknown: &BTreeSet<u64>) {
    assert!(!doubted.is_empty());
    for segment in segments(store) {
        let description = String::from_utf8(interface_option(&segment, 3).unwrap()).unwrap();
        assert!(description.contains("queue 0, mode "), "{description}");
        let says = description.ends_with("; clock: quarantined");
        for (_, packet) in packets(&segment) {
            let (_, number) = number_of(&packet, 0).unwrap();
            let fits = unknown.contains(&number) || doubted.contains(&number) == says;
            assert!(fits, "{number} in a segment of {description}");
        }
    }
}

fn rows_tell_of_the_clock(store: &Path, ended: &Ended, began_s: i64, ended_s: i64) {
    let life = life(began_s, ended_s);
    let mut rows = rows_add_up(store, ended);
    assert!(rows.iter().all(|row| life.contains(&row.ts.nanos()) && life.contains(&row.ts_end.nanos())));
    rows.retain(|row| row.kind == RowKind::Clock);
    rows.sort_by_key(|row| row.number);
    let states: Vec<_> = rows.iter().map(|row| row.clock.as_ref().unwrap()).collect();
    let steps = states.iter().filter_map(|state| state.step);
    // Rounded: setting it takes a moment.
    let steps: Vec<i64> =
        steps.map(|(from, to)| (to - from + 500_000_000).div_euclid(1_000_000_000)).collect();
    assert_eq!(steps, STEPS.map(|(seconds, _)| seconds), "{states:#?}");
    let mut tai: Vec<_> = states.iter().map(|state| state.tai_offset_s.unwrap()).collect();
    tai.dedup();
    assert_eq!(tai, [0, 37, 0], "{states:#?}");
    // Those that were not believed are no steps of the packets' clock.
    assert_eq!(states.last().unwrap().steps, 4, "{states:#?}");
}

#[test]
fn a_stepped_clock_loses_and_misfiles_nothing() {
    let _ = cards!();
    stepped("copy");
}

/// There the kernel's stamps are of the clock that is stepped.
#[test]
fn a_stepped_clock_misfiles_nothing_in_packet_mode() {
    let _ = cards!();
    stepped("packet");
}

#[test]
fn a_jump_of_the_clock_that_is_accepted_loses_and_misfiles_nothing() {
    let _ = cards!();
    accepted("copy");
}

#[test]
fn a_jump_of_the_clock_that_is_accepted_misfiles_nothing_in_packet_mode() {
    let _ = cards!();
    accepted("packet");
}

#[test]
fn a_jump_of_the_clock_is_accepted_when_the_file_says_so() {
    let _ = cards!();
    accepted_later("copy");
}
