//! Rules that every client of HTTP here follows. Pure, but for the certificates that a client loads.

use std::time::SystemTime;

use reqwest::{Client, ClientBuilder, Url, redirect};

use super::timeouts::Timeouts;

/// Why no server with a certificate can be asked.
pub(in crate::registry) const CLOCK: &str = "this machine's clock stands before 1970: set it";

/// More redirects than any bucket or mirror needs.
pub(in crate::registry) const MAX_REDIRECTS: usize = 5;

/// Whether a URL leads to this machine.
pub(in crate::registry) fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a connection can be tried at this time. Certificates begin later than 1970, and rustls
/// panics where the clock stands before that.
pub(in crate::registry) fn may_connect(url: &Url, now: SystemTime) -> bool {
    url.scheme() != "https" || now >= SystemTime::UNIX_EPOCH
}

/// What every client has in common, whatever it does with redirects.
pub(in crate::registry) fn client(base: &Url, timeouts: Timeouts) -> ClientBuilder {
    let client = Client::builder()
        .user_agent(concat!("modelfs/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.stall)
        // A Referer would show the query to the server that a redirect leads to.
        .referer(false)
        .http2_adaptive_window(true);
    // No proxy leads to this machine.
    if is_local(base) { client.no_proxy() } else { client }
}

/// Follows a redirect, unless it leads from https to http. One that leads to another host takes no
/// `Authorization` with it: the client sees to that.
pub(in crate::registry) fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last().map(Url::scheme);
    if from == Some("https") && attempt.url().scheme() != "https" {
        attempt.error("redirected from https to http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
    } else if !may_connect(attempt.url(), SystemTime::now()) {
        attempt.error(CLOCK)
    } else {
        attempt.follow()
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
            assert_eq!(may_connect(&Url::parse(url).unwrap(), now), may, "{url}");
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
