//! Puts a registry together from its name: transport, format, layers. Opens no connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;

use super::api::Registry;
use super::error::RegistryError;
use super::huggingface::{self, Environment, HuggingFace};
use super::layers::Hedged;
use super::login::{Logins, NoLogin};
use super::netrc::Netrc;
use super::oci::{self, DockerConfig, DockerLogins, Oci, OciOptions, Place};
use super::transport::http_client::is_local;
use super::transport::{Address, Folder, HostPolicy, Http, HttpOptions, NotAllowed, Transport};
use super::xprim::{CATALOG, Xprim};

/// How a registry is asked.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// How long servers may be silent, and which of them may be asked.
    pub http: HttpOptions,
    /// Where its logins come from; `None`: [`usual_logins`].
    pub logins: Option<Arc<dyn Logins>>,
    /// Whether an OCI registry speaks plain HTTP; `None`: if it is on this machine. An URL says it.
    pub plain_http: Option<bool>,
}

/// The registry that `name` means: the Hugging Face Hub or a repository of it (`hf://`), an OCI registry
/// or a path of one (`oci://`), an `http://` or `https://` URL, a `file://` URL, or a folder.
/// It is not asked for anything yet: an unreachable one can be opened.
pub fn open(name: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    open_with(name, &ConnectOptions::default())
}

/// As [`open`], asked in another way.
pub fn open_with(name: &str, options: &ConnectOptions) -> Result<Arc<dyn Registry>, RegistryError> {
    let ConnectOptions { http, logins, plain_http } = options.clone();
    let logins = match logins {
        Some(logins) => logins,
        None => usual_logins(name)?,
    };
    if huggingface::is_hub(name) {
        let endpoint = Environment::endpoint_of_process();
        let registry = HuggingFace::open(name, endpoint.as_deref(), logins, &http)?;
        return Ok(Arc::new(Hedged::new(Arc::new(registry))));
    }
    if oci::is_oci(name) {
        let registry = Oci::open(name, OciOptions { http, plain_http, logins })?;
        return Ok(Arc::new(Hedged::new(Arc::new(registry))));
    }
    let address = Address::parse(name)?;
    let remote = matches!(address, Address::Http(_));
    let transport: Arc<dyn Transport> = match address {
        Address::Http(url) => Arc::new(Http::new(&url, logins, &http)?),
        Address::Folder(path) => Arc::new(Folder::new(&path, CATALOG, http.timeouts.stall)?),
    };
    let registry: Arc<dyn Registry> = Arc::new(Xprim::new(transport));
    // A second request to a disk would wait behind the first.
    Ok(if remote { Arc::new(Hedged::new(registry)) } else { registry })
}

/// The server that a registry is asked at.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its host as in a URL.
    pub host: String,
    /// Its port.
    pub port: u16,
    url: Url,
}

impl Server {
    /// Its host as a resolver takes it.
    pub fn name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        is_local(&self.url)
    }

    /// Whether a policy allows it, as far as its address says.
    pub fn allowed_by(&self, policy: &HostPolicy) -> Result<(), NotAllowed> {
        policy.check(&self.url)
    }
}

/// The server of the registry that `name` means; `None`: it is a folder.
pub fn server_of(name: &str, plain_http: Option<bool>) -> Result<Option<Server>, RegistryError> {
    let url = if huggingface::is_hub(name) {
        huggingface::endpoint(Environment::endpoint_of_process().as_deref())?
    } else if oci::is_oci(name) {
        Place::parse(name, plain_http)?.base().clone()
    } else {
        match Address::parse(name)? {
            Address::Folder(_) => return Ok(None),
            Address::Http(url) => Url::parse(&url).map_err(|_| RegistryError::BadName {
                name: "http".into(),
                why: "it is no URL".into(),
            })?,
        }
    };
    let host = url.host_str().unwrap_or_default().to_owned();
    Ok(Some(Server { host, port: url.port_or_known_default().unwrap_or_default(), url }))
}

/// Where the logins of a registry are kept by the tools of its kind, for this process's user: the token of
/// the Hub's tools (`hf://`), docker's and podman's logins (`oci://`), `.netrc` (`https://`).
pub fn usual_logins(name: &str) -> Result<Arc<dyn Logins>, RegistryError> {
    if huggingface::is_hub(name) {
        return Ok(Arc::new(Environment::of_process()?));
    }
    if oci::is_oci(name) {
        let host = Place::parse(name, None)?.host().to_owned();
        return Ok(Arc::new(DockerLogins { config: DockerConfig::from_environment(), host }));
    }
    if let Address::Http(url) = Address::parse(name)?
        && let Ok(url) = Url::parse(&url)
        && let Some(host) = url.host_str()
        // Nothing says that the password may be sent in the clear.
        && (url.scheme() == "https" || is_local(&url))
        && let Some(netrc) = Netrc::of_environment(host)
    {
        return Ok(Arc::new(netrc));
    }
    Ok(Arc::new(NoLogin))
}

/// The file that is read first in the folder of a registry: who can read it can read the registry.
pub fn first_file(folder: &Path) -> PathBuf {
    folder.join(CATALOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_named_without_credentials() {
        let name = |of: &str| open(of).map(|r| r.name().to_owned());
        assert_eq!(name("https://u:p@h/x/?q").unwrap(), "https://h/x");
        assert_eq!(name("HTTP://h").unwrap(), "http://h");
        assert_eq!(name("oci://u:p@h/org/").unwrap(), "oci://h/org");
        assert_eq!(name("hf://org/name/").unwrap(), "hf://org/name");
        #[cfg(unix)]
        {
            assert_eq!(name("file:///srv/a%20b").unwrap(), "/srv/a b");
            assert_eq!(name("/srv/x").unwrap(), "/srv/x");
            assert_eq!(name("/srv//x/").unwrap(), "/srv/x");
            let here = std::env::current_dir().unwrap();
            assert_eq!(name("x/y").unwrap(), here.join("x/y").to_str().unwrap());
            assert_eq!(name("./x").unwrap(), here.join("x").to_str().unwrap());
        }
    }

    #[test]
    fn an_invalid_registry_name_is_refused_without_printing_it() {
        for bad in [
            "",
            "ftp://u:secret@h",
            "file://elsewhere/x",
            "s3://secret/x",
            "oci://u:secret@h/?secret",
            "https://",
            "http:/u:secret@h",
            "HTTPS:u:secret@h",
            " http:u:secret@h",
            "u:secret@h://x",
            "secret@h://x",
            "hf://secret",
        ] {
            let error = open(bad).err().expect(bad);
            assert!(matches!(error, RegistryError::BadName { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
