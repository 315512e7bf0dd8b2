//! Shortens foreign texts for messages.
//!
//! Invariant: the result is one short line, whatever the input. Pure functions.

/// Maximum length of a message with foreign text: one line of a log.
pub const MESSAGE: usize = 300;

/// The beginning of a text with control characters escaped: at most `most` characters, then `…` if there
/// is more.
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
    fn text_is_shortened_to_one_line() {
        assert_eq!(brief("a\nb\u{1b}\u{9b}", 16), "a\\nb\\u{1b}\\u{9b}");
        assert_eq!(brief("a\nb\u{1b}\u{9b}", 15), "a\\nb\\u{1b}…", "escapes count, and stay whole");
        assert_eq!(brief(&"ü".repeat(1 << 20), 3), "üüü…");
        assert_eq!(brief("üüü", 3), "üüü");
    }
}
