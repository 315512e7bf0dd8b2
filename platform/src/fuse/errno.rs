//! Mapping of the tree's error kinds to errno: the only place that knows both.
//!
//! Invariant: an outage is EIO or ETIMEDOUT, never ENOENT. Pure; any thread.

use fuser::Errno;
use modelfs::vfs::VfsError;

/// The errno for an error.
pub(super) fn errno(error: &VfsError) -> Errno {
    match error {
        VfsError::NotFound => Errno::ENOENT,
        VfsError::NotFolder => Errno::ENOTDIR,
        VfsError::IsFolder => Errno::EISDIR,
        VfsError::NoAttribute => Errno::ENODATA,
        VfsError::NoAttributes => Errno::EOPNOTSUPP,
        VfsError::Stale => Errno::ESTALE,
        VfsError::Unavailable { .. } | VfsError::Corrupt { .. } => Errno::EIO,
        VfsError::TimedOut { .. } => Errno::ETIMEDOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_kind_maps_to_its_errno() {
        let reason = || "r".to_owned();
        for (error, number) in [
            (VfsError::NotFound, 2),
            (VfsError::NotFolder, 20),
            (VfsError::IsFolder, 21),
            (VfsError::NoAttribute, 61),
            (VfsError::NoAttributes, 95),
            (VfsError::Stale, 116),
            (VfsError::Unavailable { reason: reason() }, 5),
            (VfsError::Corrupt { reason: reason() }, 5),
            (VfsError::TimedOut { reason: reason() }, 110),
        ] {
            assert_eq!(i32::from(errno(&error)), number, "{error:?}");
        }
    }
}
