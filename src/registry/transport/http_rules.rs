//! Rules that every client of HTTP here follows. Pure.

use std::time::SystemTime;

use reqwest::Url;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_is_no_panic_where_certificates_are_checked() {
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
