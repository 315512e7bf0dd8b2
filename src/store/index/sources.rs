//! The rows of sources: their addresses, and giving a source another name.
//!
//! Functions of a connection; the caller decides on transaction and durability. Invariant: a rename loses
//! no pin and no node that the new name does not have already.

use rusqlite::{Connection, OptionalExtension, params};

use super::garbage::forget_catalog;
use super::names::{catalog, catalog_len, set_catalog, source_at};
use crate::model::SourceName;

/// A source that is in use.
#[derive(Debug, Clone, Copy)]
pub struct SourceRow<'a> {
    /// Its name.
    pub name: &'a SourceName,
    /// Its URL or folder, without credentials.
    pub url: &'a str,
    /// The format of its documents.
    pub format: &'a str,
    /// When it is used, in seconds.
    pub used: u32,
}

/// What a renamed source's rows take at most in the log, beside its catalog: per node, the node in two
/// places, and per pin.
const PER_NODE: u64 = 96;
const PER_PIN: u64 = 4096;

/// When a source was last used, in seconds, if the index says all the rest of it.
pub fn last_used(conn: &Connection, source: &SourceRow<'_>) -> rusqlite::Result<Option<u32>> {
    let used: Option<Option<u32>> = conn
        .prepare_cached("SELECT used FROM sources WHERE name = ?1 AND url = ?2 AND format = ?3")?
        .query_row(params![source.name.as_str(), source.url, source.format], |r| r.get(0))
        .optional()?;
    Ok(used.flatten())
}

/// Notes that a source is used, and where it is now.
pub fn set_source(conn: &Connection, source: &SourceRow<'_>) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO sources VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![source.name.as_str(), source.url, source.format, source.used])
        .map(drop)
}

/// The sources that there is anything of.
pub fn sources(conn: &Connection) -> rusqlite::Result<Vec<SourceName>> {
    conn.prepare_cached(
        "SELECT source FROM catalogs UNION SELECT source FROM pins UNION SELECT source FROM nodes",
    )?
    .query_map([], source_at)?
    .collect()
}

/// Forgets where sources are that there is nothing of, but for those that `keep` says.
pub fn forget_empty(conn: &Connection, keep: impl Fn(&SourceName) -> bool) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached(
        "SELECT name FROM sources
         WHERE NOT EXISTS (SELECT 1 FROM catalogs WHERE source = name)
         AND NOT EXISTS (SELECT 1 FROM pins WHERE source = name)
         AND NOT EXISTS (SELECT 1 FROM nodes WHERE source = name)",
    )?;
    let empty = select.query_map([], source_at)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut delete = conn.prepare_cached("DELETE FROM sources WHERE name = ?1")?;
    empty
        .iter()
        .filter(|name| !keep(name))
        .try_for_each(|name| delete.execute([name.as_str()]).map(drop))
}

/// What renaming a source makes the index grow by at most; `None` if there is nothing to rename.
pub fn rename_cost(
    conn: &Connection,
    from: &SourceName,
    to: &SourceName,
) -> rusqlite::Result<Option<u64>> {
    let (nodes, bytes): (u32, i64) = conn
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(grp) + length(model) + length(version)
             + length(hash)), 0) FROM nodes WHERE source = ?1",
        )?
        .query_row([from.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let pins: u32 = conn
        .prepare_cached("SELECT count(*) FROM pins WHERE source = ?1")?
        .query_row([from.as_str()], |r| r.get(0))?;
    let has_catalog =
        conn.prepare_cached("SELECT 1 FROM catalogs WHERE source = ?1")?.exists([from.as_str()])?;
    if nodes == 0 && pins == 0 && !has_catalog {
        return Ok(None);
    }
    let name = to.as_str().len() as u64;
    // characters have up to four bytes
    let nodes = u64::from(nodes) * (3 * name + PER_NODE) + 3 * 4 * bytes as u64;
    Ok(Some(nodes + u64::from(pins) * PER_PIN + catalog_len(conn, from)?))
}

/// Gives what is known of a source another name. What that has already stays as it is: its node of a
/// key, its catalog; of two equal pins the older counts, for the blobs of both.
pub fn rename(conn: &Connection, from: &SourceName, to: &SourceName) -> rusqlite::Result<()> {
    let both = params![from.as_str(), to.as_str()];
    conn.execute("UPDATE OR IGNORE nodes SET source = ?2 WHERE source = ?1", both)?;
    conn.execute("DELETE FROM nodes WHERE source = ?1", [from.as_str()])?;
    // of equal pins, `a` has the old name and goes, `b` has the new one and stays
    conn.execute(
        "INSERT OR IGNORE INTO pin_blobs SELECT b.id, key FROM pin_blobs
         JOIN pins a ON pin = a.id JOIN pins b USING (grp, model, version, hash, owner)
         WHERE a.source = ?1 AND b.source = ?2",
        both,
    )?;
    conn.execute(
        "UPDATE pins AS b SET since = min(b.since, a.since) FROM pins AS a
         WHERE a.source = ?1 AND b.source = ?2 AND a.grp = b.grp AND a.model = b.model
         AND a.version = b.version AND a.hash = b.hash AND a.owner = b.owner",
        both,
    )?;
    conn.execute("UPDATE OR IGNORE pins SET source = ?2 WHERE source = ?1", both)?;
    conn.execute(
        "DELETE FROM pin_blobs WHERE pin IN (SELECT id FROM pins WHERE source = ?1)",
        [from.as_str()],
    )?;
    conn.execute("DELETE FROM pins WHERE source = ?1", [from.as_str()])?;
    // an UPDATE would build the whole row in memory, twice
    if !conn.prepare("SELECT 1 FROM catalogs WHERE source = ?1")?.exists([to.as_str()])?
        && let Some(saved) = catalog(conn, from)?
    {
        set_catalog(conn, to, &saved)?;
    }
    forget_catalog(conn, from)?;
    conn.execute("DELETE FROM sources WHERE name = ?1", [from.as_str()]).map(drop)
}

/// Copies into `new` what can be read of where sources are.
pub fn salvage(old: &Connection, new: &Connection) -> rusqlite::Result<()> {
    // an index of an earlier program has no such table
    let Ok(mut select) = old.prepare("SELECT name, url, format, used FROM sources") else {
        return Ok(());
    };
    let mut rows = select.query([])?;
    while let Ok(Some(r)) = rows.next() {
        let (name, url, format) =
            (r.get::<_, String>(0), r.get::<_, String>(1), r.get::<_, String>(2));
        if let (Ok(name), Ok(url), Ok(format)) = (name, url, format) {
            let used: Option<u32> = r.get(3).unwrap_or(None);
            new.execute(
                "INSERT OR REPLACE INTO sources VALUES (?1, ?2, ?3, ?4)",
                params![name, url, format, used],
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::model::{ContentKey, Digest};
    use crate::store::index::{names, schema};
    use crate::store::types::{NodeId, NodeKey, Pin, SavedCatalog};

    const URL: &str = "https://h/x";

    fn unnamed() -> SourceName {
        SourceName::of_address(URL)
    }

    fn named() -> SourceName {
        SourceName::configured("hub").unwrap()
    }

    fn index() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, schema::MIGRATIONS, &|| Ok(())).unwrap();
        conn
    }

    fn key(version: &str) -> NodeKey {
        let hash = Digest::from_bytes([7; 32]);
        NodeKey::Version { group: "g".into(), model: "m".into(), version: version.into(), hash }
    }

    fn node(conn: &Connection, source: &SourceName, version: &str) -> NodeId {
        names::node_id(conn, source, &key(version)).unwrap().unwrap()
    }

    fn pin(source: &SourceName, version: &str, since: u64) -> Pin {
        Pin {
            source: source.clone(),
            version: format!("g/m@{version}").parse().unwrap(),
            hash: Digest::from_bytes([7; 32]),
            owner: "ann".into(),
            since: UNIX_EPOCH + Duration::from_secs(since),
        }
    }

    fn blob(n: u8) -> ContentKey {
        ContentKey::new(Digest::from_bytes([n; 32]))
    }

    fn save(conn: &Connection, source: &SourceName, body: &[u8]) {
        let saved = SavedCatalog {
            body: body.to_vec(),
            etag: Some("7".into()),
            last_modified: None,
            checked: SystemTime::UNIX_EPOCH + Duration::from_secs(9),
        };
        names::set_catalog(conn, source, &saved).unwrap();
    }

    fn count(conn: &Connection, what: &str) -> u32 {
        conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |r| r.get(0)).unwrap()
    }

    #[test]
    fn a_source_that_gets_a_name_keeps_pins_numbers_and_catalog() {
        let conn = index();
        let id = node(&conn, &unnamed(), "v");
        names::add_pin(&conn, &pin(&unnamed(), "v", 5), &[blob(1)]).unwrap();
        save(&conn, &unnamed(), b"listing");
        assert!(rename_cost(&conn, &unnamed(), &named()).unwrap() > Some(4096));
        rename(&conn, &unnamed(), &named()).unwrap();
        assert_eq!(names::node(&conn, id).unwrap(), Some((named(), key("v"))));
        assert_eq!(names::pins(&conn).unwrap(), [pin(&named(), "v", 5)]);
        assert_eq!(names::owners(&conn, &blob(1)).unwrap(), ["ann"]);
        let saved = names::catalog(&conn, &named()).unwrap().unwrap();
        assert_eq!((saved.body, saved.etag.as_deref()), (b"listing".to_vec(), Some("7")));
        assert_eq!(saved.checked, UNIX_EPOCH + Duration::from_secs(9));
        assert!(names::checked(&conn, &unnamed()).unwrap().is_none());
        assert_eq!(sources(&conn).unwrap(), [named()]);
        assert_eq!(rename_cost(&conn, &unnamed(), &named()).unwrap(), None);
    }

    #[test]
    fn a_name_that_has_some_of_it_gets_the_rest() {
        let conn = index();
        let ours = node(&conn, &named(), "both");
        let theirs = node(&conn, &unnamed(), "both");
        let other = node(&conn, &unnamed(), "other");
        names::add_pin(&conn, &pin(&named(), "both", 8), &[blob(1)]).unwrap();
        names::add_pin(&conn, &pin(&unnamed(), "both", 3), &[blob(1), blob(2)]).unwrap();
        names::add_pin(&conn, &pin(&unnamed(), "other", 4), &[blob(3)]).unwrap();
        save(&conn, &named(), b"new");
        save(&conn, &unnamed(), b"old");
        rename(&conn, &unnamed(), &named()).unwrap();
        assert_eq!(names::node(&conn, ours).unwrap(), Some((named(), key("both"))));
        assert_eq!(names::node(&conn, theirs).unwrap(), None);
        assert_eq!(names::node(&conn, other).unwrap(), Some((named(), key("other"))));
        let pins = names::pins(&conn).unwrap();
        assert_eq!(pins, [pin(&named(), "both", 3), pin(&named(), "other", 4)]);
        assert_eq!(names::pinned_blobs(&conn).unwrap(), (1..=3).map(blob).collect());
        assert_eq!(count(&conn, "pin_blobs"), 3, "none of a pin that went");
        assert_eq!(names::catalog(&conn, &named()).unwrap().unwrap().body, b"new");
        assert_eq!(sources(&conn).unwrap(), [named()]);
        assert_eq!(count(&conn, "meta"), 2, "what is known of one catalog");
    }

    #[test]
    fn an_index_of_the_program_before_names_has_its_sources_by_their_addresses() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn, &schema::MIGRATIONS[..4], &|| Ok(())).unwrap();
        save(&conn, &SourceName::of_address("/srv/x"), b"{}");
        node(&conn, &unnamed(), "v");
        names::add_pin(&conn, &pin(&unnamed(), "v", 5), &[]).unwrap();
        schema::migrate(&mut conn, schema::MIGRATIONS, &|| Ok(())).unwrap();
        let mut select = conn.prepare("SELECT name, url, format, used FROM sources").unwrap();
        let rows = select.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)));
        type Row = (String, String, String, Option<u32>);
        let rows: Vec<Row> = rows.unwrap().map(Result::unwrap).collect();
        let row = |at: &str| (at.to_owned(), at.to_owned(), "xprim".to_owned(), None);
        assert_eq!(rows, [row("/srv/x"), row(URL)]);
    }

    #[test]
    fn a_source_is_forgotten_with_the_last_that_is_known_of_it() {
        let conn = index();
        for name in ["hub", "idle", "used"] {
            let name = &SourceName::configured(name).unwrap();
            set_source(&conn, &SourceRow { name, url: URL, format: "xprim", used: 1 }).unwrap();
        }
        node(&conn, &named(), "v");
        forget_empty(&conn, |name| name.as_str() == "used").unwrap();
        let mut select = conn.prepare("SELECT name FROM sources").unwrap();
        let left = select.query_map([], |r| r.get::<_, String>(0)).unwrap();
        assert_eq!(left.map(Result::unwrap).collect::<Vec<_>>(), ["hub", "used"]);
    }

    #[test]
    fn where_sources_are_survives_a_damaged_index() {
        let (old, new) = (index(), index());
        let row = SourceRow { name: &named(), url: URL, format: "xprim", used: 12 };
        set_source(&old, &row).unwrap();
        salvage(&old, &new).unwrap();
        assert_eq!(last_used(&new, &row).unwrap(), Some(12));
        let mut before = Connection::open_in_memory().unwrap();
        schema::migrate(&mut before, &schema::MIGRATIONS[..4], &|| Ok(())).unwrap();
        salvage(&before, &new).unwrap();
        assert_eq!(count(&new, "sources"), 1);
    }
}
