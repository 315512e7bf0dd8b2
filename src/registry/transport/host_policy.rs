//! Which hosts and which addresses may be asked.
//!
//! Invariant: [`PublicAddresses`] resolves a name to addresses that are not private, and the connection goes to one of
//! these: a name that leads elsewhere a moment later changes nothing. An address in a URL is resolved by
//! nobody, so [`HostPolicy::check`] looks at it. Shared; no state.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Name, Resolve, Resolving};

/// Says whether a host and port may be asked, or why not.
type HostRule = dyn Fn(&str, Option<u16>) -> Result<(), String> + Send + Sync;

/// Which hosts may be asked; by default all.
#[derive(Clone, Default)]
pub struct HostPolicy {
    rule: Option<Arc<HostRule>>,
    deny_private: bool,
}

/// This machine's policy does not allow a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

impl fmt::Debug for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restricts = self.rule.is_some();
        f.debug_struct("HostPolicy")
            .field("restricts_hosts", &restricts)
            .field("deny_private", &self.deny_private)
            .finish()
    }
}

impl HostPolicy {
    /// Only the hosts that `rule` allows; it is given the host as in a URL, and the port.
    pub fn of_hosts(
        rule: impl Fn(&str, Option<u16>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { rule: Some(Arc::new(rule)), deny_private: false }
    }

    /// Also refuses addresses of private networks and of this machine.
    pub fn denying_private(self, deny: bool) -> Self {
        Self { deny_private: deny, ..self }
    }

    /// Whether addresses of private networks are refused.
    pub fn denies_private(&self) -> bool {
        self.deny_private
    }

    /// Whether a URL may be asked, as far as the URL says.
    pub fn check(&self, url: &Url) -> Result<(), NotAllowed> {
        let host = url.host_str().unwrap_or_default();
        if let Some(rule) = &self.rule {
            rule(host, url.port_or_known_default()).map_err(NotAllowed)?;
        }
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        match address {
            Ok(address) if self.deny_private && !is_public(address) => Err(private(host, address)),
            _ => Ok(()),
        }
    }
}

fn private(host: &str, address: IpAddr) -> NotAllowed {
    let leads = match host.trim_matches(['[', ']']) == address.to_string() {
        true => format!("{host} is"),
        false => format!("{host} leads to {address},"),
    };
    NotAllowed(format!(
        "{leads} an address of a private network or of this machine, and deny_private_addresses is set"
    ))
}

/// Resolves names to public addresses only.
#[derive(Debug, Clone, Copy)]
pub struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let public: Vec<_> = found.iter().copied().filter(|at| is_public(at.ip())).collect();
            match (public.is_empty(), found.first()) {
                (true, Some(first)) => Err(private(host, first.ip()).into()),
                _ => Ok(Box::new(public.into_iter()) as Box<dyn Iterator<Item = _> + Send>),
            }
        })
    }
}

/// Whether an address is one of the public Internet, by the registries of special addresses of IANA.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || v4.is_multicast()
        // "This network", and 240.0.0.0/4 with the broadcast address.
        || a == 0
        || a >= 240
        // Addresses that providers share, protocol assignments, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // Addresses that stand for one of IPv4: mapped, translated (two prefixes), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Only this eighth is given out; of it, protocol assignments and documentation are not.
        [first, second, ..] => {
            (0x2000..0x4000).contains(&first)
                && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for public in ["1.1.1.1", "192.0.1.1", "100.63.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn an_address_in_a_url_is_looked_at_however_it_is_written() {
        let policy = HostPolicy::default().denying_private(true);
        let check = |url: &str| policy.check(&Url::parse(url).unwrap());
        for url in [
            "http://127.0.0.1:8/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
        ] {
            let error = check(url).expect_err(url).to_string();
            assert!(error.contains("deny_private_addresses"), "{error}");
        }
        assert!(check("https://1.1.1.1/").is_ok() && check("https://h.example/").is_ok());
        assert!(HostPolicy::default().check(&Url::parse("http://10.0.0.1/").unwrap()).is_ok());
    }

    #[test]
    fn a_rule_sees_the_host_and_the_port() {
        let policy = HostPolicy::of_hosts(|host, port| match (host, port) {
            ("h.example", Some(443)) => Ok(()),
            _ => Err(format!("{host} is not allowed")),
        });
        let check = |url: &str| policy.check(&Url::parse(url).unwrap());
        assert_eq!(check("https://h.example/x"), Ok(()));
        assert_eq!(check("http://h.example/x").unwrap_err().0, "h.example is not allowed");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_alone_is_refused() {
        let resolved = PublicAddresses.resolve("localhost".parse().unwrap()).await;
        let error = resolved.err().expect("localhost is this machine");
        assert!(error.downcast_ref::<NotAllowed>().is_some(), "{error}");
    }
}
