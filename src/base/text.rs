//! Other people's texts, as messages show them.
//!
//! Invariant: what comes out is one short line, however long and whatever it was. Pure functions.

/// A message that has other people's texts in it fits a line of a log.
pub const MESSAGE: usize = 300;

/// At most `most` characters of a text, with its control characters escaped.
pub fn brief(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    for c in rest.by_ref().take(most) {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    if rest.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_short_line() {
        assert_eq!(brief("a\nb\u{1b}\u{9b}", 9), "a\\nb\\u{1b}\\u{9b}");
        assert_eq!(brief(&"ü".repeat(1 << 20), 3), "üüü…");
        assert_eq!(brief("üüü", 3), "üüü");
    }
}
