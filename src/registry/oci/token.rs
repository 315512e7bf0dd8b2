//! Tokens of a registry: what a token service answers, how long a token is used, and the tokens there
//! are.
//!
//! Invariant: a token is used for the scope that it was given for, and not within its last seconds.
//! Concurrency: shared; the lock is held for look-ups only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use crate::registry::credentials::{Secret, secret_header};

/// How long a token lives if its service does not say, and the least that it may say: by the
/// specification of Docker's tokens.
const LIFETIME: Duration = Duration::from_secs(60);
/// No service gives tokens for longer than a day; what says so is mistaken.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is not used in its last seconds: a request takes time, and clocks differ.
const MARGIN: Duration = Duration::from_secs(30);

/// A token that may be used until a certain time.
#[derive(Debug, Clone)]
pub struct Token {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

impl Token {
    /// The token in the answer of a token service that was asked at this time; or what is wrong with the
    /// answer, in one line that shows nothing of it.
    pub fn parse(body: &[u8], asked: Instant) -> Result<Self, &'static str> {
        let answer: Answer = serde_json::from_slice(body).map_err(|_| "is not as expected")?;
        let token = answer.token.or(answer.access_token).ok_or("has no token")?;
        if token.reveal().is_empty() {
            return Err("has an empty token");
        }
        let header = secret_header(&format!("Bearer {}", token.reveal()));
        let header = header.ok_or("has a token that no header can hold")?;
        let lifetime = answer.expires_in.map_or(LIFETIME, Duration::from_secs);
        let until = asked + (lifetime.clamp(LIFETIME, MAX_LIFETIME) - MARGIN);
        Ok(Self { header, until })
    }

    /// The `Authorization` header.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }
}

/// The tokens of a registry by scope.
#[derive(Debug, Default)]
pub struct Tokens {
    by_scope: Mutex<HashMap<String, Token>>,
}

impl Tokens {
    /// The token for a scope, if there is one that may be used now.
    pub fn get(&self, scope: &str, now: Instant) -> Option<HeaderValue> {
        let tokens = self.by_scope.lock();
        tokens.get(scope).filter(|t| now < t.until).map(|t| t.header.clone())
    }

    /// Keeps a token; those that are out of date go.
    pub fn put(&self, scope: &str, token: Token, now: Instant) {
        let mut tokens = self.by_scope.lock();
        tokens.retain(|_, t| now < t.until);
        tokens.insert(scope.to_owned(), token);
    }

    /// Forgets a token that the registry refused.
    pub fn forget(&self, scope: &str, refused: &HeaderValue) {
        let mut tokens = self.by_scope.lock();
        if tokens.get(scope).is_some_and(|t| t.header == *refused) {
            tokens.remove(scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_until_half_a_minute_before_its_end() {
        let now = Instant::now();
        for (body, seconds) in [
            (r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#, 270),
            (r#"{"access_token":"t"}"#, 30),
            (r#"{"token":"t","access_token":"u","expires_in":1}"#, 30),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, 24 * 60 * 60 - 30),
        ] {
            let tokens = Tokens::default();
            tokens.put("s", Token::parse(body.as_bytes(), now).unwrap(), now);
            let at = |seconds| tokens.get("s", now + Duration::from_secs(seconds));
            assert_eq!(at(seconds - 1).unwrap(), "Bearer t", "{body}");
            assert!(at(seconds - 1).unwrap().is_sensitive());
            assert!(at(seconds).is_none(), "{body}");
            assert!(tokens.get("other", now).is_none());
        }
    }

    #[test]
    fn a_refused_token_is_forgotten_unless_there_is_another_by_now() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token =
            |t: &str| Token::parse(format!(r#"{{"token":"{t}"}}"#).as_bytes(), now).unwrap();
        let (first, second) = (token("1"), token("2"));
        tokens.put("s", second.clone(), now);
        tokens.forget("s", first.header());
        assert_eq!(tokens.get("s", now).as_ref(), Some(second.header()));
        tokens.forget("s", second.header());
        assert_eq!(tokens.get("s", now), None);
    }

    #[test]
    fn bad_answers_show_nothing_of_themselves() {
        for body in ["", "{}", "[]", r#"{"token":7}"#, r#"{"token":""}"#, r#"{"token":"s\nx"}"#] {
            let error = Token::parse(body.as_bytes(), Instant::now()).unwrap_err();
            assert!(!error.contains('s') || error.starts_with("is") || error.starts_with("has"));
        }
        let token = Token::parse(br#"{"token":"s3cret"}"#, Instant::now()).unwrap();
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
