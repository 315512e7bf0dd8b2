//! The tables, and how an older index becomes a newer one.
//!
//! Invariant: `PRAGMA user_version` is the number of migrations that were applied; each is applied
//! in one transaction with its number. A migration that was ever released is never changed.

use rusqlite::{Connection, TransactionBehavior};

/// What makes version n+1 of version n.
pub const MIGRATIONS: &[&str] = &[
    // 1. `blobs.layout` is the preimage of the key. `segments` has a row iff the segment has a
    // durable part; `parts` is a bitmap, `seal` a check over (key, segment, parts), since SQLite
    // does not notice a flipped bit. `objects` says which piece of which blob has ranges of an
    // object, by the digest that is checked and by the claimed name.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
     CREATE TABLE blobs (
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         key BLOB NOT NULL UNIQUE, layout BLOB NOT NULL, len INTEGER NOT NULL);
     CREATE TABLE segments (
         blob INTEGER NOT NULL, segment INTEGER NOT NULL,
         parts BLOB NOT NULL, seal INTEGER NOT NULL, used INTEGER NOT NULL,
         PRIMARY KEY (blob, segment)) WITHOUT ROWID;
     CREATE TABLE objects (
         digest BLOB NOT NULL, blob INTEGER NOT NULL, piece INTEGER NOT NULL,
         PRIMARY KEY (digest, blob, piece)) WITHOUT ROWID;
     CREATE INDEX objects_of_blob ON objects (blob);
     CREATE TABLE pins (
         id INTEGER PRIMARY KEY,
         source TEXT NOT NULL, grp TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
         hash BLOB NOT NULL, owner TEXT NOT NULL, since INTEGER NOT NULL,
         UNIQUE (source, grp, model, version, hash, owner));
     CREATE TABLE pin_blobs (
         pin INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (pin, key)) WITHOUT ROWID;
     CREATE TABLE catalogs (
         source TEXT PRIMARY KEY, body BLOB NOT NULL, etag TEXT, last_modified TEXT,
         checked INTEGER NOT NULL);
     CREATE TABLE manifests (hash BLOB PRIMARY KEY, body BLOB NOT NULL);
     CREATE TABLE nodes (
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         source TEXT NOT NULL, grp TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
         hash BLOB NOT NULL,
         UNIQUE (source, grp, model, version, hash));",
    // 2. What loads of a version touched first, in order, as `model::trace` writes it. The body comes
    // last, so that a query for the rest does not read it.
    "CREATE TABLE traces (hash BLOB PRIMARY KEY, used INTEGER NOT NULL, body BLOB NOT NULL);",
    // 3. What a blob's file looked like when everything that is claimed of it was known to be right:
    // bytes that it took, and its change time in nanoseconds. A table of its own, since the rows of blobs
    // hold long layouts.
    "CREATE TABLE stamps (
         blob INTEGER PRIMARY KEY, allocated INTEGER NOT NULL, changed INTEGER NOT NULL);",
    // 4. When a manifest was last used, in seconds. Beside the manifests, so that a query for
    // the oldest reads their bodies.
    "CREATE TABLE uses (hash BLOB PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;",
    // 5. Where each source is. Rows are keyed by its name from here on: one that has no other is named by
    // its URL or folder, and that is what earlier programs wrote.
    "CREATE TABLE sources (
         name TEXT PRIMARY KEY, url TEXT NOT NULL, format TEXT NOT NULL, used INTEGER) WITHOUT ROWID;
     INSERT INTO sources SELECT source, source, 'xprim', NULL FROM
         (SELECT source FROM catalogs UNION SELECT source FROM pins UNION SELECT source FROM nodes);",
    // 6. How many bytes from the start of a piece on are in a blob's file and synced, but not verified yet.
    "CREATE TABLE unverified (
         blob INTEGER NOT NULL, piece INTEGER NOT NULL, len INTEGER NOT NULL,
         PRIMARY KEY (blob, piece)) WITHOUT ROWID;",
    "CREATE TABLE whole_checks (
         blob BLOB PRIMARY KEY, matched INTEGER NOT NULL) WITHOUT ROWID;",
];

/// The version of an open index.
pub fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |r| r.get(0))
}

/// Brings an index up to the version that has all `migrations`.
/// `before` is called before each.
pub fn migrate(
    conn: &mut Connection,
    migrations: &[&str],
    before: &dyn Fn() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    conn.pragma_update(None, "synchronous", "FULL")?;
    let from = version(conn)?;
    for (number, sql) in (1u32..).zip(migrations).skip(from as usize) {
        before()?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", number)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_index_is_brought_up_step_by_step_and_keeps_its_rows() {
        let mut conn = Connection::open_in_memory().unwrap();
        let old = ["CREATE TABLE t (a); INSERT INTO t VALUES (7);"];
        migrate(&mut conn, &old, &|| Ok(())).unwrap();
        let new = [old[0], "ALTER TABLE t ADD COLUMN b DEFAULT 1;", "UPDATE t SET b = a + b;"];
        migrate(&mut conn, &new, &|| Ok(())).unwrap();
        migrate(&mut conn, &new, &|| Ok(())).unwrap();
        let row = conn.query_row("SELECT a, b FROM t", [], |r| Ok((r.get(0)?, r.get(1)?)));
        assert_eq!((row.unwrap(), version(&conn).unwrap()), ((7, 8), 3));
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_before_it() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert!(
            migrate(&mut conn, &["CREATE TABLE t (a);", "INSERT INTO t VALUES (1); oops"], &|| Ok(
                ()
            ))
            .is_err()
        );
        assert_eq!(version(&conn).unwrap(), 1);
        let rows: u32 = conn.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 0);
    }
}
