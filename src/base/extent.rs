//! Byte ranges typed by what they count in: ranges of a file and of an object cannot be mixed.
//!
//! Invariant: `start <= end`. Plain values.

use std::fmt;
use std::marker::PhantomData;

/// Marks ranges of bytes of a model file (equally, of the blob that caches it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InFile {}

/// Marks ranges of bytes of a registry's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InObject {}

/// A half-open range of bytes within a `Space`.
pub struct Extent<Space> {
    start: u64,
    end: u64,
    space: PhantomData<fn() -> Space>,
}

/// Bytes of a model file.
pub type FileRange = Extent<InFile>;
/// Bytes of an object.
pub type ObjectRange = Extent<InObject>;

impl<S> Extent<S> {
    /// `[start, end)`; an end before the start makes an empty range at `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        let end = if end < start { start } else { end };
        Self { start, end, space: PhantomData }
    }

    /// `len` bytes from `start` on, cut at the largest offset.
    pub const fn at(start: u64, len: u64) -> Self {
        Self::new(start, start.saturating_add(len))
    }

    /// The first byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is empty.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The common bytes; if none, an empty range at this one's start or later.
    pub fn intersect(&self, other: &Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether every byte of `other` is in this one.
    pub const fn contains(&self, other: &Self) -> bool {
        other.start == other.end || (self.start <= other.start && other.end <= self.end)
    }
}

impl<S> Clone for Extent<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Extent<S> {}
impl<S> PartialEq for Extent<S> {
    fn eq(&self, other: &Self) -> bool {
        (self.start, self.end) == (other.start, other.end)
    }
}
impl<S> Eq for Extent<S> {}
impl<S> std::hash::Hash for Extent<S> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.start, self.end).hash(state);
    }
}
impl<S> fmt::Debug for Extent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}
impl<S> fmt::Display for Extent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersections_are_never_inside_out() {
        let a = FileRange::new(10, 20);
        assert_eq!(a.intersect(&FileRange::new(15, 30)), FileRange::new(15, 20));
        assert!(a.intersect(&FileRange::new(30, 40)).is_empty());
        assert!(a.intersect(&FileRange::new(0, 10)).is_empty());
        assert_eq!(FileRange::at(u64::MAX - 1, 10).end(), u64::MAX);
    }
}
