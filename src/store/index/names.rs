//! The rows of names: nodes, pins, catalogs, manifests.
//!
//! Functions of a connection; the caller decides on transaction and durability. A manifest
//! certifies itself by its hash, so it is checked when read.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::blob::ZeroBlob;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::hash;
use crate::model::{ContentKey, Digest, SourceName, VersionRef};
use crate::store::types::{NodeId, NodeKey, Pin, SavedCatalog};

/// Milliseconds since 1970, as times are kept.
fn millis(t: SystemTime) -> i64 {
    t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64)
}

fn names(v: &VersionRef) -> (&str, &str, &str) {
    (v.model.group.as_str(), v.model.model.as_str(), v.version.as_str())
}

/// A source's name in the first column.
pub fn source_at(r: &Row<'_>) -> rusqlite::Result<SourceName> {
    r.get::<_, String>(0).map(SourceName::remembered)
}

/// A version from three columns from `at` on; `None` where a name is no name.
fn version_at(r: &Row<'_>, at: usize) -> rusqlite::Result<Option<VersionRef>> {
    use crate::model::{ModelRef, Name};
    let name = |i: usize| -> rusqlite::Result<Option<Name>> {
        Ok(Name::new(&r.get::<_, String>(at + i)?).ok())
    };
    Ok(match (name(0)?, name(1)?, name(2)?) {
        (Some(group), Some(model), Some(version)) => {
            Some(VersionRef { model: ModelRef { group, model }, version })
        }
        _ => None,
    })
}

/// The columns of a node: group, model, version, hash.
fn node_row(key: &NodeKey) -> (&str, &str, &str, &[u8]) {
    match key {
        NodeKey::Group { group } => (group, "", "", &[]),
        NodeKey::Model { group, model } => (group, model, "", &[]),
        NodeKey::Version { group, model, version, hash } => {
            (group, model, version, hash.as_bytes())
        }
    }
}

/// What a node takes at most: its row, and as much again in the index, whose pages may be half empty.
pub fn node_cost(source: &SourceName, key: &NodeKey) -> u64 {
    let (group, model, version, hash) = node_row(key);
    let bytes = source.as_str().len() + group.len() + model.len() + version.len() + hash.len();
    3 * bytes as u64 + 96
}

/// The id of a node, if it has one.
pub fn find_node(
    conn: &Connection,
    source: &SourceName,
    key: &NodeKey,
) -> rusqlite::Result<Option<NodeId>> {
    let (group, model, version, hash) = node_row(key);
    conn.prepare_cached(
        "SELECT id FROM nodes
         WHERE source = ?1 AND grp = ?2 AND model = ?3 AND version = ?4 AND hash = ?5",
    )?
    .query_row(params![source.as_str(), group, model, version, hash], |r| r.get(0).map(NodeId))
    .optional()
}

/// The id of a node, made if new. `None` when ids have run out: they fit 31 bits.
pub fn node_id(
    conn: &Connection,
    source: &SourceName,
    key: &NodeKey,
) -> rusqlite::Result<Option<NodeId>> {
    if let Some(id) = find_node(conn, source, key)? {
        return Ok(Some(id));
    }
    let (group, model, version, hash) = node_row(key);
    conn.prepare_cached(
        "INSERT INTO nodes (source, grp, model, version, hash) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![source.as_str(), group, model, version, hash])?;
    Ok(i32::try_from(conn.last_insert_rowid()).ok().map(|id| NodeId(id as u32)))
}

/// What an id stands for.
pub fn node(conn: &Connection, id: NodeId) -> rusqlite::Result<Option<(SourceName, NodeKey)>> {
    conn.prepare_cached("SELECT source, grp, model, version, hash FROM nodes WHERE id = ?1")?
        .query_row([id.0], |r| Ok((source_at(r)?, key_at(r, 1)?)))
        .optional()
}

/// What a node stands for, from four columns from `at` on.
pub fn key_at(r: &Row<'_>, at: usize) -> rusqlite::Result<NodeKey> {
    let text = |i| r.get::<_, String>(at + i).map(String::into_boxed_str);
    let (group, model, version) = (text(0)?, text(1)?, text(2)?);
    Ok(match Digest::from_slice(&r.get::<_, Vec<u8>>(at + 3)?) {
        Some(hash) => NodeKey::Version { group, model, version, hash },
        None if model.is_empty() => NodeKey::Group { group },
        None => NodeKey::Model { group, model },
    })
}

/// The versions of a source that have nodes.
pub fn versions(
    conn: &Connection,
    source: &SourceName,
) -> rusqlite::Result<Vec<(VersionRef, Digest)>> {
    let mut select = conn.prepare_cached(
        "SELECT grp, model, version, hash FROM nodes WHERE source = ?1 AND version != '' ORDER BY id",
    )?;
    let rows = select.query_map([source.as_str()], |r| {
        Ok(version_at(r, 0)?.zip(Digest::from_slice(&r.get::<_, Vec<u8>>(3)?)))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// The oldest node of a model's versions with this manifest.
pub fn oldest_node(
    conn: &Connection,
    source: &SourceName,
    (group, model): (&str, &str),
    hash: &Digest,
) -> rusqlite::Result<Option<NodeId>> {
    conn.prepare_cached(
        "SELECT min(id) FROM nodes WHERE source = ?1 AND grp = ?2 AND model = ?3 AND hash = ?4",
    )?
    .query_row(params![source.as_str(), group, model, hash.as_bytes()], |r| {
        Ok(r.get::<_, Option<u32>>(0)?.map(NodeId))
    })
}

/// The versions of a source, or of one model of it, that have a node and a kept manifest.
pub fn used_versions(
    conn: &Connection,
    source: &SourceName,
    model: Option<(&str, &str)>,
) -> rusqlite::Result<Vec<(VersionRef, Digest)>> {
    let of_model = if model.is_some() { "AND n.grp = ?2 AND n.model = ?3" } else { "" };
    let (group, model) = model.unwrap_or_default();
    // What is not mentioned has to be bound all the same, so both are in a condition that holds.
    let mut select = conn.prepare_cached(&format!(
        "SELECT n.grp, n.model, n.version, n.hash FROM nodes n
         WHERE n.source = ?1 AND n.version != '' AND ?2 = ?2 AND ?3 = ?3 {of_model}
           AND EXISTS (SELECT 1 FROM manifests m WHERE m.hash = n.hash)
         ORDER BY n.id"
    ))?;
    let rows = select.query_map([source.as_str(), group, model], |r| {
        Ok(version_at(r, 0)?.zip(Digest::from_slice(&r.get::<_, Vec<u8>>(3)?)))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Adds a pin and its blobs; no change where they are.
pub fn add_pin(conn: &Connection, pin: &Pin, blobs: &[ContentKey]) -> rusqlite::Result<()> {
    let (group, model, version) = names(&pin.version);
    let hash = pin.hash.as_bytes();
    conn.prepare_cached(
        "INSERT OR IGNORE INTO pins (source, grp, model, version, hash, owner, since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        pin.source.as_str(),
        group,
        model,
        version,
        hash,
        pin.owner,
        millis(pin.since)
    ])?;
    let id: i64 = conn
        .prepare_cached(
            "SELECT id FROM pins WHERE source = ?1 AND grp = ?2 AND model = ?3 AND version = ?4
             AND hash = ?5 AND owner = ?6",
        )?
        .query_row(params![pin.source.as_str(), group, model, version, hash, pin.owner], |r| {
            r.get(0)
        })?;
    let mut add = conn.prepare_cached("INSERT OR IGNORE INTO pin_blobs VALUES (?1, ?2)")?;
    for key in blobs {
        add.execute(params![id, key.digest().as_bytes()])?;
    }
    Ok(())
}

/// Removes an owner's pins of a version: how many, and who else has one.
pub fn remove_pin(
    conn: &Connection,
    source: &SourceName,
    version: &VersionRef,
    owner: &str,
) -> rusqlite::Result<(usize, Vec<String>)> {
    let (g, m, v) = names(version);
    conn.prepare_cached(
        "DELETE FROM pin_blobs WHERE pin IN (SELECT id FROM pins
         WHERE source = ?1 AND grp = ?2 AND model = ?3 AND version = ?4 AND owner = ?5)",
    )?
    .execute(params![source.as_str(), g, m, v, owner])?;
    let removed = conn
        .prepare_cached(
            "DELETE FROM pins
             WHERE source = ?1 AND grp = ?2 AND model = ?3 AND version = ?4 AND owner = ?5",
        )?
        .execute(params![source.as_str(), g, m, v, owner])?;
    let others = conn
        .prepare_cached(
            "SELECT DISTINCT owner FROM pins
             WHERE source = ?1 AND grp = ?2 AND model = ?3 AND version = ?4 ORDER BY owner",
        )?
        .query_map(params![source.as_str(), g, m, v], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok((removed, others))
}

fn pin_of(r: &Row<'_>) -> rusqlite::Result<Option<Pin>> {
    let hash = Digest::from_bytes(r.get(4)?);
    let (source, owner, since) = (source_at(r)?, r.get(5)?, time(r.get(6)?));
    Ok(version_at(r, 1)?.map(|version| Pin { source, version, hash, owner, since }))
}

/// All pins, oldest first.
pub fn pins(conn: &Connection) -> rusqlite::Result<Vec<Pin>> {
    conn.prepare_cached(
        "SELECT source, grp, model, version, hash, owner, since FROM pins ORDER BY since, id",
    )?
    .query_map([], pin_of)?
    .filter_map(Result::transpose)
    .collect()
}

/// Every pinned blob.
pub fn pinned_blobs(conn: &Connection) -> rusqlite::Result<HashSet<ContentKey>> {
    conn.prepare_cached("SELECT key FROM pin_blobs")?
        .query_map([], |r| Ok(ContentKey::new(Digest::from_bytes(r.get(0)?))))?
        .collect()
}

/// Who pinned a blob.
pub fn owners(conn: &Connection, key: &ContentKey) -> rusqlite::Result<Vec<String>> {
    conn.prepare_cached(
        "SELECT DISTINCT owner FROM pins JOIN pin_blobs ON pin = id WHERE key = ?1 ORDER BY owner",
    )?
    .query_map([key.digest().as_bytes()], |r| r.get(0))?
    .collect()
}

/// Where in `meta` something about a source's catalog stands. It is not in the catalog's row: SQLite
/// builds a row in memory, with every column but those at its end that are empty, so that 256 MiB
/// would be held twice there, and written anew with each confirmation. An index of an earlier program
/// has it in the row.
fn mark(what: &str, source: &SourceName) -> String {
    format!("{what} {source}")
}

/// What such a mark begins with, where it is a text: the column would make a number of digits.
const TEXT: char = '=';

fn text_mark(
    conn: &Connection,
    what: &str,
    source: &SourceName,
) -> rusqlite::Result<Option<String>> {
    let text: Option<String> = conn
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([mark(what, source)], |r| r.get(0))
        .optional()?;
    Ok(text.and_then(|text| text.strip_prefix(TEXT).map(str::to_owned)))
}

fn set_text_mark(
    conn: &Connection,
    what: &str,
    source: &SourceName,
    text: Option<&str>,
) -> rusqlite::Result<()> {
    let key = mark(what, source);
    match text {
        Some(text) => conn
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
            .execute(params![key, format!("{TEXT}{text}")]),
        None => conn.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key]),
    }
    .map(drop)
}

/// Forgets what is known of a source's catalog beside its row.
pub fn forget_marks(conn: &Connection, source: &SourceName) -> rusqlite::Result<()> {
    let keys = ["etag", "modified", "checked"].map(|what| mark(what, source));
    conn.prepare_cached("DELETE FROM meta WHERE key IN (?1, ?2, ?3)")?.execute(keys).map(drop)
}

/// When a catalog was last confirmed; none if there is no catalog.
pub fn checked(conn: &Connection, source: &SourceName) -> rusqlite::Result<Option<SystemTime>> {
    let confirmed = conn
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([mark("checked", source)], |r| r.get(0))
        .optional()?;
    let saved = || {
        conn.prepare_cached("SELECT checked FROM catalogs WHERE source = ?1")?
            .query_row([source.as_str()], |r| r.get(0))
            .optional()
    };
    Ok(confirmed.map_or_else(saved, |at| Ok(Some(at)))?.map(time))
}

/// A catalog as last seen. Its body is read into place: a column's value would be held twice.
pub fn catalog(conn: &Connection, source: &SourceName) -> rusqlite::Result<Option<SavedCatalog>> {
    let row = conn
        .prepare_cached("SELECT rowid, etag, last_modified FROM catalogs WHERE source = ?1")?
        .query_row([source.as_str()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let Some((row, etag, last_modified)) = row else { return Ok(None) };
    let blob = conn.blob_open("main", "catalogs", "body", row, true)?;
    let mut body = vec![0; blob.len()];
    blob.read_at_exact(&mut body, 0)?;
    Ok(Some(SavedCatalog {
        body,
        etag: text_mark(conn, "etag", source)?.or(etag),
        last_modified: text_mark(conn, "modified", source)?.or(last_modified),
        checked: checked(conn, source)?.unwrap_or(UNIX_EPOCH),
    }))
}

/// Keeps a catalog in place of the one before. Its body is written into place.
pub fn set_catalog(
    conn: &Connection,
    source: &SourceName,
    c: &SavedCatalog,
) -> rusqlite::Result<()> {
    let len = ZeroBlob(c.body.len() as u64);
    conn.prepare_cached("INSERT OR REPLACE INTO catalogs VALUES (?1, ?2, NULL, NULL, 0)")?
        .execute(params![source.as_str(), len])?;
    let row = conn.last_insert_rowid();
    conn.blob_open("main", "catalogs", "body", row, false)?.write_all_at(&c.body, 0)?;
    set_text_mark(conn, "etag", source, c.etag.as_deref())?;
    set_text_mark(conn, "modified", source, c.last_modified.as_deref())?;
    set_checked(conn, source, c.checked)
}

/// Notes that a catalog is still right.
pub fn set_checked(conn: &Connection, source: &SourceName, at: SystemTime) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO meta SELECT ?2, ?3 WHERE EXISTS
         (SELECT 1 FROM catalogs WHERE source = ?1)",
    )?
    .execute(params![source.as_str(), mark("checked", source), millis(at)])
    .map(drop)
}

/// A manifest, if it is there and still has its hash.
pub fn manifest(conn: &Connection, hash: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    let body: Option<Vec<u8>> = conn
        .prepare_cached("SELECT body FROM manifests WHERE hash = ?1")?
        .query_row([hash.as_bytes()], |r| r.get(0))
        .optional()?;
    Ok(body.filter(|b| hash::sha256(b) == *hash))
}

/// The trace of a version's load, if one was kept.
pub fn trace(conn: &Connection, hash: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare_cached("SELECT body FROM traces WHERE hash = ?1")?
        .query_row([hash.as_bytes()], |r| r.get(0))
        .optional()
}

/// Bytes of the trace of a version's load, if one was kept.
pub fn trace_len(conn: &Connection, hash: &Digest) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached("SELECT length(body) FROM traces WHERE hash = ?1")?
        .query_row([hash.as_bytes()], |r| r.get::<_, u32>(0))
        .optional()
        .map(|len| len.map(u64::from))
}

/// Keeps a trace, and of all of them the last so many.
pub fn set_trace(
    conn: &Connection,
    hash: &Digest,
    body: &[u8],
    now: u32,
    most: u32,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO traces (hash, used, body) VALUES (?1, ?2, ?3)")?
        .execute(params![hash.as_bytes(), now, body])?;
    let old = "DELETE FROM traces WHERE hash NOT IN
        (SELECT hash FROM traces ORDER BY used DESC, hash LIMIT ?1)";
    conn.prepare_cached(old)?.execute([most]).map(drop)
}

/// Forgets a trace. Whether there was one.
pub fn forget_trace(conn: &Connection, hash: &Digest) -> rusqlite::Result<bool> {
    let mut delete = conn.prepare_cached("DELETE FROM traces WHERE hash = ?1")?;
    delete.execute([hash.as_bytes()]).map(|n| n > 0)
}

/// Whether a manifest is there and still has its hash.
pub fn has_manifest(conn: &Connection, hash: &Digest) -> rusqlite::Result<bool> {
    manifest(conn, hash).map(|m| m.is_some())
}

/// Keeps a manifest.
pub fn set_manifest(conn: &Connection, hash: &Digest, body: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO manifests VALUES (?1, ?2)")?
        .execute(params![hash.as_bytes(), body])
        .map(drop)
}

/// How many bytes a catalog (`source`) takes already.
pub fn catalog_len(conn: &Connection, source: &SourceName) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT length(body) FROM catalogs WHERE source = ?1")?
        .query_row([source.as_str()], |r| r.get(0))
        .optional()
        .map(|n: Option<i64>| n.map_or(0, |n| n as u64))
}

/// Copies into `new` what can still be read of `old`; how many rows of each kind
/// (pins, catalogs, manifests). A row that cannot be read ends its kind.
pub fn salvage(old: &Connection, new: &Connection) -> [usize; 3] {
    let pins = (|| -> rusqlite::Result<usize> {
        let mut select =
            old.prepare("SELECT source, grp, model, version, hash, owner, since, id FROM pins")?;
        let mut blobs = old.prepare("SELECT key FROM pin_blobs WHERE pin = ?1")?;
        let mut rows = select.query([])?;
        let mut n = 0;
        while let Ok(Some(r)) = rows.next() {
            if let Ok(Some(pin)) = pin_of(r) {
                let keys = blobs.query_map([r.get::<_, i64>(7)?], |r| {
                    Ok(ContentKey::new(Digest::from_bytes(r.get(0)?)))
                })?;
                add_pin(new, &pin, &keys.filter_map(Result::ok).collect::<Vec<_>>())?;
                n += 1;
            }
        }
        Ok(n)
    })();
    let catalogs = (|| -> rusqlite::Result<usize> {
        let mut select = old.prepare("SELECT source FROM catalogs")?;
        let sources = select.query_map([], source_at)?;
        let mut n = 0;
        for source in sources.map_while(Result::ok) {
            if let Ok(Some(c)) = catalog(old, &source) {
                set_catalog(new, &source, &c)?;
                n += 1;
            }
        }
        Ok(n)
    })();
    let manifests = (|| -> rusqlite::Result<usize> {
        let mut select = old.prepare("SELECT hash, body FROM manifests")?;
        let rows =
            select.query_map([], |r| Ok((r.get::<_, [u8; 32]>(0)?, r.get::<_, Vec<u8>>(1)?)))?;
        let mut n = 0;
        for (hash, body) in rows.map_while(Result::ok) {
            if hash::sha256(&body).as_bytes() == &hash {
                set_manifest(new, &Digest::from_bytes(hash), &body)?;
                n += 1;
            }
        }
        Ok(n)
    })();
    [pins.unwrap_or(0), catalogs.unwrap_or(0), manifests.unwrap_or(0)]
}
