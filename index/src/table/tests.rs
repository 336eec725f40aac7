//! Names, listing, order and journals of tables, with a small kind of its own.

use super::journal::{BatchEncoder, Replay, ReplayError, encode_rows, encode_start};
use super::live::{LiveReplay, encode_gone, without_replaced};
use super::*;
use crate::framing::Stop;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{TimestampNanosecondType, UInt32Type};
use arrow_array::{RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::FileReader as _;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};
use parquet::file::statistics::Statistics;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Of a key: the open row's number and time, and up to which number the table has rows.
type KeyState = (Option<(u32, i64)>, Option<u32>);

const SMALL: Kind = Kind {
    name: "small",
    doc: "A row of a test.",
    columns: &[
        Column::new("ts", ColumnType::Time, "First time."),
        Column::new("ts_last", ColumnType::Time, "Last time."),
        Column::new("uid", ColumnType::Text, "What it is about."),
        Column::new("number", ColumnType::U32, "Which row of it."),
    ],
    start: "ts",
    end: "ts_last",
    sort: &["ts", "ts_last"],
    bloom: &["uid"],
    span_nanos: 300 * NANOS_PER_SEC,
    long: false,
    live: Some(LiveKey { key: "uid", number: "number" }),
};

/// 2026-11-21T18:00:00Z.
const T18: i64 = 1_795_284_000 * 1_000_000_000;
const SEC: i64 = 1_000_000_000;

fn at(nanos: i64) -> Timestamp {
    encode::time(nanos)
}

/// Rows of (ts, ts_last, uid, number).
fn batch(rows: &[(i64, i64, &str, u32)]) -> RecordBatch {
    let time = |f: fn(&(i64, i64, &str, u32)) -> i64| {
        TimestampNanosecondArray::from_iter_values(rows.iter().map(f)).with_timezone("UTC")
    };
    RecordBatch::try_new(
        SMALL.schema(),
        vec![
            Arc::new(time(|r| r.0)),
            Arc::new(time(|r| r.1)),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| r.3))),
        ],
    )
    .unwrap()
}

fn numbers(batch: &RecordBatch) -> Vec<u32> {
    batch.column_by_name("number").unwrap().as_primitive::<UInt32Type>().values().to_vec()
}

fn name(seq: u32) -> TableName {
    TableName { t0: at(T18), t1: at(T18 + 5), sensor: "a-b/\u{fc}".into(), run: 0x9f, seq }
}

#[test]
fn a_name_is_read_back_and_no_other_spelling_is() {
    let name = name(7);
    for kind in [TableFile::Sealed, TableFile::Hidden, TableFile::Journal] {
        assert_eq!(TableName::parse_file(&name.file(kind)), Some((name.clone(), kind)));
    }
    let file = name.file(TableFile::Sealed);
    assert_eq!(file, "01795284000000000000-01795284000000000005-a%2Db%2F%C3%BC-0000009f-7.parquet");
    for other in
        [file.replace("-7", "-07"), file.replace("9f", "9F"), file.to_uppercase(), format!("{file}~")]
    {
        assert_eq!(TableName::parse_file(&other), None, "{other}");
    }
    assert_eq!(parse_live(&live_file("a-b", 0x9f)), Some(("a-b".to_owned(), 0x9f)));
    assert_eq!(parse_live(".a-b-0000009f.live"), None);
}

#[test]
fn a_schema_says_what_its_columns_mean() {
    let schema = SMALL.schema();
    assert_eq!(schema.metadata().get(KIND_KEY).unwrap(), "small");
    for (field, column) in schema.fields().iter().zip(SMALL.columns) {
        assert_eq!(field.metadata().get(DOC_KEY).unwrap(), column.doc);
    }
}

#[test]
fn slots_lie_in_one_hour() {
    for minute in 0..60 {
        let time = at(T18 + minute * 60 * SEC + 59 * SEC);
        assert_eq!(slot_hour(slot(time)), time.hour());
    }
    assert_eq!(slot(at(T18 + 299 * SEC)) + 1, slot(at(T18 + 300 * SEC)));
    let parts = encode::by_slot(
        &SMALL,
        &batch(&[(T18, T18 + 299 * SEC, "a", 0), (T18, T18 + 300 * SEC, "b", 1), (T18, T18 + 1, "c", 2)]),
    )
    .unwrap();
    assert_eq!(parts.values().map(numbers).collect::<Vec<_>>(), [vec![0, 2], vec![1]]);
}

#[test]
fn the_hours_of_a_range_hold_every_row_that_overlaps_it() {
    let (from, to) = (at(T18 + 3598 * SEC), at(T18 + 3599 * SEC));
    let (first, last) = SMALL.hours(from, to);
    // A row that began inside the range may end 300 s later, in the next hour.
    assert_eq!((first, last), (from.hour(), UtcHour::from_hours(from.hour().hours() + 1)));
    let (first, last) = SMALL.hours(at(T18), at(T18 + 1));
    assert_eq!(first, last);
}

/// What a Parquet file says.
fn parquet(batches: &[RecordBatch]) -> Bytes {
    let mut bytes = Vec::new();
    let encoded = encode::write(&SMALL, batches, &mut bytes).unwrap();
    assert_eq!(encoded.bytes, crate::bytes::len64(bytes.len()));
    Bytes::from(bytes)
}

#[test]
fn row_groups_are_in_order_of_time_with_page_index_and_bloom_filters() {
    let rows: i64 = 300_000;
    let row = |n: i64| {
        // A fixed shuffle of the order.
        let n = n * 7919 % rows;
        (T18 + n * 1000, T18 + n * 1000 + 5)
    };
    let uids: Vec<String> = (0..rows).map(|n| format!("C{:017}", n * 7919 % rows)).collect();
    let all: Vec<_> = (0..rows).zip(&uids).map(|(n, uid)| (row(n).0, row(n).1, uid.as_str(), 0)).collect();
    let batches: Vec<RecordBatch> = all.chunks(9_999).map(batch).collect();
    let bytes = parquet(&batches);

    let with_bloom = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(with_bloom).build();
    let reader = SerializedFileReader::new_with_options(bytes.clone(), options).unwrap();
    let groups = reader.metadata().row_groups();
    assert_eq!(groups.iter().map(|g| g.num_rows()).collect::<Vec<_>>(), [122_880, 122_880, 54_240]);
    let mut last = i64::MIN;
    for (at, group) in groups.iter().enumerate() {
        let Some(Statistics::Int64(times)) = group.column(0).statistics() else { panic!("statistics") };
        assert!(*times.min_opt().unwrap() > last);
        last = *times.max_opt().unwrap();
        assert!(group.column(0).column_index_length().unwrap() > 0, "page index");
        assert!(group.column(0).offset_index_length().unwrap() > 0, "page index");
        let row_group = reader.get_row_group(at).unwrap();
        let bloom = row_group.get_column_bloom_filter(2).expect("a Bloom filter on uid");
        let first = u64::try_from(at).unwrap() * 122_880;
        assert!(bloom.check(&format!("C{first:017}").as_str()));
        let wrong = (0..10_000).filter(|n| bloom.check(&format!("X{n}").as_str())).count();
        assert!(wrong < 300, "{wrong} of 10,000 wrong");
        assert!(row_group.get_column_bloom_filter(3).is_none());
    }
    let read: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let times =
        read.iter().flat_map(|b| b.column(0).as_primitive::<TimestampNanosecondType>().values().to_vec());
    assert!(times.eq((0..rows).map(|n| T18 + n * 1000)));
    assert_eq!(read[0].schema().fields(), SMALL.schema().fields(), "documentation included");
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let rows = batch(&[(T18 + 9, T18 + 9, "a", 0), (T18, T18 + 1, "b", 1), (T18, T18, "c", 2)]);
    assert_eq!(parquet(std::slice::from_ref(&rows)), parquet(&[rows.slice(0, 1), rows.slice(1, 2)]));
    assert_eq!(numbers(&encode::sorted(&SMALL, &[rows]).unwrap()), [2, 1, 0]);
}

#[test]
fn a_flipped_bit_in_the_rows_is_found() {
    let rows: Vec<_> = (0..2000).map(|n| (T18 + n, T18 + n * 3, "some text", 7)).collect();
    let bytes = parquet(&[batch(&rows)]);
    let name = TableName { t0: at(T18), t1: at(T18 + 1999 * 3), ..name(1) };
    assert_eq!(encode::check(&SMALL, &name, bytes.clone()).unwrap(), 2000);
    let other = TableName { t1: at(T18), ..name.clone() };
    assert!(matches!(encode::check(&SMALL, &other, bytes.clone()), Err(encode::FileFault::Name { .. })));
    let reader = SerializedFileReader::new(bytes.clone()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let stated = pairs.iter().find(|pair| pair.key == encode::SUM_KEY).unwrap().value.clone().unwrap();
    let covered: usize = stated.split(' ').next().unwrap().parse().unwrap();
    assert!(covered > 200);
    for at in 0..covered {
        let mut torn = bytes.to_vec();
        torn[at] ^= 1 << (at % 8);
        let result = encode::check(&SMALL, &name, Bytes::from(torn));
        assert!(result.is_err(), "byte {at}");
    }
}

/// A journal of three batches.
fn journal() -> (Vec<u8>, Vec<RecordBatch>) {
    let batches = vec![
        batch(&[(T18, T18, "a", 0)]),
        batch(&[]),
        batch(&[(T18, T18 + 2, "b", 1), (T18, T18 + 3, "c", 2)]),
    ];
    let (mut encoder, head) = BatchEncoder::new(&SMALL.schema()).unwrap();
    let mut bytes = Vec::new();
    encode_start(&mut bytes, "small", &name(3), &head);
    for batch in &batches {
        encode_rows(&mut bytes, &encoder.encode(batch).unwrap());
    }
    (bytes, batches)
}

#[test]
fn a_journal_gives_its_rows_back_also_when_it_is_cut() {
    let (bytes, batches) = journal();
    let whole = Replay::read(&bytes).unwrap();
    assert_eq!((whole.kind.as_str(), &whole.name, whole.stop), ("small", &name(3), Stop::End));
    assert_eq!((&whole.batches, whole.good_len), (&batches, bytes.len()));
    for len in 0..bytes.len() {
        match Replay::read(&bytes[..len]) {
            Ok(replay) => {
                assert!(batches.starts_with(&replay.batches));
                assert_eq!(replay.stop, if replay.good_len == len { Stop::End } else { Stop::Cut });
            }
            Err(error) => {
                let stop = if len == 0 { Stop::End } else { Stop::Cut };
                assert_eq!(error, ReplayError::NoStart(stop));
            }
        }
    }
}

#[test]
fn another_version_is_refused_by_number() {
    let mut bytes = Vec::new();
    crate::framing::record(&mut bytes, 16, |out| out.extend_from_slice(&[9, 0, 0, 0]));
    assert_eq!(Replay::read(&bytes).unwrap_err(), ReplayError::Version { found: 9 });
}

proptest! {
    #[test]
    fn a_damaged_journal_never_gives_a_wrong_row(at in 0usize..100_000, bit in 0u8..8) {
        let (mut bytes, batches) = journal();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(replay) = Replay::read(&bytes) {
            prop_assert!(batches.starts_with(&replay.batches));
            prop_assert!(replay.batches.len() < batches.len());
        }
    }

    #[test]
    fn a_live_journal_holds_the_last_word_on_each_key(
        steps in prop::collection::vec((0u8..6, 0u32..4, any::<bool>()), 0..60)
    ) {
        // The oracle: per key the last word, and up to which number the table has rows.
        let mut known: BTreeMap<u8, KeyState> = BTreeMap::new();
        let (mut encoder, head) = BatchEncoder::new(&SMALL.schema()).unwrap();
        let mut bytes = Vec::new();
        live::encode_start(&mut bytes, "small", "s", 1, &head);
        for (time, (key, number, gone)) in (0i64..).zip(steps) {
            let uid = format!("C{key}");
            let entry = known.entry(key).or_default();
            if gone {
                encode_gone(&mut bytes, [(uid.as_str(), number)].into_iter());
                entry.1 = Some(entry.1.map_or(number, |old| old.max(number)));
                entry.0 = entry.0.filter(|(open, _)| *open > number);
            } else {
                let row = batch(&[(T18 + time, T18 + time, &uid, number)]);
                live::encode_rows(&mut bytes, &encoder.encode(&row).unwrap());
                let replaced = entry.1.is_some_and(|gone| gone >= number);
                if !replaced && entry.0.is_none_or(|(open, _)| open <= number) {
                    entry.0 = Some((number, T18 + time));
                }
            }
        }
        let replay = LiveReplay::read(&SMALL, &bytes).unwrap();
        prop_assert_eq!(replay.stop, Stop::End);
        let mut got: Vec<(String, u32, i64)> = replay.rows.column(2).as_string::<i32>().iter()
            .zip(numbers(&replay.rows))
            .zip(replay.rows.column(0).as_primitive::<TimestampNanosecondType>().values())
            .map(|((uid, number), ts)| (uid.unwrap().to_owned(), number, *ts)).collect();
        got.sort();
        let want: Vec<_> = known.iter()
            .filter_map(|(key, (open, _))| open.map(|(number, ts)| (format!("C{key}"), number, ts))).collect();
        prop_assert_eq!(got, want);
    }
}

#[test]
fn rows_of_the_table_replace_open_ones() {
    let open = batch(&[(T18, T18, "a", 0), (T18, T18, "b", 2), (T18, T18, "c", 1)]);
    let table = [batch(&[(T18, T18, "a", 0)]), batch(&[(T18, T18, "b", 1), (T18, T18, "c", 5)])];
    let left = without_replaced(SMALL.live.unwrap(), &open, table.iter()).unwrap();
    assert_eq!(left.column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_listing_takes_the_hours_asked_for_and_each_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_path_buf();
    let touch = |hour: i64, file: &str| {
        let folder = store.join(crate::name::hour_folder_of("small", at(T18 + hour * 3600 * SEC).hour()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), "").unwrap();
    };
    for (hour, seq) in [(0, 1), (1, 2), (2, 3)] {
        let name =
            TableName { t0: at(T18 + hour * 3600 * SEC), t1: at(T18 + hour * 3600 * SEC + 9), ..name(seq) };
        touch(hour, &name.file(TableFile::Journal));
        if seq != 2 {
            let sealed = TableName { t1: at(T18 + hour * 3600 * SEC + 500), ..name };
            touch(hour, &sealed.file(TableFile::Sealed));
            touch(hour, &sealed.file(TableFile::Hidden));
        }
    }
    touch(0, "notes.txt");
    std::fs::write(store.join("small").join(live_file("s", 5)), "").unwrap();
    let seqs = |from: i64, to: Option<i64>| {
        let listing = list(&SMALL, std::slice::from_ref(&store), at(from), to.map(at)).unwrap();
        assert_eq!(listing.live.len(), usize::from(to != Some(from)));
        listing.files.iter().map(|found| (found.name.seq, found.state)).collect::<Vec<_>>()
    };
    let (open, sealed) = (State::Open, State::Sealed);
    assert_eq!(seqs(0, None), [(1, sealed), (2, open), (3, sealed)]);
    assert_eq!(seqs(T18, Some(T18 + 1)), [(1, sealed)]);
    // Behind the last row of the sealed file.
    assert_eq!(seqs(T18 + 501, Some(T18 + 502)), []);
    assert_eq!(seqs(T18 + 3600 * SEC, Some(T18 + 3601 * SEC)), [(2, open)]);
    assert_eq!(seqs(T18 + 5, Some(T18 + 5)), []);
    let listing = list(&SMALL, &[store], at(0), None).unwrap();
    assert_eq!(listing.foreign.iter().filter_map(|p| p.file_name()).collect::<Vec<_>>(), ["notes.txt"]);
}
