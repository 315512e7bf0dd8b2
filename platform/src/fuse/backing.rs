//! Which inodes the kernel reads by itself, and the numbers it knows their files by.
//!
//! Invariant: one number per inode while it has handles: the kernel refuses a second one. Once the
//! kernel refused a number for an inode, the inode stays in cached mode until its last handle.
//! Concurrency: one lock, held over the registering call (which only makes an entry in a table of
//! the kernel), so that an open never overtakes the last release.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use modelfs::vfs::{Handle, Ino};

/// Numbers `T` by inode.
pub(super) struct Backings<T> {
    inodes: Mutex<HashMap<Ino, Inode<T>>>,
}

struct Inode<T> {
    handles: HashSet<Handle>,
    /// None: the kernel refused.
    id: Option<Arc<T>>,
}

/// What came of an open.
pub(super) enum Mode<T> {
    /// By the kernel itself.
    Passthrough(Arc<T>),
    /// Through us. The error, if this open found it out.
    Cached(Option<io::Error>),
}

impl<T> Backings<T> {
    /// None is open.
    pub(super) fn new() -> Self {
        Self { inodes: Mutex::new(HashMap::new()) }
    }

    /// Adds a handle of an inode whose handles have a backing, and says how it is to be read.
    /// `register` is called for the first.
    pub(super) fn open(
        &self,
        ino: Ino,
        handle: Handle,
        register: impl FnOnce() -> io::Result<T>,
    ) -> Mode<T> {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        match inodes.entry(ino) {
            Entry::Occupied(mut inode) => {
                let inode = inode.get_mut();
                inode.handles.insert(handle);
                inode.id.as_ref().map_or(Mode::Cached(None), |id| Mode::Passthrough(Arc::clone(id)))
            }
            Entry::Vacant(none) => match register() {
                Ok(id) => {
                    let id = Arc::new(id);
                    none.insert(Inode {
                        handles: HashSet::from([handle]),
                        id: Some(Arc::clone(&id)),
                    });
                    Mode::Passthrough(id)
                }
                Err(error) => {
                    none.insert(Inode { handles: HashSet::from([handle]), id: None });
                    Mode::Cached(Some(error))
                }
            },
        }
    }

    /// Takes a handle away, if it is in the table; the number goes with the last one.
    pub(super) fn release(&self, ino: Ino, handle: Handle) {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut inode) = inodes.entry(ino) {
            inode.get_mut().handles.remove(&handle);
            if inode.get().handles.is_empty() {
                inode.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(mode: &Mode<u8>) -> Option<u8> {
        match mode {
            Mode::Passthrough(id) => Some(**id),
            Mode::Cached(_) => None,
        }
    }

    #[test]
    fn one_number_while_open() {
        let table = Backings::new();
        let (a, b) = (Ino(5), Ino(6));
        assert_eq!(id(&table.open(a, Handle(1), || Ok(1))), Some(1));
        assert_eq!(id(&table.open(a, Handle(2), || panic!("registered twice"))), Some(1));
        assert_eq!(id(&table.open(b, Handle(3), || Ok(2))), Some(2));
        table.release(a, Handle(1));
        table.release(a, Handle(1));
        table.release(a, Handle(3));
        assert_eq!(id(&table.open(a, Handle(4), || panic!("still open"))), Some(1));
        table.release(a, Handle(2));
        table.release(a, Handle(4));
        assert_eq!(id(&table.open(a, Handle(5), || Ok(3))), Some(3));
    }

    #[test]
    fn what_was_refused_stays_cached_until_the_last_release() {
        let table = Backings::new();
        let a = Ino(5);
        let refused = table.open(a, Handle(1), || Err(io::Error::other("no")));
        assert!(matches!(refused, Mode::Cached(Some(_))));
        assert!(matches!(table.open(a, Handle(2), || Ok(1)), Mode::Cached(None)));
        table.release(a, Handle(1));
        assert!(matches!(table.open(a, Handle(3), || Ok(1)), Mode::Cached(None)));
        table.release(a, Handle(2));
        table.release(a, Handle(3));
        assert_eq!(id(&table.open(a, Handle(4), || Ok(1))), Some(1));
    }
}
