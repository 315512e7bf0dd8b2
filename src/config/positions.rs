//! Lines and columns of a text. Pure.

/// A longer line is not counted in characters but in bytes: its columns are of no use to people, and each
/// value of one long line would count all before it.
const LONG_LINE: usize = 4096;

/// Where the lines of a text begin.
pub struct Positions<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Positions<'a> {
    /// Finds the lines.
    pub fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self { text, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// Line and column of a byte, both from 1.
    pub fn at(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).filter(|before| before.len() <= LONG_LINE);
        let column = before.map_or(offset - start, |before| before.chars().count());
        (line, column + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters() {
        let positions = Positions::new("a\nüx = 1\n");
        assert_eq!(positions.at(0), (1, 1));
        assert_eq!(positions.at(2), (2, 1));
        assert_eq!(positions.at(4), (2, 2));
        assert_eq!(positions.at(10), (3, 1));
        assert_eq!(positions.at(99), (3, 90), "beyond the end: no panic");
        assert_eq!(Positions::new("").at(0), (1, 1));
    }
}
