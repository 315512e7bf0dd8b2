//! Checks that a worker can access what it needs: the cache, the registry's folder, certificates.
//!
//! Invariant: nothing is changed; the checks run with the worker's permissions on a thread of their
//! own. The error names the first inaccessible folder.

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::error::{Failure, Kind};
use crate::identity::Identity;

/// Certificates that the user provides.
pub const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Checks that the worker can access the cache at `root`. A folder of root's is handed over later.
pub fn reachable(root: &Path, identity: &Identity) -> Result<(), Failure> {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let own = matches!(identity, Identity::Bare).then_some((root, all));
    let Some(closed) = first_closed(root.parent().unwrap_or(root), own, identity)? else {
        return Ok(());
    };
    Err(closed_to(Kind::Storage, &closed, identity, "the cache", root).hint(
        "give a cache that it may enter (--cache-dir), open this one (chmod o+x), or mount with --keep-privileges",
    ))
}

/// Checks that the worker can read what it needs beside the cache.
pub fn readable(identity: &Identity, registries: &[PathBuf]) -> Result<(), Failure> {
    let brought = CERTIFICATES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let brought = brought.map(|(name, path)| (name, PathBuf::from(path), Kind::Storage));
    let registries = registries
        .iter()
        .map(|folder| ("the registry", modelfs::registry::first_file(folder), Kind::Network));
    for (what, path, kind) in brought.chain(registries) {
        let above = path.parent().unwrap_or(&path);
        let closed = first_closed(above, Some((&path, Access::READ_OK)), identity)?;
        if let Some(closed) = closed {
            return Err(closed_to(kind, &closed, identity, what, &path).hint(
                "open it to that user (chmod o+x, for a file o+r), or mount with --keep-privileges",
            ));
        }
    }
    Ok(())
}

/// The first folder from the top that the worker may not traverse, or `last` if it may not access that.
fn first_closed(
    folder: &Path,
    last: Option<(&Path, Access)>,
    identity: &Identity,
) -> Result<Option<PathBuf>, Failure> {
    let mut way: Vec<_> = folder.ancestors().map(|path| (path, Access::EXEC_OK)).collect();
    way.reverse();
    way.extend(last);
    // The worker reports paths that are missing or fail for other reasons.
    let closed = |(path, how): &(&Path, Access)| {
        matches!(rustix::fs::access(*path, *how), Err(Errno::ACCESS | Errno::PERM))
    };
    let found = identity.look(|| way.iter().copied().find(closed))?;
    Ok(found.map(|(path, _)| path.to_owned()))
}

fn closed_to(kind: Kind, closed: &Path, who: &Identity, what: &str, path: &Path) -> Failure {
    let (at, who) = (closed.display(), who.shown());
    let message = match closed == path {
        true => format!("{at}: {what} is closed to {who}"),
        false => format!("{at}: closed to {who}, on the way to {what} ({})", path.display()),
    };
    Failure::new(kind, message)
}
