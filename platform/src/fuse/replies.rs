//! Helpers of the adapter's methods: names in requests, attributes in replies, refused backing files.
//!
//! Invariant: the broker alone owns backing ids. Plain functions; any thread.

use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, PoisonError};

use fuser::{Errno, FileHandle, FopenFlags, ReplyOpen, ReplyXattr};
use modelfs::vfs::Vfs;

use super::modes::BackingNumber;
use super::negotiate;
use crate::options::Agreed;

/// Maximum name length.
pub(super) const MAX_NAME: usize = 255;

/// The name as text; an error for a name that no registry can have published.
pub(super) fn text(name: &OsStr) -> Result<&str, Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    name.to_str().ok_or(Errno::ENOENT)
}

/// Answers an open with passthrough.
#[allow(unsafe_code)]
pub(super) fn opened_passthrough(reply: ReplyOpen, fh: FileHandle, number: BackingNumber) {
    // SAFETY: the value is forgotten below, so only the broker unregisters the backing id.
    let backing = unsafe { reply.wrap_backing(number.0) };
    reply.opened_passthrough(fh, FopenFlags::FOPEN_NOFLUSH, &backing);
    let _ = backing.into_raw();
}

/// Sends the size if that was requested, else the value if it fits.
pub(super) fn send_attribute(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Err(error) => reply.error(error),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
    }
}

/// Records that the kernel refused a backing file; turns passthrough off if it always will.
pub(super) fn refused(error: &io::Error, vfs: &Vfs, agreed: &Mutex<Agreed>) {
    match negotiate::why_refused(error) {
        None => tracing::warn!(%error, "a complete file could not be left to the kernel"),
        Some(why) => {
            vfs.set_passthrough(false);
            let mut agreed = agreed.lock().unwrap_or_else(PoisonError::into_inner);
            if agreed.passthrough {
                tracing::warn!(%error, why, "no passthrough: complete files are read through the daemon");
            }
            agreed.passthrough = false;
            agreed.why_not = Some(format!("{why} ({error})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_that_no_directory_can_hold_are_not_found() {
        let code = |name: &[u8]| text(OsStr::from_bytes(name)).map(str::len).map_err(i32::from);
        assert_eq!(code(b"config.json"), Ok(11));
        assert_eq!(code(&[b'x'; 256]), Err(i32::from(Errno::ENAMETOOLONG)));
        assert_eq!(code(b"\xff"), Err(i32::from(Errno::ENOENT)));
    }
}
