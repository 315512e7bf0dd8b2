//! What the Hub's refusals mean, and what the user can do. Pure.
//!
//! Invariant: only the Hub's word that it has no such thing is `Missing`; trouble of the server never is.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::registry::error::RegistryError;
use crate::registry::transport::http_response;

/// What was asked for, for texts.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The thing itself: a repository, a file, a range of it.
    pub what: &'a str,
    /// The URL of the repository's page.
    pub page: &'a str,
    /// Whether the request had a token.
    pub with_token: bool,
}

/// Turns the statuses that are errors into errors.
pub fn check(
    subject: Subject<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(), RegistryError> {
    let code = headers.get("x-error-code").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Subject { what, page, with_token } = subject;
    let missing = |what: String| Err(RegistryError::Missing { what });
    let denied = |why: String| Err(RegistryError::Denied { what: what.to_owned(), why });
    match (status.as_u16(), code) {
        (429, _) if rate_limit(headers).is_some() => Err(RegistryError::Busy {
            what: what.to_owned(),
            status: 429,
            retry_after: rate_limit(headers),
        }),
        (401 | 403, "GatedRepo") => denied(match with_token {
            true => format!("is gated: accept its licence at {page} with the account of the token"),
            false => format!(
                "is gated: accept its licence at {page} and set HF_TOKEN to a token of that account"
            ),
        }),
        // Without a login, the Hub does not tell a repository that is not there from a private one.
        (401 | 404, "RepoNotFound") => match with_token {
            true => missing(format!("{what} (unless it is private and the token may not see it)")),
            false => missing(format!("{what} (unless it is private: then set HF_TOKEN)")),
        },
        (404, "RevisionNotFound") => missing(format!("the revision of {what}")),
        (403, "DisabledRepo") => denied("was disabled by the Hub".into()),
        (401, _) => denied(match with_token {
            true => "the Hub refuses the token: set HF_TOKEN to a valid one".into(),
            false => "the Hub asks for a login: set HF_TOKEN".into(),
        }),
        (403, _) => denied(match with_token {
            true => format!("the token has no right to read it: see {page}"),
            false => format!("may not be read without a login: set HF_TOKEN, and see {page}"),
        }),
        _ => http_response::check_status(what, status, headers, now),
    }
}

/// How long to wait: the `t` of `RateLimit: "api";r=0;t=55`, in seconds.
fn rate_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("ratelimit")?.to_str().ok()?;
    // Several limits are separated by commas; all of them hold.
    let waits = text.split([',', ';']).filter_map(|part| part.trim().strip_prefix("t="));
    waits.filter_map(|seconds| seconds.trim().parse().ok()).max().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, with_token: bool, list: &[(&'static str, &'static str)]) -> RegistryError {
        let subject = Subject { what: "model o/n", page: "https://hub/o/n", with_token };
        let one = |(k, v): &(&'static str, &'static str)| {
            (k.parse::<reqwest::header::HeaderName>().unwrap(), v.parse().unwrap())
        };
        let headers = list.iter().map(one).collect();
        let status = StatusCode::from_u16(status).unwrap();
        check(subject, status, &headers, SystemTime::UNIX_EPOCH).expect_err("an error")
    }

    #[test]
    fn a_gated_repository_says_where_its_licence_is() {
        for (status, with_token) in [(401, false), (403, true)] {
            let error = of(status, with_token, &[("x-error-code", "GatedRepo")]);
            assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("accept its licence at https://hub/o/n"), "{text}");
            assert_eq!(text.contains("set HF_TOKEN"), !with_token, "{text}");
        }
    }

    #[test]
    fn a_repository_that_is_not_there_is_missing_and_may_be_private() {
        for (status, with_token) in [(401, false), (404, false), (404, true), (401, true)] {
            let error = of(status, with_token, &[("x-error-code", "RepoNotFound")]);
            assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
            assert!(error.to_string().contains("private"), "{error}");
        }
        for code in ["RevisionNotFound", "EntryNotFound", ""] {
            let error = of(404, true, &[("x-error-code", code)]);
            assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
        }
    }

    #[test]
    fn a_login_that_is_refused_is_not_a_missing_repository() {
        for (status, with_token, says) in [
            (401, true, "the Hub refuses the token"),
            (401, false, "asks for a login"),
            (403, true, "no right"),
            (403, false, "HF_TOKEN"),
        ] {
            let error = of(status, with_token, &[]);
            assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        let disabled = of(403, true, &[("x-error-code", "DisabledRepo")]).to_string();
        assert!(disabled.contains("disabled"), "{disabled}");
    }

    #[test]
    fn a_rate_limit_says_how_long_to_wait() {
        let wait = |list: &[(&'static str, &'static str)]| match of(429, true, list) {
            RegistryError::Busy { retry_after, status: 429, .. } => {
                retry_after.map(|t| t.as_secs())
            }
            other => panic!("{other}"),
        };
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "7")]), Some(55));
        assert_eq!(wait(&[("ratelimit", "\"a\";r=0;t=5, \"b\";r=0; t=9")]), Some(9));
        assert_eq!(wait(&[("ratelimit", "nonsense"), ("retry-after", "7")]), Some(7));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn trouble_of_the_server_is_never_missing() {
        for status in [500, 502, 503, 504, 408] {
            let error = of(status, false, &[("x-error-code", "RepoNotFound")]);
            assert!(error.is_transient(), "{error}");
        }
    }
}
