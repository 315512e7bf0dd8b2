//! The rows of names and documents that may go, and giving their space back to the disk.
//!
//! Functions of a connection; `engine::collection` decides what may go.

use rusqlite::{Connection, params};

use super::names::{forget_marks, key_at, source_at};
use crate::model::{Digest, SourceName};
use crate::store::types::{NodeId, NodeKey};

/// A manifest as far as its going is concerned.
#[derive(Debug, Clone, Copy)]
pub struct ManifestRow {
    /// Its SHA-256.
    pub hash: Digest,
    /// Its length in bytes.
    pub len: u64,
    /// Its last recorded use, in seconds; 0 if none is.
    pub used: u32,
}

/// All manifests, the least recently used first.
pub fn manifests(conn: &Connection) -> rusqlite::Result<Vec<ManifestRow>> {
    conn.prepare_cached(
        "SELECT m.hash, length(m.body), coalesce(u.used, 0) FROM manifests m
         LEFT JOIN uses u ON u.hash = m.hash ORDER BY 3, m.rowid",
    )?
    .query_map([], |r| {
        let len = u64::from(r.get::<_, u32>(1)?);
        Ok(ManifestRow { hash: Digest::from_bytes(r.get(0)?), len, used: r.get(2)? })
    })?
    .collect()
}

/// The SHA-256 of every manifest that a pin names.
pub fn pinned(conn: &Connection) -> rusqlite::Result<Vec<Digest>> {
    let mut select = conn.prepare_cached("SELECT DISTINCT hash FROM pins")?;
    select.query_map([], |r| Ok(Digest::from_bytes(r.get(0)?)))?.collect()
}

/// The sources that have a catalog, the one that was checked longest ago first.
pub fn catalogs(conn: &Connection) -> rusqlite::Result<Vec<SourceName>> {
    // When it was confirmed stands beside the row, unless an earlier program wrote it.
    let mut select = conn.prepare_cached(
        "SELECT source FROM catalogs LEFT JOIN meta ON key = 'checked ' || source
         ORDER BY coalesce(value, checked)",
    )?;
    select.query_map([], source_at)?.collect()
}

/// All nodes, in the order of their names, so that neighbours go together.
pub fn nodes(conn: &Connection) -> rusqlite::Result<Vec<(NodeId, SourceName, NodeKey)>> {
    conn.prepare_cached(
        "SELECT source, grp, model, version, hash, id FROM nodes
         ORDER BY source, grp, model, version, hash",
    )?
    .query_map([], |r| Ok((NodeId(r.get(5)?), source_at(r)?, key_at(r, 1)?)))?
    .collect()
}

/// Forgets nodes. Their numbers are never used again.
pub fn forget_nodes(conn: &Connection, ids: &[NodeId]) -> rusqlite::Result<()> {
    let mut delete = conn.prepare_cached("DELETE FROM nodes WHERE id = ?1")?;
    ids.iter().try_for_each(|id| delete.execute([id.0]).map(drop))
}

/// Forgets a manifest and what is kept beside it.
pub fn forget_manifest(conn: &Connection, hash: &Digest) -> rusqlite::Result<()> {
    for table in ["manifests", "uses", "traces"] {
        conn.prepare_cached(&format!("DELETE FROM {table} WHERE hash = ?1"))?
            .execute([hash.as_bytes()])?;
    }
    Ok(())
}

/// Forgets a catalog.
pub fn forget_catalog(conn: &Connection, source: &SourceName) -> rusqlite::Result<()> {
    forget_marks(conn, source)?;
    conn.prepare_cached("DELETE FROM catalogs WHERE source = ?1")?
        .execute([source.as_str()])
        .map(drop)
}

/// The manifests that loads were recorded of.
pub fn traced(conn: &Connection) -> rusqlite::Result<Vec<Digest>> {
    let mut select = conn.prepare_cached("SELECT hash FROM traces")?;
    select.query_map([], |r| Ok(Digest::from_bytes(r.get(0)?)))?.collect()
}

/// Records a use of a manifest, if that is there.
pub fn set_use(conn: &Connection, hash: &Digest, used: u32) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO uses
        SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM manifests WHERE hash = ?1)";
    conn.prepare_cached(set)?.execute(params![hash.as_bytes(), used]).map(drop)
}

/// The number that the last new node got.
pub fn last_node(conn: &Connection) -> rusqlite::Result<u32> {
    conn.query_row(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'nodes'",
        [],
        |r| r.get(0),
    )
}

/// Pages of the database, in all and free.
pub fn pages(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    let count = |name| conn.pragma_query_value(None, name, |r| r.get::<_, u32>(0)).map(u64::from);
    Ok((count("page_count")?, count("freelist_count")?))
}

/// Whether free pages can be given back a few at a time. An older index has to be written anew once.
pub fn gives_back(conn: &Connection) -> rusqlite::Result<bool> {
    conn.pragma_query_value(None, "auto_vacuum", |r| Ok(r.get::<_, u32>(0)? != 0))
}

/// Gives back a few free pages.
pub fn give_back(conn: &Connection, pages: u32) -> rusqlite::Result<()> {
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Makes a new index one whose free pages can be given back. Before its first table is made.
pub fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Writes the index anew, without its free pages and such that later ones can be given back.
pub fn rewrite(conn: &Connection) -> rusqlite::Result<()> {
    // what it sorts by has no other place that a confined process may write to
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    prepare(conn)?;
    conn.execute_batch("VACUUM")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::{configure, schema};

    /// An index with ten manifests of 100 KB, nine of which are forgotten; what it takes then.
    fn mostly_garbage(conn: &mut Connection) -> (u64, u64) {
        configure(conn).unwrap();
        schema::migrate(conn, schema::MIGRATIONS, &|| Ok(())).unwrap();
        for n in 0..10 {
            let hash = Digest::from_bytes([n; 32]);
            crate::store::index::names::set_manifest(conn, &hash, &[n; 100_000]).unwrap();
            set_use(conn, &hash, u32::from(10 - n)).unwrap();
        }
        let order: Vec<_> = manifests(conn).unwrap().iter().map(|m| m.used).collect();
        assert!(order.is_sorted(), "the least recently used first: {order:?}");
        for n in 1..10 {
            forget_manifest(conn, &Digest::from_bytes([n; 32])).unwrap();
        }
        pages(conn).unwrap()
    }

    #[test]
    fn free_pages_go_back_a_few_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = Connection::open(dir.path().join("db")).unwrap();
        prepare(&conn).unwrap();
        let (all, free) = mostly_garbage(&mut conn);
        assert!(gives_back(&conn).unwrap() && free > all / 2);
        give_back(&conn, 8).unwrap();
        assert_eq!(pages(&conn).unwrap(), (all - 8, free - 8));
        give_back(&conn, u32::MAX).unwrap();
        assert_eq!(pages(&conn).unwrap(), (all - free, 0));
    }

    #[test]
    fn an_older_index_is_written_anew_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut conn = Connection::open(&path).unwrap();
        let (all, free) = mostly_garbage(&mut conn);
        assert!(!gives_back(&conn).unwrap());
        rewrite(&conn).unwrap();
        assert!(gives_back(&conn).unwrap());
        let (now, none) = pages(&conn).unwrap();
        assert!(now <= all - free + 2 && none == 0, "{now} of {all} pages, {none} free");
        assert_eq!(manifests(&conn).unwrap().len(), 1);
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().len(), now * 4096);
    }
}
