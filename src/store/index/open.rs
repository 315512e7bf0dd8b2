//! Opening the index: sound, older, newer, damaged.
//!
//! Invariant: what is not surely ours and sound is never used nor overwritten: it is set aside
//! under another name, and what can be read of its names is carried over.

use parking_lot::Mutex;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};

use super::{
    Durability, Index, announce, configure, error_of, garbage, is_damage, names, rows, schema,
    sources, with_suffix,
};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::evidence::{Evidence, PreviousRun};

const NAME: &str = "index.db";
/// What names of set-aside indexes begin with.
const ASIDE: &str = "index.db.corrupt-";
/// The index that takes the place of one that was set aside, until it is whole.
const NEW: &str = "index.db.new";

/// The most that is read ahead: the index of two million objects.
#[cfg(target_os = "linux")]
const READ_AHEAD: u64 = 256 << 20;
/// Read ahead at once: of more, the kernel takes only the beginning.
#[cfg(target_os = "linux")]
const STEP: u64 = 128 << 10;

/// An open index.
pub struct Opened {
    /// The index.
    pub index: Index,
    /// It was closed cleanly and the disk is just as it says.
    pub agrees: bool,
    /// What makes a part that it claims believable.
    pub evidence: Evidence,
}

/// The numbers of this and the last use of a folder (see `disk::epoch`).
#[derive(Debug, Clone, Copy)]
pub struct Epochs {
    /// What the folder says; none: nothing.
    pub last: Option<i64>,
    /// From now on.
    pub next: i64,
}

/// What an index says of the last time that it was used.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// It was closed cleanly.
    clean: bool,
    /// Its epoch.
    epoch: Option<i64>,
    /// During which boot of the machine.
    boot: Option<i64>,
}

impl Before {
    fn run(self, epochs: Epochs, boot: Option<i64>) -> PreviousRun {
        PreviousRun {
            same_epoch: epochs.last.is_some() && epochs.last == self.epoch,
            clean: self.clean,
            same_boot: boot.is_some() && boot == self.boot,
        }
    }
}

/// Opens or makes the index below `root`. `sound` reads what will be needed of it:
/// damage that only shows there counts as well.
pub fn open<T>(
    root: &Path,
    disk: &Arc<dyn Disk>,
    now: SystemTime,
    epochs: Epochs,
    sound: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> Result<(Opened, T), StoreError> {
    let path = root.join(NAME);
    let fail = |e: rusqlite::Error| error_of(&e, &path, disk.as_ref());
    let mut found = path.exists();
    if !found {
        resume(root, disk.as_ref())?;
    }
    loop {
        match try_open(&path, disk.as_ref(), found, &sound) {
            Ok(Tried::Sound(conn, before, read)) => {
                let (disk, conn) = (disk.clone(), Mutex::new(conn));
                let boot = disk.boot();
                let previous = before.run(epochs, boot);
                let evidence = previous.evidence();
                let index = Index { path: path.clone(), disk, conn, damaged: false.into() };
                // from here on the disk may run ahead of the index
                index.write(Durability::Full, |tx| {
                    rows::set_meta(tx, "clean", 0)?;
                    rows::set_meta(tx, "epoch", epochs.next)?;
                    if evidence == Evidence::Checksum {
                        // nor may the process after this one believe them
                        rows::forget_stamps(tx)?;
                    }
                    match boot {
                        Some(boot) => rows::set_meta(tx, "boot", boot),
                        None => rows::forget_meta(tx, "boot"),
                    }
                })?;
                // in the database itself: without its log it must not look as if closed well
                index.checkpoint()?;
                let agrees = previous.clean && previous.same_epoch;
                return Ok((Opened { index, agrees, evidence }, read));
            }
            Ok(Tried::Newer(found)) => {
                let known = schema::MIGRATIONS.len() as u32;
                return Err(StoreError::Newer { path, found, known });
            }
            Err(e) if is_damage(&e) && found => {
                let why = e.to_string();
                drop(e);
                set_aside(root, disk.as_ref(), now, &why)?;
                found = false;
            }
            Err(e) => return Err(fail(e)),
        }
    }
}

/// What a database begins with, and where in its header `user_version` stands: 4 bytes, the first one
/// the highest (SQLite's file format, 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSION_AT: usize = 60;

/// Makes sure that the index below `root` can be written and is of a version that is known, while
/// another process has it open. Damage is no error: opening sets it aside. Not for a process that
/// has opened the index: SQLite's locks go with any descriptor of the file that is closed.
pub fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join(NAME);
    let fail = |e| Err(StoreError::disk(&path, "open the index")(e));
    let mut file = match std::fs::File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return fail(e),
    };
    let mut header = [0; VERSION_AT + 4];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(e) => return fail(e),
    }
    let known = schema::MIGRATIONS.len() as u32;
    let version = header.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    if header.starts_with(MAGIC) && version > known {
        return Err(StoreError::Newer { path, found: version, known });
    }
    Ok(())
}

enum Tried<T> {
    Sound(Connection, Before, T),
    Newer(u32),
}

fn try_open<T>(
    path: &Path,
    disk: &dyn Disk,
    found: bool,
    sound: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<Tried<T>> {
    read_ahead(path);
    let mut conn = Connection::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // the folder's 0700 is what counts; this is for those who copy it elsewhere
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    }
    // before the first look: a log that is opened to be shared gets a file for that
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let version = schema::version(&conn)?;
    if version as usize > schema::MIGRATIONS.len() {
        return Ok(Tried::Newer(version));
    }
    if version == 0 {
        garbage::prepare(&conn)?;
    }
    configure(&conn)?;
    let mut before = Before::default();
    if found && version > 0 {
        before.clean = rows::meta(&conn, "clean")? == Some(1);
        before.epoch = rows::meta(&conn, "epoch")?;
        before.boot = rows::meta(&conn, "boot")?;
    }
    if found && !before.clean {
        quick_check(&conn)?;
    }
    schema::migrate(&mut conn, schema::MIGRATIONS, &|| announce(disk, Durability::Full))?;
    let read = sound(&conn)?;
    Ok(Tried::Sound(conn, before, read))
}

/// Tables that SQLite need not check, in an index of a million objects half a second's work: what opening
/// reads of the first two certifies itself, and the third is a hint that is verified again.
const CERTIFIED: [&str; 3] = ["blobs", "segments", "objects"];

/// Has SQLite check the structure of all other tables.
fn quick_check(conn: &Connection) -> rusqlite::Result<()> {
    let mut tables = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = tables.query_map([], |r| r.get::<_, String>(0))?;
    for name in names.collect::<rusqlite::Result<Vec<_>>>()? {
        if CERTIFIED.contains(&name.as_str()) {
            continue;
        }
        let mut said = String::new();
        conn.pragma(None, "quick_check", &name, |r| {
            said = r.get(0)?;
            Ok(())
        })?;
        if said != "ok" {
            tracing::warn!(table = name, said, "the index did not pass its check");
            return Err(damage());
        }
    }
    Ok(())
}

/// Has the kernel fetch the index, of which SQLite would ask a page at a time. Before SQLite opens it:
/// its locks go with any descriptor of the file that is closed.
fn read_ahead(path: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(file) = std::fs::File::open(path) {
        let len = file.metadata().map_or(0, |m| m.len()).min(READ_AHEAD);
        for at in (0..len).step_by(STEP as usize) {
            // only advice
            let step = std::num::NonZeroU64::new(STEP);
            let _ = rustix::fs::fadvise(&file, at, step, rustix::fs::Advice::WillNeed);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

fn damage() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, None)
}

/// The files that a database is made of, by what follows its name. The database first: what is
/// left of one without its log would look sound, and old.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Renames a damaged index and starts a new one with what can be read of the old one's names.
/// Only the latest is kept: they count against the limit.
fn set_aside(root: &Path, disk: &dyn Disk, now: SystemTime, why: &str) -> Result<(), StoreError> {
    for old in aside(root) {
        step(root, disk)?;
        let _ = std::fs::remove_file(root.join(old));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let to = root.join(format!("{ASIDE}{seconds}"));
    tracing::warn!(
        why,
        kept = %to.display(),
        "the index is damaged: it is set aside and a new one made from the blobs"
    );
    start_anew(root, disk, &to)
}

/// Goes on where a start was cut short that had begun to set an index aside.
fn resume(root: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let part = |name: &str| FILES[1..].iter().any(|suffix| name.ends_with(suffix));
    match aside(root).into_iter().filter(|name| !part(name)).max() {
        Some(latest) => start_anew(root, disk, &root.join(latest)),
        None => Ok(()),
    }
}

fn step(root: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    disk.index_changes(false).map_err(StoreError::disk(&root.join(NAME), "set aside"))
}

/// Moves what is there of the index to `to`, and makes a new one with what can be read of that. It
/// gets its name when it is whole: until then the next start does this again.
fn start_anew(root: &Path, disk: &dyn Disk, to: &Path) -> Result<(), StoreError> {
    let (path, new) = (root.join(NAME), root.join(NEW));
    let gone = |r: std::io::Result<()>| match r {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::disk(&path, "set the damaged index aside")(e))
        }
        _ => Ok(()),
    };
    for suffix in FILES {
        step(root, disk)?;
        gone(std::fs::rename(with_suffix(&path, suffix), with_suffix(to, suffix)))?;
        gone(std::fs::remove_file(with_suffix(&new, suffix)))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(to, flags) else { return Ok(()) };
    let build = || -> rusqlite::Result<[usize; 3]> {
        // no log yet: a file without one can be renamed
        let mut new = Connection::open(&new)?;
        garbage::prepare(&new)?;
        schema::migrate(&mut new, schema::MIGRATIONS, &|| announce(disk, Durability::Full))?;
        announce(disk, Durability::Full)?;
        let tx = new.transaction()?;
        let saved = names::salvage(&old, &tx);
        sources::salvage(&old, &tx)?;
        tx.commit()?;
        new.close().map_err(|(_, e)| e)?;
        Ok(saved)
    };
    let [pins, catalogs, manifests] = build().map_err(|e| StoreError::Index(e.to_string()))?;
    step(root, disk)?;
    gone(std::fs::rename(&new, &path))?;
    tracing::warn!(pins, catalogs, manifests, "carried over from the damaged index");
    Ok(())
}

/// The files of set-aside indexes below `root`.
pub fn aside(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter(|n| n.starts_with(ASIDE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_a_newer_program_is_known_without_opening_it() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        for damaged in [&b""[..], b"SQLite", &[7; 100]] {
            std::fs::write(&path, damaged).unwrap();
            check(dir.path()).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        let known = schema::MIGRATIONS.len() as u32;
        // In use, as by the process that serves.
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
        for (version, well) in [(known, true), (known + 1, false), (u32::MAX / 2, false)] {
            conn.pragma_update(None, "user_version", version).unwrap();
            let checked = check(dir.path());
            assert_eq!(checked.is_ok(), well, "{version}: {checked:?}");
            if let Err(error) = checked {
                assert!(matches!(error, StoreError::Newer { found, .. } if found == version));
            }
        }
    }
}
