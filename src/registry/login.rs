//! The login of a registry: where it comes from, and the one that is in use.
//!
//! Invariant: a login is asked for when the first request needs it, and again when the server has refused it; not for
//! each request. No text holds it. Concurrency: shared; a task that asks holds an asynchronous lock, so
//! that others wait for the same answer.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use super::credentials::Credentials;
use super::error::RegistryError;

/// A refused login is asked for again after this time at the earliest: it may run a program, and a server refuses
/// every name that is private or missing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where the login of one registry comes from.
#[async_trait]
pub trait Logins: Debug + Send + Sync + 'static {
    /// The login for a repository of it, empty where that makes no difference. `None`: there is none. An
    /// error is one line without a secret.
    async fn login(&self, repository: &str) -> Result<Option<Credentials>, String>;
}

/// No login.
#[derive(Debug, Clone, Copy)]
pub struct NoLogin;

#[async_trait]
impl Logins for NoLogin {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        Ok(None)
    }
}

/// The login of one server.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Login {
    from: Arc<dyn Logins>,
    /// None: not asked for yet.
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug)]
struct Known {
    header: Option<HeaderValue>,
    asked: Instant,
}

impl Login {
    /// That which `from` has.
    pub fn new(from: Arc<dyn Logins>) -> Self {
        Self { from, known: Arc::default() }
    }

    /// The `Authorization` for a request for `what`, if there is a login.
    pub async fn header(&self, what: &str) -> Result<Option<HeaderValue>, RegistryError> {
        let mut known = self.known.lock().await;
        match &*known {
            Some(known) => Ok(known.header.clone()),
            None => Ok(known.insert(self.ask(what).await?).header.clone()),
        }
    }

    /// Another `Authorization` than the one that the server has refused, if there is one by now.
    pub async fn another(
        &self,
        refused: Option<&HeaderValue>,
        what: &str,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let mut known = self.known.lock().await;
        let ask = known.as_ref().is_none_or(|known| {
            known.header.as_ref() == refused && known.asked.elapsed() >= ASK_AGAIN_AFTER
        });
        if ask {
            *known = Some(self.ask(what).await?);
        }
        let header = known.as_ref().and_then(|known| known.header.clone());
        Ok(header.filter(|header| Some(header) != refused))
    }

    async fn ask(&self, what: &str) -> Result<Known, RegistryError> {
        let asked = Instant::now();
        let denied = |why: String| RegistryError::Denied {
            what: what.to_owned(),
            why: format!("the login: {why}"),
        };
        let Some(credentials) = self.from.login("").await.map_err(denied)? else {
            return Ok(Known { header: None, asked });
        };
        match credentials.header() {
            Some(header) => Ok(Known { header: Some(header), asked }),
            None => Err(denied("it has characters that no header can hold".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::registry::credentials::Secret;

    /// Gives the tokens 1, 1, 2, 2, 3, …
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl Logins for Counting {
        async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
            let n = self.0.fetch_add(1, Ordering::SeqCst) / 2 + 1;
            Ok(Some(Credentials::Bearer(Secret::new(n.to_string()))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_is_asked_for_once_and_again_when_it_was_refused() {
        let login = Login::new(Arc::new(Counting::default()));
        let first = login.header("x").await.unwrap();
        assert_eq!(first.as_ref().unwrap(), "Bearer 1");
        assert_eq!(login.header("x").await.unwrap(), first, "without asking");
        assert_eq!(login.another(first.as_ref(), "x").await.unwrap(), None, "asked a moment ago");
        tokio::time::advance(ASK_AGAIN_AFTER).await;
        assert_eq!(login.another(first.as_ref(), "x").await.unwrap(), None, "the same one again");
        tokio::time::advance(ASK_AGAIN_AFTER).await;
        let second = login.another(first.as_ref(), "x").await.unwrap();
        assert_eq!(second.as_ref().unwrap(), "Bearer 2");
        // A task whose request was under way meanwhile takes the new one.
        assert_eq!(login.another(first.as_ref(), "x").await.unwrap(), second);
        assert_eq!(login.header("x").await.unwrap(), second);
    }

    #[tokio::test]
    async fn what_goes_wrong_with_a_login_is_said_without_it() {
        #[derive(Debug)]
        struct Broken;
        #[async_trait]
        impl Logins for Broken {
            async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
                Ok(Some(Credentials::Bearer(Secret::new("s3cret\n"))))
            }
        }
        let error = Login::new(Arc::new(Broken)).header("x").await.unwrap_err().to_string();
        assert!(error.contains("no header") && !error.contains("s3cret"), "{error}");
    }
}
