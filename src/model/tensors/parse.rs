//! Limits and errors shared by the parsers of all header formats. Plain values.

/// Maximum size of a header. Headers of the largest models have some MiB; a vocabulary of 256,000 tokens
/// in a GGUF header has 8.
pub const MAX_HEADER: u64 = 16 << 20;

/// Why a parser did not reach the end of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParseError {
    /// More bytes are needed: at least this many in total.
    Incomplete(u64),
    /// Not a header of that format.
    Malformed,
}
