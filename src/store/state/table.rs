//! The blobs that have something present or are in use.
//!
//! Invariant: an entry is in the table while it has a user, files, or parts; there is at most one per
//! key. An entry's pinned flag says whether its key is in the set of pinned blobs.
//! Concurrency: one lock, inside which only an entry's own state is locked.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::BlobEntry;
use crate::model::{BlobLayout, ContentKey};

/// All entries, by key and by number.
#[derive(Debug, Default)]
pub struct Table {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<ContentKey, Arc<BlobEntry>>,
    by_id: HashMap<u32, Arc<BlobEntry>>,
    pinned: HashSet<ContentKey>,
    last_id: u32,
}

impl Inner {
    fn entry(&mut self, layout: &Arc<BlobLayout>) -> Arc<BlobEntry> {
        let key = layout.key();
        if let Some(entry) = self.by_key.get(&key) {
            return entry.clone();
        }
        self.last_id += 1;
        let pinned = self.pinned.contains(&key);
        let entry = Arc::new(BlobEntry::new(self.last_id, layout.clone(), pinned));
        self.by_key.insert(key, entry.clone());
        self.by_id.insert(entry.id, entry.clone());
        entry
    }

    fn remove_if_unused(&mut self, entry: &Arc<BlobEntry>) {
        let key = entry.key();
        let listed = self.by_key.get(&key).is_some_and(|e| Arc::ptr_eq(e, entry));
        if listed && entry.state().is_unused() {
            self.by_key.remove(&key);
            self.by_id.remove(&entry.id);
        }
    }
}

impl Table {
    /// Empty, with these blobs pinned.
    pub fn new(pinned: HashSet<ContentKey>) -> Self {
        Self { inner: Mutex::new(Inner { pinned, ..Inner::default() }) }
    }

    /// The entry of a key.
    pub fn get(&self, key: &ContentKey) -> Option<Arc<BlobEntry>> {
        self.inner.lock().by_key.get(key).cloned()
    }

    /// The entry with a number.
    pub fn by_id(&self, id: u32) -> Option<Arc<BlobEntry>> {
        self.inner.lock().by_id.get(&id).cloned()
    }

    /// All entries, in no order.
    pub fn all(&self) -> Vec<Arc<BlobEntry>> {
        self.inner.lock().by_key.values().cloned().collect()
    }

    /// The entry of a layout, made with nothing present if it is not there.
    pub fn entry(&self, layout: &Arc<BlobLayout>) -> Arc<BlobEntry> {
        self.inner.lock().entry(layout)
    }

    /// The same, kept in the table for as long as the result lives.
    pub fn acquire(self: &Arc<Self>, layout: &Arc<BlobLayout>) -> EntryUse {
        let mut inner = self.inner.lock();
        let entry = inner.entry(layout);
        entry.state().users += 1;
        EntryUse { table: self.clone(), entry }
    }

    /// Removes an entry that has no user, no files and no parts.
    pub fn remove_if_unused(&self, entry: &Arc<BlobEntry>) {
        self.inner.lock().remove_if_unused(entry);
    }

    /// Whether a blob is pinned.
    pub fn is_pinned(&self, key: &ContentKey) -> bool {
        self.inner.lock().pinned.contains(key)
    }

    /// Replaces the set of pinned blobs; the entries that this changes.
    pub fn set_pinned(&self, pinned: HashSet<ContentKey>) -> Vec<Arc<BlobEntry>> {
        let mut inner = self.inner.lock();
        let before = std::mem::replace(&mut inner.pinned, pinned);
        let changed = before.symmetric_difference(&inner.pinned);
        let changed: Vec<_> = changed.filter_map(|key| inner.by_key.get(key).cloned()).collect();
        for entry in &changed {
            entry.set_pinned(inner.pinned.contains(&entry.key()));
        }
        changed
    }
}

/// A use of an entry, which keeps it in the table.
#[derive(Debug)]
pub struct EntryUse {
    table: Arc<Table>,
    entry: Arc<BlobEntry>,
}

impl Deref for EntryUse {
    type Target = Arc<BlobEntry>;

    fn deref(&self) -> &Arc<BlobEntry> {
        &self.entry
    }
}

impl Drop for EntryUse {
    fn drop(&mut self) {
        let mut inner = self.table.inner.lock();
        self.entry.state().users -= 1;
        inner.remove_if_unused(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Check, Digest};

    fn layout(n: u8) -> Arc<BlobLayout> {
        let piece = (Check::Whole, Digest::from_bytes([n; 32]), 9, ObjectRange::new(0, 9));
        Arc::new(BlobLayout::new([piece]).unwrap())
    }

    #[test]
    fn an_entry_stays_while_it_is_used() {
        let (table, layout) = (Arc::new(Table::default()), layout(1));
        let (first, second) = (table.acquire(&layout), table.acquire(&layout));
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        assert!(table.get(&layout.key()).is_some());
        second.state().row = Some(1);
        drop(second);
        let entry = table.get(&layout.key()).expect("it has files");
        entry.state().row = None;
        table.remove_if_unused(&entry);
        assert!(table.get(&layout.key()).is_none() && table.by_id(entry.id).is_none());
        assert_ne!(table.entry(&layout).id, entry.id, "numbers are not used again");
    }

    #[test]
    fn pins_mark_entries_that_are_there_and_that_come() {
        let (one, two) = (layout(1), layout(2));
        let table = Table::default();
        let first = table.entry(&one);
        let changed = table.set_pinned(HashSet::from([one.key(), two.key()]));
        assert_eq!(changed.len(), 1);
        assert!(first.is_pinned() && table.entry(&two).is_pinned());
        assert_eq!(table.set_pinned(HashSet::from([two.key()])).len(), 1);
        assert!(!first.is_pinned() && !table.is_pinned(&one.key()));
    }
}
