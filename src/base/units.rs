//! Sizes and durations in text form, parsed and shown in one way everywhere.
//!
//! Invariant: what is shown can be parsed again. Pure functions.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::brief;

/// A number of bytes: written `50GiB`, `128KiB`, `10MB` or `4096`, shown in binary units.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bytesize::ByteSize(self.0).display().iec().to_string())
    }
}

/// Maximum duration, a century: more cannot be added to every clock.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Maximum number of characters of the input that an error shows.
const SHOWN: usize = 60;

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number of bytes.
    #[error("'{0}' is not a size: write for example 4096, 128KiB, 10MiB or 50GiB")]
    Size(String),
    /// Not a duration.
    #[error(
        "'{0}' is not a duration: write for example 500ms, 60s, 5m or 1h30m, at most 100 years"
    )]
    Duration(String),
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse::<bytesize::ByteSize>()
            .map(|b| Self(b.0))
            .map_err(|_| UnitError::Size(brief(text, SHOWN)))
    }
}

/// Parses a duration such as `60s`, `1h30m` or, meaning seconds, `60`; at most [`LONGEST`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let time = match text.trim().parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) if fits(text) => humantime::parse_duration(text).ok(),
        Err(_) => None,
    };
    time.filter(|time| *time <= LONGEST).ok_or_else(|| UnitError::Duration(brief(text, SHOWN)))
}

/// Whether the parts of a duration cannot overflow when added, where humantime panics: the longest part,
/// `9999999999y`, is 3·10¹⁷ seconds, and the text has room for five.
fn fits(text: &str) -> bool {
    text.len() <= 64 && text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!("50GiB".parse(), Ok(ByteSize::gib(50)));
        assert_eq!("128 KiB".parse(), Ok(ByteSize::kib(128)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        assert_eq!("1.5MiB".parse(), Ok(ByteSize(3 << 19)));
        assert_eq!("10MB".parse(), Ok(ByteSize(10_000_000)));
        for bad in ["", "GiB", "ten", "-1", "1QiB"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(UnitError::Size(bad.to_owned())), "{bad}");
        }
        assert_eq!(ByteSize::gib(50).to_string(), "50.0 GiB");
    }

    #[test]
    fn durations_as_people_write_them() {
        assert_eq!(parse_duration("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(parse_duration("soon").is_err());
        assert_eq!(parse_duration("36500days"), Ok(LONGEST));
        // A deadline that cannot be added to the clock would make every read panic.
        for long in [
            "36501days",
            "18446744073709551615",
            "584542046090years",
            "18446744073709551615s500ms500ms",
            &"9999999999y".repeat(60),
        ] {
            assert!(parse_duration(long).is_err(), "{long}");
        }
    }
}
