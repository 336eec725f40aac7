//! What leaves the program: exports in the eyes of other people's tools, pipes, terminals.

use crate::answers::steady;
use crate::support::packets::{KINDS, chosen};
use crate::support::{Packet, Spec, Store, T};
use clap::Parser as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use tapedeck_packet::Timestamp;
use tapedeck_query::cli::Cli;
use tapedeck_query::run::{Clock, Console, run};

/// Every kind of packet, on two interfaces.
fn mixed() -> Store {
    let mut store = Store::new();
    for (shift, interface) in [(0, "eth1"), (3, "eth2")] {
        let packet =
            |kind: u8| Packet::new(T + u64::from(kind) * 1_000 + shift, chosen(kind, 1, 2, 53, 443, 100));
        let packets: Vec<Packet> = (0..KINDS).map(packet).collect();
        store.segment(&Spec { interface, ..Spec::default() }, &packets);
    }
    store
}

fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).env("TZ", "UTC").output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn all_tools_read_all_exports() {
    let (store, dir) = (mixed(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let forms: [(&str, &[&str]); 4] =
        [("a.pcapng", &[]), ("a.pcap", &[]), ("us.pcap", &["--us"]), ("b.ng", &["--format", "pcapng"])];
    let mut told = Vec::new();
    for (name, more) in forms {
        let file = path(name);
        let answer = store.taperead(&[&["packets", "-w", &file], more].concat());
        assert_eq!((answer.code, answer.text()), (0, ""), "{}", answer.stderr);
        let count = format!("Number of packets:   {}", 2 * KINDS);
        let capinfos = tool("capinfos", &["-c", "-M", &file]);
        assert!(capinfos.contains(&count), "{capinfos}");
        let lines =
            tool("tshark", &["-r", &file, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len"]);
        assert_eq!(lines.lines().count(), usize::from(KINDS) * 2);
        if !more.contains(&"--us") {
            told.push(lines);
            let dump = tool("tcpdump", &["-n", "-tt", "--nano", "-x", "-r", &file]);
            told.push(dump);
        }
    }
    let (first, rest) = told.split_at(2);
    assert!(rest.chunks(2).all(|c| c == first));
    let names = tool("tshark", &["-r", &path("a.pcapng"), "-T", "fields", "-e", "frame.interface_name"]);
    assert_eq!(names.lines().filter(|l| *l == "eth2").count(), usize::from(KINDS));
}

#[test]
fn an_export_is_what_the_segment_holds() {
    let mut store = Store::new();
    let segment = store.segment(&Spec::default(), &steady(9));
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain.pcapng");
    let out = Command::new("zstd").args(["-dc", segment.to_str().unwrap()]).output().unwrap();
    std::fs::write(&plain, out.stdout).unwrap();
    let export = dir.path().join("export.pcapng");
    store.taperead(&["packets", "-w", export.to_str().unwrap()]);
    let dump = |path: &Path| tool("tcpdump", &["-n", "-tt", "--nano", "-xx", "-r", path.to_str().unwrap()]);
    assert_eq!(dump(&export), dump(&plain));
}

#[test]
fn a_pipe_gets_the_same_bytes_as_a_file() {
    let (store, dir) = (mixed(), tempfile::tempdir().unwrap());
    let file = dir.path().join("x");
    store.taperead(&["packets", "-w", file.to_str().unwrap()]);
    assert_eq!(store.taperead(&["packets", "-w", "-"]).stdout, std::fs::read(&file).unwrap());
    assert_eq!(store.taperead(&["packets", "-w", "/dev/null"]).code, 0);
}

#[test]
fn an_empty_answer_is_an_openable_file() {
    let (store, dir) = (mixed(), tempfile::tempdir().unwrap());
    for name in ["none.pcapng", "none.pcap"] {
        let file = dir.path().join(name);
        let file = file.to_str().unwrap();
        assert_eq!(store.taperead(&["packets", "host", "192.0.2.1", "-w", file]).code, 1);
        assert_eq!(tool("tcpdump", &["-n", "-r", file]), "");
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let mut store = Store::new();
    let packets: Vec<Packet> = (0..20).flat_map(|_| steady(1_000)).collect();
    store.segment(&Spec { per_frame: 1_000, ..Spec::default() }, &packets);
    for format in ["text", "json", "pcapng", "pcap"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_taperead"))
            .args(["packets", "--format", format, "--store", store.path().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty());
        let mut talk = String::new();
        child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
        assert_eq!((child.wait().unwrap().code(), talk.as_str()), (Some(0), ""), "{format}");
    }
}

/// Runs the library with terminals at both ends, at a given time.
fn on_a_terminal(args: &[&str], store: &Store, now_ns: u64) -> (u8, String, String) {
    let words = [&["taperead"], args, &["--store", store.path().to_str().unwrap()]].concat();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let console = Console {
        out_width: None,
        out: Box::new(&mut out),
        err: Box::new(&mut err),
        out_is_terminal: true,
        err_is_terminal: true,
    };
    let clock = Clock { now: Timestamp::from_nanos(now_ns).unwrap(), elapsed_ms: &|| 7 };
    let code = run(Cli::try_parse_from(words).unwrap(), &clock, console);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn a_terminal_gets_no_capture_file_and_no_controls() {
    let mut store = Store::new();
    store.segment(&Spec { interface: "e\u{1b}[31m", ..Spec::default() }, &steady(1));
    for args in [&["packets", "-w", "-"][..], &["packets", "--format", "pcap"]] {
        let (code, out, err) = on_a_terminal(args, &store, T);
        assert_eq!((code, out.as_str()), (2, ""));
        insta::allow_duplicates! {
            insta::assert_snapshot!(err, @r#"
            error: a capture file on a terminal is no use to anyone

            hint: -w FILE writes it to a file, '-w - | tcpdump -n -r -' hands it on
            "#);
        }
    }
    let (code, out, _) = on_a_terminal(&["packets"], &store, T);
    assert_eq!(code, 0);
    assert!(!out.contains('\u{1b}') && out.contains("e\\u{1b}[31m IP"), "{out}");
    assert!(store.taperead(&["packets"]).text().contains('\u{1b}'));
}

#[test]
fn last_ends_now() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(10));
    // The packet of this very nanosecond is not before now; that of five seconds ago is inside.
    let (_, out, _) = on_a_terminal(&["packets", "--last", "5s", "--count"], &store, T + 8_000_000_000);
    assert_eq!(out, "5\n");
    let (_, out, _) = on_a_terminal(&["packets", "--from", "5s ago", "--count"], &store, T + 8_000_000_000);
    assert_eq!(out, "7\n");
}

#[test]
fn help_lists_only_what_works() {
    let help = |args: &[&str]| crate::support::taperead(args).text().to_owned();
    let top = help(&["--help"]);
    for command in ["packets", "sessions", "sql", "stats", "segments", "inspect"] {
        assert!(top.contains(command), "{top}");
    }
    for part in ["Examples:", "--last 2h", "community-id", "inner (EXPR)", "Exit status:"] {
        assert!(help(&["packets", "--help"]).contains(part), "{part}");
    }
}
