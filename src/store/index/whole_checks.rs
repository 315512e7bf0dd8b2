//! Whether blobs whose ranges were proved have matched the digest of the whole. SQL and nothing else.
//!
//! The key of such a blob commits to both digests, so that a row holds for ever, also after eviction.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::ContentKey;

/// Bytes that a row takes.
pub const ROW: u64 = 64;

/// What was found, if the blob was compared.
pub fn find(conn: &Connection, key: &ContentKey) -> rusqlite::Result<Option<bool>> {
    let sql = "SELECT matched FROM whole_checks WHERE blob = ?1";
    conn.prepare_cached(sql)?.query_row(params![key.digest().as_bytes()], |r| r.get(0)).optional()
}

/// Keeps what was found.
pub fn set(conn: &Connection, key: &ContentKey, matched: bool) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO whole_checks (blob, matched) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute(params![key.digest().as_bytes(), matched]).map(drop)
}
