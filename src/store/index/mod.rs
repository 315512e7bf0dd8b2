//! The index: one SQLite database, one connection, one transaction at a time.
//!
//! Invariant: a transaction that marks or unmarks parts returns only when it is durable
//! (`synchronous=FULL`); what may be lost without harm does not wait (`NORMAL`). Concurrency: one
//! connection behind one lock, inside which a blob's lock may be taken, never the other way round.

pub mod garbage;
pub mod names;
pub mod open;
pub mod rows;
mod schema;
pub mod sources;
pub mod whole_checks;

use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::base::units::ByteSize;
use crate::store::disk::Disk;
use crate::store::error::StoreError;

pub use open::{Epochs, open};

/// Pages of 4 KiB after which the log is folded into the database: 512 KiB, so that log and
/// database together stay small beside the smallest cache.
const LOG_PAGES: u32 = 128;
/// What the log is counted for at least: its usual full size, and the page or two it overshoots.
const LOG_BYTES: u64 = 640 << 10;
/// What a page of the database takes.
const PAGE: u64 = 4 << 10;
/// Free pages that are given back in one transaction: each moves a page and changes another or two,
/// which stays within what the log is counted for.
const GIVEN_BACK: u32 = 32;
/// Prepared statements that are cached: more than the store has.
const STATEMENTS: usize = 64;

/// Whether a transaction must outlive a power cut once it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes: data depends on it.
    Full,
    /// No: losing it costs only time.
    Normal,
}

/// The database.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    conn: Mutex<Connection>,
    /// SQLite reported at least once that it is damaged: it is checked at the next start.
    damaged: AtomicBool,
}

/// Whether an error means that the file is not, or no longer, a sound database.
pub fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            e,
            // what we wrote has these types; what has others was not written by us
            E::InvalidColumnType(..)
                | E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
        )
}

/// Tells the disk that the index is about to change.
fn announce(disk: &dyn Disk, durability: Durability) -> rusqlite::Result<()> {
    disk.index_changes(durability == Durability::Full).map_err(|e| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
        rusqlite::Error::SqliteFailure(code, Some(e.to_string()))
    })
}

/// The settings of every connection. Exclusive: one process has the store, and the log then needs
/// no shared-memory file.
fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_BYTES as i64)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// What SQLite said of the index at `path`.
fn error_of(e: &rusqlite::Error, path: &Path, disk: &dyn Disk) -> StoreError {
    let is_full = e.sqlite_error().is_some_and(|e| {
        // a quota is no full disk to SQLite, but a write that fails
        e.code == ErrorCode::DiskFull || e.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE
    });
    if is_full {
        let free = ByteSize(disk.free().unwrap_or(0));
        return StoreError::DiskFull { path: path.to_owned(), wanted: ByteSize(0), free };
    }
    StoreError::Index(e.to_string())
}

impl Index {
    fn error(&self, e: &rusqlite::Error) -> StoreError {
        if is_damage(e) {
            self.mark_damaged();
            tracing::error!(error = %e, "the index is damaged; it is rebuilt at the next start");
        }
        error_of(e, &self.path, self.disk.as_ref())
    }

    /// Has the next start check it as after a crash.
    fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Runs a transaction.
    pub fn write<T>(
        &self,
        durability: Durability,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut conn = self.conn.lock();
        let run = |conn: &mut Connection| {
            announce(self.disk.as_ref(), durability)?;
            let level = if durability == Durability::Full { "FULL" } else { "NORMAL" };
            conn.pragma_update(None, "synchronous", level)?;
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let out = f(&tx)?;
            tx.commit()?;
            Ok(out)
        };
        run(&mut conn).map_err(|e| self.error(&e))
    }

    /// Reads.
    pub fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        f(&self.conn.lock()).map_err(|e| self.error(&e))
    }

    /// Gives free pages back to the disk: a few at a time, so that the log stays small. An index of an
    /// earlier program is rewritten first, if `may_rewrite` allows what that takes in the log.
    pub fn shrink(&self, may_rewrite: impl FnOnce(u64) -> bool) -> Result<(), StoreError> {
        let (all, free) = self.read(garbage::pages)?;
        if free == 0 {
            return Ok(());
        }
        if !self.read(garbage::gives_back)? {
            // most of it has to be garbage for that to be worth it
            if free > all / 4 && may_rewrite((all - free) * PAGE) {
                self.run(garbage::rewrite)?;
            }
        } else {
            for _ in 0..free.div_ceil(u64::from(GIVEN_BACK)) {
                self.run(|conn| garbage::give_back(conn, GIVEN_BACK))?;
            }
        }
        self.checkpoint()
    }

    /// Runs what needs no transaction or makes its own.
    fn run(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let conn = self.conn.lock();
        announce(self.disk.as_ref(), Durability::Normal)
            .and_then(|()| conn.pragma_update(None, "synchronous", "NORMAL"))
            .and_then(|()| f(&conn))
            .map_err(|e| self.error(&e))
    }

    /// Moves the log into the database.
    fn checkpoint(&self) -> Result<(), StoreError> {
        let conn = self.conn.lock();
        announce(self.disk.as_ref(), Durability::Full)
            .and_then(|()| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .map_err(|e| self.error(&e))
    }

    /// What the index takes, and may take before this is asked again: folding the log into the
    /// database grows that by at most the log.
    pub fn footprint(&self) -> u64 {
        let len = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        len(&self.path) + 2 * len(&with_suffix(&self.path, "-wal")).max(LOG_BYTES)
    }

    /// Marks it as closed cleanly, unless it was found to be damaged.
    pub fn close(&self) -> Result<(), StoreError> {
        if !self.damaged.load(Ordering::Relaxed) {
            self.write(Durability::Full, |tx| rows::set_meta(tx, "clean", 1))?;
        }
        Ok(())
    }
}

/// `path` with something after its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
