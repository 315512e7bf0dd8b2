//! Finds and reads the files of settings: the system's, the user's, the project's.
//!
//! Invariant: a file that was not named is read only if no other user can have written it. What was checked
//! is what is read: the check is on the open file. Reads files, changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::file::{self, Level, MAX_FILE};
use super::settings::Layer;

/// The name of a file of settings.
pub const FILE_NAME: &str = "modelfs.toml";

/// The system's file.
pub const SYSTEM_FILE: &str = "/etc/modelfs/modelfs.toml";

/// Where files are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The system's file.
    pub system: PathBuf,
    /// The user's file.
    pub user: Option<PathBuf>,
    /// A file that was named: it is read instead of the user's and the project's.
    pub named: Option<PathBuf>,
    /// The working directory: the project's file is in it, or in the nearest folder above that has one.
    pub working_directory: Option<PathBuf>,
    /// Folders that are not looked into: a mount whose daemon is dead does not answer.
    pub avoid: Vec<PathBuf>,
    /// The user who runs this, and that user's own group.
    pub user_id: u32,
}

/// A file that was read.
#[derive(Debug)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Whose it is.
    pub level: Level,
    /// What it says.
    pub layer: Layer,
}

/// Reads all files that there are, the strongest last.
pub fn read_all(places: &Places) -> Result<Vec<Found>, ConfigError> {
    let mut found = Vec::new();
    let mut add = |path: &Path, level, must: bool| {
        match read(path, (!must).then_some(places.user_id))? {
            Some(text) => {
                let layer = file::parse(&text, path, level)?;
                found.push(Found { path: path.to_owned(), level, layer });
            }
            None if must => {
                let source = io::ErrorKind::NotFound.into();
                return Err(ConfigError::Unreadable { path: path.to_owned(), source });
            }
            None => {}
        }
        Ok(())
    };
    add(&places.system, Level::System, false)?;
    if let Some(named) = &places.named {
        add(named, Level::User, true)?;
        return Ok(found);
    }
    if let Some(user) = &places.user {
        add(user, Level::User, false)?;
    }
    if let Some(project) = project(places) {
        add(&project, Level::Project, false)?;
    }
    Ok(found)
}

/// The project's file: the nearest one at the working directory or above it.
pub fn project(places: &Places) -> Option<PathBuf> {
    let start = places.working_directory.as_deref()?;
    let avoided = |folder: &Path| places.avoid.iter().any(|avoid| folder.starts_with(avoid));
    let folders = start.ancestors().filter(|folder| !avoided(folder));
    let file = folders.map(|folder| folder.join(FILE_NAME)).find(|file| file.exists())?;
    // The user's own file is no project's, wherever one stands.
    let same = |other: &Path| match (file.canonicalize(), other.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    let own = places.user.as_deref().is_some_and(same) || same(&places.system);
    (!own).then_some(file)
}

/// The text of a file; none if there is no such file. `owner`: only this user and root may be able to
/// write it.
fn read(path: &Path, owner: Option<u32>) -> Result<Option<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = match open(path, owner.is_some()) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        // A home folder that this user may not enter has no file for this user.
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied
                && owner.is_some()
                && path.symlink_metadata().is_err() =>
        {
            return Ok(None);
        }
        Err(e) => return Err(unreadable(e)),
    };
    if let Some(owner) = owner {
        let meta = file.metadata().map_err(unreadable)?;
        if let Some(why) = unsafe_because(&meta, owner) {
            return Err(ConfigError::Unsafe { path: path.to_owned(), why });
        }
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    let not_text = |_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"));
    String::from_utf8(bytes).map(Some).map_err(not_text)
}

/// Opens a file; one that was not named must not make us wait, as a FIFO would.
#[cfg(unix)]
fn open(path: &Path, found: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = if found { rustix::fs::OFlags::NONBLOCK.bits() } else { 0 };
    File::options().read(true).custom_flags(flags as i32).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path, _: bool) -> io::Result<File> {
    File::open(path)
}

/// Why a file may have been written by others than `user` and root; none: it cannot.
#[cfg(unix)]
fn unsafe_because(meta: &std::fs::Metadata, user: u32) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    if !meta.is_file() {
        return Some("it is no regular file".to_owned());
    }
    refused(meta.uid(), meta.gid(), meta.mode(), user)
}

#[cfg(not(unix))]
fn unsafe_because(_: &std::fs::Metadata, _: u32) -> Option<String> {
    None
}

/// The rule of [`unsafe_because`]. Many systems make files writable by the group, and a group for each
/// user, with the user's number.
#[cfg(unix)]
fn refused(owner: u32, group: u32, mode: u32, user: u32) -> Option<String> {
    let own_group = group == owner && owner != 0;
    match (owner == user || owner == 0, mode & 0o002 != 0, mode & 0o020 != 0 && !own_group) {
        (false, _, _) => Some(format!("it belongs to another user, {owner}")),
        (_, true, _) => Some("every user may write it".to_owned()),
        (_, _, true) => Some("its group may write it".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn places(dir: &Path) -> Places {
        let user_id = rustix::process::geteuid().as_raw();
        Places {
            system: dir.join("etc/modelfs.toml"),
            user: Some(dir.join("home/modelfs.toml")),
            working_directory: Some(dir.join("project/sub/sub")),
            user_id,
            ..Places::default()
        }
    }

    fn write(dir: &Path, at: &str, text: &str) -> PathBuf {
        let path = dir.join(at);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        path
    }

    fn threads(places: &Places) -> Vec<(Level, u16)> {
        let all = read_all(places).unwrap();
        all.iter().map(|f| (f.level, f.layer.threads.as_ref().unwrap().value)).collect()
    }

    #[test]
    fn files_are_read_from_the_weakest_to_the_strongest_and_missing_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = places(dir.path());
        assert_eq!(threads(&places), []);
        write(dir.path(), "etc/modelfs.toml", "threads = 1");
        write(dir.path(), "home/modelfs.toml", "threads = 2");
        write(dir.path(), "project/modelfs.toml", "threads = 3");
        let expected = [(Level::System, 1), (Level::User, 2), (Level::Project, 3)];
        assert_eq!(threads(&places), expected);
        write(dir.path(), "project/sub/modelfs.toml", "threads = 4");
        assert_eq!(threads(&places)[2], (Level::Project, 4), "the nearest");
        places.avoid = vec![dir.path().join("project")];
        assert_eq!(threads(&places), expected[..2]);
        places.named = Some(write(dir.path(), "named", "threads = 5"));
        assert_eq!(threads(&places), [(Level::System, 1), (Level::User, 5)]);
        places.named = Some(dir.path().join("gone"));
        assert!(matches!(read_all(&places), Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn the_users_own_file_is_no_project() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = places(dir.path());
        write(dir.path(), "home/modelfs.toml", "threads = 2");
        places.working_directory = Some(dir.path().join("home"));
        assert_eq!(threads(&places), [(Level::User, 2)]);
    }

    #[test]
    fn a_file_that_others_may_have_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = places(dir.path());
        let project = write(dir.path(), "project/modelfs.toml", "threads = 3");
        std::fs::set_permissions(&project, PermissionsExt::from_mode(0o646)).unwrap();
        let error = read_all(&places).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("project/modelfs.toml") && text.contains("every user"), "{text}");
        // Named, it is the user's own decision.
        places.named = Some(project.clone());
        assert_eq!(threads(&places).len(), 1);
        places.named = None;
        std::fs::remove_file(&project).unwrap();
        std::fs::create_dir(&project).unwrap();
        assert!(matches!(read_all(&places), Err(ConfigError::Unsafe { .. })));
    }

    #[test]
    fn who_may_have_written_a_file() {
        assert_eq!(refused(1000, 1000, 0o664, 1000), None, "a group of the user's own");
        assert_eq!(refused(0, 0, 0o644, 1000), None);
        assert!(refused(1000, 50, 0o664, 1000).is_some());
        assert!(refused(0, 0, 0o664, 0).is_some());
        assert!(refused(1001, 1001, 0o600, 1000).is_some());
        assert!(refused(1001, 1001, 0o600, 0).is_some(), "root reads no user's file");
        assert!(refused(1000, 1000, 0o602, 1000).is_some());
    }

    #[test]
    fn a_file_that_is_too_large_or_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        write(dir.path(), "home/modelfs.toml", &"#".repeat(MAX_FILE + 1));
        assert!(matches!(read_all(&places), Err(ConfigError::TooLarge { .. })));
        let user = write(dir.path(), "home/modelfs.toml", "");
        std::fs::write(&user, b"\xff").unwrap();
        let text = read_all(&places).unwrap_err().to_string();
        assert!(text.contains("UTF-8"), "{text}");
    }
}
