//! A small OCI registry on this machine, and its token service. It notes who sent which login where, and
//! answers single requests otherwise, as told.
//!
//! Runs on a thread of its own; dropping it stops it. Its lock is never held across an await.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use hyper::{Method, Response};
use modelfs::model::hash::sha256;

use crate::answering::Answering;

/// The user and password that the registry knows.
pub const OCI_USER: (&str, &str) = ("me", "planted-secret");
/// The media type of an image's manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How the token of a scope begins.
const TOKEN: &str = "planted-token-for:";

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciLogin {
    /// Nothing.
    Anyone,
    /// User and password with each request.
    Basic,
    /// A token; this service gives it, for anyone or for the user alone.
    Token {
        /// The service's URL.
        realm: String,
        /// Whether it wants the user and password.
        private: bool,
    },
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRequest {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Accept` header.
    pub accept: Option<String>,
}

/// An answer: status, headers and body.
pub type OciAnswer = (u16, Vec<(&'static str, String)>, Vec<u8>);

type Rule = Box<dyn Fn(&OciRequest) -> Option<OciAnswer> + Send>;

struct State {
    /// By repository and tag: the digest.
    tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Manifests and blobs, by `sha256:<hex>`.
    content: HashMap<String, Vec<u8>>,
    login: OciLogin,
    rule: Option<Rule>,
    log: Vec<OciRequest>,
    issued: u32,
}

/// The registry.
pub struct OciServer {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    _serving: Answering,
}

/// An artifact that a foreign tool wrote: its manifest, and the blobs that it names.
pub fn golden_artifact(name: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden/oci");
    let read = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let manifest = read(folder.join(format!("{name}.json")));
    let json: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest");
    let layers = json["layers"].as_array().expect("layers");
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        read(folder.join("blobs").join(digest.trim_start_matches("sha256:")))
    };
    (manifest, layers.iter().chain([&json["config"]]).map(blob).collect())
}

impl OciServer {
    /// Starts it, empty and open to anyone.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            tags: BTreeMap::new(),
            content: HashMap::new(),
            login: OciLogin::Anyone,
            rule: None,
            log: Vec::new(),
            issued: 0,
        }));
        let (serving, asked) = (Answering::start("test-oci"), state.clone());
        let address = serving.serve(move |request| answer(&mut lock(&asked), request));
        Self { state, address, _serving: serving }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The URL of its token service.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Keeps bytes under their digest, `sha256:<hex>`.
    pub fn put(&self, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        self.lock().content.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Keeps a manifest and lets a tag of a repository lead to it.
    pub fn tag(&self, repository: &str, tag: &str, manifest: &[u8]) -> String {
        let digest = self.put(manifest);
        let mut state = self.lock();
        let tags = state.tags.entry(repository.to_owned()).or_default();
        tags.insert(tag.to_owned(), digest.clone());
        digest
    }

    /// Keeps a golden artifact under a tag.
    pub fn golden(&self, repository: &str, tag: &str, name: &str) -> String {
        let (manifest, blobs) = golden_artifact(name);
        for blob in blobs {
            self.put(&blob);
        }
        self.tag(repository, tag, &manifest)
    }

    /// What it asks for from now on.
    pub fn login(&self, login: OciLogin) {
        self.lock().login = login;
    }

    /// Answers the requests that `rule` has an answer for with that answer.
    pub fn on(&self, rule: impl Fn(&OciRequest) -> Option<OciAnswer> + Send + 'static) {
        self.lock().rule = Some(Box::new(rule));
    }

    /// Forgets the rule.
    pub fn heal(&self) {
        self.lock().rule = None;
    }

    /// What came since the last call.
    pub fn requests(&self) -> Vec<OciRequest> {
        std::mem::take(&mut self.lock().log)
    }

    /// Lets every token that was handed out expire.
    pub fn expire(&self) {
        self.lock().issued += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test panics while it holds this lock")
}

fn answer(state: &mut State, request: &hyper::Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |name: HeaderName| {
        request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    let came = OciRequest {
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
        accept: text(header::ACCEPT),
    };
    state.log.push(came.clone());
    let told = state.rule.as_ref().and_then(|rule| rule(&came));
    let (status, headers, body) = told.unwrap_or_else(|| state.answer(&came));
    let mut out = Response::builder().status(status);
    for (name, value) in headers {
        out = out.header(name, value);
    }
    if request.method() == Method::HEAD {
        let out = out.header(header::CONTENT_LENGTH, body.len());
        return out.body(Full::default()).expect("an answer");
    }
    out.body(Full::new(body.into())).expect("an answer")
}

/// An error as registries give it.
pub fn oci_error(status: u16, code: &str) -> OciAnswer {
    let body =
        serde_json::json!({"errors": [{"code": code, "message": "as told", "detail": null}]});
    (status, vec![("content-type", "application/json".into())], body.to_string().into())
}

/// The bytes of a blob, or the range of it that was asked for.
pub fn oci_bytes(bytes: &[u8], range: Option<&str>) -> OciAnswer {
    let Some(range) = range.and_then(|r| r.strip_prefix("bytes=")) else {
        return (200, Vec::new(), bytes.to_vec());
    };
    let (first, last) = range.split_once('-').expect("a range");
    let first: usize = first.parse().expect("a number");
    let end = last.parse::<usize>().expect("a number").saturating_add(1).min(bytes.len());
    let shown = format!("bytes {first}-{}/{}", end - 1, bytes.len());
    (206, vec![("content-range", shown)], bytes[first..end].to_vec())
}

impl State {
    fn answer(&self, request: &OciRequest) -> OciAnswer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if path == "/token" {
            return self.token(query, request);
        }
        let Some(path) = path.strip_prefix("/v2/") else { return oci_error(404, "UNSUPPORTED") };
        let scope = match path {
            "" | "_catalog" => "registry:catalog:*".to_owned(),
            _ => {
                let end = ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|p| path.rfind(p));
                format!("repository:{}:pull", &path[..end.unwrap_or(path.len())])
            }
        };
        if let Some(refusal) = self.refusal(&scope, request) {
            return refusal;
        }
        if path == "_catalog" {
            let names: Vec<_> = self.tags.keys().cloned().collect();
            return page("repositories", path, &names, query);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let Some(tags) = self.tags.get(repository) else {
                return oci_error(404, "NAME_UNKNOWN");
            };
            return page("tags", path, &tags.keys().cloned().collect::<Vec<_>>(), query);
        }
        if let Some((repository, reference)) = path.rsplit_once("/manifests/") {
            let tag = self.tags.get(repository).and_then(|tags| tags.get(reference));
            let digest = tag.map_or(reference, String::as_str);
            let Some(body) = self.content.get(digest) else {
                return oci_error(404, "MANIFEST_UNKNOWN");
            };
            let headers = vec![
                ("content-type", MANIFEST.to_owned()),
                ("docker-content-digest", digest.to_owned()),
            ];
            return (200, headers, body.clone());
        }
        let blob = path.rsplit_once("/blobs/").and_then(|(_, digest)| self.content.get(digest));
        match blob {
            Some(bytes) => oci_bytes(bytes, request.range.as_deref()),
            None => oci_error(404, "BLOB_UNKNOWN"),
        }
    }

    fn refusal(&self, scope: &str, request: &OciRequest) -> Option<OciAnswer> {
        let given = request.authorization.as_deref();
        let (good, wants) = match &self.login {
            OciLogin::Anyone => return None,
            OciLogin::Basic => (is_user(given), "Basic realm=\"test\"".to_owned()),
            OciLogin::Token { realm, .. } => {
                let token = format!("Bearer {}", self.token_for(scope));
                let wants = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"");
                (given == Some(&token), wants)
            }
        };
        let mut refused = oci_error(401, "UNAUTHORIZED");
        refused.1.push(("www-authenticate", wants));
        (!good).then_some(refused)
    }

    fn token_for(&self, scope: &str) -> String {
        format!("{TOKEN}{scope}#{}", self.issued)
    }

    fn token(&self, query: &str, request: &OciRequest) -> OciAnswer {
        let private = matches!(self.login, OciLogin::Token { private: true, .. });
        if private && !is_user(request.authorization.as_deref()) {
            return oci_error(401, "UNAUTHORIZED");
        }
        let scope = query.split('&').find_map(|p| p.strip_prefix("scope=")).unwrap_or_default();
        let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2A", "*");
        let body = serde_json::json!({"token": self.token_for(&scope), "expires_in": 300});
        (200, Vec::new(), body.to_string().into())
    }
}

/// Whether it is the user with the password. `bWU6cGxhbnRlZC1zZWNyZXQ=` is base64 of both.
fn is_user(given: Option<&str>) -> bool {
    given == Some("Basic bWU6cGxhbnRlZC1zZWNyZXQ=")
}

/// A page of names: as many as the query's `n` says, after its `last`.
fn page(field: &str, path: &str, names: &[String], query: &str) -> OciAnswer {
    let param = |name: &str| {
        query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let n: usize = param("n").map_or(100, |n| n.parse().expect("a number"));
    let last = param("last").unwrap_or_default().replace("%2F", "/");
    // Smaller pages than a client asks for are allowed.
    let rest: Vec<_> = names.iter().filter(|name| **name > last).collect();
    let some: Vec<_> = rest.iter().take(n.min(2)).collect();
    let mut headers = Vec::new();
    if some.len() < rest.len() {
        let last = some.last().expect("a page has a name").replace('/', "%2F");
        headers.push(("link", format!("</v2/{path}?last={last}&n={n}>; rel=\"next\"")));
    }
    (200, headers, serde_json::json!({ field: some }).to_string().into())
}
