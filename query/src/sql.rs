//! `taperead sql`: SELECT over the tables of a store, by an embedded DataFusion.
//!
//! Every kind of table that `index` knows is a SQL table of its name. What is asked of times goes to the
//! folders and file names first ([`table`]), then to row groups and pages; rows of journals are included.
//! Reading only: nothing that would create, change or write is planned.

use crate::ask::SqlAsk;
use crate::cli::SqlFormat;
use crate::failure::Failure;
use crate::out::Sink;
use crate::run::{Stdout, Talk};
use crate::tables::FileTrouble;
use crate::verdict::{EXIT_MATCHES, EXIT_NONE, EXIT_NOT_WHOLE};
use arrow_array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use std::sync::{Arc, Mutex, PoisonError};
use tapedeck_index::table::KINDS;

mod bounds;
mod hints;
mod out;
mod table;

use table::StoreTable;

/// Threads of a query: it must leave the machine to the recorder.
const THREADS: usize = 2;
/// Memory of a query, bytes; what does not fit goes to temporary files.
const MEMORY: usize = 1 << 30;

/// Answers `ask`; the exit status.
pub(crate) fn sql(
    ask: &SqlAsk,
    (mut out, stdout): (Sink<'_>, Stdout),
    talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    if ask.format == SqlFormat::Parquet && stdout.is_terminal {
        return Err(Failure::new("a Parquet file on a terminal is no use to anyone")
            .hint("send stdout to a file: taperead sql '...' --format parquet > answer.parquet"));
    }
    let troubles: Troubles = Arc::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .build()
        .map_err(|e| Failure::because("cannot start the query's threads", &e))?;
    let answered = runtime.block_on(async {
        let context = context(ask, &troubles).map_err(|e| hints::failure(&e))?;
        let batches = batches(&context, &ask.query).await.map_err(|e| hints::failure(&e))?;
        Ok::<_, Failure>(batches)
    });
    let troubles = std::mem::take(&mut *troubles.lock().unwrap_or_else(PoisonError::into_inner));
    for trouble in &troubles {
        talk.warn(&trouble.path, &trouble.what);
    }
    let batches = answered?;
    let closed = out::write(ask.format, &batches, &mut out, stdout.is_terminal)?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if !troubles.is_empty() {
        talk.line(&format_args!(
            "{rows} rows; the answer is NOT WHOLE: {} files could not be read",
            troubles.len()
        ));
        return Ok(EXIT_NOT_WHOLE);
    }
    Ok(if rows > 0 || closed { EXIT_MATCHES } else { EXIT_NONE })
}

/// Files that could not be read.
pub(crate) type Troubles = Arc<Mutex<Vec<FileTrouble>>>;

/// A context with every table of the stores.
fn context(ask: &SqlAsk, troubles: &Troubles) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_target_partitions(THREADS).with_information_schema(true);
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pushdown_filters = true;
    parquet.reorder_filters = true;
    parquet.bloom_filter_on_read = true;
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY, 1.0).build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    for kind in KINDS {
        let table = StoreTable::new(kind, ask.stores.clone(), Arc::clone(troubles));
        context.register_table(kind.name, Arc::new(table))?;
    }
    Ok(context)
}

/// The rows of a query that only reads.
async fn batches(context: &SessionContext, query: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(query, reading).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.collect().await?;
    if batches.is_empty() {
        // The names of the columns are an answer too.
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}
