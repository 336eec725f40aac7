//! The journal beside an open segment: append-only, checksummed records.
