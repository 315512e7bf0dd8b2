//! The real disk: holes, shared blocks and advice where the system has them, plain files elsewhere.
//!
//! Invariant: blob files are never writable by their mode, and nothing but ordinary files is opened,
//! followed or removed: a link, pipe or folder under a blob's name does not exist for the store. No
//! state but what the system was found to be able to; any thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Access, Disk, DiskFile, FileStat};

/// The most bytes written in one call. What is written at once gets pages in one block of memory,
/// and blocks of 2 MiB are what a virtual machine gives back to its host: taking them from there
/// again was ten times slower than writing. Below that, calls cost nothing that can be measured.
const WRITE_MOST: usize = 1 << 20;

/// Files below a folder of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    holes: OnceLock<bool>,
}

#[derive(Debug)]
struct RealFile(File);

impl RealDisk {
    /// Below this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), holes: OnceLock::new() }
    }

    fn open_writable(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match open_ordinary(path, &mut options) {
            // mode 0400 keeps all users but root out, also the owner: the mode is changed for a moment
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let mode =
                    |mode| set_mode(&open_ordinary(path, OpenOptions::new().read(true))?, mode);
                mode(0o600)?;
                let file = open_ordinary(path, &mut options);
                mode(0o400)?;
                file
            }
            other => other,
        }
    }

    /// Tries a hole in a scratch file.
    fn probe(&self) -> bool {
        let path = self.root.join(".holes");
        let tried = (|| -> io::Result<bool> {
            let _ = std::fs::remove_file(&path);
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).open(&path).map(RealFile)?;
            file.write_at(&[1; 8192], 0)?;
            match file.punch(0, 4096) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(false),
                Err(e) => Err(e),
            }
        })();
        let _ = std::fs::remove_file(&path);
        tried.unwrap_or(true)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(path);
        let file = match access {
            Access::Read => open_ordinary(&path, OpenOptions::new().read(true))?,
            Access::Write => self.open_writable(&path)?,
            Access::Create => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o400);
                match options.open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        self.open_writable(&path)?
                    }
                    other => other?,
                }
            }
        };
        Ok(Arc::new(RealFile(file)))
    }

    fn open_shared(&self, path: &Path) -> io::Result<Option<File>> {
        let file = open_ordinary(&self.root.join(path), OpenOptions::new().read(true))?;
        // a lock of the open file, not of the process: it lives in the kernel for as long as the
        // kernel itself reads the file, even when no process of ours does
        match file.try_lock_shared() {
            // without leases it could not be told later who has mapped it
            #[cfg(target_os = "linux")]
            Ok(()) if super::lease::is_open_elsewhere(&file).is_err() => Ok(None),
            Ok(()) => Ok(Some(file)),
            // another process tests the lock, or the file system has no locks
            Err(_) => Ok(None),
        }
    }

    fn is_shared(&self, path: &Path) -> bool {
        let path = self.root.join(path);
        let file = match open_ordinary(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return true;
        }
        // the mark goes with the last handle, the kernel's own descriptor with the last map
        #[cfg(target_os = "linux")]
        if let Ok(open) = super::lease::is_open_elsewhere(&file) {
            return open;
        }
        false
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        ordinary(&std::fs::symlink_metadata(&path)?)?;
        std::fs::remove_file(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(self.root.join(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // Windows has no such thing; its file systems journal names
        if cfg!(unix) { File::open(self.root.join(path))?.sync_all() } else { Ok(()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        // names that are not UTF-8 are not ours
        entries.filter_map(|e| e.map(|e| e.file_name().into_string().ok()).transpose()).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let meta = std::fs::symlink_metadata(self.root.join(path))?;
        ordinary(&meta)?;
        Ok(stat_of(&meta))
    }

    fn free(&self) -> io::Result<u64> {
        #[cfg(unix)]
        {
            let s = rustix::fs::statvfs(&self.root)?;
            if s.f_blocks == 0 {
                // one that tells nothing
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(s.f_bavail.saturating_mul(s.f_frsize))
        }
        #[cfg(not(unix))]
        Ok(u64::MAX)
    }

    fn boot(&self) -> Option<i64> {
        boot()
    }

    fn holes(&self) -> bool {
        *self.holes.get_or_init(|| self.probe())
    }
}

/// Opens a file by its name, but no link, and nothing that would keep us waiting or is no file.
fn open_ordinary(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags as i32);
    }
    let opened = options.open(path);
    #[cfg(unix)]
    if let Err(e) = &opened {
        use rustix::io::Errno;
        let errno = Errno::from_io_error(e);
        if matches!(errno, Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NOTDIR)) {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    let file = opened?;
    ordinary(&file.metadata()?)?;
    Ok(file)
}

/// Only ordinary files count as there.
fn ordinary(meta: &std::fs::Metadata) -> io::Result<()> {
    if meta.is_file() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn stat_of(m: &std::fs::Metadata) -> FileStat {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let changed = m.ctime().saturating_mul(1_000_000_000).saturating_add(m.ctime_nsec());
        FileStat { len: m.len(), allocated: m.blocks() * 512, changed }
    }
    #[cfg(not(unix))]
    {
        let since = m.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let changed = since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        FileStat { len: m.len(), allocated: m.len(), changed }
    }
}

/// The kernel draws a new number at each boot; the first half of it is enough to tell two apart.
fn boot() -> Option<i64> {
    if cfg!(target_os = "linux") {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).ok().map(u64::cast_signed)
    } else {
        None
    }
}

fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, mode);
        Ok(())
    }
}

#[cfg(unix)]
fn pread(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}
#[cfg(windows)]
fn pread(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}
#[cfg(unix)]
fn pwrite(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, buf, offset)
}
#[cfg(windows)]
fn pwrite(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, buf, offset)
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match pread(&self.0, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let end = bytes.len().min(done + WRITE_MOST);
            match pwrite(&self.0, &bytes[done..end], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::FallocateFlags as F;
            rustix::fs::fallocate(&self.0, F::PUNCH_HOLE | F::KEEP_SIZE, offset, len)?;
            Ok(())
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn copy_from(&self, source: &dyn DiskFile, from: u64, to: u64, len: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            // FICLONERANGE by another name: where blocks can be shared the kernel shares them
            let Some(source) = source.as_file() else { return Ok(false) };
            let (mut from, mut to, mut left) = (from, to, len);
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(usize::MAX);
                match rustix::fs::copy_file_range(
                    source,
                    Some(&mut from),
                    &self.0,
                    Some(&mut to),
                    want,
                ) {
                    Ok(0) => return Ok(false),
                    Ok(n) => left -= n as u64,
                    Err(Errno::INTR) => {}
                    Err(Errno::NOSPC | Errno::DQUOT | Errno::IO) => return Ok(false),
                    // another file system, or one that has no such call
                    Err(_) => return Ok(false),
                }
            }
            Ok(true)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (source, from, to, len);
            Ok(false)
        }
    }

    fn is_solid(&self, offset: u64, len: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Hole(offset)) {
                Ok(hole) => Ok(hole >= offset + len),
                // it ends before
                Err(rustix::io::Errno::NXIO) => Ok(false),
                // a file system that cannot tell
                Err(rustix::io::Errno::INVAL) => Ok(true),
                Err(e) => Err(e.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Ok(true)
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.0.metadata().map(|m| stat_of(&m))
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.0)
    }

    fn forget(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            let len = std::num::NonZeroU64::new(len);
            let _ = rustix::fs::fadvise(&self.0, offset, len, rustix::fs::Advice::DontNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_modes_and_shares() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        disk.make_folder(Path::new("a/b")).unwrap();
        disk.make_folder(Path::new("a/b")).unwrap();
        let path = Path::new("a/b/c");
        let file = disk.open(path, Access::Create).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_at(&[7; 65536], 0).unwrap();
        file.sync().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode =
                |p: &str| std::fs::metadata(dir.path().join(p)).unwrap().permissions().mode();
            assert_eq!((mode("a/b/c") & 0o777, mode("a/b") & 0o777), (0o400, 0o700));
        }
        if disk.holes() {
            let before = file.stat().unwrap().allocated;
            file.punch(0, 32768).unwrap();
            assert!(file.stat().unwrap().allocated < before);
        }
        assert!(!file.is_solid(0, 4096).unwrap() || !disk.holes());
        assert!(file.is_solid(32768, 32768).unwrap());
        assert_eq!(file.stat().unwrap().len, 1 << 20);
        let other = disk.open(Path::new("a/b/d"), Access::Create).unwrap();
        if other.copy_from(file.as_ref(), 32768, 4096, 4096).unwrap() {
            let mut buf = [0; 4096];
            assert_eq!(other.read_at(&mut buf, 4096).unwrap(), 4096);
            assert_eq!(buf, [7; 4096]);
        }
        drop(file);
        assert!(!disk.is_shared(path));
        let shared = disk.open_shared(path).unwrap();
        assert!(disk.is_shared(path));
        drop(shared);
        assert!(!disk.is_shared(path));
        assert!(!disk.is_shared(Path::new("nowhere")));
        assert_eq!(
            disk.open(path, Access::Write).unwrap().read_at(&mut [0; 9], 1 << 20).unwrap(),
            0
        );
        assert_eq!(disk.list(Path::new("nowhere")).unwrap(), Vec::<String>::new());
        disk.remove(path).unwrap();
        assert_eq!(disk.list(Path::new("a/b")).unwrap(), ["d"]);
    }
}
