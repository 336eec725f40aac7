//! Stores that are full, read-only, deleted: said, counted, survived.

use crate::ledger::table_tells;
use crate::support::recorder::{Ended, Recorder, packets, pins, record_command, segments};
use crate::support::{Net, live, numbered, run};
use crate::takeover::with_pins;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Mounts a small disk on `folder`, in a mount namespace of the calling thread's own (and of what it
/// starts): gone with them. `false` where that is not possible.
pub(crate) fn small_disk(folder: &Path, options: &str) -> bool {
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
        return false;
    }
    let mount =
        |args: &[&str]| Command::new("mount").args(args).output().is_ok_and(|out| out.status.success());
    // Else it would show up outside.
    mount(&["--make-rprivate", "/"])
        && mount(&["-t", "tmpfs", "-o", options, "none", folder.to_str().unwrap()])
}

/// Ends the test with a printed reason where it cannot have a disk of its own.
macro_rules! small_disk {
    ($folder:expr, $options:expr) => {
        if !small_disk($folder, $options) {
            println!("SKIPPED 1: no mount namespaces here");
            return;
        }
    };
}

pub(crate) fn tapedeck(args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// Writes until nothing fits.
pub(crate) fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for len in [1 << 16, 4096, 1] {
        let bytes = vec![1; len];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// The ledger of `status` once it satisfies `wanted`.
pub(crate) fn status_when(store: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (code, text, stderr) = tapedeck(&["status", "--json", "--store", store]);
        let ledger = serde_json::from_str(&text).unwrap_or_default();
        if code == Some(0) && wanted(&ledger) {
            return ledger;
        }
        assert!(Instant::now() < deadline, "{code:?}: {text}{stderr}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn in_segments(store: &Path) -> i64 {
    segments(store).iter().map(|segment| i64::try_from(packets(segment).len()).unwrap()).sum()
}

fn assert_true(ended: &Ended, store: &Path) {
    assert_eq!((ended.total("unaccounted"), ended.total("pending")), (0, 0), "{ended:?}");
    assert_eq!(ended.total("stored"), in_segments(store), "{ended:?}");
    assert_eq!(ended.total("seen"), ended.total("stored") + ended.total("dropped/write_error"));
}

#[test]
fn on_a_full_disk_status_shows_a_live_recorder() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    small_disk!(dir.path(), "size=24m");
    let store = dir.path().join("store");
    let name = store.to_str().unwrap();
    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    let sender = net.sender();
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            assert!(sender.send(&numbered(0, number, 1000, &[])));
        }
    };
    send(0..100);
    status_when(name, |ledger| ledger["total"]["stored"] == 100);
    fill(&dir.path().join("filler"));
    send(100..300);
    let full = status_when(name, |ledger| ledger["total"]["seen"] == 300);
    // Longer than a status is believed: it is written still.
    std::thread::sleep(Duration::from_secs(6));
    let later = status_when(name, |_| true);
    assert!(later["end"].as_str() > full["end"].as_str(), "{later}");
    let (code, text, _) = tapedeck(&["status", "--store", name]);
    assert!(code == Some(0) && text.contains(&format!("process {}", recorder.pid())), "{text}");
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    // Back-off included, packets are stored again.
    let deadline = Instant::now() + Duration::from_secs(30);
    let stored = |ledger: &serde_json::Value| ledger["total"]["stored"].as_i64().unwrap();
    let before = stored(&status_when(name, |_| true));
    let mut number = 300;
    while stored(&status_when(name, |_| true)) <= before {
        assert!(Instant::now() < deadline, "nothing is stored again");
        send(number..number + 10);
        number += 10;
    }
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_true(&ended, &store);
    assert_eq!(tapedeck(&["status", "--store", name]).0, Some(2));
}

#[test]
fn recovery_on_a_full_disk_says_what_to_do_and_loses_nothing() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    small_disk!(dir.path(), "size=24m");
    let store = dir.path().join("store");
    let name = store.to_str().unwrap();
    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    let sender = net.sender();
    for number in 0..500 {
        assert!(sender.send(&numbered(0, number, 1000, &[])));
    }
    status_when(name, |ledger| ledger["total"]["stored"] == 500);
    recorder.kill();
    fill(&dir.path().join("filler"));
    let (code, _, stderr) = tapedeck(&["recover", "--store", name]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("No space left") && stderr.contains("hint: free space"), "{stderr}");
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    let (code, _, stderr) = tapedeck(&["recover", "--store", name]);
    assert_eq!((code, in_segments(&store)), (Some(0), 500), "{stderr}");
}

#[test]
fn what_is_deleted_under_the_recorder_is_not_called_stored() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let name = store.to_str().unwrap();
    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    let sender = net.sender();
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            assert!(sender.send(&numbered(0, number, 300, &[])));
        }
    };
    send(0..100);
    status_when(name, |ledger| ledger["total"]["stored"] == 100);
    std::fs::remove_dir_all(&store).unwrap();
    // The status is in the store and comes again with it.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut number = 100;
    while tapedeck(&["status", "--store", name]).0 != Some(0) {
        assert!(Instant::now() < deadline, "no status any more");
        send(number..number + 1);
        number += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let ledger = status_when(name, |ledger| ledger["total"]["dropped"]["write_error"].as_i64() >= Some(100));
    assert_eq!(ledger["total"]["unaccounted"], 0);
    send(number..number + 50);
    let number_i64 = i64::try_from(number).unwrap();
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("an open segment is gone"), "{}", ended.stderr);
    assert_true(&ended, &store);
    assert!(ended.total("stored") >= 50, "{ended:?}");
    // And those that came before it was noticed.
    assert!((100..number_i64).contains(&ended.total("dropped/write_error")), "{ended:?}");
    // Gone at the last seal.
    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    send(0..20);
    status_when(name, |ledger| ledger["total"]["stored"] == 20);
    std::fs::remove_dir_all(&store).unwrap();
    let ended = recorder.stop();
    assert_true(&ended, &store);
    assert_eq!((ended.total("stored"), ended.total("dropped/write_error")), (0, 20), "{ended:?}");
    assert!(!ended.stderr.contains("the next start recovers it"), "nothing is left: {}", ended.stderr);
}

#[test]
fn stores_that_cannot_be_written_are_refused_with_a_hint() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    small_disk!(&disk, "size=24m");
    let refused = |store: &Path, args: &[&str], words: &[&str]| {
        let out = record_command(&net, store, args).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "no `{word}`: {said}");
        }
    };
    let file = dir.path().join("file");
    std::fs::write(&file, b"a letter").unwrap();
    refused(&file, &[], &["file", "Not a directory", "hint: a store is a folder"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"a letter");
    let sized = disk.join("sized");
    refused(&sized, &["--segment-size", "64KiB"], &["64KiB", "1MiB or more"]);
    let config = dir.path().join("tapedeck.toml");
    std::fs::write(&config, "segment-size = '64KiB'\n").unwrap();
    let config = config.to_str().unwrap();
    refused(&sized, &["--config", config], &["segment-size", "64KiB", "1MiB or more"]);
    let (code, _, said) =
        tapedeck(&["import", "--store", sized.to_str().unwrap(), "--segment-size", "64KiB", "x.pcap"]);
    assert!(code == Some(2) && said.contains("1MiB or more"), "{said}");
    assert!(!sized.exists());
    // A store that was good and is read-only now, and one that never was.
    let store = disk.join("store");
    assert_eq!(Recorder::start(&net, &store, &[]).stop().code, Some(0));
    run("mount", &["-o", "remount,ro", disk.to_str().unwrap()]);
    for path in [&store, &disk.join("new")] {
        refused(path, &[], &["Read-only file system", "hint: the file system is read-only"]);
    }
}

#[test]
fn a_recorder_whose_words_nobody_reads_goes_on() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = record_command(&net, dir.path(), &["--duration", "300ms"]);
    let out = command.stderr(Stdio::from(writer)).output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    let ledger: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(ledger["total"]["unaccounted"], 0);
}

#[test]
fn a_ledger_that_stdout_does_not_take_is_said() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let mut command = record_command(&net, dir.path(), &["--duration", "200ms"]);
    command.stdout(Stdio::from(File::options().write(true).open("/dev/full").unwrap()));
    let out = command.output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("error: cannot write to standard output\nCaused by: No space left"), "{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    let ledger: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(ledger["total"]["unaccounted"], 0);
    // A reader that has gone away has had enough.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = record_command(&net, dir.path(), &["--duration", "200ms"]);
    assert_eq!(command.stdout(Stdio::from(writer)).output().unwrap().status.code(), Some(0));
}

/// Records `numbers`, dies, and lets 20 more pass.
fn dies(net: &Net, store: &Path, numbers: std::ops::Range<u64>) {
    let recorder = Recorder::start(net, store, &["--mode", "copy"]);
    let sender = net.sender();
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            assert!(sender.send(&numbered(0, number, 300, &[])));
        }
    };
    let (stored, end) = (numbers.end - numbers.start, numbers.end);
    send(numbers);
    status_when(store.to_str().unwrap(), |ledger| ledger["total"]["stored"] == stored);
    recorder.kill();
    send(end..end + 20);
}

#[test]
fn books_whose_rows_a_full_disk_does_not_take_stay_pinned() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    small_disk!(dir.path(), "size=24m");
    let (store, filler) = (dir.path().join("store"), dir.path().join("filler"));
    dies(&net, &store, 0..100);
    fill(&filler);
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
    let words = format!("error: {}: 2 rows of the ledger that close the books of run ", net.rx);
    assert!(said.contains(&words) && said.contains("\n\nhint: "), "{said}");
    assert_eq!(pins().len(), 1);
    std::fs::remove_file(&filler).unwrap();
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!((code, pins().len()), (Some(0), 0), "{said}");
    let ledger: serde_json::Value = serde_json::from_str(&out).unwrap();
    let count = |key: &str| ledger["total"].pointer(key).and_then(serde_json::Value::as_u64);
    assert_eq!([count("/seen"), count("/stored"), count("/dropped/down")], [Some(120), Some(100), Some(20)]);
    table_tells(&[&store], &ledger, 120);
}

#[test]
fn rows_of_the_dead_that_a_full_disk_does_not_take_are_handed_on_and_told_once() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    // Only the ledger finds no room: else no recorder starts.
    let (store, ledger) = (dir.path().join("store"), dir.path().join("store/ledger"));
    std::fs::create_dir_all(&ledger).unwrap();
    small_disk!(&ledger, "size=1m");
    let (name, filler) = (store.to_str().unwrap(), ledger.join("filler"));
    let dies_and_is_not_told = |numbers: std::ops::Range<u64>, down: i64| {
        dies(&net, &store, numbers);
        assert_eq!(tapedeck(&["recover", "--store", name]).0, Some(0));
        fill(&filler);
        let ended = Recorder::start(&net, &store, &["--mode", "copy"]).stop();
        assert_eq!((ended.code, ended.total("dropped/down")), (Some(2), 20), "{ended:?}");
        let words = "error: 2 rows of the ledger that tell of recorders before this one could not be written; they are kept";
        assert!(ended.stderr.contains(words) && ended.stderr.contains("\n\nhint: "), "{}", ended.stderr);
        assert_eq!(pins().len(), 1);
        assert!(!run("ip", &["-d", "link", "show", &net.rx]).contains("prog/xdp"));
        std::fs::remove_file(&filler).unwrap();
        // Both ledgers together.
        let mut told = ended.ledger;
        told["total"]["dropped"]["down"] = down.into();
        told
    };
    let all = dies_and_is_not_told(0..90, 20);
    let last = Recorder::start(&net, &store, &["--mode", "copy"]).stop();
    assert_eq!((last.code, last.total("seen"), pins().len()), (Some(0), 0, 0), "{last:?}");
    assert!(last.stderr.contains("could not write rows of the ledger"), "{}", last.stderr);
    table_tells(&[&store], &all, 110);
    let all = dies_and_is_not_told(200..210, 40);
    let (code, out, said) = with_pins(&["detach", &net.rx]);
    assert_eq!((code, out.as_str(), pins().len()), (Some(0), "", 0), "{said}");
    assert!(said.contains("could not write are written"), "{said}");
    table_tells(&[&store], &all, 140);
}
