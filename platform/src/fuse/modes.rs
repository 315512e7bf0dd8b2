//! The mode of each open inode, passthrough or cached, and its handles.
//!
//! Invariant: an inode with handles has one mode, and in passthrough mode one backing id. The kernel
//! refuses anything else, so the table outlives the worker. A resent request makes no second handle.
//! Pure: the owner brings the lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use modelfs::vfs::{Handle, Ino};

/// The kernel sets this bit in the number of a resent request.
const SENT_AGAIN: u64 = 1 << 63;

/// The kernel's backing id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackingNumber(pub u32);

/// The kernel's number for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestNumber(u64);

impl RequestNumber {
    /// The number as received; a resent request gets the same one.
    pub fn new(unique: u64) -> Self {
        Self(unique & !SENT_AGAIN)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The open inode.
    pub ino: Ino,
    /// Its handle.
    pub handle: Handle,
    /// The request that opened it.
    pub request: RequestNumber,
    /// Its backing id in passthrough mode; none: reads go through us.
    pub backing: Option<BackingNumber>,
}

/// The open inodes with their modes.
#[derive(Debug, Default)]
pub struct Modes {
    inodes: HashMap<Ino, Inode>,
}

#[derive(Debug)]
struct Inode {
    backing: Option<BackingNumber>,
    handles: HashMap<Handle, RequestNumber>,
}

/// Locks the table. A panic leaves it consistent, so poisoning is ignored.
pub(super) fn lock(modes: &Mutex<Modes>) -> MutexGuard<'_, Modes> {
    modes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Modes {
    /// The mode of an inode, if it is open.
    pub fn of(&self, ino: Ino) -> Option<Option<BackingNumber>> {
        self.inodes.get(&ino).map(|inode| inode.backing)
    }

    /// Adds a handle. An inode keeps its mode and backing id.
    pub fn opened(&mut self, open: Open) {
        let inode = self
            .inodes
            .entry(open.ino)
            .or_insert_with(|| Inode { backing: open.backing, handles: HashMap::new() });
        // A former process may have made a handle for this request and died before it answered.
        inode.handles.retain(|_, request| *request != open.request);
        inode.handles.insert(open.handle, open.request);
    }

    /// Removes a handle, if it exists; removing the last one returns the inode's backing id.
    pub fn released(&mut self, ino: Ino, handle: Handle) -> Option<BackingNumber> {
        let Entry::Occupied(mut inode) = self.inodes.entry(ino) else { return None };
        inode.get_mut().handles.remove(&handle)?;
        if inode.get().handles.is_empty() { inode.remove().backing } else { None }
    }

    /// All open files.
    pub fn iter(&self) -> impl Iterator<Item = Open> + '_ {
        self.inodes.iter().flat_map(|(ino, inode)| {
            inode.handles.iter().map(|(handle, request)| Open {
                ino: *ino,
                handle: *handle,
                request: *request,
                backing: inode.backing,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ino = Ino(5);

    fn open(handle: u64, request: u64, backing: Option<u32>) -> Open {
        Open {
            ino: A,
            handle: Handle(handle),
            request: RequestNumber::new(request),
            backing: backing.map(BackingNumber),
        }
    }

    #[test]
    fn an_inode_keeps_one_read_mode_until_its_last_release() {
        let mut modes = Modes::default();
        assert_eq!(modes.of(A), None);
        modes.opened(open(1, 10, Some(7)));
        modes.opened(open(2, 11, Some(7)));
        assert_eq!(modes.of(A), Some(Some(BackingNumber(7))));
        assert_eq!(modes.released(A, Handle(3)), None, "none of ours");
        assert_eq!(modes.released(A, Handle(1)), None);
        assert_eq!(modes.released(A, Handle(1)), None, "told twice");
        assert_eq!(modes.released(A, Handle(2)), Some(BackingNumber(7)));
        assert_eq!(modes.of(A), None);
        modes.opened(open(4, 12, None));
        assert_eq!(modes.of(A), Some(None));
        assert_eq!(modes.released(A, Handle(4)), None);
        assert_eq!(modes.of(A), None);
    }

    #[test]
    fn a_resent_open_gets_the_same_handle() {
        let mut modes = Modes::default();
        modes.opened(open(1, 10, None));
        modes.opened(open(2, 10 | SENT_AGAIN, None));
        assert_eq!(modes.iter().map(|o| o.handle).collect::<Vec<_>>(), [Handle(2)]);
        assert_eq!(modes.released(A, Handle(2)), None);
        assert_eq!(modes.of(A), None);
    }

    #[test]
    fn the_invalidation_sent_to_the_kernel_is_the_one_requested() {
        let mut modes = Modes::default();
        modes.opened(open(1, 10, Some(7)));
        let mut copy = Modes::default();
        modes.iter().for_each(|o| copy.opened(o));
        assert_eq!(copy.iter().collect::<Vec<_>>(), [open(1, 10, Some(7))]);
    }
}
