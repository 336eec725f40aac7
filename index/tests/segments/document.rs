//! docs/format.md and the code state the same constants.

use tapedeck_index::catalog::{HOUR_SLACK_NANOS, STORE_VERSION};
use tapedeck_index::frame::{FRAME_BYTES_MAX, RAW_BYTES_MAX};
use tapedeck_index::journal::JOURNAL_VERSION;
use tapedeck_index::live::LIVE_VERSION;
use tapedeck_index::name::ESCAPED_MAX;
use tapedeck_index::pack::{
    BLOCK_ROWS, HIGH_PORT, HIGH_PORTS_MAX, MATRIX_BYTES_MAX, MEMBERS_MAX, PACK_VERSION,
};
use tapedeck_index::pcapng::PACKET_BYTES_MAX;
use tapedeck_index::rows::ROWS_MAX;
use tapedeck_index::sidecar::{FORMAT_VERSION, HEAD_BYTES_MAX};
use tapedeck_index::table::encode::GROUP_ROWS;
use tapedeck_index::table::journal::TABLE_JOURNAL_VERSION;
use tapedeck_index::table::{SLOT_SECS, TABLE_VERSION};

#[test]
fn the_document_states_our_constants() {
    let text = include_str!("../../../docs/format.md");
    let stated = text.lines().filter_map(|line| {
        let mut columns = line.strip_prefix("| `")?.split(" | ");
        let name = columns.next()?.strip_suffix('`')?;
        Some(format!("{name} {}", columns.next()?))
    });
    let ours = [
        format!("STORE_VERSION {STORE_VERSION}"),
        format!("FORMAT_VERSION {FORMAT_VERSION}"),
        format!("JOURNAL_VERSION {JOURNAL_VERSION}"),
        format!("LIVE_VERSION {LIVE_VERSION}"),
        format!("PACK_VERSION {PACK_VERSION}"),
        format!("FRAME_BYTES_MAX {FRAME_BYTES_MAX}"),
        format!("RAW_BYTES_MAX {RAW_BYTES_MAX}"),
        format!("PACKET_BYTES_MAX {PACKET_BYTES_MAX}"),
        format!("ROWS_MAX {ROWS_MAX}"),
        format!("HEAD_BYTES_MAX {HEAD_BYTES_MAX}"),
        format!("MEMBERS_MAX {MEMBERS_MAX}"),
        format!("BLOCK_ROWS {BLOCK_ROWS}"),
        format!("MATRIX_BYTES_MAX {MATRIX_BYTES_MAX}"),
        format!("HIGH_PORT {HIGH_PORT}"),
        format!("HIGH_PORTS_MAX {HIGH_PORTS_MAX}"),
        format!("ESCAPED_MAX {ESCAPED_MAX}"),
        format!("TABLE_VERSION {TABLE_VERSION}"),
        format!("TABLE_JOURNAL_VERSION {TABLE_JOURNAL_VERSION}"),
        format!("SLOT_SECS {SLOT_SECS}"),
        format!("GROUP_ROWS {GROUP_ROWS}"),
        format!("HOUR_SLACK_NANOS {HOUR_SLACK_NANOS}"),
    ];
    assert_eq!(stated.collect::<Vec<_>>(), ours);
}
