//! What went wrong with a query, in our voice, with what to do about it.

use crate::failure::Failure;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use tapedeck_index::table::KINDS;

/// The failure that `error` is.
pub(super) fn failure(error: &DataFusionError) -> Failure {
    let root = error.find_root();
    let text = root.strip_backtrace();
    let what = text.lines().next().unwrap_or("the query cannot be answered").to_owned();
    if let DataFusionError::SchemaError(error, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = error.as_ref()
    {
        let what = format!("there is no column `{}`", field.name());
        let names: Vec<&str> = valid_fields.iter().map(|column| column.name()).collect();
        return Failure::new(what).hint(match nearest(field.name(), &names) {
            Some(near) => format!("did you mean `{near}`? `DESCRIBE sessions` lists the columns"),
            None => "`SELECT column_name FROM information_schema.columns` lists the columns".to_owned(),
        });
    }
    let failure = Failure::new(what.clone());
    if what.contains("not supported")
        && (what.contains("DDL") || what.contains("DML") || what.contains("Statement"))
    {
        return Failure::new("this query would change something; only SELECT is answered")
            .hint("to keep an answer: taperead sql 'SELECT ...' --format parquet > answer.parquet");
    }
    if what.contains("not found") && what.contains("table") {
        let tables: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        return failure.hint(format!("the tables are: {}", tables.join(", ")));
    }
    match root {
        DataFusionError::ParquetError(_) | DataFusionError::ArrowError(..) => {
            failure.hint("a file may be damaged: 'tapedeck verify' lists all damage in a store")
        }
        DataFusionError::ResourcesExhausted(_) => failure.hint(
            "bound the time, e.g. WHERE ts_last >= now() - INTERVAL '1 hour', or ask for fewer columns",
        ),
        DataFusionError::SQL(..) => {
            failure.hint("docs/sql.md has examples; text is in 'single quotes', names in \"double\"")
        }
        _ => failure,
    }
}

/// The name most like `name`, if one is like it.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let inside =
        names.iter().find(|known| known.len() > 3 && (name.contains(**known) || known.contains(&name)));
    let near = names
        .iter()
        .map(|known| (crate::filter::distance(&name, known), *known))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance);
    near.map(|(_, known)| known).or(inside.copied())
}
