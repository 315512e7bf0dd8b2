//! The format of a blob's sidecar: its layout, which certifies itself, and the checksum of each part.
//!
//! `magic · length of the layout (u64 LE) · layout · zeros up to a multiple of 32 · one 32-byte
//! BLAKE3 per part`. The SHA-256 of the layout is the blob's name. Positions and bytes only: no I/O
//! (`engine::checksums` reads and writes it).

use crate::model::BlobLayout;

/// What a sidecar begins with.
pub const MAGIC: &[u8; 8] = b"mfssums1";
/// Bytes of the header before the layout: the magic and the layout's length.
pub const HEADER: u64 = 16;
/// Bytes of a slot.
pub const SLOT: u64 = 32;
/// A longer layout is not one of ours: 65 bytes per piece, 4 million pieces.
pub const MAX_LAYOUT: u64 = 65 * 4_000_000 + 8;

/// Where the slots begin.
pub fn slots_at(layout: &BlobLayout) -> u64 {
    // an encoded layout is 8 bytes, and 65 per piece
    let encoded = 8 + 65 * layout.pieces().len() as u64;
    (HEADER + encoded).next_multiple_of(SLOT)
}

/// The length of a layout's complete sidecar.
pub fn len(layout: &BlobLayout) -> u64 {
    slots_at(layout) + SLOT * u64::from(layout.part_count())
}

/// The header of a new sidecar.
pub fn header(layout: &BlobLayout) -> Vec<u8> {
    let encoded = layout.encode();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(encoded.len() as u64).to_le_bytes());
    out.extend_from_slice(&encoded);
    out
}
