//! What the test server may be told to do wrong, and to which requests. Plain values.

use std::time::Duration;

pub use modelfs::registry::When;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes later.
    Delay(Duration),
    /// Nothing more comes after so many bytes of the body; the connection stays.
    Stall(u64),
    /// The connection breaks after so many bytes of the body.
    Reset(u64),
    /// The connection is closed in good order after so many bytes, fewer than were declared.
    Truncate(u64),
    /// Only so many bytes come, in a body without a declared length that ends in good order.
    Short(u64),
    /// So many bytes too many follow, in a body without a declared length.
    ExtraBytes(u64),
    /// One bit of the byte at this offset in the file is wrong, if it is sent.
    FlipBit(u64),
    /// `Content-Length` says this.
    WrongContentLength(u64),
    /// `Content-Range` says this.
    WrongContentRange(String),
    /// The whole file with status 200.
    IgnoreRange,
    /// A status and nothing else, with `Retry-After` if given.
    Status(u16, Option<String>),
    /// A redirect to this URL; `None`: to itself, for ever.
    Redirect(Option<String>),
    /// The body is said to be of this `Content-Encoding`.
    Encoding(String),
    /// The body comes in pieces of so many bytes, each after a pause.
    Drip(u64, Duration),
    /// No `Content-Length`: chunked.
    Chunked,
    /// The connection breaks without an answer.
    Gone,
    /// These bytes stand in the file's place: half of it, nothing, another one's.
    Serve(Vec<u8>),
}

#[derive(Debug)]
struct Rule {
    path: String,
    when: When,
    fault: Fault,
    seen: u64,
}

/// Faults in the order they were added.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn add(&mut self, path: &str, when: When, fault: Fault) {
        self.0.push(Rule { path: path.to_owned(), when, fault, seen: 0 });
    }

    /// Forgets what was added for exactly this path.
    pub(crate) fn forget(&mut self, path: &str) {
        self.0.retain(|rule| rule.path != path);
    }

    /// What goes wrong with the next request for this path: all that fits.
    pub(crate) fn next(&mut self, path: &str) -> Vec<Fault> {
        let fits = self.0.iter_mut().filter(|rule| path.contains(&rule.path));
        let now = fits.filter_map(|rule| {
            let nth = rule.seen;
            rule.seen += 1;
            rule.when.is_now(nth).then(|| rule.fault.clone())
        });
        now.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_what_fits_them() {
        let mut rules = Rules::default();
        rules.add("data/", When::Nth(1), Fault::Gone);
        rules.add("data/a", When::First(1), Fault::Chunked);
        rules.add("json", When::Always, Fault::IgnoreRange);
        assert_eq!(rules.next("/data/b"), []);
        assert_eq!(rules.next("/data/a"), [Fault::Gone, Fault::Chunked]);
        assert_eq!(rules.next("/data/a"), []);
        assert_eq!(rules.next("/models.json"), [Fault::IgnoreRange]);
        rules.forget("json");
        assert_eq!(rules.next("/models.json"), []);
    }
}
