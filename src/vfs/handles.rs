//! The table of open files, with one read mode per inode: cached or passthrough.
//!
//! Invariant: while an inode has handles, either all of them have the same backing or none has; the
//! kernel refuses anything else. The first handle decides; the choice is free again after the last.
//! Pure: no I/O; the caller locks, and drops what `release` returns outside of the lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::types::{Handle, Ino};

/// Open files `F`, one per handle, and backings `B`, one per inode.
pub(super) struct OpenTable<F, B> {
    handles: HashMap<Handle, (Ino, Arc<F>)>,
    inodes: HashMap<Ino, Inode<B>>,
}

struct Inode<B> {
    handles: usize,
    backing: Option<B>,
}

impl<F, B: Clone> OpenTable<F, B> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self { handles: HashMap::new(), inodes: HashMap::new() }
    }

    /// Whether the inode has no handle, so that a backing may be offered.
    pub(super) fn is_free(&self, ino: Ino) -> bool {
        !self.inodes.contains_key(&ino)
    }

    /// Adds a new handle. The offered backing is used only by the inode's first handle; returns the
    /// backing of the inode.
    pub(super) fn open(
        &mut self,
        ino: Ino,
        handle: Handle,
        file: F,
        offer: Option<B>,
    ) -> Option<B> {
        let inode = match self.inodes.entry(ino) {
            Entry::Occupied(inode) => inode.into_mut(),
            Entry::Vacant(none) => none.insert(Inode { handles: 0, backing: offer }),
        };
        inode.handles += 1;
        self.handles.insert(handle, (ino, Arc::new(file)));
        inode.backing.clone()
    }

    /// The file of a handle given by a previous process; adds it without a backing, since the kernel
    /// sends reads only in cached mode.
    pub(super) fn adopt(&mut self, ino: Ino, handle: Handle, file: F) -> Arc<F> {
        if let Some(known) = self.get(ino, handle) {
            return known;
        }
        if !self.handles.contains_key(&handle) {
            self.open(ino, handle, file, None);
            return self.get(ino, handle).expect("it was just put there");
        }
        Arc::new(file)
    }

    /// The file of a handle of this inode.
    pub(super) fn get(&self, ino: Ino, handle: Handle) -> Option<Arc<F>> {
        self.handles.get(&handle).filter(|(i, _)| *i == ino).map(|(_, file)| Arc::clone(file))
    }

    /// Removes a handle; unknown ones are those of a previous process. With the inode's last handle,
    /// returns its backing.
    pub(super) fn release(&mut self, ino: Ino, handle: Handle) -> Option<B> {
        self.get(ino, handle)?;
        self.handles.remove(&handle);
        let Entry::Occupied(mut inode) = self.inodes.entry(ino) else { return None };
        inode.get_mut().handles -= 1;
        if inode.get().handles > 0 {
            return None;
        }
        inode.remove().backing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Ino = Ino(1 << 32 | 1);
    const B: Ino = Ino(2 << 32 | 1);

    #[test]
    fn the_first_handle_decides_the_read_mode() {
        let mut t = OpenTable::<(), u8>::new();
        assert_eq!(t.open(A, Handle(1), (), None), None);
        assert!(!t.is_free(A) && t.is_free(B));
        assert_eq!(t.open(A, Handle(2), (), Some(7)), None, "completed while open: stays cached");
        assert_eq!(t.open(B, Handle(3), (), Some(8)), Some(8), "same content elsewhere: own rule");
        assert_eq!(t.open(B, Handle(4), (), None), Some(8), "no offer, but the inode has one");
        assert_eq!(t.release(A, Handle(1)), None);
        assert_eq!(t.release(A, Handle(2)), None);
        assert_eq!(t.open(A, Handle(5), (), Some(7)), Some(7), "next first open: passthrough");
        assert_eq!(t.release(B, Handle(3)), None);
        assert_eq!(t.release(B, Handle(4)), Some(8));
    }

    #[test]
    fn a_handle_of_the_previous_process_is_adopted() {
        let mut t = OpenTable::<u8, u8>::new();
        assert_eq!(t.release(A, Handle(9)), None);
        assert!(t.is_free(A));
        assert_eq!(*t.adopt(A, Handle(9), 1), 1);
        assert_eq!(*t.adopt(A, Handle(9), 2), 1, "adopted once");
        assert_eq!(t.open(A, Handle(10), 3, Some(7)), None, "the kernel has it in cached mode");
        assert_eq!(*t.adopt(B, Handle(9), 4), 4, "a handle of another inode is left alone");
        assert_eq!(t.release(B, Handle(9)), None);
        assert_eq!(t.get(A, Handle(9)).as_deref(), Some(&1));
    }

    proptest! {
        #[test]
        fn an_inode_never_has_two_read_modes_at_once(steps in prop::collection::vec((0..3u64, 0..8u64, any::<bool>(), any::<bool>()), 0..200)) {
            let mut t = OpenTable::<(), u64>::new();
            let mut open: HashMap<(u64, u64), Option<u64>> = HashMap::new();
            for (n, (ino, handle, opens, offers)) in steps.into_iter().enumerate() {
                // A handle belongs to one inode, as the counter that makes them guarantees.
                let (i, h) = (Ino(ino), Handle(ino * 100 + handle));
                if opens && !open.contains_key(&(ino, handle)) {
                    let mode = t.open(i, h, (), offers.then_some(n as u64));
                    for ((other, _), had) in &open {
                        prop_assert!(*other != ino || *had == mode);
                    }
                    open.insert((ino, handle), mode);
                } else if !opens {
                    let out = t.release(i, h);
                    let was = open.remove(&(ino, handle)).flatten();
                    let last = !open.keys().any(|(other, _)| *other == ino);
                    prop_assert_eq!(out, was.filter(|_| last));
                }
                prop_assert_eq!(t.is_free(i), !open.keys().any(|(other, _)| *other == ino));
            }
        }
    }
}
