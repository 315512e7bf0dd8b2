//! What a registry asks for with a 401: `WWW-Authenticate`. Pure.

use http_auth::parse_challenges;
use reqwest::Url;
use reqwest::header::{self, HeaderMap};

use crate::base::text::brief;

/// A way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token of this service.
    Bearer(TokenService),
    /// User and password with each request.
    Basic,
}

/// Who gives tokens for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenService {
    /// The URL that is asked.
    pub realm: Url,
    /// Its name for the registry.
    pub service: Option<String>,
    /// What the token must allow, if the registry says.
    pub scope: Option<String>,
}

/// The best of the ways that an answer of the registry at `base` offers; or why none can be gone, in one
/// line.
pub fn challenge(headers: &HeaderMap, base: &Url) -> Result<Challenge, String> {
    let mut basic = false;
    let mut seen = Vec::new();
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        let text = value.to_str().map_err(|_| "WWW-Authenticate is not text".to_owned())?;
        let offered = parse_challenges(text)
            .map_err(|_| format!("WWW-Authenticate '{}' is malformed", brief(text, 120)))?;
        for one in offered {
            let param = |name: &str| {
                let found = one.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if one.scheme.eq_ignore_ascii_case("bearer") {
                let realm = param("realm").ok_or("WWW-Authenticate has no realm")?;
                let realm = checked(&realm, base)?;
                let (service, scope) = (param("service"), param("scope"));
                return Ok(Challenge::Bearer(TokenService { realm, service, scope }));
            }
            basic |= one.scheme.eq_ignore_ascii_case("basic");
            seen.push(brief(one.scheme, 20));
        }
    }
    match (basic, seen.is_empty()) {
        (true, _) => Ok(Challenge::Basic),
        (false, true) => Err("it does not say how to log in (no WWW-Authenticate)".into()),
        (false, false) => Err(format!("it wants a login of kind {}", seen.join(", "))),
    }
}

/// A realm that credentials may be sent to: no less protected than the registry itself.
fn checked(realm: &str, base: &Url) -> Result<Url, String> {
    // A realm is not shown: it may hold anything.
    let url =
        Url::parse(realm).map_err(|_| "the realm in WWW-Authenticate is no URL".to_owned())?;
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        ("https", "http") => Err("its token service is not https".into()),
        _ => Err("the realm in WWW-Authenticate is no http or https URL".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str], base: &str) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenge(&headers, &Url::parse(base).unwrap())
    }

    #[test]
    fn the_token_service_is_read() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let want = TokenService {
            realm: Url::parse("https://auth.docker.io/token").unwrap(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(of(&[docker], "https://h/"), Ok(Challenge::Bearer(want.clone())));
        let plain = r#"bearer Realm="https://auth.docker.io/token""#;
        let bare = TokenService { service: None, scope: None, ..want };
        let bare = Ok(Challenge::Bearer(bare));
        assert_eq!(of(&[plain], "https://h/"), bare);
        assert_eq!(of(&[r#"Basic realm="x""#, plain], "https://h/"), bare, "two headers");
        assert_eq!(of(&[&format!(r#"Basic realm="x", {plain}"#)], "https://h/"), bare, "in one");
        assert_eq!(of(&[r#"Basic realm="Registry Realm""#], "https://h/"), Ok(Challenge::Basic));
        assert_eq!(of(&["BASIC realm=x"], "https://h/"), Ok(Challenge::Basic));
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        for (value, why) in [
            ("Bearer service=x", "no realm"),
            (r#"Bearer realm="http://secret/token""#, "not https"),
            (r#"Bearer realm="ftp://secret/token""#, "no http or https"),
            (r#"Bearer realm="secret""#, "no URL"),
            ("Negotiate realm=x", "kind Negotiate"),
            ("=,=", "malformed"),
        ] {
            let error = of(&[value], "https://h/").unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        assert!(of(&[], "https://h/").unwrap_err().contains("no WWW-Authenticate"));
        let plain = r#"Bearer realm="http://127.0.0.1:1/token""#;
        assert!(of(&[plain], "http://127.0.0.1:2/").is_ok(), "the registry is no better protected");
    }
}
