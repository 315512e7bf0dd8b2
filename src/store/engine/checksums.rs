//! The sidecar of a blob: its layout, which certifies itself, and what each part hashed to.
//!
//! `magic · length of the layout (u64 LE) · layout · zeros up to a multiple of 32 · one 32-byte
//! BLAKE3 per part`. The SHA-256 of the layout is the file's name. A slot of zeros was never
//! written. Invariant: a slot is durable before the index claims its part. The slots are ours, made
//! of bytes that had been verified; BLAKE3 because it is many times as fast.

use std::io;
use std::path::Path;

use crate::model::hash;
use crate::model::{BlobLayout, ContentKey, Digest, PartRange};
use crate::store::disk::{Access, Disk, DiskFile};

const MAGIC: &[u8; 8] = b"mfssums1";
/// Bytes of a slot.
const SLOT: u64 = 32;
/// A layout of more bytes is none of ours: 65 bytes a piece, 4 million pieces.
const MAX_LAYOUT: u64 = 65 * 4_000_000 + 8;

/// Where the slots begin.
fn slots_at(layout_len: u64) -> u64 {
    (16 + layout_len).next_multiple_of(SLOT)
}

/// How long the sidecar of a layout becomes.
pub fn len(layout: &BlobLayout) -> u64 {
    slots_at(8 + 65 * layout.pieces().len() as u64) + SLOT * u64::from(layout.part_count())
}

/// The header of a new sidecar.
pub fn header(layout: &BlobLayout) -> Vec<u8> {
    let encoded = layout.encode();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(encoded.len() as u64).to_le_bytes());
    out.extend_from_slice(&encoded);
    out
}

/// Writes slots; `sums` is sorted by part.
pub fn write(file: &dyn DiskFile, layout: &BlobLayout, sums: &[(u32, Digest)]) -> io::Result<()> {
    let start = slots_at(8 + 65 * layout.pieces().len() as u64);
    for run in sums.chunk_by(|a, b| a.0 + 1 == b.0) {
        let bytes: Vec<u8> = run.iter().flat_map(|(_, d)| *d.as_bytes()).collect();
        file.write_at(&bytes, start + SLOT * u64::from(run[0].0))?;
    }
    Ok(())
}

/// Slots read at once: 32 KiB of them.
const AT_ONCE: u32 = 1024;

/// A run of parts in pieces whose slots are read at once.
pub fn chunks(parts: PartRange) -> impl Iterator<Item = PartRange> {
    (parts.start..parts.end)
        .step_by(AT_ONCE as usize)
        .map(move |start| PartRange { start, end: start.saturating_add(AT_ONCE).min(parts.end) })
}

/// The slots of a run of parts; `None` where never written.
pub fn read(
    file: &dyn DiskFile,
    layout: &BlobLayout,
    parts: PartRange,
) -> io::Result<Vec<Option<Digest>>> {
    let start = slots_at(8 + 65 * layout.pieces().len() as u64);
    let mut bytes = vec![0; parts.len() as usize * SLOT as usize];
    let n = file.read_at(&mut bytes, start + SLOT * u64::from(parts.start))?;
    bytes[n..].fill(0);
    let slots = bytes
        .chunks_exact(SLOT as usize)
        .map(|s| if s.iter().all(|b| *b == 0) { None } else { Digest::from_slice(s) });
    Ok(slots.collect())
}

/// The layout in a sidecar, if it is the one that `key` names.
pub fn certified_layout(disk: &dyn Disk, path: &Path, key: &ContentKey) -> Option<BlobLayout> {
    let file = disk.open(path, Access::Read).ok()?;
    let mut head = [0; 16];
    if file.read_at(&mut head, 0).ok()? != 16 || &head[..8] != MAGIC {
        return None;
    }
    let len = u64::from_le_bytes(head[8..].try_into().ok()?);
    if len > MAX_LAYOUT {
        return None;
    }
    let mut encoded = vec![0; len as usize];
    if file.read_at(&mut encoded, 16).ok()? as u64 != len || hash::sha256(&encoded) != *key.digest()
    {
        return None;
    }
    BlobLayout::decode(&encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::Check;
    use crate::store::disk::MemoryDisk;

    #[test]
    fn certifies_itself_and_keeps_slots_apart() {
        let d = |n| Digest::from_bytes([n; 32]);
        let piece = |n, len| (Check::Whole, d(n), len, ObjectRange::new(0, len));
        let layout = BlobLayout::new((1..6).map(|n| piece(n, 10))).unwrap();
        let disk = MemoryDisk::new();
        disk.make_folder(Path::new("b")).unwrap();
        let path = Path::new("b/x");
        let file = disk.open(path, Access::Create).unwrap();
        file.write_at(&header(&layout), 0).unwrap();
        write(file.as_ref(), &layout, &[(0, d(9)), (1, d(8)), (4, d(7))]).unwrap();
        assert_eq!(
            read(file.as_ref(), &layout, layout.all_parts()).unwrap(),
            [Some(d(9)), Some(d(8)), None, None, Some(d(7))]
        );
        assert_eq!(file.stat().unwrap().len, len(&layout));
        assert_eq!(certified_layout(&disk, path, &layout.key()).unwrap().key(), layout.key());
        assert!(certified_layout(&disk, path, &ContentKey::new(d(1))).is_none());
        disk.flip(path, 30);
        assert!(certified_layout(&disk, path, &layout.key()).is_none());
    }
}
