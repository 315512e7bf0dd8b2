//! Structures of the FUSE protocol as the kernel lays them out in memory.
//!
//! Only those that we read or write ourselves; fuser has the rest. Layouts and numbers are those of
//! `linux/fuse.h`, protocol 7.36 and later, in native byte order. Plain values.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An operation, as the header of a request names it.
pub(super) mod opcode {
    pub(in crate::fuse) const FORGET: u32 = 2;
    pub(in crate::fuse) const RELEASE: u32 = 18;
    pub(in crate::fuse) const GETXATTR: u32 = 22;
    pub(in crate::fuse) const INIT: u32 = 26;
    pub(in crate::fuse) const RELEASEDIR: u32 = 29;
    pub(in crate::fuse) const INTERRUPT: u32 = 36;
    pub(in crate::fuse) const DESTROY: u32 = 38;
    pub(in crate::fuse) const BATCH_FORGET: u32 = 42;
}

/// `fuse_in_header`: begins every request.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    /// The request's number, which its reply repeats.
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    /// Length of extensions, and padding.
    pub(super) rest: u32,
}

/// `fuse_out_header`: begins every reply.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    /// A negative errno, or 0; of a notification, its code.
    pub(super) error: i32,
    /// The number of the request; 0: a notification.
    pub(super) unique: u64,
}

/// The first fields of `fuse_init_in`; the rest is unused.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    /// Present if `flags` has [`INIT_EXT`].
    pub(super) flags2: u32,
}

/// The first fields of `fuse_init_out`; the rest concerns only fuser.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_gran: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
}

/// `fuse_release_in`, its first field.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ReleaseIn {
    pub(super) handle: u64,
}

/// `fuse_getxattr_in` of a request, before the name; `fuse_getxattr_out` of a reply.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GetXattr {
    /// Room for the value; of a reply, its length.
    pub(super) size: u32,
    pub(super) padding: u32,
}

/// In [`InitIn::flags`] and [`InitOut::flags`]: `flags2` is present.
pub(super) const INIT_EXT: u32 = 1 << 30;
/// In `flags2`: the kernel can resend requests on demand (Linux 6.9).
pub(super) const HAS_RESEND: u32 = 1 << (39 - 32);
/// The code of the notification that asks for that.
pub(super) const NOTIFY_RESEND: i32 = 7;

/// Splits a structure off the front of a message; `None`: the message is too short.
pub(super) fn split<T: FromBytes>(message: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes_and_offsets() {
        assert_eq!((size_of::<InHeader>(), size_of::<OutHeader>()), (40, 16));
        assert_eq!(std::mem::offset_of!(InHeader, node), 16);
        assert_eq!(std::mem::offset_of!(InitIn, flags), 12);
        assert_eq!(std::mem::offset_of!(InitIn, flags2), 16);
        assert_eq!(std::mem::offset_of!(InitOut, flags), 12);
        assert_eq!(std::mem::offset_of!(InitOut, flags2), 32);
        assert_eq!((size_of::<ReleaseIn>(), size_of::<GetXattr>()), (8, 8));
    }

    #[test]
    fn a_message_that_is_too_short_has_no_header() {
        assert!(split::<InHeader>(&[0; 39]).is_none());
        assert!(split::<InHeader>(&[0; 41]).is_some_and(|(_, rest)| rest.len() == 1));
    }
}
