//! Reading and writing the sidecar of a blob (`sidecar` has its format).
//!
//! A slot of zeros was never written. Invariant: a slot is durable before the index claims its part. The
//! slots are ours, made of bytes that had been verified; BLAKE3 because it is many times as fast.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::core::Core;
use crate::model::{BlobLayout, ContentKey, Digest, PartRange, hash};
use crate::store::disk::{Access, Disk, DiskFile};
use crate::store::error::StoreError;
use crate::store::sidecar::{self, HEADER, MAGIC, MAX_LAYOUT, SLOT};
use crate::store::state::entry::BlobEntry;

/// Slots read at once: 32 KiB of them.
const AT_ONCE: u32 = 1024;

/// Writes slots; `checksums` is sorted by part.
pub fn write(
    file: &dyn DiskFile,
    layout: &BlobLayout,
    checksums: &[(u32, Digest)],
) -> io::Result<()> {
    let start = sidecar::slots_at(layout);
    for run in checksums.chunk_by(|a, b| a.0 + 1 == b.0) {
        let bytes: Vec<u8> = run.iter().flat_map(|(_, d)| *d.as_bytes()).collect();
        file.write_at(&bytes, start + SLOT * u64::from(run[0].0))?;
    }
    Ok(())
}

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
    let start = sidecar::slots_at(layout);
    let mut bytes = vec![0; parts.len() as usize * SLOT as usize];
    let n = file.read_at(&mut bytes, start + SLOT * u64::from(parts.start))?;
    bytes[n..].fill(0);
    let slots = bytes
        .chunks_exact(SLOT as usize)
        .map(|s| if s.iter().all(|b| *b == 0) { None } else { Digest::from_slice(s) });
    Ok(slots.collect())
}

/// The checksums of a blob's parts: those that wait for their commit, else what its sidecar has.
pub fn learned(
    core: &Core,
    entry: &BlobEntry,
    parts: PartRange,
) -> Result<Vec<Option<Digest>>, StoreError> {
    let mut found = vec![None; parts.len() as usize];
    let path = entry.sidecar_path();
    let read = |file: Arc<dyn DiskFile>| -> io::Result<()> {
        for (chunk, slots) in chunks(parts).zip(found.chunks_mut(AT_ONCE as usize)) {
            slots.copy_from_slice(&read(file.as_ref(), &entry.layout, chunk)?);
        }
        Ok(())
    };
    match core.disk.open(&path, Access::Read).and_then(read) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::disk(&core.full_path(&path), "read the checksums")(e));
        }
        _ => {}
    }
    for (part, checksum) in &entry.state().checksums {
        if (parts.start..parts.end).contains(part) {
            found[(part - parts.start) as usize] = Some(*checksum);
        }
    }
    Ok(found)
}

/// The layout in a sidecar, if it is the one that `key` names.
pub fn certified_layout(disk: &dyn Disk, path: &Path, key: &ContentKey) -> Option<BlobLayout> {
    let file = disk.open(path, Access::Read).ok()?;
    let mut head = [0; HEADER as usize];
    if file.read_at(&mut head, 0).ok()? != head.len() || &head[..8] != MAGIC {
        return None;
    }
    let len = u64::from_le_bytes(head[8..].try_into().ok()?);
    if len > MAX_LAYOUT {
        return None;
    }
    let mut encoded = vec![0; len as usize];
    let whole = file.read_at(&mut encoded, HEADER).ok()? as u64 == len;
    if !whole || hash::sha256(&encoded) != *key.digest() {
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
        file.write_at(&sidecar::header(&layout), 0).unwrap();
        write(file.as_ref(), &layout, &[(0, d(9)), (1, d(8)), (4, d(7))]).unwrap();
        assert_eq!(
            read(file.as_ref(), &layout, layout.all_parts()).unwrap(),
            [Some(d(9)), Some(d(8)), None, None, Some(d(7))]
        );
        assert_eq!(file.stat().unwrap().len, sidecar::len(&layout));
        assert_eq!(certified_layout(&disk, path, &layout.key()).unwrap().key(), layout.key());
        assert!(certified_layout(&disk, path, &ContentKey::new(d(1))).is_none());
        disk.flip(path, 30);
        assert!(certified_layout(&disk, path, &layout.key()).is_none());
    }
}
