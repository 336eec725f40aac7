//! tapedeck: sources, workers, supervisor, ledger.

pub mod ledger;
