//! A folder of a registry, opened once: its files are opened relative to it, without following links.
//!
//! The folder may belong to another user than the one that reads it or publishes into it: a link in
//! it would redirect that user's reads and writes, and a fifo would block them without end.
//! Invariant: a file that is handed out is a regular file below the folder, and opening it never
//! waits for another process. The folder itself may be reached through links: the user named it.
//! Stateless; every method may block on the file system.

use std::io;
use std::time::SystemTime;

#[cfg(unix)]
pub use with_descriptors::Beneath;
#[cfg(not(unix))]
pub use with_paths::Beneath;

/// Why a name in the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// A symbolic link is in the way.
    #[error("is a symbolic link or lies behind one: links in a registry's folder are not followed")]
    Link,
    /// A folder, a fifo, a socket, a device.
    #[error("is not a regular file")]
    NotFile,
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is there under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Whether it is a regular file; a link is not.
    pub is_file: bool,
    /// Its bytes.
    pub len: u64,
    /// When it was last modified, to the second; before 1970: in 1970.
    pub modified: SystemTime,
}

#[cfg(unix)]
mod with_descriptors {
    use std::fs::{File, Metadata};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};

    use super::{BeneathError, Looked};

    /// For walking: needs no right to list the folder.
    #[cfg(target_os = "linux")]
    const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    #[cfg(not(target_os = "linux"))]
    const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
    /// Without waiting, whatever it is that is opened: a fifo's writer, a terminal.
    const FILE: OFlags =
        OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

    /// A folder that is open.
    #[derive(Debug)]
    pub struct Beneath {
        folder: OwnedFd,
    }

    impl Beneath {
        /// The folder at `path`, which may lead through links.
        pub fn open(path: &Path) -> io::Result<Self> {
            Ok(Self { folder: fs::open(path, FOLDER, Mode::empty())? })
        }

        /// A folder directly in it.
        pub fn folder(&self, name: &str) -> Result<Self, BeneathError> {
            let opened = fs::openat(&self.folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
            let folder = opened.map_err(|e| self.refused(name, e.into()))?;
            Ok(Self { folder })
        }

        /// Opens a file to read it; `path` has parts joined by slashes.
        pub fn file(&self, path: &str) -> Result<(File, Metadata), BeneathError> {
            let opened = match self.at_once(path) {
                // The kernel is older than 5.6, or a sandbox does not know the call.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                    ) =>
                {
                    self.step_by_step(path)
                }
                other => other,
            };
            let file = File::from(opened.map_err(|e| self.refused(path, e))?);
            regular(file)
        }

        /// One call in which the kernel refuses every link and whatever leads out.
        #[cfg(target_os = "linux")]
        fn at_once(&self, path: &str) -> io::Result<OwnedFd> {
            use rustix::fs::ResolveFlags;
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = FILE | OFlags::RDONLY;
            Ok(fs::openat2(&self.folder, path, flags, Mode::empty(), resolve)?)
        }

        #[cfg(not(target_os = "linux"))]
        fn at_once(&self, _: &str) -> io::Result<OwnedFd> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// The same, one part of the path after the other.
        pub(super) fn step_by_step(&self, path: &str) -> io::Result<OwnedFd> {
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            let mut at: Option<OwnedFd> = None;
            for part in folders.split('/').chain([name]).filter(|part| !part.is_empty()) {
                if matches!(part, "." | "..") {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let last = std::ptr::eq(part, name);
                let flags = if last { FILE | OFlags::RDONLY } else { FOLDER | OFlags::NOFOLLOW };
                let folder = at.as_ref().unwrap_or(&self.folder);
                at = Some(fs::openat(folder, part, flags, Mode::empty())?);
            }
            at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
        }

        /// The error in words, if a link is the reason.
        fn refused(&self, path: &str, error: io::Error) -> BeneathError {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let is_link = |end| {
                let stat = fs::statat(&self.folder, &path[..end], AtFlags::SYMLINK_NOFOLLOW);
                stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_symlink())
            };
            match ends.into_iter().any(is_link) {
                true => BeneathError::Link,
                false => BeneathError::Io(error),
            }
        }

        /// What is there under a name.
        pub fn look(&self, name: &str) -> io::Result<Looked> {
            let stat = fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            // Seconds have other types on other systems.
            let seconds = u64::try_from(i128::from(stat.st_mtime)).unwrap_or_default();
            Ok(Looked {
                is_file: FileType::from_raw_mode(stat.st_mode).is_file(),
                len: u64::try_from(stat.st_size).unwrap_or_default(),
                modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            })
        }

        /// Opens a file in order to lock it; it is made if it is not there.
        pub fn to_lock(&self, name: &str) -> Result<File, BeneathError> {
            let flags = FILE | OFlags::WRONLY | OFlags::CREATE;
            let opened = fs::openat(&self.folder, name, flags, Mode::from_raw_mode(0o666));
            match opened {
                Ok(file) => Ok(regular(File::from(file))?.0),
                Err(e) => match self.look(name) {
                    // Such as a fifo, which cannot be opened for writing while no process reads it.
                    Ok(found) if !found.is_file => match self.refused(name, e.into()) {
                        BeneathError::Link => Err(BeneathError::Link),
                        _ => Err(BeneathError::NotFile),
                    },
                    _ => Err(BeneathError::Io(e.into())),
                },
            }
        }

        /// Makes a file that must not be there, for every reader whatever the umask: a web server
        /// is another user.
        pub fn create_new(&self, name: &str) -> io::Result<File> {
            let flags = FILE | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mode = Mode::from_raw_mode(0o644);
            let file = fs::openat(&self.folder, name, flags, mode)?;
            fs::fchmod(&file, mode)?;
            Ok(file.into())
        }

        /// Makes a folder, unless there is something of that name.
        pub fn make_folder(&self, name: &str) -> io::Result<()> {
            match fs::mkdirat(&self.folder, name, Mode::from_raw_mode(0o777)) {
                Err(e) if io::Error::from(e).kind() != io::ErrorKind::AlreadyExists => {
                    Err(e.into())
                }
                _ => Ok(()),
            }
        }

        /// Gives a file another name, in place of whatever file or link has it.
        pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(fs::renameat(&self.folder, from, &self.folder, to)?)
        }

        /// Removes a file.
        pub fn remove(&self, name: &str) -> io::Result<()> {
            Ok(fs::unlinkat(&self.folder, name, AtFlags::empty())?)
        }

        /// Makes the names in it durable.
        pub fn sync(&self) -> io::Result<()> {
            Ok(fs::fsync(self.readable()?)?)
        }

        /// The names in it; those that are not UTF-8 are not ours.
        pub fn names(&self) -> io::Result<Vec<String>> {
            let entries = Dir::new(self.readable()?)?;
            let name = |e: rustix::io::Result<fs::DirEntry>| match e {
                Ok(entry) => entry.file_name().to_str().ok().map(|n| Ok(n.to_owned())),
                Err(e) => Some(Err(e.into())),
            };
            entries.filter_map(name).collect()
        }

        fn readable(&self) -> io::Result<OwnedFd> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(fs::openat(&self.folder, ".", flags, Mode::empty())?)
        }
    }

    fn regular(file: File) -> Result<(File, Metadata), BeneathError> {
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(BeneathError::NotFile) }
    }
}

#[cfg(not(unix))]
mod with_paths {
    use std::fs::{self, File, Metadata, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    use super::{BeneathError, Looked};

    /// A folder, by its path: who may make links here is an administrator.
    #[derive(Debug)]
    pub struct Beneath {
        folder: PathBuf,
    }

    impl Beneath {
        /// The folder at `path`, which may lead through links.
        pub fn open(path: &Path) -> io::Result<Self> {
            match fs::metadata(path)?.is_dir() {
                true => Ok(Self { folder: path.to_owned() }),
                false => Err(io::ErrorKind::NotADirectory.into()),
            }
        }

        fn inside(&self, path: &str) -> Result<PathBuf, BeneathError> {
            let mut at = self.folder.clone();
            for part in path.split('/') {
                at.push(part);
                if fs::symlink_metadata(&at).is_ok_and(|m| m.is_symlink()) {
                    return Err(BeneathError::Link);
                }
            }
            Ok(at)
        }

        /// A folder directly in it.
        pub fn folder(&self, name: &str) -> Result<Self, BeneathError> {
            Ok(Self::open(&self.inside(name)?)?)
        }

        /// Opens a file to read it; `path` has parts joined by slashes.
        pub fn file(&self, path: &str) -> Result<(File, Metadata), BeneathError> {
            let path = self.inside(path)?;
            if !fs::metadata(&path)?.is_file() {
                return Err(BeneathError::NotFile);
            }
            let file = File::open(path)?;
            let meta = file.metadata()?;
            Ok((file, meta))
        }

        /// What is there under a name.
        pub fn look(&self, name: &str) -> io::Result<Looked> {
            let meta = fs::symlink_metadata(self.folder.join(name))?;
            Ok(Looked { is_file: meta.is_file(), len: meta.len(), modified: meta.modified()? })
        }

        /// Opens a file in order to lock it; it is made if it is not there.
        pub fn to_lock(&self, name: &str) -> Result<File, BeneathError> {
            let path = self.inside(name)?;
            Ok(OpenOptions::new().create(true).truncate(false).write(true).open(path)?)
        }

        /// Makes a file that must not be there.
        pub fn create_new(&self, name: &str) -> io::Result<File> {
            OpenOptions::new().write(true).create_new(true).open(self.folder.join(name))
        }

        /// Makes a folder, unless there is something of that name.
        pub fn make_folder(&self, name: &str) -> io::Result<()> {
            match fs::create_dir(self.folder.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => Ok(()),
            }
        }

        /// Gives a file another name, in place of whatever file has it.
        pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.folder.join(from), self.folder.join(to))
        }

        /// Removes a file.
        pub fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.folder.join(name))
        }

        /// Folders cannot be synced here: renames are the journal's business.
        pub fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        /// The names in it.
        pub fn names(&self) -> io::Result<Vec<String>> {
            let name = |e: io::Result<fs::DirEntry>| {
                e.map(|e| e.file_name().into_string().ok()).transpose()
            };
            fs::read_dir(&self.folder)?.filter_map(name).collect()
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// What is in the way of each name; the last is a fifo's.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("in").join(name);
        std::fs::create_dir_all(at("data")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(at("data/good"), "good").unwrap();
        symlink("../../secret", at("data/out")).unwrap();
        symlink("good", at("data/within")).unwrap();
        symlink("nowhere", at("data/dangling")).unwrap();
        symlink("data", at("moved")).unwrap();
        symlink("..", at("up")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(at("data/fifo")).status();
        assert!(fifo.unwrap().success());
        dir
    }

    const LINKS: [&str; 5] =
        ["data/out", "data/within", "data/dangling", "moved/good", "up/secret"];

    #[test]
    fn only_regular_files_that_no_link_leads_to_are_opened_and_nothing_waits() {
        let dir = folder();
        let folder = Beneath::open(&dir.path().join("in")).unwrap();
        let (mut file, meta) = folder.file("data/good").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, meta.len()), ("good", 4));
        for name in LINKS {
            assert!(matches!(folder.file(name), Err(BeneathError::Link)), "{name}");
        }
        for name in ["data", "data/fifo"] {
            assert!(matches!(folder.file(name), Err(BeneathError::NotFile)), "{name}");
        }
        for name in ["../secret", "data/../../secret", "/etc/passwd"] {
            assert!(folder.file(name).is_err(), "{name}");
        }
        let missing = folder.file("data/none").unwrap_err();
        assert!(matches!(missing, BeneathError::Io(e) if e.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn a_kernel_that_lacks_the_call_opens_the_same_files_and_no_others() {
        let dir = folder();
        let folder = Beneath::open(&dir.path().join("in")).unwrap();
        folder.step_by_step("data/good").unwrap();
        let outside = ["../secret", "data/../../secret", "data/none", "", ".", "..", "/.."];
        for name in LINKS.into_iter().chain(outside) {
            assert!(folder.step_by_step(name).is_err(), "{name}");
        }
    }

    #[test]
    fn locked_and_created_files_lie_inside_the_registry_folder() {
        let dir = folder();
        let root = dir.path().join("in");
        let folder = Beneath::open(&root).unwrap();
        let data = folder.folder("data").unwrap();
        assert!(matches!(folder.folder("moved"), Err(BeneathError::Link)));
        for name in ["out", "within", "dangling"] {
            assert!(matches!(data.to_lock(name), Err(BeneathError::Link)), "{name}");
            assert!(data.create_new(name).is_err(), "{name}");
        }
        assert!(!root.join("data/nowhere").exists());
        assert!(matches!(data.to_lock("fifo"), Err(BeneathError::NotFile)));
        assert!(data.to_lock("good").is_ok() && data.to_lock("new").is_ok());
        data.create_new("newer").unwrap();
        data.rename("newer", "out").unwrap();
        assert!(data.look("out").unwrap().is_file, "the link went, what it leads to stayed");
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"secret");
        assert!(data.names().unwrap().contains(&"good".to_owned()));
    }

    #[test]
    fn the_folder_itself_may_be_reached_through_a_link() {
        let dir = folder();
        let link = dir.path().join("link");
        symlink("in", &link).unwrap();
        assert!(Beneath::open(&link).unwrap().file("data/good").is_ok());
        assert!(Beneath::open(Path::new("/dev/null")).is_err());
    }
}
