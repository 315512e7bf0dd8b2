//! Which hosts sources may be on.
//!
//! Invariant: a stronger layer can only narrow what a weaker one allows: a host must match a list of every
//! layer that has one. Pure values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::origin::{Origin, Setting};

/// A host, `*.` and a domain for the hosts below it, or one of these with a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    below: bool,
    host: String,
    port: Option<u16>,
}

impl HostPattern {
    /// The pattern that a text means, or why it means none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let why = || "is no host: write host, host:port or *.domain".to_owned();
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits);
                (host, Some(port.ok_or_else(why)?))
            }
            _ => (rest, None),
        };
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match inside {
            Some(inside) => !below && inside.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        match valid {
            true => Ok(Self { below, host: host.to_ascii_lowercase(), port }),
            false => Err(why()),
        }
    }

    /// Whether it means this host; `host` as in a URL.
    pub fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let right_host = match self.below {
            true => host.strip_suffix(&self.host).is_some_and(|h| h.ends_with('.') && h.len() > 1),
            false => host == self.host,
        };
        right_host && (self.port.is_none() || self.port == port)
    }
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

/// The host policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// The lists of all layers: a host must match one pattern of each.
    pub allowed_hosts: Vec<Setting<Vec<HostPattern>>>,
    /// Whether addresses of private networks are refused; none: they are not.
    pub deny_private_addresses: Option<Setting<bool>>,
}

impl Policy {
    /// Adds what a stronger layer says.
    pub fn narrow(&mut self, by: Self) {
        self.allowed_hosts.extend(by.allowed_hosts);
        let denied = self.deny_private_addresses.as_ref().is_some_and(|denies| denies.value);
        if let Some(denies) = by.deny_private_addresses.filter(|_| !denied) {
            self.deny_private_addresses = Some(denies);
        }
    }

    /// Whether a host may be asked; else where the list is that lacks it.
    pub fn allows(&self, host: &str, port: Option<u16>) -> Result<(), &Origin> {
        let lacks = |list: &&Setting<Vec<HostPattern>>| {
            !list.value.iter().any(|pattern| pattern.matches(host, port))
        };
        self.allowed_hosts.iter().find(lacks).map_or(Ok(()), |list| Err(&list.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, patterns: &[&str]) -> Setting<Vec<HostPattern>> {
        let patterns = patterns.iter().map(|p| HostPattern::parse(p).unwrap()).collect();
        Setting::argument(name, patterns)
    }

    #[test]
    fn patterns_match_the_hosts_that_they_name() {
        let matches =
            |pattern: &str, host, port| HostPattern::parse(pattern).unwrap().matches(host, port);
        assert!(matches("h.example", "H.example.", Some(443)));
        assert!(matches("*.example.org", "a.b.example.org", None));
        assert!(!matches("*.example.org", "example.org", None));
        assert!(!matches("*.example.org", "badexample.org", None));
        assert!(!matches("*.example.org", ".example.org", None));
        assert!(matches("h:80", "h", Some(80)) && !matches("h:80", "h", Some(81)));
        assert!(matches("[::1]:80", "[::1]", Some(80)) && matches("[::1]", "[::1]", None));
        for bad in ["", "*", "*.", "a..b", "h:", "h:99999", "h:+1", "http://h", "*.[::1]", "u@h"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        let shown = "*.example.org:443";
        assert_eq!(HostPattern::parse(shown).unwrap().to_string(), shown);
    }

    #[test]
    fn a_stronger_layer_narrows_and_never_widens() {
        let deny = |value| Some(Setting::argument("x", value));
        let mut policy = Policy {
            allowed_hosts: vec![list("system", &["*.example.org", "h"])],
            deny_private_addresses: deny(true),
        };
        policy.narrow(Policy {
            allowed_hosts: vec![list("user", &["a.example.org", "evil.example"])],
            deny_private_addresses: deny(false),
        });
        assert!(policy.allows("a.example.org", None).is_ok());
        assert_eq!(policy.allows("evil.example", None).unwrap_err().to_string(), "system");
        assert_eq!(policy.allows("h", None).unwrap_err().to_string(), "user");
        assert!(policy.deny_private_addresses.is_some_and(|denies| denies.value));
        assert!(Policy::default().allows("anything", None).is_ok());
    }
}
