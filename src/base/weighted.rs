//! An LRU cache bounded by the weight of its values.
//!
//! Invariant: the weights add up to at most the limit, or there is only one value: the newest is always
//! kept.
//! Concurrency: one owner; the caller locks.

use std::hash::Hash;

use lru::LruCache;

/// Evicts the least recently used values first.
pub(crate) struct Weighted<K: Hash + Eq, V> {
    list: LruCache<K, (usize, V)>,
    weight: usize,
    limit: usize,
}

impl<K: Hash + Eq, V: Clone> Weighted<K, V> {
    /// An empty cache.
    pub(crate) fn new(limit: usize) -> Self {
        Self { list: LruCache::unbounded(), weight: 0, limit }
    }

    /// Returns the value and marks it as most recently used.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.list.get(key).map(|(_, value)| value.clone())
    }

    /// The keys, the most recently used first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.list.iter().map(|(key, _)| key)
    }

    /// Stores a value, and evicts others until the limit is met.
    pub(crate) fn put(&mut self, key: K, weight: usize, value: V) {
        if let Some((old, _)) = self.list.put(key, (weight, value)) {
            self.weight -= old;
        }
        self.weight += weight;
        while self.weight > self.limit && self.list.len() > 1 {
            match self.list.pop_lru() {
                Some((_, (gone, _))) => self.weight -= gone,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_but_never_the_last() {
        let mut cache = Weighted::new(10);
        cache.put('a', 4, 1);
        cache.put('b', 4, 2);
        assert_eq!(cache.get(&'a'), Some(1));
        cache.put('c', 4, 3);
        assert_eq!((cache.get(&'b'), cache.get(&'a'), cache.get(&'c')), (None, Some(1), Some(3)));
        cache.put('a', 2, 5);
        cache.put('d', 4, 4);
        assert_eq!(
            (cache.get(&'a'), cache.weight),
            (Some(5), 10),
            "a lighter value counts lighter"
        );
        cache.put('e', 100, 9);
        assert_eq!((cache.get(&'e'), cache.list.len(), cache.weight), (Some(9), 1, 100));
    }
}
