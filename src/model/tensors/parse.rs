//! What the parsers of all header formats have in common. Plain values.

/// The longest header that is read. Those of the largest models have some MiB; a vocabulary of
/// 256,000 tokens in a GGUF header has 8.
pub const MAX_HEADER: u64 = 16 << 20;

/// Why a parser did not reach the end of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParseError {
    /// More bytes are needed: at least so many in all.
    Incomplete(u64),
    /// This is not a header of that format.
    Malformed,
}
