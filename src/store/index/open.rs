//! Opening the index: sound, older, newer, damaged.
//!
//! Invariant: what is not surely ours and sound is never used nor overwritten: it is set aside
//! under another name, and what can be read of its names is carried over.

use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::{Durability, Index, configure, is_damage, names, rows, schema, with_suffix};
use crate::store::error::StoreError;

const NAME: &str = "index.db";
/// What names of set-aside indexes begin with.
const ASIDE: &str = "index.db.corrupt-";

/// An open index.
pub struct Opened {
    /// The index.
    pub index: Index,
    /// Whether it was closed in good order and the disk is just as it says.
    pub clean: bool,
}

/// Opens or makes the index below `root`. `sound` reads what will be needed of it: damage that
/// only shows there counts as well.
pub fn open<T>(
    root: &Path,
    now: SystemTime,
    sound: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> Result<(Opened, T), StoreError> {
    let path = root.join(NAME);
    let fail = |e: rusqlite::Error| StoreError::Index(e.to_string());
    let mut found = path.exists();
    loop {
        match try_open(&path, found, &sound) {
            Ok(Tried::Sound(conn, clean, read)) => {
                let index = Index { path, conn: Mutex::new(conn), damaged: false.into() };
                // from here on the disk may run ahead of the index
                index.write(Durability::Full, |tx| rows::set_meta(tx, "clean", 0))?;
                return Ok((Opened { index, clean }, read));
            }
            Ok(Tried::Newer(found)) => {
                let known = schema::MIGRATIONS.len() as u32;
                return Err(StoreError::Newer { path, found, known });
            }
            Err(e) if is_damage(&e) && found => {
                let why = e.to_string();
                drop(e);
                set_aside(root, now, &why)?;
                found = false;
            }
            Err(e) => return Err(fail(e)),
        }
    }
}

enum Tried<T> {
    Sound(Connection, bool, T),
    Newer(u32),
}

fn try_open<T>(
    path: &Path,
    found: bool,
    sound: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<Tried<T>> {
    let mut conn = Connection::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // the folder's 0700 is what counts; this is for those who copy it elsewhere
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    }
    let version = schema::version(&conn)?;
    if version as usize > schema::MIGRATIONS.len() {
        return Ok(Tried::Newer(version));
    }
    configure(&conn)?;
    let clean = found && version > 0 && rows::meta(&conn, "clean")? == Some(1);
    if found && !clean {
        let said: String = conn.pragma_query_value(None, "quick_check", |r| r.get(0))?;
        if said != "ok" {
            tracing::warn!(said, "the index did not pass its check");
            return Err(damage());
        }
    }
    schema::migrate(&mut conn, schema::MIGRATIONS)?;
    let read = sound(&conn)?;
    Ok(Tried::Sound(conn, clean, read))
}

fn damage() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, None)
}

/// Renames a damaged index and starts a new one with what can be read of the old one's names.
/// Only the latest is kept: they count against the limit.
fn set_aside(root: &Path, now: SystemTime, why: &str) -> Result<(), StoreError> {
    let path = root.join(NAME);
    for old in aside(root) {
        let _ = std::fs::remove_file(root.join(old));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let to = root.join(format!("{ASIDE}{seconds}"));
    for suffix in ["-wal", "-shm", "-journal", ""] {
        match std::fs::rename(with_suffix(&path, suffix), with_suffix(&to, suffix)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::disk(&path, "set the damaged index aside")(e));
            }
            _ => {}
        }
    }
    tracing::warn!(
        why,
        kept = %to.display(),
        "the index is damaged: it is set aside and a new one made from the blobs"
    );
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(&to, flags) else { return Ok(()) };
    let build = || -> rusqlite::Result<[usize; 3]> {
        let mut new = Connection::open(&path)?;
        configure(&new)?;
        schema::migrate(&mut new, schema::MIGRATIONS)?;
        let tx = new.transaction()?;
        let saved = names::salvage(&old, &tx);
        tx.commit()?;
        Ok(saved)
    };
    match build() {
        Ok([pins, catalogs, manifests]) => {
            tracing::warn!(pins, catalogs, manifests, "carried over from the damaged index");
        }
        Err(e) => tracing::warn!(error = %e, "nothing carried over from the damaged index"),
    }
    Ok(())
}

/// The files of set-aside indexes below `root`.
pub fn aside(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter(|n| n.starts_with(ASIDE)).collect()
}
