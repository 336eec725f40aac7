//! Prints docs/schema.md; `cargo xtask docs` runs it.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(tapedeck_index::table::schema_page().as_bytes())
}
