//! Other people's texts, as messages show them.
//!
//! Invariant: what comes out is one short line, however long and whatever it was. Pure functions.

/// A message that has other people's texts in it fits a line of a log.
pub const MESSAGE: usize = 300;

/// The beginning of a text with its control characters escaped, in at most `most` characters and
/// a sign that there is more.
pub fn brief(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut room = most;
    for c in text.chars() {
        let escape = c.is_control().then(|| c.escape_default());
        let takes = escape.as_ref().map_or(1, |e| e.len());
        if takes > room {
            out.push('…');
            break;
        }
        room -= takes;
        match escape {
            Some(escape) => out.extend(escape),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_short_line() {
        assert_eq!(brief("a\nb\u{1b}\u{9b}", 16), "a\\nb\\u{1b}\\u{9b}");
        assert_eq!(brief("a\nb\u{1b}\u{9b}", 15), "a\\nb\\u{1b}…", "escapes count, and stay whole");
        assert_eq!(brief(&"ü".repeat(1 << 20), 3), "üüü…");
        assert_eq!(brief("üüü", 3), "üüü");
    }
}
