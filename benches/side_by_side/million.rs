//! A store whose index knows very many objects, made without fetching them.
//!
//! Rows are written in the form of `docs/store-format.md` into an index that the store itself made
//! and closed; blobs are sparse files of the right length. Invariant: the store opens it as closed in
//! good order, and every seal is right; the bytes of blobs are zeros that nobody reads.

use std::fs::{self, File};
use std::path::Path;

use modelfs::base::ObjectRange;
use modelfs::base::units::ByteSize;
use modelfs::model::hash;
use modelfs::model::{BlobLayout, Check, Digest};
use modelfs::store::{Store, StoreOptions};
use rusqlite::{Connection, params};

/// Objects of each blob: a model file of many chunks.
pub const PER_BLOB: usize = 1000;
/// Small, so that a thousand of them are what one eviction takes (64 MiB).
pub const OBJECT_BYTES: u64 = 64 << 10;
/// More than any number of these takes.
pub const ROOM: u64 = 1 << 50;

/// The digest of an object by its number.
pub fn object(number: usize) -> Digest {
    hash::blake3(&number.to_le_bytes())
}

fn layout(blob: usize) -> BlobLayout {
    let piece = |at: usize| {
        let range = ObjectRange::new(0, OBJECT_BYTES);
        (Check::Whole, object(blob * PER_BLOB + at), OBJECT_BYTES, range)
    };
    BlobLayout::new((0..PER_BLOB).map(piece)).expect("pieces within their objects")
}

/// How the store is opened with a limit.
pub fn options(root: &Path, limit: u64) -> StoreOptions {
    StoreOptions { limit: Some(ByteSize(limit)), ..StoreOptions::at(root) }
}

/// Makes the store's folder with so many objects in it, the oldest blob first.
pub fn fill(root: &Path, objects: usize) -> Result<(), Box<dyn std::error::Error>> {
    drop(Store::open(options(root, ROOM))?);
    let mut conn = Connection::open(root.join("index.db"))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    let tx = conn.transaction()?;
    for blob in 0..objects / PER_BLOB {
        let layout = layout(blob);
        let key = layout.key();
        let digest = *key.digest().as_bytes();
        tx.prepare_cached("INSERT INTO blobs (key, layout, len) VALUES (?1, ?2, ?3)")?
            .execute(params![digest, layout.encode(), layout.len() as i64])?;
        let row = tx.last_insert_rowid();
        let mut segment = tx.prepare_cached("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let mut known = tx.prepare_cached("INSERT INTO objects VALUES (?1, ?2, ?3)")?;
        // One part each, present.
        let parts = [1u8];
        for (at, piece) in layout.pieces().iter().enumerate() {
            let at = at as u32;
            let sealed = [&digest[..], &at.to_le_bytes()[..], &parts[..]].concat();
            let seal = u32::from_le_bytes(hash::blake3(&sealed).as_bytes()[..4].try_into()?);
            let used = 1_700_000_000 + blob as u32;
            segment.execute(params![row, at, parts, seal, used])?;
            known.execute(params![piece.object.as_bytes(), row, at])?;
        }
        let name = key.to_string();
        let folder = root.join("blobs").join(&name[..2]);
        fs::create_dir_all(&folder)?;
        File::create(folder.join(&name))?.set_len(layout.len())?;
        File::create(folder.join(format!("{name}.sums")))?.set_len(32 * PER_BLOB as u64)?;
    }
    tx.commit()?;
    Ok(())
}
