//! The login of a registry: answers its challenges with what this user has.
//!
//! Invariant: credentials go into requests to the registry itself, and to the token service that the
//! registry named, and stand in no text. Concurrency: shared; no lock is held across an await, so that
//! two tasks may fetch a token at the same time.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};

use super::challenge::{Challenge, TokenService, challenge};
use super::place::{Place, Repository};
use super::token::{Token, Tokens};
use crate::registry::credentials::{Credentials, Secret};
use crate::registry::error::RegistryError;
use crate::registry::login::Logins;
use crate::registry::transport::http_client::{HttpClient, NotSent};
use crate::registry::transport::{http_body, http_response};

/// Maximum size of a token service's answer: tokens with many rights have some kilobytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How the client identifies itself to the token service.
const CLIENT_ID: &str = "modelfs";

/// What a request has to be allowed.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Listing the repositories.
    Catalog,
    /// Reading a repository.
    Pull(&'a Repository),
}

/// The login of a registry.
pub struct Auth {
    place: Place,
    logins: Arc<dyn Logins>,
    /// Follows no redirect: a token service is asked where the registry said, and nowhere else.
    service: HttpClient,
    tokens: Tokens,
    /// The header that the registry takes with every request, whatever the scope.
    fixed: Mutex<Option<HeaderValue>>,
}

impl Scope<'_> {
    fn text(self) -> String {
        match self {
            Self::Catalog => "registry:catalog:*".into(),
            Self::Pull(repository) => format!("repository:{repository}:pull"),
        }
    }

    /// The repository that a login may be kept for.
    fn repository(&self) -> &str {
        match self {
            Self::Catalog => "",
            Self::Pull(repository) => repository.as_str(),
        }
    }
}

impl Auth {
    /// The login of the registry at `place`; `service` follows no redirect.
    pub fn new(place: Place, logins: Arc<dyn Logins>, service: HttpClient) -> Self {
        let (tokens, fixed) = (Tokens::default(), Mutex::default());
        Self { place, logins, service, tokens, fixed }
    }

    /// The `Authorization` that is known to be needed.
    pub fn known(&self, scope: Scope<'_>) -> Option<HeaderValue> {
        let token = self.tokens.get(&scope.text(), Instant::now());
        token.or_else(|| self.fixed.lock().clone())
    }

    /// The `Authorization` that answers the registry's 401; `refused` is what it was given.
    pub async fn answer(
        &self,
        headers: &HeaderMap,
        scope: Scope<'_>,
        refused: Option<&HeaderValue>,
        what: &str,
    ) -> Result<HeaderValue, RegistryError> {
        let denied = |why: String| RegistryError::Denied { what: what.to_owned(), why };
        let challenge = challenge(headers, self.place.base())
            .map_err(|why| denied(format!("{} refuses, and {why}", self.place.host())))?;
        if let Some(refused) = refused {
            self.tokens.forget(&scope.text(), refused);
            let mut fixed = self.fixed.lock();
            if fixed.as_ref() == Some(refused) {
                *fixed = None;
            }
        }
        let credentials = self.credentials(scope).await.map_err(denied)?;
        let header = match (challenge, credentials) {
            (_, Some(bearer @ Credentials::Bearer(_))) => self.keep(&bearer),
            (Challenge::Basic, Some(password @ Credentials::Password { .. })) => {
                self.keep(&password)
            }
            (Challenge::Basic, Some(Credentials::Identity(_)) | None) => {
                return Err(denied(self.wants_login()));
            }
            (Challenge::Bearer(service), credentials) => {
                Some(self.token(&service, scope, credentials, what).await?)
            }
        };
        match header {
            Some(header) if refused != Some(&header) => Ok(header),
            Some(_) => Err(denied(self.refuses_login(true))),
            None => Err(denied(format!(
                "the login for {} has characters that no header can hold",
                self.place.host()
            ))),
        }
    }

    /// Why a registry that was given all there is still refuses, and what to do.
    pub fn refusal(&self, given: Option<&HeaderValue>) -> String {
        match given {
            None => self.wants_login(),
            Some(_) => self.refuses_login(false),
        }
    }

    fn wants_login(&self) -> String {
        format!("it wants a login: run `docker login {}`", self.place.host())
    }

    fn refuses_login(&self, same: bool) -> String {
        let host = self.place.host();
        let why =
            if same { "it refuses the login" } else { "it is not there, or not for this login" };
        format!("{why}: run `docker login {host}` to use another")
    }

    fn keep(&self, credentials: &Credentials) -> Option<HeaderValue> {
        let header = credentials.header()?;
        *self.fixed.lock() = Some(header.clone());
        Some(header)
    }

    async fn credentials(&self, scope: Scope<'_>) -> Result<Option<Credentials>, String> {
        if let Some(login) = self.place.login() {
            let (user, password) = (login.user.clone(), Secret::new(&*login.password));
            return Ok(Some(Credentials::Password { user, password }));
        }
        self.logins.login(scope.repository()).await
    }

    /// Asks the token service for a token, and keeps it.
    async fn token(
        &self,
        service: &TokenService,
        scope: Scope<'_>,
        credentials: Option<Credentials>,
        what: &str,
    ) -> Result<HeaderValue, RegistryError> {
        let what = format!("{what}: the token service of {}", self.place.host());
        let asked = Instant::now();
        let had_login = credentials.is_some();
        let request = self.token_request(service, &scope.text(), credentials);
        let request = request.map_err(|e| e.error(&what))?;
        let response = request.send().await.map_err(|e| http_response::failed(&what, e))?;
        let status = response.status();
        let invalid = |why: String| RegistryError::Invalid { what: what.clone(), why };
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let why = if had_login { self.refuses_login(true) } else { self.wants_login() };
                return Err(RegistryError::Denied { what, why });
            }
            _ => {
                let now = SystemTime::now();
                return Err(
                    match http_response::check_status(&what, status, response.headers(), now) {
                        Err(busy @ RegistryError::Busy { .. }) => busy,
                        // That the service is not there says nothing of the model.
                        _ => invalid(format!("it answered {}", status.as_u16())),
                    },
                );
            }
        }
        let body = http_body::collect(response, &what, MAX_ANSWER).await?;
        let token =
            Token::parse(&body, asked).map_err(|why| invalid(format!("its answer {why}")))?;
        let header = token.header().clone();
        self.tokens.put(&scope.text(), token, Instant::now());
        Ok(header)
    }

    fn token_request(
        &self,
        service: &TokenService,
        scope: &str,
        credentials: Option<Credentials>,
    ) -> Result<RequestBuilder, NotSent> {
        let scope = service.scope.as_deref().unwrap_or(scope);
        let name = service.service.as_deref();
        let mut url = service.realm.clone();
        if let Some(Credentials::Identity(token)) = &credentials {
            let mut form = reqwest::Url::parse("form:").expect("a URL");
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", CLIENT_ID)
                .append_pair("scope", scope)
                .append_pair("service", name.unwrap_or_default())
                .append_pair("refresh_token", token.reveal());
            let body = form.query().unwrap_or_default().to_owned();
            let form = "application/x-www-form-urlencoded";
            let request = self.service.request(Method::POST, url)?;
            return Ok(request.header(reqwest::header::CONTENT_TYPE, form).body(body));
        }
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(name.map(|name| ("service", name)));
            query.append_pair("scope", scope).append_pair("client_id", CLIENT_ID);
        }
        let request = self.service.request(Method::GET, url)?;
        Ok(match credentials {
            Some(Credentials::Password { user, password }) => {
                request.basic_auth(user, Some(password.reveal()))
            }
            _ => request,
        })
    }
}
