//! The catalog: which segments a store holds, by folder listing.
