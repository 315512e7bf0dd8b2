//! Default paths: the cache, the socket, the log.
//!
//! Invariant: folders that hold sockets are ours and private (mode 0700), or we refuse. The choices are
//! pure functions of the environment's values; the rest creates folders. No state; any thread.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use modelfs::model::hash;

use crate::error::{Failure, Kind};

/// The name of our folder in each of the system's base folders.
const OURS: &str = "modelfs";

/// Digits of the store's hash in file names: 64 bits, so that two stores never collide, and short,
/// because a socket's path may have only 107 bytes.
const HASH_DIGITS: usize = 16;

fn base() -> Result<etcetera::base_strategy::Xdg, Failure> {
    etcetera::base_strategy::Xdg::new().map_err(|_| {
        Failure::usage("there is no home folder to put the cache in")
            .hint("give --cache-dir DIR, or set MODELFS_CACHE_DIR")
    })
}

/// The cache folder: as given, else `modelfs` in the user's cache folder. Absolute, so that it stays
/// the same when the daemon changes its working directory.
pub fn cache_root(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => absolute(path),
        None => absolute(&base()?.cache_dir().join(OURS)),
    }
}

/// The user's file of settings, if the user has a home folder.
pub fn user_config() -> Option<PathBuf> {
    base().ok().map(|base| base.config_dir().join(OURS).join(modelfs::config::FILE_NAME))
}

/// An absolute path with links resolved, so that one folder has one name, as in the kernel's mount
/// table.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path)
        .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    if let Ok(real) = fs::canonicalize(&path) {
        return in_utf8(real);
    }
    // Missing, or a mount whose daemon is dead: the parent can still be resolved.
    let above = path.parent().and_then(|p| fs::canonicalize(p).ok());
    in_utf8(match (above, path.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => path,
    })
}

/// Free bytes at a folder, or where it would be created.
pub fn free_at(path: &Path) -> rustix::io::Result<u64> {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    rustix::fs::statvfs(there).map(|s| s.f_bavail * s.f_frsize)
}

/// Locks, answers and logs contain paths in JSON.
fn in_utf8(path: PathBuf) -> Result<PathBuf, Failure> {
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(Failure::usage(format!("{}: a folder needs a name in UTF-8", path.display()))),
    }
}

/// The registry as given, a folder made absolute. Links are kept: the name must be the same while the
/// folder is unavailable.
pub fn registry(given: &str) -> Result<String, Failure> {
    if modelfs::registry::is_url(given) {
        return Ok(given.to_owned());
    }
    let path = std::path::absolute(given).map_err(|e| Failure::usage(format!("{given}: {e}")))?;
    path.into_os_string().into_string().map_err(|_| {
        Failure::usage(format!("{given}: a registry's folder must have a name in UTF-8"))
    })
}

/// Environment variables that may name files relative to the working directory. All others that we read
/// count only if they are absolute.
const RELATIVE: [&str; 4] = ["HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The relative ones, made absolute, for a process that is to leave this working directory.
pub fn environment() -> Vec<(&'static str, OsString)> {
    let given = RELATIVE.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    given.filter_map(|(name, value)| Some((name, made_absolute(&value)?))).collect()
}

/// A path or a list of paths, made absolute; none if it already is.
fn made_absolute(value: &OsStr) -> Option<OsString> {
    let paths: Vec<_> = std::env::split_paths(value).collect();
    if paths.iter().all(|path| path.is_absolute() || path.as_os_str().is_empty()) {
        return None;
    }
    // An empty element is no path and stays.
    let absolute = paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path));
    std::env::join_paths(absolute).ok()
}

fn store_hash(root: &Path) -> String {
    let mut digits = hash::sha256(root.as_os_str().as_encoded_bytes()).to_string();
    digits.truncate(HASH_DIGITS);
    digits
}

/// The folder for sockets: in the user's runtime folder, else in the system's for root, else in the
/// temporary folder with the user id in its name.
fn socket_folder(runtime: Option<&Path>, uid: u32, temp: &Path) -> PathBuf {
    match runtime {
        Some(dir) if dir.is_absolute() => dir.join(OURS),
        _ if uid == 0 => Path::new("/run").join(OURS),
        _ => temp.join(format!("{OURS}-{uid}")),
    }
}

/// All folders in which a daemon of this user may listen: its session may have had another runtime
/// folder, or none.
pub fn socket_folders() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut folders = vec![sockets(), socket_folder(None, uid, &std::env::temp_dir())];
    folders.dedup();
    folders
}

/// The folder in which this user's daemons listen.
pub fn sockets() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|d| d.is_dir());
    let uid = rustix::process::geteuid().as_raw();
    socket_folder(runtime.as_deref(), uid, &std::env::temp_dir())
}

/// The socket of the store at `root`.
pub fn socket(root: &Path) -> PathBuf {
    sockets().join(format!("{}.sock", store_hash(root)))
}

/// Whether a socket, by its resolved path, belongs to a daemon of this user: it has such a name, and
/// only this user can create files in its folder.
pub fn is_own_socket(socket: &Path) -> bool {
    let name = socket.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digits = name.strip_suffix(".sock").unwrap_or_default();
    let named = digits.len() == HASH_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let folder = socket.parent().and_then(|folder| fs::symlink_metadata(folder).ok());
    let ours = folder
        .is_some_and(|m| m.uid() == rustix::process::geteuid().as_raw() && m.mode() & 0o022 == 0);
    named && ours
}

/// The log of the background daemon of the store at `root`; creates its folder.
pub fn log_file(root: &Path) -> Result<PathBuf, Failure> {
    let folder = base()?.state_dir().map_or_else(|| root.join("log"), |d| d.join(OURS));
    private_folder(&folder)?;
    Ok(folder.join(format!("{}.log", store_hash(root))))
}

/// Creates a folder that only this user may enter, or ensures that it is one.
pub fn private_folder(path: &Path) -> Result<(), Failure> {
    let failed = |action: &str, e: std::io::Error| Failure::storage(path, action, &e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| failed("making the folder", e))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(failed("making the folder", e));
        }
        _ => {}
    }
    // Not through a link: in the temporary folder any user could have placed one.
    let meta = fs::symlink_metadata(path).map_err(|e| failed("looking at the folder", e))?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::new(
            Kind::General,
            format!("{}: not a folder of this user", path.display()),
        )
        .hint("remove it, or set XDG_RUNTIME_DIR to a folder of your own"));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| failed("closing the folder to others", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_to_the_runtime_folder_else_to_a_folder_of_our_own() {
        let temp = Path::new("/tmp");
        let at = |runtime: Option<&str>, uid| socket_folder(runtime.map(Path::new), uid, temp);
        assert_eq!(at(Some("/run/user/1000"), 1000), Path::new("/run/user/1000/modelfs"));
        assert_eq!(at(Some("/run/user/0"), 0), Path::new("/run/user/0/modelfs"));
        assert_eq!(at(None, 0), Path::new("/run/modelfs"));
        assert_eq!(at(None, 1000), Path::new("/tmp/modelfs-1000"));
        assert_eq!(at(Some("relative"), 1000), Path::new("/tmp/modelfs-1000"));
    }

    #[test]
    fn each_store_has_its_own_short_name() {
        let (a, b) = (store_hash(Path::new("/a")), store_hash(Path::new("/b")));
        assert_ne!(a, b);
        assert_eq!((a.len(), &a), (16, &store_hash(Path::new("/a"))));
    }

    #[test]
    fn folders_are_absolute_and_urls_untouched() {
        assert!(cache_root(Some(Path::new("x"))).unwrap().is_absolute());
        assert!(registry("some/folder").unwrap().starts_with('/'));
        assert_eq!(registry("https://h/x").unwrap(), "https://h/x");
    }

    #[test]
    fn variables_that_are_relative_are_made_absolute() {
        let made = |value: &str| made_absolute(OsStr::new(value));
        let here = std::env::current_dir().unwrap();
        assert_eq!(made("certs/ca.pem"), Some(here.join("certs/ca.pem").into()));
        let list = format!("/a:{}", here.join("b").display());
        assert_eq!(made("/a:b"), Some(list.into()));
        assert_eq!((made("/a"), made("")), (None, None));
    }

    #[test]
    fn a_private_folder_is_closed_and_never_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("a/b");
        fs::create_dir_all(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(private_folder(&link).is_err());
    }
}
