//! Independent zstd frames: the storage unit of a segment.

/// Most uncompressed bytes in a frame, unless one packet alone is larger.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
