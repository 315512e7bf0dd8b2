//! The types of values: how a text becomes one, and how it is shown.
//!
//! Invariant: what is shown parses to the same value, but for credentials, which are not shown. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::base::text::brief;
use crate::base::units::{ByteSize, parse_duration};

/// Characters of a wrong value that a message shows.
const SHOWN: usize = 60;

/// How a value may stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As a text in quotes.
    Text,
    /// As a text in quotes or as a whole number.
    TextOrNumber,
    /// As a whole number.
    Number,
    /// As true or false.
    Boolean,
}

/// What stands in a file or in a variable.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// A text of which the type is not known.
    Plain(&'a str),
    /// A text in quotes.
    Quoted(&'a str),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
}

/// The value that was given, or why it is none.
pub fn read<T: ConfigValue>(given: Given<'_>) -> Result<T, String> {
    match (given, T::WRITTEN) {
        (Given::Plain(text), _) | (Given::Quoted(text), Written::Text | Written::TextOrNumber) => {
            T::parse(text)
        }
        (Given::Integer(number), Written::Number | Written::TextOrNumber) => {
            T::parse(&number.to_string())
        }
        (Given::Boolean(value), Written::Boolean) => T::parse(&value.to_string()),
        (_, Written::Text) => Err("a text in quotes is expected".to_owned()),
        (_, Written::TextOrNumber) => {
            Err("a text in quotes or a whole number is expected".to_owned())
        }
        (_, Written::Number) => Err("a whole number is expected".to_owned()),
        (_, Written::Boolean) => Err("true or false is expected".to_owned()),
    }
}

/// A type that a setting may have.
pub trait ConfigValue: Sized {
    /// Whether a file may have it as a text in quotes, as a whole number, as true or false.
    const WRITTEN: Written;

    /// The value that a text means, or why it means none.
    fn parse(text: &str) -> Result<Self, String>;

    /// Its text, without secrets.
    fn shown(&self) -> String;
}

impl ConfigValue for PathBuf {
    const WRITTEN: Written = Written::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn shown(&self) -> String {
        self.display().to_string()
    }
}

/// An address of this machine that other machines cannot reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoopbackAddress(pub SocketAddr);

impl FromStr for LoopbackAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() && address.port() > 0 => Ok(Self(address)),
            Ok(_) | Err(_) => Err(format!(
                "'{}' is no address of this machine alone: write 127.0.0.1:PORT",
                brief(text, SHOWN)
            )),
        }
    }
}

impl ConfigValue for LoopbackAddress {
    const WRITTEN: Written = Written::Text;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn shown(&self) -> String {
        self.0.to_string()
    }
}

impl ConfigValue for String {
    const WRITTEN: Written = Written::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn shown(&self) -> String {
        self.clone()
    }
}

impl ConfigValue for Address {
    const WRITTEN: Written = Written::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn shown(&self) -> String {
        Self::shown(self)
    }
}

impl ConfigValue for ByteSize {
    const WRITTEN: Written = Written::TextOrNumber;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|e: crate::base::units::UnitError| e.to_string())
    }

    fn shown(&self) -> String {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        // A rounded size would parse to another one.
        let whole = units.iter().find(|(_, bits)| self.0 != 0 && self.0.trailing_zeros() >= *bits);
        whole.map_or_else(|| self.0.to_string(), |(unit, bits)| format!("{}{unit}", self.0 >> bits))
    }
}

impl ConfigValue for Duration {
    const WRITTEN: Written = Written::TextOrNumber;

    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text).map_err(|e| e.to_string())
    }

    fn shown(&self) -> String {
        humantime::format_duration(*self).to_string().replace(' ', "")
    }
}

impl ConfigValue for bool {
    const WRITTEN: Written = Written::Boolean;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("'{}' is neither true nor false", brief(text, SHOWN))),
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for u16 {
    const WRITTEN: Written = Written::Number;

    fn parse(text: &str) -> Result<Self, String> {
        number(text, Self::MAX.into())
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for u32 {
    const WRITTEN: Written = Written::Number;

    fn parse(text: &str) -> Result<Self, String> {
        number(text, Self::MAX)
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for i32 {
    const WRITTEN: Written = Written::Number;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("'{}' is not a whole number", brief(text, SHOWN)))
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

fn number<N: TryFrom<u64>>(text: &str, most: u32) -> Result<N, String> {
    let wrong = || format!("'{}' is not a number from 0 to {most}", brief(text, SHOWN));
    text.parse().ok().and_then(|n: u64| N::try_from(n).ok()).ok_or_else(wrong)
}

/// Refuses the duration zero.
pub fn positive_duration(value: Duration) -> Result<Duration, String> {
    match value {
        Duration::ZERO => Err("must be longer than zero, or every read would fail".to_owned()),
        value => Ok(value),
    }
}

/// Refuses numbers of threads that serve nothing, or that no machine has use for.
pub fn threads(value: u16) -> Result<u16, String> {
    match value {
        1..=256 => Ok(value),
        _ => Err(format!("{value} is not a number from 1 to 256")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again<T: ConfigValue + PartialEq + std::fmt::Debug>(values: &[T]) {
        for value in values {
            assert_eq!(T::parse(&value.shown()).as_ref(), Ok(value));
        }
    }

    #[test]
    fn what_is_shown_parses_to_the_same_value() {
        again(&[0, 1, 1023, 1 << 10, (50 << 30) + 1, 3 << 40, u64::MAX].map(ByteSize));
        again(&[0, 1, 999, 1000, 90_061_001].map(Duration::from_millis));
        again(&[true, false]);
        again(&[0_u16, u16::MAX]);
        again(&[0_u32, u32::MAX]);
        again(&[PathBuf::from("/a b")]);
    }

    #[test]
    fn a_wrong_text_is_refused_and_shown_in_short() {
        assert!(u16::parse("65536").is_err() && u32::parse("-1").is_err());
        assert!(bool::parse("yes").unwrap_err().contains("'yes'"));
        assert!(u16::parse(&"9".repeat(1 << 20)).unwrap_err().len() < 200);
        assert!(threads(0).is_err() && threads(257).is_err() && threads(256).is_ok());
        assert!(positive_duration(Duration::ZERO).is_err());
    }

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        for good in ["127.0.0.1:8090", "[::1]:1", "127.3.2.1:65535"] {
            assert_eq!(good.parse::<LoopbackAddress>().unwrap().shown(), good);
        }
        for bad in ["0.0.0.0:8090", "10.0.0.1:1", "127.0.0.1", "127.0.0.1:0", "localhost:1", ""] {
            assert!(bad.parse::<LoopbackAddress>().is_err(), "{bad}");
        }
    }
}
