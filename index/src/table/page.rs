//! The page docs/schema.md, made from the columns: what is documented is what is written.

use super::{Column, KINDS, Kind};
use std::fmt::Write as _;

const HEAD: &str = "\
# Tables

Made by `cargo xtask docs` from the columns in the code; change those, not this page.

A table is a folder of Parquet files in a store: `TABLE/dt=YYYY-MM-DD/hr=HH/<t0>-<t1>-<sensor>-<run>-<seq>.parquet`,
in the UTC hour of the rows' last time. Each column carries its description in the file itself (Arrow
schema, field metadata `doc`). Counters are signed, so that differences of them are safe in every SQL
engine. [Other engines](sql.md) read the same files.
";

/// The page.
#[must_use]
pub fn schema_page() -> String {
    let mut page = HEAD.to_owned();
    for kind in KINDS {
        table(&mut page, kind);
    }
    page
}

fn table(page: &mut String, kind: &Kind) {
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {}\n\n{}\n\n", kind.name, kind.doc);
    let _ = writeln!(
        page,
        "Rows of a file are sorted by `{}`; Bloom filters on {}; `{}` is {} {} s before `{}`.\n",
        kind.sort.join("`, `"),
        list(kind.bloom),
        kind.start,
        if kind.long { "but for single rows at most" } else { "at most" },
        kind.span_nanos / 1_000_000_000,
        kind.end,
    );
    page.push_str("| column | type | null | what it says |\n|---|---|---|---|\n");
    for column in kind.columns {
        let null = if column.nullable { "yes" } else { "" };
        let _ = writeln!(page, "| `{}` | {} | {null} | {} |", column.name, column.kind.words(), column.doc);
    }
    page.push_str("\nThe same under other names:\n\n");
    page.push_str("| column | Zeek conn.log | ECS | OCSF 4001 | IPFIX |\n|---|---|---|---|---|\n");
    for column in kind.columns.iter().filter(|column| has_names(column)) {
        let names = column.elsewhere;
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            column.name, names.zeek, names.ecs, names.ocsf, names.ipfix
        );
    }
}

fn has_names(column: &Column) -> bool {
    column.elsewhere != super::Elsewhere::default()
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema.md");
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == schema_page(), "docs/schema.md is not current: run `cargo xtask docs`");
    }

    #[test]
    fn columns_say_what_they_are() {
        for kind in KINDS {
            let mut names: Vec<&str> = kind.columns.iter().map(|column| column.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{}", kind.name);
            for column in kind.columns {
                assert!(column.doc.len() > 8 && column.doc.ends_with('.'), "{}", column.name);
                assert!(!column.doc.contains('|'), "{}", column.name);
            }
            let known = [kind.start, kind.end]
                .into_iter()
                .chain(kind.sort.iter().copied())
                .chain(kind.bloom.iter().copied());
            for name in known {
                assert!(kind.columns.iter().any(|column| column.name == name), "{name}");
            }
        }
    }
}
