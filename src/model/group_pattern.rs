//! Patterns of group names, and which of several sources may be asked about a group.
//!
//! Invariant: a group that a pattern of any source matches is asked only of sources with such a pattern, so
//! that no outsider can offer a model under an organisation's name (dependency confusion). Plain values.

use std::fmt;
use std::str::FromStr;

/// A group name in which `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPattern(Box<str>);

/// The text is no pattern of a group name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a pattern of a group name: write a name such as \"acme\" or \"acme-*\"")]
pub struct GroupPatternError {
    text: String,
}

impl FromStr for GroupPattern {
    type Err = GroupPatternError;

    fn from_str(text: &str) -> Result<Self, GroupPatternError> {
        let odd = |c: char| c == '/' || c.is_control() || c.is_whitespace();
        match text.is_empty() || text.contains(odd) {
            true => Err(GroupPatternError { text: text.to_owned() }),
            false => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for GroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl GroupPattern {
    /// Whether a group has a name of this form.
    pub fn matches(&self, group: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *group };
        let Some(mut group) = group.strip_prefix(first) else { return false };
        let mut pieces = rest.split('*');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            // The leftmost place leaves the most for what follows.
            let Some(at) = group.find(piece) else { return false };
            group = &group[at + piece.len()..];
        }
        group.ends_with(last)
    }
}

/// A source among several, by its place in their order: the first that has a model provides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourceIx(pub u16);

/// Which sources may be asked about which groups.
#[derive(Debug, Clone, Default)]
pub struct GroupClaims {
    /// The patterns of each source, in their order. A source without patterns takes what no other
    /// source's patterns match.
    patterns: Vec<Vec<GroupPattern>>,
}

impl GroupClaims {
    /// The patterns of each source, in the order of the sources.
    pub fn new(patterns: Vec<Vec<GroupPattern>>) -> Self {
        Self { patterns }
    }

    /// The sources that may be asked about a group, in their order.
    pub fn allowed<'a>(&'a self, group: &'a str) -> impl Iterator<Item = SourceIx> + 'a {
        let matches = move |patterns: &[GroupPattern]| patterns.iter().any(|p| p.matches(group));
        let claimed = self.patterns.iter().any(|patterns| matches(patterns));
        (0..).map(SourceIx).zip(&self.patterns).filter_map(move |(ix, patterns)| {
            let may = if claimed { matches(patterns) } else { patterns.is_empty() };
            may.then_some(ix)
        })
    }

    /// Whether there is one source, and it may be asked about every group.
    pub fn takes_everything(&self) -> bool {
        matches!(self.patterns.as_slice(), [only] if only.is_empty())
    }

    /// Whether a source may be asked about a group.
    pub fn allows(&self, source: SourceIx, group: &str) -> bool {
        self.allowed(group).any(|ix| ix == source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> GroupPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (text, yes, no) in [
            ("acme", &["acme"][..], &["acme-x", "xacme", "Acme"][..]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("acme-*", &["acme-", "acme-x"], &["acme", "xacme-y"]),
            ("*-labs", &["a-labs", "-labs"], &["labs", "a-labs-b"]),
            ("a*b*c", &["abc", "axbxc", "abbcc", "a-b-b-c"], &["ab", "ac", "acb", "xabc"]),
            ("ab*ba", &["abba", "abxba"], &["aba"]),
            ("*", &["", "anything"], &[]),
        ] {
            yes.iter().for_each(|g| assert!(pattern(text).matches(g), "{text} {g}"));
            no.iter().for_each(|g| assert!(!pattern(text).matches(g), "{text} {g}"));
        }
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        for text in ["", "a/b", "a b", "a\n"] {
            assert!(text.parse::<GroupPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_claimed_group_is_asked_of_no_other_source() {
        let claims = GroupClaims::new(vec![
            vec![],
            vec![pattern("acme"), pattern("acme-*")],
            vec![pattern("acme-x")],
            vec![],
        ]);
        let allowed = |group| claims.allowed(group).map(|ix| ix.0).collect::<Vec<_>>();
        assert_eq!(allowed("acme"), [1]);
        assert_eq!(allowed("acme-x"), [1, 2]);
        assert_eq!(allowed("other"), [0, 3]);
        assert!(claims.allows(SourceIx(3), "other") && !claims.allows(SourceIx(3), "acme"));
        assert_eq!(GroupClaims::default().allowed("x").count(), 0);
    }

    proptest! {
        #[test]
        fn a_pattern_matches_every_text_made_from_it(
            pieces in proptest::collection::vec("[ab]{0,3}", 1..4),
            between in proptest::collection::vec("[abc]{0,3}", 3),
        ) {
            let text = pieces.join("*");
            prop_assume!(!text.is_empty());
            let mut made = pieces[0].clone();
            for (piece, filler) in pieces[1..].iter().zip(&between) {
                made.push_str(filler);
                made.push_str(piece);
            }
            prop_assert!(pattern(&text).matches(&made), "{text} {made}");
        }
    }
}
