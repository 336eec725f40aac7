//! Packs change what is read, never what is answered.

use crate::agreement::{build, chain, expression, range};
use crate::support::{Left, Packet, Spec, Store, T, files, packets::chosen};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tapedeck_index::catalog::{self, Found, State};
use tapedeck_index::mapped;
use tapedeck_index::pack::{MemberFacts, PACKS_FOLDER, PackBuilder, PackShape};
use tapedeck_packet::Timestamp;
use tapedeck_query::answer::{Question, answer};
use tapedeck_query::filter::Filter;
use tapedeck_query::gather::gather;
use tapedeck_query::range::TimeRange;
use tapedeck_query::verdict::Verdict;

/// A pack over these segments, as a builder makes it.
fn pack(store: &Path, members: &[Found]) {
    let open = |found: &Found| mapped::open(&found.index_path()).unwrap();
    let facts = |found: &Found| MemberFacts::of(&found.name, found.hour, &open(found)).unwrap().unwrap();
    let facts: Vec<MemberFacts> = members.iter().map(facts).collect();
    let shape = PackShape::of(&facts.iter().map(|facts| facts.keys).collect::<Vec<_>>()).unwrap();
    let mut builder = PackBuilder::new(&shape, false);
    for (facts, found) in facts.into_iter().zip(members) {
        assert!(builder.add(facts, &open(found)).unwrap());
    }
    let bytes = builder.finish().unwrap();
    let folder = store.join(PACKS_FOLDER);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(bytes.name.to_string()), [bytes.front, bytes.blocks].concat()).unwrap();
}

/// A pack over all segments.
pub(crate) fn pack_all(store: &Path) {
    pack(store, &sealed(store));
}

fn sealed(store: &Path) -> Vec<Found> {
    let listing = catalog::all(&[store.to_owned()]).unwrap();
    listing.segments.into_iter().filter(|found| found.state == State::Sealed).collect()
}

/// Also without an end or a beginning.
fn any_range() -> impl Strategy<Value = TimeRange> {
    let open = |(range, before): (TimeRange, bool)| {
        if before { TimeRange { from: Timestamp::ZERO, ..range } } else { TimeRange { to: None, ..range } }
    };
    prop_oneof![2 => range(), 1 => (range(), any::<bool>()).prop_map(open)]
}

/// All that an answer says, and how many segments packs excluded.
fn ask(
    store: &Path,
    filter: &Filter,
    range: TimeRange,
    limit: Option<u64>,
) -> (Vec<crate::agreement::Line>, Verdict, usize) {
    let plan = gather(&[store.to_owned()], filter, range).unwrap();
    let mut output = crate::agreement::Collect::default();
    let question = Question { limit, ..Question::new(filter, range) };
    let answer = answer(&plan, &question, &mut output).unwrap();
    let life = plan.life;
    let verdict = Verdict { range: life, scanned_frames: 0, scanned_bytes: 0, ..answer.verdict };
    (output.0, verdict, plan.packed.excluded.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_same_answer_and_verdict_with_and_without_packs(
        chains in prop::collection::vec(chain(), 4..14),
        split in any::<prop::sample::Index>(),
        injuries in prop::collection::vec((0u8..9, any::<prop::sample::Index>()), 0..4),
        questions in prop::collection::vec((expression(), any_range(), prop::option::weighted(0.3, 1u64..6)), 6),
    ) {
        let store = build(&chains);
        let members = sealed(store.path());
        if !members.is_empty() {
            // All in one pack, some of them in a second one, too.
            pack(store.path(), &members);
            pack(store.path(), &members[..=split.index(members.len())]);
        }
        // A sidecar that is gone or does not hold: packs know better than it what is in its segment.
        let mut better = false;
        for (how, at) in injuries {
            let suffix = match how { 0..=3 => ".idx", 4..=6 => ".pcapng.zst", _ => ".pack" };
            let all = files(store.path(), suffix);
            let Some(path) = (!all.is_empty()).then(|| &all[at.index(all.len())]) else { continue };
            let bytes = fs::read(path).unwrap();
            let place = at.index(bytes.len().max(1));
            better |= how <= 3;
            match how {
                0 | 4 => fs::remove_file(path).unwrap(),
                1 | 5 | 7 => fs::write(path, &bytes[..place]).unwrap(),
                2 => fs::write(path, [&bytes[..], &bytes[..place]].concat()).unwrap(),
                _ => {
                    let mut bytes = bytes;
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte ^= 0x20;
                    }
                    fs::write(path, bytes).unwrap();
                }
            }
        }
        let hidden = store.path().join("elsewhere");
        for (text, range, limit) in questions {
            // With other damage met, the first packets may be others.
            let limit = limit.filter(|_| !better);
            let filter = Filter::parse(&text).unwrap();
            let (with, with_verdict, _) = ask(store.path(), &filter, range, limit);
            let packs = store.path().join(PACKS_FOLDER);
            if packs.exists() {
                fs::rename(&packs, &hidden).unwrap();
            }
            let (without, verdict, excluded) = ask(store.path(), &filter, range, limit);
            if hidden.exists() {
                fs::rename(&hidden, &packs).unwrap();
            }
            prop_assert_eq!(excluded, 0);
            if better {
                // All of its frames are read without packs: more damage may be met, and no other packet.
                prop_assert!(with_verdict.gaps.iter().all(|gap| verdict.gaps.contains(gap)));
                let mut rest = with.iter();
                prop_assert!(without.iter().all(|line| rest.any(|other| other == line)), "{}", text);
            } else {
                prop_assert_eq!(with, without, "{}", text);
                prop_assert_eq!(with_verdict.coverage(), verdict.coverage(), "{}", text);
                prop_assert_eq!(&with_verdict.gaps, &verdict.gaps, "{}", text);
                prop_assert_eq!(with_verdict.range, verdict.range, "{}", text);
                prop_assert_eq!(with_verdict.exit_status(), verdict.exit_status(), "{}", text);
            }
        }
    }
}

/// A store of as many segments as a builder takes, each with one packet between hosts of its own.
fn many(count: u8) -> (Store, Vec<PathBuf>) {
    let mut store = Store::new();
    let segment = |number: u8| {
        let bytes = chosen(0, number, 250, 1000 + u16::from(number), 53, 1);
        store.segment(&Spec::default(), &[Packet::new(T + u64::from(number) * 1_000_000_000, bytes)])
    };
    let paths = (0..count).map(segment).collect();
    let report = tapedeck_writer::build_packs(store.path(), None, &AtomicBool::new(false));
    assert_eq!((report.written.len(), report.errors.len()), (1, 0));
    (store, paths)
}

#[test]
fn an_answer_says_what_packs_excluded() {
    let (store, _) = many(140);
    let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "1\n"), "{}", answer.stderr);
    assert!(answer.stderr.contains("whole answer from 140 segments"), "{}", answer.stderr);
    let plan = store.taperead(&["packets", "host 10.0.0.7", "--explain"]);
    let line = plan.text().lines().find(|line| line.starts_with("segments")).unwrap();
    assert_eq!(
        line,
        "segments  140 considered: 0 outside the range, 139 without a match by 1 packs, 0 without a match by the index, 1 to read"
    );
    let absent = store.taperead(&["packets", "host 192.0.2.99", "--json"]);
    assert_eq!((absent.code, absent.text()), (1, ""));
    let verdict = absent.verdict();
    assert_eq!(verdict["coverage"].as_array().unwrap().len(), 140);
    assert_eq!(verdict["scanned_frames"], 0);
}

/// Gives segment 7 of [`many`] files as long as its own, of a packet of host 9.
fn replace_seventh(paths: &[PathBuf]) {
    let mut other = Store::new();
    for number in 0..8 {
        let bytes = chosen(0, if number == 7 { 9 } else { number }, 250, 1007, 53, 1);
        let path =
            other.segment(&Spec::default(), &[Packet::new(T + u64::from(number) * 1_000_000_000, bytes)]);
        if number == 7 {
            for suffix in [".pcapng.zst", ".idx"] {
                let named =
                    |path: &Path| PathBuf::from(path.to_str().unwrap().replace(".pcapng.zst", suffix));
                let (from, to) = (named(&path), named(&paths[7]));
                assert_eq!(fs::metadata(&from).unwrap().len(), fs::metadata(&to).unwrap().len(), "{suffix}");
                fs::copy(from, to).unwrap();
            }
        }
    }
}

#[test]
fn a_pack_that_is_damaged_or_disagrees_is_said_and_costs_time_only() {
    let (store, paths) = many(130);
    let pack = files(store.path(), ".pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    for at in [9, 50, 100, whole.len() - 4000] {
        let mut bytes = whole.clone();
        (at..bytes.len().min(at + 4000)).for_each(|at| bytes[at] ^= 0x11);
        fs::write(&pack, bytes).unwrap();
        let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
        assert_eq!((answer.code, answer.text()), (0, "1\n"), "{}", answer.stderr);
    }
    fs::write(&pack, &whole[..200]).unwrap();
    let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "1\n"));
    assert!(answer.stderr.contains(".pack: the header contradicts itself"), "{}", answer.stderr);
    fs::write(&pack, &whole).unwrap();
    // The index of another segment under this name, and as long: what the pack says does not count any more.
    replace_seventh(&paths);
    // The pack knows host 7 in it, so its index is opened.
    let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
    assert_eq!((answer.code, answer.text()), (1, "0\n"), "{}", answer.stderr);
    assert!(answer.stderr.contains("it was made from another index of"), "{}", answer.stderr);
}

#[test]
fn a_segment_that_has_gone_or_is_cut_is_told_of_though_a_pack_excludes_it() {
    let (store, paths) = many(130);
    let question = ["packets", "host 10.0.0.7", "--json"];
    assert_eq!(store.taperead(&question).code, 0);
    let len = fs::metadata(&paths[30]).unwrap().len();
    fs::File::options().write(true).open(&paths[30]).unwrap().set_len(len - 50).unwrap();
    let answer = store.taperead(&question);
    assert_eq!((answer.code, &answer.verdict()["gaps"][0]["cause"]), (3, &"segment_cut".into()));
    fs::remove_file(&paths[30]).unwrap();
    let answer = store.taperead(&question);
    assert_eq!((answer.code, &answer.verdict()["gaps"][0]["cause"]), (3, &"segment_missing".into()));
    // Retention took both: nothing is missing, and the pack still serves the others.
    fs::remove_file(paths[30].to_str().unwrap().replace(".pcapng.zst", ".idx")).unwrap();
    let answer = store.taperead(&question);
    assert_eq!(answer.code, 0);
    assert_eq!(answer.verdict()["coverage"].as_array().unwrap().len(), 129);
}

#[test]
fn of_two_packs_that_disagree_none_hides_a_packet() {
    let (store, paths) = many(130);
    replace_seventh(&paths);
    // The old one says that there is no host 9 in segment 7, the new one knows it.
    pack_all(store.path());
    assert_eq!(files(store.path(), ".pack").len(), 2);
    let answer = store.taperead(&["packets", "host 10.0.0.9", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "2\n"), "{}", answer.stderr);
}

#[test]
fn a_pack_of_another_version_costs_time_only() {
    let (store, _) = many(130);
    let pack = files(store.path(), ".pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    for (version, mends) in [(0u32, true), (2, false)] {
        let mut bytes = whole.clone();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        fs::write(&pack, bytes).unwrap();
        let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
        assert_eq!((answer.code, answer.text()), (0, "1\n"), "{}", answer.stderr);
        assert!(answer.stderr.contains(&format!(".pack: format version {version};")), "{}", answer.stderr);
        assert_eq!(answer.stderr.contains("tapedeck reindex"), mends, "{}", answer.stderr);
    }
}

#[test]
fn what_is_no_pack_in_the_folder_of_packs_is_not_waited_for() {
    let (store, _) = many(130);
    let pack = files(store.path(), ".pack").remove(0);
    fs::remove_file(&pack).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&pack).status().unwrap();
    assert!(made.success());
    let answer = store.taperead(&["packets", "host 10.0.0.7", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "1\n"), "{}", answer.stderr);
}

#[test]
fn live_segments_limits_and_open_ranges_beside_packs() {
    let (mut store, _) = many(140);
    let second = |n: u64| T + n * 1_000_000_000;
    // Being recorded: what a pack says of the others says nothing of it.
    let packet = |n: u64| Packet::new(second(n), chosen(0, 7, 250, 1007, 53, 1));
    let live = Spec { left: Left::live(1), run: 0xbcde, per_frame: 1, ..Spec::default() };
    store.segment(&live, &[packet(60), packet(150)]);
    let count = |more: &[&str]| {
        let answer = store.taperead(&[&["packets", "host 10.0.0.7", "--count"], more].concat());
        (answer.code, answer.text().to_owned())
    };
    let found = |n: u32| (i32::from(n == 0), format!("{n}\n"));
    assert_eq!(count(&[]), found(3));
    assert_eq!(count(&["--limit", "1"]), found(1));
    assert_eq!(count(&["--limit", "2"]), found(2));
    assert_eq!(count(&["--from", "2026-11-21T18:00:08Z"]), found(2));
    assert_eq!(count(&["--from", "2026-11-21T18:02:00Z"]), found(1));
    assert_eq!(count(&["--to", "2026-11-21T18:00:08Z"]), found(1));
    assert_eq!(count(&["--to", "2026-11-21T18:00:07Z"]), found(0));
    assert_eq!(count(&["--from", "2026-11-21T18:00:07Z", "--to", "2026-11-21T18:00:08Z"]), found(1));
    // The packet of a segment that a pack excludes, with the limit that another one fills.
    let limited = store.taperead(&["packets", "host 10.0.0.7 or host 10.0.0.9", "--limit", "2", "--json"]);
    assert_eq!((limited.code, &limited.verdict()["matched"]), (0, &2.into()), "{}", limited.stderr);
}
