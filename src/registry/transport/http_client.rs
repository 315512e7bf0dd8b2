//! The client that every request over HTTP goes through.
//!
//! Invariant: no request leaves, and no redirect is followed, to a host or address that the policy does not
//! allow, or by TLS while the clock stands before 1970. Concurrency: shared; connections are kept.

use std::time::SystemTime;

use reqwest::{Client, Method, RequestBuilder, Url, redirect};

use super::host_policy::{HostPolicy, NotAllowed, PublicAddresses};
use super::http_response::why;
use super::timeouts::Timeouts;
use crate::registry::error::RegistryError;

/// Why no server with a certificate can be asked.
const CLOCK: &str = "this machine's clock stands before 1970: set it";

/// More redirects than any bucket or mirror needs.
pub(in crate::registry) const MAX_REDIRECTS: usize = 5;

/// How servers are asked.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// How long they may be silent.
    pub timeouts: Timeouts,
    /// Which of them may be asked.
    pub policy: HostPolicy,
}

/// What becomes of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Redirects {
    /// It is followed. One that leads to another host takes no `Authorization` with it.
    Followed,
    /// It is an answer like others.
    Returned,
}

/// Why a request was not sent.
#[derive(Debug)]
pub(in crate::registry) enum NotSent {
    Clock,
    NotAllowed(NotAllowed),
}

/// Sends requests.
#[derive(Debug, Clone)]
pub(in crate::registry) struct HttpClient {
    client: Client,
    policy: HostPolicy,
}

impl NotSent {
    /// The error of a request for `what`.
    pub fn error(self, what: &str) -> RegistryError {
        let what = what.to_owned();
        match self {
            Self::Clock => RegistryError::Unreachable { what, why: CLOCK.to_owned() },
            Self::NotAllowed(NotAllowed(why)) => RegistryError::Denied { what, why },
        }
    }
}

impl HttpClient {
    /// A client for the server of `base`. Opens no connection; an error in one line.
    pub fn new(base: &Url, options: &HttpOptions, redirects: Redirects) -> Result<Self, String> {
        let HttpOptions { timeouts, policy } = options.clone();
        let follows = policy.clone();
        let mut client = Client::builder()
            .user_agent(concat!("modelfs/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.stall)
            // A Referer would show the query to the server that a redirect leads to.
            .referer(false)
            .http2_adaptive_window(true)
            .redirect(match redirects {
                Redirects::Followed => redirect::Policy::custom(move |to| follow(to, &follows)),
                Redirects::Returned => redirect::Policy::none(),
            });
        if policy.denies_private() {
            client = client.dns_resolver(PublicAddresses);
        }
        // No proxy leads to this machine, and a proxy would choose the address by itself.
        if is_local(base) || policy.denies_private() {
            client = client.no_proxy();
        }
        Ok(Self { client: client.build().map_err(why)?, policy })
    }

    /// A request that may be sent.
    pub fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, NotSent> {
        may_be_sent(&url, &self.policy, SystemTime::now())?;
        Ok(self.client.request(method, url))
    }
}

/// Whether a URL leads to this machine.
pub(in crate::registry) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Certificates begin later than 1970, and rustls panics where the clock stands before that.
fn may_be_sent(url: &Url, policy: &HostPolicy, now: SystemTime) -> Result<(), NotSent> {
    match url.scheme() == "https" && now < SystemTime::UNIX_EPOCH {
        true => Err(NotSent::Clock),
        false => policy.check(url).map_err(NotSent::NotAllowed),
    }
}

/// Follows a redirect, unless it leads from https to http or to a host that is not allowed.
fn follow(attempt: redirect::Attempt<'_>, policy: &HostPolicy) -> redirect::Action {
    let from = attempt.previous().last().map(Url::scheme);
    if from == Some("https") && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to http");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    match may_be_sent(attempt.url(), policy, SystemTime::now()) {
        Ok(()) => attempt.follow(),
        Err(NotSent::Clock) => attempt.error(CLOCK),
        Err(NotSent::NotAllowed(NotAllowed(why))) => {
            attempt.error(NotAllowed(format!("redirected: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_does_not_panic_when_certificates_are_checked() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        for (url, now, may) in [
            ("https://h", before, false),
            ("http://h", before, true),
            ("https://h", SystemTime::UNIX_EPOCH, true),
        ] {
            let sent = may_be_sent(&Url::parse(url).unwrap(), &HostPolicy::default(), now);
            assert_eq!(sent.is_ok(), may, "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        for (url, local) in [
            ("http://127.0.0.1:8/", true),
            ("http://localhost/", true),
            ("http://[::1]:80/", true),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
