//! What every request over HTTP keeps to: the host policy, and logins that stay with their server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use modelfs::registry::huggingface::{Environment, HuggingFace};
use modelfs::registry::oci::{Oci, OciOptions};
use modelfs::registry::{
    ConnectOptions, Credentials, HostPolicy, HttpOptions, Logins, Registry, RegistryError, Secret,
    Validator, open_with,
};
use modelfs_test_support::{
    Fault, HubFile, HubRepo, HubServer, ModelDir, OciLogin, OciServer, Server, TestRegistry, When,
};

use crate::registry_oci::{model, revision};

const COMMIT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Allows this server alone.
fn only(address: SocketAddr) -> HttpOptions {
    let policy = HostPolicy::of_hosts(move |host, port| {
        match (host, port) == (&*address.ip().to_string(), Some(address.port())) {
            true => Ok(()),
            false => Err(format!("{host} is not in the list of the test")),
        }
    });
    HttpOptions { policy, ..HttpOptions::default() }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

fn published() -> (TestRegistry, Server) {
    let registry = TestRegistry::new();
    registry.publish("org/net@v1", &ModelDir::of(&[("w", 1000)]), 4096);
    let server = Server::start(registry.path());
    (registry, server)
}

fn is_refused(error: &RegistryError, says: &str) {
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(!error.is_transient() && error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_not_allowed_is_not_followed() {
    let (_registry, server) = published();
    let (_other, elsewhere) = published();
    let http = only(server.address());
    let options = ConnectOptions { http, ..ConnectOptions::default() };
    let r = open_with(&server.url(), &options).unwrap();
    let to = format!("{}/models.json", elsewhere.url());
    server.on("/models.json", When::Nth(0), Fault::Redirect(Some(to)));
    let error = r.list(&Validator::default()).await.unwrap_err();
    is_refused(&error, "not in the list of the test");
    assert_eq!(elsewhere.requests(), []);
    assert!(r.list(&Validator::default()).await.is_ok());
    let r = open_with(&elsewhere.url(), &options).unwrap();
    is_refused(&r.list(&Validator::default()).await.unwrap_err(), "not in the list of the test");
    assert_eq!(elsewhere.requests(), []);
}

#[tokio::test]
async fn the_hubs_large_files_come_from_an_allowed_host_or_not_at_all() {
    let hub = HubServer::start();
    let file = |path: &str, lfs| HubFile { path: path.to_owned(), bytes: vec![7; 100], lfs };
    let files = vec![file("small", false), file("weights", true)];
    let branches = vec![("main".to_owned(), COMMIT.to_owned())];
    let commits = [(COMMIT.to_owned(), files)].into();
    hub.put("models/org/net", HubRepo { branches, commits, ..HubRepo::default() });
    let environment = Environment { endpoint: Some(hub.url()), ..Environment::default() };
    let r = HuggingFace::with("hf://", &environment, &only(address(&hub.url()))).unwrap();
    let revision = revision(&r, "org/net", "main").await.unwrap();
    let manifest = r.resolve(&model("org/net"), &revision).await.unwrap().manifest;
    let mut outcomes = Vec::new();
    for object in manifest.objects() {
        let range = modelfs::base::ObjectRange::new(0, 100);
        outcomes.push(modelfs::registry::read_object(&r, object, range).await);
    }
    outcomes.sort_by_key(Result::is_err);
    assert_eq!(outcomes[0].as_ref().unwrap().len(), 100);
    is_refused(outcomes[1].as_ref().unwrap_err(), "not in the list of the test");
    assert!(hub.requests().iter().all(|request| !request.cdn));
}

#[tokio::test]
async fn a_token_service_on_a_host_that_is_not_allowed_is_not_asked() {
    let (registry, service) = (OciServer::start(), OciServer::start());
    registry.golden("org/net", "v1", "modelpack-gguf");
    registry.login(OciLogin::Token { realm: service.realm(), private: false });
    let http = only(registry.host().parse().unwrap());
    let options = OciOptions { http, ..OciOptions::default() };
    let r = Oci::open(&format!("oci://{}/org", registry.host()), options).unwrap();
    let error = r.lookup(&model("org/net"), &Validator::default()).await.unwrap_err();
    is_refused(&error, "not in the list of the test");
    assert_eq!(service.requests(), []);
}

#[tokio::test]
async fn private_addresses_are_refused_by_name_and_by_number() {
    let (_registry, server) = published();
    let policy = HostPolicy::default().denying_private(true);
    let http = HttpOptions { policy, ..HttpOptions::default() };
    let options = ConnectOptions { http, ..ConnectOptions::default() };
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}", server.address().port());
        let r = open_with(&url, &options).unwrap();
        is_refused(&r.list(&Validator::default()).await.unwrap_err(), "deny_private_addresses");
    }
    assert_eq!(server.requests(), []);
}

/// Tokens `one`, `two`, ….
#[derive(Debug, Default)]
struct Tokens(AtomicUsize);

#[async_trait]
impl Logins for Tokens {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Credentials::Bearer(Secret::new(["one", "two"][n]))))
    }
}

fn authorizations(server: &Server) -> Vec<Option<String>> {
    let given = |headers: &[(String, String)]| {
        let found = headers.iter().find(|(name, _)| name == "authorization");
        found.map(|(_, value)| value.clone())
    };
    server.requests().iter().map(|request| given(&request.headers)).collect()
}

#[tokio::test]
async fn a_login_is_sent_to_its_server_and_not_where_that_redirects_to() {
    let (_registry, server) = published();
    let (_other, elsewhere) = published();
    let logins = Some(Arc::new(Tokens::default()) as Arc<dyn Logins>);
    let r = open_with(&server.url(), &ConnectOptions { logins, ..Default::default() }).unwrap();
    let to = format!("{}/models.json", elsewhere.url());
    server.on("/models.json", When::Nth(0), Fault::Redirect(Some(to.clone())));
    server.on("/models.json", When::Nth(1), Fault::Redirect(Some(to)));
    r.list(&Validator::default()).await.unwrap();
    assert_eq!(authorizations(&server), [Some("Bearer one".to_owned())]);
    assert_eq!(authorizations(&elsewhere), [None]);
    // Another host that asks for a login gets none, and ours is not renewed for it.
    elsewhere.on("/models.json", When::Always, Fault::Status(401, None));
    let error = r.list(&Validator::default()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { status: 401, .. }), "{error}");
    assert_eq!(authorizations(&elsewhere), [None, None]);
}

#[tokio::test]
async fn a_token_that_was_replaced_is_asked_for_again_when_it_is_refused() {
    let (_registry, server) = published();
    let tokens = Arc::new(Tokens::default());
    let logins = Some(Arc::clone(&tokens) as Arc<dyn Logins>);
    let r = open_with(&server.url(), &ConnectOptions { logins, ..Default::default() }).unwrap();
    r.list(&Validator::default()).await.unwrap();
    // A moment after a login was given it is believed to be the newest.
    server.on("/models.json", When::Nth(0), Fault::Status(401, None));
    assert!(r.list(&Validator::default()).await.is_err());
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    tokio::time::resume();
    server.heal();
    server.on("/models.json", When::Nth(0), Fault::Status(401, None));
    r.list(&Validator::default()).await.unwrap();
    let sent: Vec<_> = authorizations(&server).into_iter().flatten().collect();
    assert_eq!(sent, ["Bearer one", "Bearer one", "Bearer one", "Bearer two"]);
    assert_eq!(tokens.0.load(Ordering::SeqCst), 2);
}
