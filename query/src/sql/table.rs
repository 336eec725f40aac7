//! A table of the stores as DataFusion sees it: the Parquet files that a query's times leave, and the rows
//! of journals, in one plan.

use super::Troubles;
use super::bounds::{Bounds, bounds};
use crate::tables::{self, FileTrouble, ReadError, Rows};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{ArrowError, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use tapedeck_index::table::live::without_replaced;
use tapedeck_index::table::{Kind, Listing, State, list};

/// How often the table is listed again because a file moved.
const LISTINGS_MAX: u32 = 5;

/// One kind of table over some stores.
#[derive(Debug)]
pub(super) struct StoreTable {
    kind: &'static Kind,
    stores: Vec<PathBuf>,
    schema: SchemaRef,
    troubles: Troubles,
}

/// What a table held at one moment.
#[derive(Debug, Default)]
struct Snapshot {
    /// Whole files.
    files: Vec<PathBuf>,
    /// Rows of journals.
    rows: Vec<RecordBatch>,
    troubles: Vec<FileTrouble>,
}

impl StoreTable {
    pub(super) fn new(kind: &'static Kind, stores: Vec<PathBuf>, troubles: Troubles) -> Self {
        Self { kind, stores, schema: kind.schema(), troubles }
    }

    fn list(&self, bounds: Bounds) -> Result<Listing> {
        list(self.kind, &self.stores, bounds.from, bounds.to)
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// Files and journal rows at one moment: taken again until no file was sealed meanwhile.
    fn snapshot(&self, bounds: Bounds) -> Result<Snapshot> {
        let sealed = |listing: &Listing| -> BTreeSet<PathBuf> {
            let files = listing.files.iter().filter(|found| found.state == State::Sealed);
            files.map(|found| found.path.clone()).collect()
        };
        let mut before = self.list(bounds)?;
        for left in (0..LISTINGS_MAX).rev() {
            let mut snapshot = Snapshot::default();
            let whole = self.journals(&before, &mut snapshot)?;
            let after = self.list(bounds)?;
            if (whole && sealed(&before) == sealed(&after)) || left == 0 {
                for path in sealed(&before) {
                    snapshot.check(path);
                }
                return Ok(snapshot);
            }
            before = after;
        }
        Ok(Snapshot::default())
    }

    /// The rows of live journals and journals; false where one has gone meanwhile.
    fn journals(&self, listing: &Listing, snapshot: &mut Snapshot) -> Result<bool> {
        let mut whole = true;
        let mut live = Vec::new();
        for found in &listing.live {
            live.extend(snapshot.rows_of(&found.path, tables::live(self.kind, &found.path), &mut whole));
        }
        for found in listing.files.iter().filter(|found| found.state == State::Open) {
            let rows = snapshot.rows_of(&found.path, tables::journal(&found.path), &mut whole);
            snapshot.rows.extend(rows);
        }
        if let Some(key) = self.kind.live {
            for rows in live {
                let left = without_replaced(key, &rows, snapshot.rows.iter())?;
                snapshot.rows.push(left);
            }
        }
        Ok(whole)
    }

    /// The rows of a batch in this table's columns; what an older schema lacks is null.
    fn fitted(&self, batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
        let column = |field: &Arc<arrow_schema::Field>| -> ArrayRef {
            match batch.column_by_name(field.name()) {
                Some(array) if array.data_type() == field.data_type() => Arc::clone(array),
                _ => new_null_array(field.data_type(), batch.num_rows()),
            }
        };
        let columns = self.schema.fields().iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

impl Snapshot {
    /// The rows of a journal, as far as they hold. One that is gone has been sealed: the table is listed again.
    fn rows_of(
        &mut self,
        path: &Path,
        rows: std::result::Result<Rows, ReadError>,
        whole: &mut bool,
    ) -> Vec<RecordBatch> {
        match rows {
            Ok(rows) => {
                if let Some(damage) = rows.damage() {
                    self.trouble(path, damage.to_string());
                }
                return rows.batches;
            }
            Err(error) if error.is_gone() => *whole = false,
            Err(error) => self.trouble(path, error.to_string()),
        }
        Vec::new()
    }

    /// Takes a whole file whose footer holds; another would end the query.
    fn check(&mut self, path: PathBuf) {
        let footer = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
            ArrowReaderMetadata::load(&file, Default::default()).map_err(|error| error.to_string())
        });
        match footer {
            Ok(_) => self.files.push(path),
            Err(what) => self.trouble(&path, what),
        }
    }

    fn trouble(&mut self, path: &Path, what: String) {
        self.troubles.push(FileTrouble { path: path.to_owned(), what });
    }
}

#[async_trait]
impl TableProvider for StoreTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They prune files, row groups and pages here, and are tested exactly above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut snapshot = self.snapshot(bounds(self.kind, filters))?;
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).append(&mut snapshot.troubles);
        let rows: Vec<RecordBatch> =
            snapshot.rows.iter().map(|batch| self.fitted(batch)).collect::<std::result::Result<_, _>>()?;
        let memory =
            MemorySourceConfig::try_new_exec(&[rows], Arc::clone(&self.schema), projection.cloned())?;
        if snapshot.files.is_empty() {
            return Ok(memory);
        }
        let urls = snapshot.files.iter().map(|path| url(path)).collect::<Result<Vec<_>>>()?;
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(Arc::clone(&self.schema));
        let files = ListingTable::try_new(config)?.scan(state, projection, filters, limit).await?;
        UnionExec::try_new(vec![files, memory])
    }
}

fn url(path: &Path) -> Result<ListingTableUrl> {
    let path = std::fs::canonicalize(path)?;
    let text = path.to_str().ok_or_else(|| {
        DataFusionError::Execution(format!("'{}' is not UTF-8: SQL cannot read it", path.display()))
    })?;
    // Not `parse` of a path: that would take * and [ in a folder's name for a pattern.
    let url = url::Url::from_file_path(text)
        .map_err(|()| DataFusionError::Execution(format!("'{text}' is no absolute path")))?;
    ListingTableUrl::try_new(url, None)
}
