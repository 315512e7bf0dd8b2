//! Sets of parts as bitmaps: which are present, which wait for their commit.
//!
//! Invariant: a bit beyond what was ever set is 0; the set grows by itself, so an empty one takes
//! no memory. Pure values; the owner guards it.

use crate::model::PartRange;

/// A set of parts of one blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartSet {
    words: Vec<u64>,
}

/// The words that a range touches: (index, mask of the range's bits in it).
fn words(range: PartRange) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (u64::from(range.start), u64::from(range.end));
    let first = start / 64;
    let last = if range.is_empty() { first } else { end.div_ceil(64) };
    (first..last).map(move |w| {
        let low = start.saturating_sub(w * 64);
        let high = (end - w * 64).min(64);
        let upto = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (w as usize, upto & (u64::MAX << low))
    })
}

impl PartSet {
    fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    /// Whether this part is in the set.
    pub fn get(&self, part: u32) -> bool {
        self.word(part as usize / 64) >> (part % 64) & 1 == 1
    }

    /// Puts a run of parts in.
    pub fn set(&mut self, range: PartRange) {
        if range.is_empty() {
            return;
        }
        let need = (range.end as usize).div_ceil(64);
        if self.words.len() < need {
            self.words.resize(need, 0);
        }
        for (at, mask) in words(range) {
            self.words[at] |= mask;
        }
    }

    /// Takes a run of parts out.
    pub fn clear(&mut self, range: PartRange) {
        for (at, mask) in words(range) {
            match self.words.get_mut(at) {
                Some(word) => *word &= !mask,
                None => break,
            }
        }
    }

    /// Puts everything of another set in.
    pub fn merge(&mut self, other: &PartSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Whether every part of the run is in the set; true of an empty run.
    pub fn all(&self, range: PartRange) -> bool {
        words(range).all(|(at, mask)| self.word(at) & mask == mask)
    }

    /// Whether some part of the run is in the set.
    pub fn any(&self, range: PartRange) -> bool {
        words(range).any(|(at, mask)| self.word(at) & mask != 0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// The longest runs within `range` that are (`value`) or are not in the set, in order.
    pub fn runs(&self, range: PartRange, value: bool) -> Vec<PartRange> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let start = self.next(at, range.end, value);
            if start == range.end {
                break;
            }
            at = self.next(start, range.end, !value);
            out.push(PartRange { start, end: at });
        }
        out
    }

    /// The first part from `from` on, before `end`, whose bit is `value`; else `end`.
    fn next(&self, from: u32, end: u32, value: bool) -> u32 {
        for (at, mask) in words(PartRange { start: from, end }) {
            let word = if value { self.word(at) } else { !self.word(at) } & mask;
            if word != 0 {
                return (at as u32) * 64 + word.trailing_zeros();
            }
        }
        end
    }

    /// The bits of a run as bytes, lowest first, trailing zero bytes cut: what the index keeps.
    pub fn to_bytes(&self, range: PartRange) -> Vec<u8> {
        let mut out = vec![0u8; (range.len() as usize).div_ceil(8)];
        for run in self.runs(range, true) {
            for part in run.iter() {
                let bit = (part.0 - range.start) as usize;
                out[bit / 8] |= 1 << (bit % 8);
            }
        }
        while out.last() == Some(&0) {
            out.pop();
        }
        out
    }

    /// Puts in what [`PartSet::to_bytes`] of the same run gave. PartSet beyond the run are refused.
    pub fn add_bytes(&mut self, range: PartRange, bytes: &[u8]) -> bool {
        let len = range.len() as usize;
        let beyond = |(at, byte): (usize, &u8)| {
            at > len / 8 && *byte != 0 || at == len / 8 && byte >> (len % 8) != 0
        };
        if bytes.iter().enumerate().skip(len / 8).any(beyond) {
            return false;
        }
        let need = (range.end as usize).div_ceil(64);
        if self.words.len() < need {
            self.words.resize(need, 0);
        }
        for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let bit = range.start as usize + at * 8;
            let (low, high) = split(*byte, bit % 64);
            self.words[bit / 64] |= low;
            // what is left of it lies in the run, so there is a word for it
            if high != 0 {
                self.words[bit / 64 + 1] |= high;
            }
        }
        true
    }
}

/// A byte at a bit's place in a word: what lies in that word, and what in the next.
fn split(byte: u8, shift: usize) -> (u64, u64) {
    let wide = u128::from(byte) << shift;
    (wide as u64, (wide >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn r(start: u32, end: u32) -> PartRange {
        PartRange { start, end }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((any::<bool>(), 0u32..300, 0u32..200), 0..40),
                              (a, n) in (0u32..300, 0u32..200)) {
            let (mut bits, mut set) = (PartSet::default(), BTreeSet::new());
            for (put, start, len) in ops {
                let range = r(start, start + len);
                if put { bits.set(range); set.extend(start..start + len); }
                else { bits.clear(range); set.retain(|i| !(start..start + len).contains(i)); }
            }
            let range = r(a, a + n);
            prop_assert_eq!(bits.all(range), (a..a + n).all(|i| set.contains(&i)));
            prop_assert_eq!(bits.any(range), (a..a + n).any(|i| set.contains(&i)));
            prop_assert_eq!(bits.is_empty(), set.is_empty());
            let present: Vec<u32> = bits.runs(range, true).into_iter().flat_map(|p| p.start..p.end).collect();
            prop_assert_eq!(present, (a..a + n).filter(|i| set.contains(i)).collect::<Vec<_>>());
            let absent: Vec<u32> = bits.runs(range, false).into_iter().flat_map(|p| p.start..p.end).collect();
            prop_assert_eq!(absent, (a..a + n).filter(|i| !set.contains(i)).collect::<Vec<_>>());
            let mut back = PartSet::default();
            prop_assert!(back.add_bytes(range, &bits.to_bytes(range)));
            for i in a..a + n { prop_assert_eq!(back.get(i), set.contains(&i)); }
        }

        #[test]
        fn merging_is_union(runs in proptest::collection::vec((any::<bool>(), 0u32..300, 0u32..40), 0..20)) {
            let (mut one, mut other, mut both) = (PartSet::default(), PartSet::default(), PartSet::default());
            for (first, start, len) in runs {
                if first { &mut one } else { &mut other }.set(r(start, start + len));
                both.set(r(start, start + len));
            }
            one.merge(&other);
            prop_assert_eq!(one.runs(r(0, 400), true), both.runs(r(0, 400), true));
        }

        #[test]
        fn stored_bits_are_added_if_all_lie_in_the_run(bytes in proptest::collection::vec(0u8..16, 0..6),
                                                      zeros in 0usize..3, start in 0u32..130, len in 0u32..50) {
            let bytes = [bytes, vec![0; zeros]].concat();
            let bit = |i: u32| bytes.get(i as usize / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
            let fits = (len..8 * bytes.len() as u32).all(|i| !bit(i));
            let mut bits = PartSet::default();
            bits.set(r(start, start + 2));
            prop_assert_eq!(bits.add_bytes(r(start, start + len), &bytes), fits);
            for i in 0..300 {
                let added = fits && i >= start && i < start + len && bit(i - start);
                prop_assert_eq!(bits.get(i), added || i == start || i == start + 1, "bit {}", i);
            }
        }
    }

    #[test]
    fn stored_bits_beyond_the_run_are_refused() {
        assert!(!PartSet::default().add_bytes(r(0, 7), &[0b1000_0000]));
        assert!(PartSet::default().add_bytes(r(0, 8), &[0b1000_0000]));
    }
}
