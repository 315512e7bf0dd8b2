//! The login of the storage service: the Hub grants it for a repository, for minutes.
//!
//! Invariant: the token stands in no text. Concurrency: shared; of callers that need the same token one
//! asks for it, and the others wait for its answer.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lru::LruCache;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::super::client::{Hub, Wanted};
use crate::registry::error::RegistryError;

/// Time before its end from which a token is not used any more: what it was sent with has to arrive.
const EARLY: Duration = Duration::from_secs(30);
/// Maximum size of the Hub's answer: a token has a kilobyte or two.
const MAX_ANSWER: u64 = 64 << 10;
/// Maximum number of commits whose token is remembered, a few kilobytes each.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// A file of a commit.
#[derive(Debug, Clone, Copy)]
pub struct FileOf<'a> {
    /// How errors name it.
    pub what: &'a str,
    /// The page of its repository, below the endpoint.
    pub page: &'a str,
    /// The commit.
    pub commit: &'a str,
}

/// The Hub's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    /// Seconds since 1970.
    exp: u64,
    cas_url: String,
}

/// A login of the storage service.
pub struct Access {
    /// The `Authorization` header.
    pub authorization: HeaderValue,
    /// Where the service is.
    pub service: Url,
    until: SystemTime,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({})", self.service.host_str().unwrap_or_default())
    }
}

impl Access {
    /// Reads the Hub's answer. `encrypted`: the Hub was asked over https.
    fn parse(body: &Bytes, encrypted: bool) -> Result<Self, &'static str> {
        // The error of a parser may show what it could not parse.
        let answer: Answer =
            serde_json::from_slice(body).map_err(|_| "has other fields than a login has")?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", answer.access_token))
            .map_err(|_| "has a token with characters that none has")?;
        authorization.set_sensitive(true);
        let service = Url::parse(&answer.cas_url).map_err(|_| "names no URL")?;
        let secure = service.scheme() == "https";
        if !secure && (encrypted || service.scheme() != "http") {
            return Err("names a service without https");
        }
        if !service.has_host() || !service.username().is_empty() || service.password().is_some() {
            return Err("names a service with more than a host and a path");
        }
        let until = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(answer.exp))
            .ok_or("ends at a time that cannot be")?;
        Ok(Self { authorization, service, until })
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        now.checked_add(EARLY).is_some_and(|soon| soon < self.until)
    }
}

/// The login of one commit; the lock is held while it is asked for.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Access>>>>;

/// The logins that were granted.
pub struct Accesses {
    /// By the commit's place below the endpoint.
    of_commits: Mutex<LruCache<String, Slot>>,
}

impl Accesses {
    /// None yet.
    pub fn new() -> Self {
        Self { of_commits: Mutex::new(LruCache::new(MAX_TOKENS)) }
    }

    fn slot(&self, file: FileOf<'_>) -> Slot {
        let mut slots = self.of_commits.lock().expect("nothing panics while it holds this lock");
        slots.get_or_insert_mut(format!("{}@{}", file.page, file.commit), Slot::default).clone()
    }

    /// The login for a file: the one that is known, else one that the Hub grants now. `refused` was
    /// refused by the service, so it is not used again.
    pub async fn get(
        &self,
        hub: &Hub,
        file: FileOf<'_>,
        refused: Option<&Arc<Access>>,
    ) -> Result<Arc<Access>, RegistryError> {
        let slot = self.slot(file);
        let mut known = slot.lock().await;
        let good = known.as_ref().filter(|known| {
            known.is_valid(SystemTime::now()) && refused.is_none_or(|r| !Arc::ptr_eq(r, known))
        });
        if let Some(good) = good {
            return Ok(Arc::clone(good));
        }
        let what = format!("the login of Xet storage for {}", file.what);
        let wanted = Wanted { what: &what, page: file.page };
        // Pages of models are as their names; those of other types begin with the type.
        let api = match file.page.starts_with("datasets/") {
            true => format!("api/{}", file.page),
            false => format!("api/models/{}", file.page),
        };
        let path = [&api, "xet-read-token", file.commit];
        let answer = hub.ask(wanted, &path, None, MAX_ANSWER, None).await?;
        let access = Access::parse(&answer.body.unwrap_or_default(), hub.is_encrypted());
        let access = access
            .map_err(|why| RegistryError::Invalid { what: what.clone(), why: why.to_owned() })?;
        Ok(known.insert(Arc::new(access)).clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(url: &str, token: &str, encrypted: bool) -> Result<Access, &'static str> {
        let body = json!({"accessToken": token, "exp": 1000, "casUrl": url, "more": 1});
        Access::parse(&body.to_string().into(), encrypted)
    }

    #[test]
    fn a_login_is_used_until_shortly_before_its_end() {
        let access = parse("https://cas", "secret", true).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(
            access.is_valid(at(969)) && !access.is_valid(at(970)) && !access.is_valid(at(2000))
        );
    }

    #[test]
    fn a_login_is_never_shown() {
        let access = parse("https://cas", "secret", true).unwrap();
        assert!(access.authorization.is_sensitive());
        assert!(!format!("{access:?} {:?}", access.authorization).contains("secret"));
    }

    #[test]
    fn a_login_that_leads_to_an_odd_place_is_refused() {
        assert!(parse("http://cas", "t", false).is_ok(), "as the Hub itself");
        for (url, encrypted) in [
            ("http://cas", true),
            ("ftp://cas", false),
            ("https://u:p@cas", true),
            ("cas", true),
            ("", true),
            ("file:///x", false),
        ] {
            assert!(parse(url, "t", encrypted).is_err(), "{url}");
        }
        assert!(parse("https://cas", "a\nb", true).is_err());
        assert!(Access::parse(&Bytes::from_static(b"<html>"), true).is_err());
    }
}
