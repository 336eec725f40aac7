//! Records against Zeek's conn.log of the same capture.

use crate::common;
use std::path::Path;
use tapedeck_session::{Config, Record, RecordKind};

/// A line of conn.log: the columns that the baseline has.
pub(crate) type Row = Vec<(String, String)>;

/// The rows of a baseline and the names of its columns.
pub(crate) fn baseline(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut names: Option<Vec<&str>> = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(fields) = line.strip_prefix("#fields\t") {
            names = Some(fields.split('\t').collect());
        } else if line.starts_with('#') || line.is_empty() {
        } else if let Some(names) = &names {
            rows.push(
                names.iter().zip(line.split('\t')).map(|(n, v)| ((*n).to_owned(), v.to_owned())).collect(),
            );
        } else {
            names = Some(line.split('\t').collect());
        }
    }
    rows
}

/// What Zeek would write in a column.
fn column(record: &Record, name: &str) -> Option<String> {
    let last = record.ts_last.nanos() - record.ts.nanos();
    Some(match name {
        "id.orig_h" => record.orig.address.to_string(),
        "id.resp_h" => record.resp.address.to_string(),
        "id.orig_p" => record.orig.port.to_string(),
        "id.resp_p" => record.resp.port.to_string(),
        "proto" => match record.proto {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            1 | 58 => "icmp".to_owned(),
            _ => "unknown_transport".to_owned(),
        },
        "orig_bytes" if last > 0 => record.orig.total.payload_bytes.to_string(),
        "resp_bytes" if last > 0 => record.resp.total.payload_bytes.to_string(),
        "orig_bytes" | "resp_bytes" => "-".to_owned(),
        "conn_state" => record.conn_state.as_str().to_owned(),
        "missed_bytes" => record.missed_bytes.to_string(),
        "history" if record.history.is_empty() => "-".to_owned(),
        "history" => record.history.to_string(),
        "orig_pkts" => record.orig.total.packets.to_string(),
        "orig_ip_bytes" => record.orig.total.ip_bytes.to_string(),
        "resp_pkts" => record.resp.total.packets.to_string(),
        "resp_ip_bytes" => record.resp.total.ip_bytes.to_string(),
        "ip_proto" => record.proto.to_string(),
        _ => return None,
    })
}

/// Columns in which a row and a record differ.
fn differences(row: &Row, record: &Record) -> Vec<String> {
    row.iter()
        .filter_map(|(name, value)| {
            let ours = column(record, name)?;
            (ours != *value).then(|| format!("{name} {value} != {ours}"))
        })
        .collect()
}

#[test]
fn zeek_summary() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let folder = folder.join("zeek-traces");
    let mut logs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".zeek-conn.log"))
        .collect();
    logs.sort();
    let (mut all, mut same) = (0, 0);
    for log in logs {
        let name = log.file_name().unwrap().to_string_lossy().into_owned();
        let capture = folder.join(name.trim_end_matches(".zeek-conn.log"));
        let records = common::records(Config::default(), &common::packets(&capture));
        let mut finals: Vec<Record> = records.into_iter().filter(|r| r.kind == RecordKind::Final).collect();
        println!("== {name}");
        for row in baseline(&log) {
            all += 1;
            let best = finals
                .iter()
                .enumerate()
                .map(|(at, r)| (differences(&row, r), at))
                .min_by_key(|(d, _)| d.len());
            match best {
                Some((differences, at)) if differences.len() <= 3 || finals.len() == 1 => {
                    if differences.is_empty() {
                        same += 1;
                    } else {
                        println!("  {:?}", differences);
                    }
                    finals.remove(at);
                }
                _ => println!(
                    "  MISSING {:?}",
                    row.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" ")
                ),
            }
        }
        for r in finals {
            println!(
                "  EXTRA {} {} {} {} {} {} {} {}",
                r.orig.address,
                r.orig.port,
                r.resp.address,
                r.resp.port,
                r.proto,
                r.history,
                r.orig.total.packets,
                r.resp.total.packets
            );
        }
    }
    println!("{same} of {all}");
}
