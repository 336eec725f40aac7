//! Records against Zeek's conn.log of the same capture.
//!
//! docs/zeek.md lists every row that differs, with its reason; the test demands exactly that list.

use crate::common;
use crate::table::{Difference, check_list};
use std::path::Path;
use tapedeck_session::{Config, Record, RecordKind};

/// A line of conn.log: name and value of the columns that the baseline has.
type Row = Vec<(String, String)>;

/// The rows of a baseline.
fn baseline(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut names: Option<Vec<&str>> = None;
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(fields) = line.strip_prefix("#fields\t") {
            names = Some(fields.split('\t').collect());
        } else if line.starts_with('#') {
            // Another header line.
        } else if let Some(names) = &names {
            rows.push(names.iter().zip(line.split('\t')).map(|(n, v)| ((*n).into(), v.into())).collect());
        } else {
            names = Some(line.split('\t').collect());
        }
    }
    rows
}

/// What Zeek would write in a column; `None` for columns that are not compared.
fn column(record: &Record, name: &str) -> Option<String> {
    // Zeek gives no ports and no bytes to protocols it does not know.
    let known = matches!(record.proto, 1 | 6 | 17 | 58);
    let bytes = |bytes: u64| match record.ts_last > record.ts {
        true if known => bytes.to_string(),
        true => "0".to_owned(),
        false => "-".to_owned(),
    };
    let port = |port: u16| if known { port.to_string() } else { "0".to_owned() };
    Some(match name {
        "id.orig_h" => record.orig.address.to_string(),
        "id.resp_h" => record.resp.address.to_string(),
        "id.orig_p" => port(record.orig.port),
        "id.resp_p" => port(record.resp.port),
        "proto" => match record.proto {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            1 | 58 => "icmp".to_owned(),
            _ => "unknown_transport".to_owned(),
        },
        "orig_bytes" => bytes(record.orig.total.payload_bytes),
        "resp_bytes" => bytes(record.resp.total.payload_bytes),
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

/// Columns in which a row and a record differ: name, Zeek's value, ours.
fn differences(row: &Row, record: &Record) -> Vec<(String, String, String)> {
    let compare = |(name, zeek): &(String, String)| {
        let ours = column(record, name)?;
        (ours != *zeek).then(|| (name.clone(), zeek.clone(), ours))
    };
    row.iter().filter_map(compare).collect()
}

fn get<'r>(row: &'r Row, name: &str) -> Option<&'r str> {
    row.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// The same two ends, in either order, as far as the row says.
fn same_ends(row: &Row, record: &Record) -> bool {
    let (Some(orig), Some(resp)) = (get(row, "id.orig_h"), get(row, "id.resp_h")) else { return true };
    let ours = [record.orig.address.to_string(), record.resp.address.to_string()];
    let proto = get(row, "proto").is_none_or(|proto| column(record, "proto").as_deref() == Some(proto));
    proto && (ours == [orig, resp] || ours == [resp, orig])
}

fn describe(record: &Record) -> String {
    let (orig, resp) = (&record.orig, &record.resp);
    format!("{}:{} {}:{} {}", orig.address, orig.port, resp.address, resp.port, record.proto)
}

fn describe_row(row: &Row) -> String {
    match get(row, "id.orig_h") {
        Some(orig) => format!(
            "{orig}:{} {}:{} {}",
            get(row, "id.orig_p").unwrap_or("?"),
            get(row, "id.resp_h").unwrap_or("?"),
            get(row, "id.resp_p").unwrap_or("?"),
            get(row, "proto").unwrap_or("?")
        ),
        None => get(row, "uid").unwrap_or("?").to_owned(),
    }
}

/// What differs in one capture; and how many rows the baseline has, how many are the same.
fn compare(name: &str, rows: &[Row], mut records: Vec<Record>) -> (Vec<Difference>, usize) {
    let mut found = Vec::new();
    let mut rest = Vec::new();
    for row in rows {
        match records.iter().position(|r| same_ends(row, r) && differences(row, r).is_empty()) {
            Some(at) => drop(records.remove(at)),
            None => rest.push(row),
        }
    }
    let same = rows.len() - rest.len();
    let mut add = |session: String, zeek: String, ours: String| {
        found.push(Difference { capture: name.to_owned(), session, theirs: zeek, ours });
    };
    for row in rest {
        let candidates = records.iter().enumerate().filter(|(_, r)| same_ends(row, r));
        match candidates.min_by_key(|(_, r)| differences(row, r).len()).map(|(at, _)| at) {
            Some(at) => {
                let record = records.remove(at);
                let (mut zeek, mut ours) = (Vec::new(), Vec::new());
                for (name, theirs, mine) in differences(row, &record) {
                    zeek.push(format!("{name} {theirs}"));
                    ours.push(mine);
                }
                add(describe_row(row), zeek.join(", "), ours.join(", "));
            }
            None => add(describe_row(row), "a row".to_owned(), "none".to_owned()),
        }
    }
    for record in records {
        add(describe(&record), "none".to_owned(), format!("a record, {}", record.history));
    }
    (found, same)
}

#[test]
fn records_are_zeeks_but_for_the_listed() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let folder = folder.join("zeek-traces");
    let mut logs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".zeek-conn.log"))
        .collect();
    logs.sort();
    let (mut all, mut same, mut found) = (0, 0, Vec::new());
    for log in &logs {
        let name = log.trim_end_matches(".zeek-conn.log");
        let records = common::records(Config::default(), &common::packets(&folder.join(name)));
        let finals = records.into_iter().filter(|r| r.kind == RecordKind::Final).collect();
        let rows = baseline(&folder.join(log));
        let (differences, equal) = compare(name, &rows, finals);
        all += rows.len();
        same += equal;
        found.extend(differences);
    }
    let listed = check_list("zeek.md", &found);
    let incomparable = |line: &&String| !line.contains(" | none | ") && line.contains("| not comparable: ");
    let comparable = all - listed.iter().filter(incomparable).count();
    let logs = logs.len();
    println!(
        "{logs} baselines, {all} rows, {comparable} comparable: {same} the same, {} differences",
        found.len()
    );
    assert!(logs >= 100 && same * 100 >= comparable * 95, "{same} of {comparable}");
}
