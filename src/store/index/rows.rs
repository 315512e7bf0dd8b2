//! The rows of blobs: what is present, since when, of which objects.
//!
//! Functions of a connection; the caller decides on transaction and durability.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::hash;
use crate::model::{BlobLayout, ContentKey, Digest, SegmentIx};
use crate::store::evidence::Stamp;
use crate::store::state::part_set::PartSet;

/// A segment as the index has it.
#[derive(Debug, Clone)]
pub struct SegmentRow {
    /// Which of its blob.
    pub segment: u32,
    /// The bitmap of its parts.
    pub parts: Vec<u8>,
    /// Last use, in seconds.
    pub used: u32,
}

/// A number of the store itself.
pub fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |r| r.get(0))
        .optional()
}

/// Sets a number of the store itself.
pub fn set_meta(conn: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![key, value])
        .map(drop)
}

/// Forgets a number of the store itself.
pub fn forget_meta(conn: &Connection, key: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key]).map(drop)
}

/// Adds a blob, if it is not there, and what objects it has ranges of. Its row.
pub fn add_blob(conn: &Connection, layout: &BlobLayout) -> rusqlite::Result<i64> {
    let key = *layout.key().digest().as_bytes();
    let find = || -> rusqlite::Result<Option<i64>> {
        conn.prepare_cached("SELECT id FROM blobs WHERE key = ?1")?
            .query_row([key], |r| r.get(0))
            .optional()
    };
    let id = match find()? {
        Some(id) => id,
        None => {
            conn.prepare_cached("INSERT INTO blobs (key, layout, len) VALUES (?1, ?2, ?3)")?
                .execute(params![key, layout.encode(), layout.len() as i64])?;
            conn.last_insert_rowid()
        }
    };
    add_objects(conn, id, layout)?;
    Ok(id)
}

/// Adds what objects a blob has ranges of.
pub fn add_objects(conn: &Connection, blob: i64, layout: &BlobLayout) -> rusqlite::Result<()> {
    let mut add = conn.prepare_cached("INSERT OR IGNORE INTO objects VALUES (?1, ?2, ?3)")?;
    for (at, piece) in layout.pieces().iter().enumerate() {
        add.execute(params![piece.identity().as_bytes(), blob, at as i64])?;
        if piece.object != piece.identity() {
            add.execute(params![piece.object.as_bytes(), blob, at as i64])?;
        }
    }
    Ok(())
}

/// Says that nothing is present of a blob.
pub fn forget_parts(conn: &Connection, blob: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM segments WHERE blob = ?1")?.execute([blob])?;
    conn.prepare_cached("DELETE FROM unverified WHERE blob = ?1")?.execute([blob])?;
    set_stamp(conn, blob, None)
}

/// Removes a blob and all that is said of it.
pub fn remove_blob(conn: &Connection, blob: i64) -> rusqlite::Result<()> {
    forget_parts(conn, blob)?;
    conn.prepare_cached("DELETE FROM objects WHERE blob = ?1")?.execute([blob])?;
    conn.prepare_cached("DELETE FROM blobs WHERE id = ?1")?.execute([blob])?;
    Ok(())
}

/// What a segment's row is sealed with: a flipped bit in the bitmap would be a wrong byte.
/// `text` is room to write in: a million rows need not ask for it each.
fn seal(key: &ContentKey, segment: u32, parts: &[u8], text: &mut Vec<u8>) -> i64 {
    text.clear();
    text.extend_from_slice(key.digest().as_bytes());
    text.extend_from_slice(&segment.to_le_bytes());
    text.extend_from_slice(parts);
    let d = hash::blake3(text);
    i64::from(u32::from_le_bytes(d.as_bytes()[..4].try_into().expect("four of 32 bytes")))
}

/// Says what is durably present of a segment; nothing: the row goes.
pub fn set_segment(
    conn: &Connection,
    blob: i64,
    key: &ContentKey,
    row: &SegmentRow,
) -> rusqlite::Result<()> {
    if row.parts.is_empty() {
        return conn
            .prepare_cached("DELETE FROM segments WHERE blob = ?1 AND segment = ?2")?
            .execute(params![blob, row.segment])
            .map(drop);
    }
    let seal = seal(key, row.segment, &row.parts, &mut Vec::new());
    conn.prepare_cached("INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![blob, row.segment, row.parts, seal, row.used])
        .map(drop)
}

/// Says how many bytes of a piece are there and not verified; none: the row goes.
pub fn set_unverified(conn: &Connection, blob: i64, piece: u32, len: u64) -> rusqlite::Result<()> {
    match len {
        0 => conn
            .prepare_cached("DELETE FROM unverified WHERE blob = ?1 AND piece = ?2")?
            .execute(params![blob, piece]),
        _ => conn
            .prepare_cached("INSERT OR REPLACE INTO unverified VALUES (?1, ?2, ?3)")?
            .execute(params![blob, piece, len as i64]),
    }
    .map(drop)
}

/// Records a last use.
pub fn set_used(conn: &Connection, blob: i64, segment: u32, used: u32) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE segments SET used = ?3 WHERE blob = ?1 AND segment = ?2")?
        .execute(params![blob, segment, used])
        .map(drop)
}

/// A stamp in two columns from `at` on.
fn stamp_at(r: &Row<'_>, at: usize) -> rusqlite::Result<Option<Stamp>> {
    let (allocated, changed): (Option<i64>, Option<i64>) = (r.get(at)?, r.get(at + 1)?);
    let stamp = |(allocated, changed): (i64, i64)| Stamp { allocated: allocated as u64, changed };
    Ok(allocated.zip(changed).map(stamp))
}

/// Keeps what a blob's file looks like, or that this is not known.
pub fn set_stamp(conn: &Connection, blob: i64, stamp: Option<Stamp>) -> rusqlite::Result<()> {
    match stamp {
        Some(s) => conn
            .prepare_cached("INSERT OR REPLACE INTO stamps VALUES (?1, ?2, ?3)")?
            .execute(params![blob, s.allocated as i64, s.changed]),
        None => conn.prepare_cached("DELETE FROM stamps WHERE blob = ?1")?.execute([blob]),
    }
    .map(drop)
}

/// Forgets what every blob's file looks like.
pub fn forget_stamps(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM stamps", []).map(drop)
}

/// Whether a blob is known to have ranges of an object.
pub fn has_object(conn: &Connection, digest: &Digest, blob: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM objects WHERE digest = ?1 AND blob = ?2")?
        .exists(params![digest.as_bytes(), blob])
}

/// Files that share everything are few: more need not be looked at. SQLite makes a new plan each time
/// that a limit is bound, or a digest where blobs are joined, and that takes longer than the look-up.
const FIND_OBJECT: &str = "SELECT (SELECT key FROM blobs WHERE id = blob), piece FROM objects
    WHERE digest = ?1 LIMIT 64";

/// Which pieces of which blobs have ranges of an object: `(key, piece)`.
pub fn find_object(
    conn: &Connection,
    digest: &Digest,
) -> rusqlite::Result<Vec<(ContentKey, usize)>> {
    conn.prepare_cached(FIND_OBJECT)?
        .query_map([digest.as_bytes()], |r| {
            // none: the blob went while it was opened once more, and nothing has asked for it since
            let key: Option<[u8; 32]> = r.get(0)?;
            let piece = r.get::<_, u32>(1)? as usize;
            Ok(key.map(|key| (ContentKey::new(Digest::from_bytes(key)), piece)))
        })?
        .filter_map(Result::transpose)
        .collect()
}

/// A blob as the index has it.
pub struct BlobRow {
    /// Its number.
    pub id: i64,
    /// Its layout, which has been found to be the one that its key names.
    pub layout: Arc<BlobLayout>,
    /// What is durably present of it.
    pub present: PartSet,
    /// Its pieces that have unverified bytes from their start on, and how many.
    pub unverified: Vec<(u32, u64)>,
    /// Its segments that have something present, with their last uses in seconds.
    pub used: Vec<(u32, u32)>,
    /// What its file looked like when all of that was known to be right.
    pub stamp: Option<Stamp>,
}

/// All blobs. An error of type "conversion" where a row is not what we would have written.
pub fn blobs(conn: &Connection) -> rusqlite::Result<Vec<BlobRow>> {
    let mut select = conn.prepare(
        "SELECT id, key, layout, allocated, changed FROM blobs LEFT JOIN stamps ON blob = id
         ORDER BY id",
    )?;
    let rows = select.query_map([], |r| {
        let key: [u8; 32] = r.get(1)?;
        match BlobLayout::decode(r.get_ref(2)?.as_blob()?) {
            Ok(l) if *l.key().digest().as_bytes() == key => Ok(BlobRow {
                id: r.get(0)?,
                layout: Arc::new(l),
                present: PartSet::default(),
                unverified: Vec::new(),
                used: Vec::new(),
                stamp: stamp_at(r, 3)?,
            }),
            _ => Err(rusqlite::Error::IntegralValueOutOfRange(2, 0)),
        }
    })?;
    let mut blobs: Vec<BlobRow> = rows.collect::<rusqlite::Result<_>>()?;
    segments(conn, &mut blobs)?;
    unverified(conn, &mut blobs)?;
    Ok(blobs)
}

/// Adds what is unverified to its blobs, which are in the order of their numbers. A row of no blob, of no
/// piece that is verified as a whole, beyond it, or beside something that is present is damage.
fn unverified(conn: &Connection, blobs: &mut [BlobRow]) -> rusqlite::Result<()> {
    let mut select =
        conn.prepare("SELECT blob, piece, len FROM unverified ORDER BY blob, piece")?;
    let mut rows = select.query([])?;
    while let Some(r) = rows.next()? {
        let (id, at, len): (i64, u32, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
        let found = blobs.binary_search_by_key(&id, |blob| blob.id).ok();
        let blob = found.map(|found| &mut blobs[found]).filter(|blob| {
            blob.layout.pieces().get(at as usize).is_some_and(|piece| {
                let fits =
                    u64::try_from(len).is_ok_and(|len| (1..=piece.file.len()).contains(&len));
                let parts = blob.layout.parts_of_piece(at as usize);
                fits && piece.is_whole_large() && !blob.present.any(parts)
            })
        });
        let Some(blob) = blob else { return Err(rusqlite::Error::IntegralValueOutOfRange(2, len)) };
        blob.unverified.push((at, len as u64));
    }
    Ok(())
}

/// Adds what segments say to their blobs, which are in the order of their numbers. A row of no blob,
/// beyond its blob or with a broken seal is damage.
fn segments(conn: &Connection, blobs: &mut [BlobRow]) -> rusqlite::Result<()> {
    let mut select = conn
        .prepare("SELECT blob, segment, parts, used, seal FROM segments ORDER BY blob, segment")?;
    let mut rows = select.query([])?;
    let (mut blobs, mut text) = (blobs.iter_mut().peekable(), Vec::new());
    while let Some(r) = rows.next()? {
        let (id, segment): (i64, u32) = (r.get(0)?, r.get(1)?);
        let (parts, used, sealed) = (r.get_ref(2)?.as_blob()?, r.get(3)?, r.get::<_, i64>(4)?);
        while blobs.next_if(|blob| blob.id < id).is_some() {}
        let good = blobs.peek_mut().filter(|blob| blob.id == id).is_some_and(|blob| {
            let good = segment < blob.layout.segment_count()
                && sealed == seal(&blob.layout.key(), segment, parts, &mut text)
                && blob.present.add_bytes(blob.layout.parts_of_segment(SegmentIx(segment)), parts);
            blob.used.push((segment, used));
            good
        });
        if !good {
            return Err(rusqlite::Error::IntegralValueOutOfRange(4, 0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::Check;
    use crate::store::index::schema;

    #[test]
    fn an_object_is_found_without_a_new_plan_each_time() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, schema::MIGRATIONS, &|| Ok(())).unwrap();
        let object = Digest::from_bytes([7; 32]);
        let piece = (Check::Whole, object, 9, ObjectRange::new(0, 9));
        let layout = BlobLayout::new([piece]).unwrap();
        add_blob(&conn, &layout).unwrap();
        for _ in 0..3 {
            assert_eq!(find_object(&conn, &object).unwrap(), [(layout.key(), 0)]);
        }
        conn.execute("DELETE FROM blobs", []).unwrap();
        assert_eq!(find_object(&conn, &object).unwrap(), [], "an object of a blob that went");
        let planned = rusqlite::StatementStatus::RePrepare;
        assert_eq!(conn.prepare_cached(FIND_OBJECT).unwrap().get_status(planned), 0);
    }
}
