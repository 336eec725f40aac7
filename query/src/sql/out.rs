//! The rows of an answer, written.

use crate::cli::SqlFormat;
use crate::failure::Failure;
use crate::out::Sink;
use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::io::{self, Write};
use tapedeck_packet::escape::Foreign;

/// A way in which writing fails.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// Writes `batches`, of which there is one at least; whether the reader of a pipe went away.
pub(super) fn write(
    format: SqlFormat,
    batches: &[RecordBatch],
    out: &mut Sink<'_>,
    for_terminal: bool,
) -> Result<bool, Failure> {
    let written = match format {
        SqlFormat::Table => table(batches, out, for_terminal),
        SqlFormat::Json => json(batches, out),
        SqlFormat::Csv => csv(batches, out),
        SqlFormat::Parquet => parquet(batches, out),
    };
    match written.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => Ok(false),
        Err(error) if is_closed_pipe(&error) => Ok(true),
        Err(error) => {
            let failure = Failure::because("cannot write the answer", &error);
            Err(match (format, &error) {
                (SqlFormat::Csv, WriteError::Arrow(_)) => failure
                    .hint("CSV has no lists and no bytes: leave those columns out, or use --format json"),
                _ => failure,
            })
        }
    }
}

fn is_closed_pipe(error: &WriteError) -> bool {
    let kind = match error {
        WriteError::Io(error) | WriteError::Arrow(ArrowError::IoError(_, error)) => Some(error.kind()),
        WriteError::Parquet(ParquetError::External(error)) => {
            error.downcast_ref::<io::Error>().map(io::Error::kind)
        }
        _ => None,
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}

fn table(batches: &[RecordBatch], out: &mut dyn Write, for_terminal: bool) -> Result<(), WriteError> {
    let text = pretty_format_batches(batches)?.to_string();
    for line in text.lines() {
        writeln!(out, "{}", Foreign::new(line, for_terminal))?;
    }
    Ok(())
}

fn json(batches: &[RecordBatch], out: &mut dyn Write) -> Result<(), WriteError> {
    let mut writer = LineDelimitedWriter::new(out);
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.finish()?)
}

fn csv(batches: &[RecordBatch], out: &mut dyn Write) -> Result<(), WriteError> {
    let mut writer = WriterBuilder::new().with_header(true).build(out);
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(())
}

fn parquet(batches: &[RecordBatch], out: &mut Sink<'_>) -> Result<(), WriteError> {
    let Some(first) = batches.first() else { return Ok(()) };
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    // The writer is handed on between threads in principle; ours is not, so it collects in memory.
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, first.schema(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    Ok(out.write_all(&bytes)?)
}
